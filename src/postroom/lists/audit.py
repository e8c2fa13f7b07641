"""The audit log: who changed whose subscription, when, and in which way.

For: whoever changes a roster or a list's settings, or refuses to, writes a row in the
transaction that does it. Guarantees: an entry is there exactly if what it tells of was
committed; it outlives the list; it is never changed, only forgotten when it is old. A row whose
facts are damaged hides no other. Fails with the database's errors.

What can have happened: joined, left; added, removed, changed (by those who run the list); stopped,
removed, complained (of a member whose mail came back); asked, invited, confirmed, accepted,
rejected, discarded, cancelled, expired (of a request); settings, created, renamed, deleted (of
the list). It was done `by` an address, by a user of the command line, as in "root", or by the
passing of time, "postroom".
"""

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Connection, Row, delete, insert, select

from postroom.lists.roster import same_address
from postroom.store.schema import audit

MOST: Final = 2**63 - 1
_FACTS: Final = msgspec.json.Decoder(dict[str, Any])


class Change(NamedTuple):
    """Something that happened to a list: of whom ("" if it concerns the list), by whom, and the
    facts, as in {"how": "mail"}."""

    list_id: str
    what: str
    email: str
    by: str
    facts: dict[str, Any]


class Entry(NamedTuple):
    """The same as it was written, with the time in seconds since the epoch."""

    at: float
    list_id: str
    what: str
    email: str
    by: str
    facts: dict[str, Any]


def write(
    connection: Connection,
    new_id: Callable[[], int],
    changes: Sequence[Change],
    now: float | None = None,
) -> None:
    """Write what happened, in this order; one statement, addresses in the form of
    `roster.same_address`."""
    at = time.time() if now is None else now
    rows = [
        each._asdict()
        | {
            "id": new_id(),
            "at": at,
            "email": same_address(each.email),
            "facts": msgspec.json.encode(each.facts).decode(),
        }
        for each in changes
    ]
    if rows:
        connection.execute(insert(audit), rows)


def changes_of(
    connection: Connection, list_id: str, email: str | None = None, limit: int = MOST
) -> Iterator[Entry]:
    """The newest entries of a list, or of one address on it, at most `limit`, the oldest of
    them first; any text will do for an address."""
    chosen = select(audit).where(audit.c.list_id == list_id)
    if email is not None:
        chosen = chosen.where(audit.c.email == same_address(email))
    newest = chosen.order_by(audit.c.id.desc()).limit(limit).subquery()
    found = select(newest).order_by(newest.c.id).execution_options(yield_per=1000)
    for row in connection.execute(found):
        yield _entry(row)


def since(
    connection: Connection, list_id: str, first: int, what: Collection[str], by: str, limit: int
) -> Iterator[Entry]:
    """Entries of a list from the one with the id `first` on, of these things that `by` did,
    oldest first, at most `limit`. Ids rise with time: the caller, who makes them, knows how."""
    chosen = (audit.c.list_id == list_id) & (audit.c.id >= first)
    chosen &= audit.c.what.in_(what) & (audit.c.by == by)
    for row in connection.execute(select(audit).where(chosen).order_by(audit.c.id).limit(limit)):
        yield _entry(row)


def purge_audit(connection: Connection, older_than: float, limit: int) -> int:
    """Forget entries from before `older_than`, oldest first, at most `limit`; returns how
    many."""
    first = select(audit.c.id, audit.c.at).order_by(audit.c.id).limit(limit).subquery()
    old = select(first.c.id).where(first.c.at < older_than)
    return connection.execute(delete(audit).where(audit.c.id.in_(old))).rowcount


def _entry(row: Row[Any]) -> Entry:
    try:
        facts = _FACTS.decode(row.facts)
    except (ValueError, RecursionError):
        facts = {"unreadable": row.facts}
    return Entry(row.at, row.list_id, row.what, row.email, row.by, facts)
