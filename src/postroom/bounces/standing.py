"""Standings in the database: what is known of members whose mail comes back.

For: the bounce runner and upkeep, which change them, and whoever shows them. Each function works
in the caller's transaction, on SQLite and PostgreSQL; it must be a writing one where rows are
locked. Guarantees: what was locked stays as it was read until the transaction ends, whoever else
counts, turns delivery on or removes a member meanwhile; of two who look for what is due each has
other rows; the number of statements grows with thousands of members only. What is known goes
with the membership. A row that cannot be read stands for nothing: it is never due nor listed,
its member is like one of whom nothing is known, and what is saved next replaces it. Times are
seconds since the epoch. Fails with the database's errors.

The lock on what is known of a member is their own row in the roster, since there may be no other.
Those who lock in one transaction more than once can wait for one another in a ring: PostgreSQL
then ends one of the transactions, which is tried again.
"""

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Connection, Row, bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite

from postroom.bounces.scoring import Standing, State
from postroom.lists.roster import CHUNK, MEMBERS, Member, as_member, same_address
from postroom.store.schema import address, bounce, mailing_list, member

MOST: Final = 2**63 - 1
# Who is fine has no row, nor has who is gone.
KEPT: Final = (State.COUNTING, State.PROBING, State.OFF)

_T = TypeVar("_T")
_TOKEN: Final = re.compile(r"[A-Za-z2-7]{26}")  # as `pending.new_token` makes them
_COLUMNS: Final = (
    bounce.c.state,
    bounce.c.score,
    bounce.c.counted_on,
    bounce.c.bounced_at,
    bounce.c.status,
    bounce.c.reason,
    bounce.c.since,
    bounce.c.warned,
    bounce.c.next_at,
)
_BOTH: Final = MEMBERS.join(bounce, bounce.c.member == member.c.id).add_columns(*_COLUMNS)
_KEPT: Final = bounce.c.state.in_(KEPT)
# What each bounce takes is made once: to put it together takes longer than to run it.
_STANDINGS: Final = select(bounce.c.member, *_COLUMNS).where(
    bounce.c.member.in_(bindparam("members", expanding=True))
)
_LOCKING: Final = (
    MEMBERS.add_columns(address.c.folded)
    .where(member.c.list == bindparam("list_key"), member.c.role == "member")
    .where(address.c.folded.in_(bindparam("emails", expanding=True)))
    # In one order, so that two who lock the same members do not wait for each other in a ring.
    .order_by(member.c.id)
    .with_for_update(of=member, key_share=True)
)


def _saving(insert: Any) -> Any:
    saving = insert(bounce)
    replaced = {column.name: saving.excluded[column.name] for column in _COLUMNS}
    return saving.on_conflict_do_update(index_elements=[bounce.c.member], set_=replaced)


_SAVING: Final = {"sqlite": _saving(sqlite.insert), "postgresql": _saving(postgresql.insert)}


class Known(NamedTuple):
    """A member, and what is known of them; None if nothing is."""

    member: Member
    standing: Standing | None


class Due(NamedTuple):
    """A member whose time has come."""

    list_key: int
    member: Member
    standing: Standing


def known(connection: Connection, list_key: int, emails: Iterable[str]) -> dict[str, Known]:
    """Those of these addresses that are members of a list, by the form of
    `roster.same_address`, locked; any text will do for an address. Two statements per
    thousand."""
    found = {}
    for some in _chunks(sorted({same_address(email) for email in emails})):
        rows = connection.execute(_LOCKING, {"list_key": list_key, "emails": some}).all()
        # Only now, as whoever had the lock before may have changed it.
        there = standings(connection, [row.id for row in rows])
        for row in rows:
            found[row.folded] = Known(as_member(row), there.get(row.id))
    return found


def standings(connection: Connection, members: Iterable[int]) -> dict[int, Standing]:
    """What is known of members, both by their keys; nothing is locked. One statement per
    thousand."""
    return {
        row.member: standing
        for some in _chunks(list(members))
        for row in connection.execute(_STANDINGS, {"members": some})
        if (standing := _standing(row[1:]))
    }


def save(connection: Connection, standings: Mapping[int, Standing]) -> None:
    """Write down what is known of members from now on, by their keys. Tokens stay. One
    statement."""
    rows = [{"member": key} | standings[key]._asdict() for key in sorted(standings)]
    if rows:
        connection.execute(_SAVING[connection.dialect.name], rows)


def forget(connection: Connection, members: Iterable[int]) -> None:
    """Forget what is known of members, by their keys: they are fine, or gone. One statement per
    thousand."""
    for some in _chunks(sorted(set(members))):
        connection.execute(delete(bounce).where(bounce.c.member.in_(some)))


def reset(connection: Connection, members: Iterable[int]) -> None:
    """Turn delivery on for those of these members for whom it was turned off because mail came
    back, and forget what is known of them all. Two statements per thousand."""
    for some in _chunks(sorted(set(members))):
        stopped = member.c.id.in_(some) & (member.c.delivery == "bounces")
        connection.execute(update(member).where(stopped).values(delivery="on"))
        connection.execute(delete(bounce).where(bounce.c.member.in_(some)))


def set_token(connection: Connection, member: int, token: str) -> None:
    """Note the token that a probe goes out with, in lower case; one before it is good for
    nothing any more. The member must have a standing."""
    connection.execute(update(bounce).where(bounce.c.member == member).values(token=token))


def by_token(connection: Connection, list_key: int, token: str) -> tuple[Member, Standing] | None:
    """The member of a list whose probe went out with this token, in any case, locked; None if
    there is none. Any text will do."""
    if not _TOKEN.fullmatch(token):
        return None
    this = bounce.c.token == token.lower()
    locking = _BOTH.where(this, member.c.list == list_key)
    row = connection.execute(locking.with_for_update(of=member, key_share=True)).first()
    if row is None:
        return None
    # Once more, as whoever had the lock before may have changed it.
    found = select(*_COLUMNS).where(this, bounce.c.member == row.id)
    again = connection.execute(found).first()
    standing = _standing(again) if again else None
    return (as_member(row), standing) if standing else None


def due(connection: Connection, now: float, limit: int) -> list[Due]:
    """Those whose time has come, longest ago first, at most `limit`, locked. Whom somebody else
    works on is left out. One statement."""
    found = _BOTH.add_columns(member.c.list).where(bounce.c.next_at <= now, _KEPT)
    found = found.order_by(bounce.c.next_at, bounce.c.member).limit(limit)
    # Both, so that neither is older than the lock.
    locked = found.with_for_update(of=[member, bounce], key_share=True, skip_locked=True)
    return [
        Due(row.list, as_member(row), standing)
        for row in connection.execute(locked)
        if (standing := _of_both(row))
    ]


def listed(
    connection: Connection, list_key: int | None = None, limit: int = MOST
) -> Iterator[tuple[str, Member, Standing]]:
    """Whose mail comes back, of a list or of all, at most `limit`, the last bounce first, each
    with the list's posting address; read as they are asked for."""
    found = _BOTH.join(mailing_list, mailing_list.c.id == member.c.list)
    found = found.add_columns(mailing_list.c.posting_address).where(_KEPT)
    if list_key is not None:
        found = found.where(member.c.list == list_key)
    found = found.order_by(bounce.c.bounced_at.desc(), bounce.c.member).limit(limit)
    for row in connection.execute(found.execution_options(yield_per=CHUNK)):
        if standing := _of_both(row):
            yield row.posting_address, as_member(row), standing


def _of_both(row: Row[*tuple[Any, ...]]) -> Standing | None:
    first = len(Member._fields)
    return _standing(row[first : first + len(_COLUMNS)])


def _standing(values: Sequence[Any]) -> Standing | None:
    """A standing as it was saved; None if it cannot be read. SQLite takes text for a number."""
    found = Standing._make(values)
    numbers = (found.score, found.counted_on, found.bounced_at, found.since, found.warned)
    try:
        readable = found.state in KEPT and all(map(math.isfinite, (*numbers, found.next_at)))
    except TypeError:
        return None
    return found._replace(state=State(found.state)) if readable else None


def _chunks(values: Sequence[_T]) -> Iterator[Sequence[_T]]:
    for first in range(0, len(values), CHUNK):
        yield values[first : first + CHUNK]
