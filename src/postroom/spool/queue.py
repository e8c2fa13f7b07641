"""Queue operations: claim, finish, retry, shunt.

For: runners. Each function works in the caller's transaction, so effects and removal are one
commit. Guarantees: a claim is a lease with a token, and whoever lost the lease can change
nothing; entries are claimed in order of due time; a claim is two indexed statements, however
many entries it takes. `Lost` is raised to a worker whose lease is gone.
"""

import secrets
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import (
    CTE,
    ColumnElement,
    Connection,
    Row,
    Select,
    case,
    delete,
    func,
    or_,
    select,
    update,
)

from postroom.mail.message import with_mail_from
from postroom.spool.messages import METADATA, RAW, SENDER, free_messages, lock_messages
from postroom.spool.metadata import SHUNT, Metadata, decode, encode
from postroom.store.schema import entry, message

LONGEST_WAIT = 7 * 86_400.0  # seconds; no retry is set later than this
LONGEST_LEASE = 3_600.0  # seconds; no lease ends later than this
ATTEMPTS = 5  # that failed, or ended with their process, and then an entry is put aside
FIRST_RETRY, RETRY_GROWS = 10.0, 4.0  # seconds before the second attempt; times, for each next
SKEW = 60.0  # seconds that the clocks of two workers may differ
NO_MESSAGE = "its message is not in the database: restore a backup, or delete the entry"


class Lost(Exception):
    """The lease is no longer ours: another worker may have the entry."""


class QueueError(Exception):
    """It cannot be done; `str()` says why and what to do."""


class Claim(NamedTuple):
    """An entry in a worker's hands for as long as its lease holds."""

    id: int
    message: int
    list_key: int | None
    lease: str
    attempts: int
    sender: str
    raw: bytes
    metadata: Metadata

    def content(self) -> bytes:
        """The message as a consumer sees it."""
        return with_mail_from(self.raw, self.sender)


def is_due(connection: Connection, queue: str) -> bool:
    """Whether there is something to claim; a look that takes no lock."""
    due = entry.c.queue == queue, entry.c.available_at <= time.time(), entry.c.lease.is_(None)
    return connection.execute(select(entry.c.id).where(*due).limit(1)).first() is not None


def claim(
    connection: Connection,
    queue: str,
    limit: int,
    lease_for: float,
    now: float | None = None,
    octets: int | None = None,
) -> list[Claim]:
    """Take up to `limit` due entries for `lease_for` seconds. The attempt counts from here,
    so that an entry that kills its worker is counted too.

    With `octets` their messages have no more than that in all, but there is at least one; and
    an entry that was tried before comes alone, so that one that kills its worker has no
    company the second time.
    """
    now = time.time() if now is None else now
    lease = secrets.token_hex(8)
    due = (
        select(entry.c.id, entry.c.available_at, entry.c.attempts, entry.c.message)
        .where(entry.c.queue == queue, entry.c.available_at <= now, entry.c.lease.is_(None))
        .order_by(entry.c.available_at, entry.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
        .cte("due")  # so that PostgreSQL never runs it twice, for more than `limit`
    )
    chosen = select(due.c.id) if octets is None else _batch(due, octets)
    until = now + min(lease_for, LONGEST_LEASE)
    connection.execute(
        update(entry)
        .where(entry.c.id.in_(chosen))
        .values(lease=lease, lease_until=until, attempts=entry.c.attempts + 1)
    )
    rows = connection.execute(
        select(
            entry.c.id,
            entry.c.message,
            entry.c.list,
            entry.c.attempts,
            METADATA.label("metadata"),
            SENDER.label("sender"),
            RAW.label("raw"),
        )
        .join(message, message.c.id == entry.c.message, isouter=True)
        .where(entry.c.lease == lease)
        .order_by(entry.c.available_at, entry.c.id)
    )
    claims = []
    for row in rows:
        try:
            claims.append(_claimed(row, lease))
        except ValueError as error:
            # Quarantined, so that the rest flows.
            _shunt(connection, [row.id], lease, str(error))
    return claims


def _batch(due: CTE, octets: int) -> Select[int]:
    """Those of the due entries that may be claimed together."""
    order = (due.c.available_at, due.c.id)
    size = func.coalesce(message.c.size, 0)
    tried = case((due.c.attempts > 0, 1), else_=0)
    ranked = (
        select(
            due.c.id,
            func.row_number().over(order_by=order).label("place"),
            func.sum(size).over(order_by=order).label("octets"),
            func.sum(tried).over(order_by=order).label("tried"),
        )
        .join_from(due, message, message.c.id == due.c.message, isouter=True)
        .subquery("ranked")
    )
    together = (ranked.c.octets <= octets) & (ranked.c.tried == 0)
    return select(ranked.c.id).where(or_(ranked.c.place == 1, together))


def _claimed(row: Row[Any], lease: str) -> Claim:
    """What a worker gets. Raises ValueError if the entry is corrupt."""
    if row.raw is None:
        raise ValueError(NO_MESSAGE)
    try:
        facts = decode(row.metadata)
    except ValueError as error:
        raise ValueError(f"unreadable metadata: {error}") from None
    return Claim(
        id=row.id,
        message=row.message,
        list_key=row.list,
        lease=lease,
        attempts=row.attempts,
        sender=row.sender,
        raw=bytes(row.raw),
        metadata=facts,
    )


def finish(connection: Connection, claims: Sequence[Claim]) -> None:
    """Remove entries that are done, and messages that no entry needs any more."""
    messages = sorted({each.message for each in claims})
    lock_messages(connection, messages)
    for lease in {each.lease for each in claims}:
        own = [each.id for each in claims if each.lease == lease]
        ours = entry.c.id.in_(own) & (entry.c.lease == lease)
        _fenced(connection.execute(delete(entry).where(ours)).rowcount, len(own))
    free_messages(connection, messages)


def retry(connection: Connection, held: Claim, delay: float, error: str) -> None:
    """Give an entry back, due again after `delay` seconds."""
    now = time.time()
    due = now + min(delay, LONGEST_WAIT)
    _fenced(
        connection.execute(
            update(entry)
            .where(entry.c.id == held.id, entry.c.lease == held.lease)
            .values(
                lease=None,
                lease_until=None,
                available_at=due,
                last_error=_storable(error),
                retried_at=now,
            )
        ).rowcount,
        1,
    )


def give_back(connection: Connection, held: Claim) -> None:
    """Give an entry back untouched: it is due at once and the attempt does not count."""
    _give_back(connection, held, available_at=_no_later_than(time.time()))


def put_off(connection: Connection, held: Claim, delay: float, reason: str | None) -> None:
    """Give an entry back that has more to do in `delay` seconds; the attempt does not count."""
    now = time.time()
    due = now + min(delay, LONGEST_WAIT)
    _give_back(connection, held, available_at=due, last_error=reason, retried_at=now)


def _give_back(connection: Connection, held: Claim, **values: object) -> None:
    ours = (entry.c.id == held.id) & (entry.c.lease == held.lease)
    values |= {"lease": None, "lease_until": None, "attempts": entry.c.attempts - 1}
    _fenced(connection.execute(update(entry).where(ours).values(values)).rowcount, 1)


def is_ours(held: Claim) -> ColumnElement[bool]:
    """That a lease holds still, as a condition for other statements."""
    return select(entry.c.id).where(entry.c.id == held.id, entry.c.lease == held.lease).exists()


def still_ours(connection: Connection, claims: Sequence[Claim]) -> set[tuple[int, str]]:
    """Those of these claims, by entry and lease, whose leases hold."""
    found = select(entry.c.id, entry.c.lease).where(entry.c.id.in_([each.id for each in claims]))
    held = {(number, lease) for number, lease in connection.execute(found)}
    return held & {(each.id, each.lease) for each in claims}


def forgive(connection: Connection, held: Claim) -> None:
    """Earlier attempts do not count: an entry that gets on kills nobody. Does nothing if the
    lease is lost."""
    ours = (entry.c.id == held.id) & (entry.c.lease == held.lease)
    connection.execute(update(entry).where(ours).values(attempts=1))


def release(connection: Connection, name: str) -> int:
    """Free all entries of a queue, for one who knows that nobody else works on it; returns how
    many."""
    leased = (entry.c.queue == name) & entry.c.lease.is_not(None)
    values = {"lease": None, "lease_until": None, "available_at": _no_later_than(time.time())}
    return connection.execute(update(entry).where(leased).values(values)).rowcount


def renew(
    connection: Connection, claims: Sequence[Claim], lease_for: float, now: float | None = None
) -> list[Claim]:
    """Hold on to entries for `lease_for` seconds from now; returns those still ours."""
    until = (time.time() if now is None else now) + min(lease_for, LONGEST_LEASE)
    kept = []
    for lease in {each.lease for each in claims}:
        own = [each for each in claims if each.lease == lease]
        ours = entry.c.id.in_([each.id for each in own]) & (entry.c.lease == lease)
        changed = connection.execute(update(entry).where(ours).values(lease_until=until)).rowcount
        if changed != len(own):
            there = set(connection.scalars(select(entry.c.id).where(ours)))
            own = [each for each in own if each.id in there]
        kept += own
    return kept


def shunt(connection: Connection, held: Claim, traceback: str) -> None:
    """Put a poison entry aside, with the reason."""
    _fenced(_shunt(connection, [held.id], held.lease, traceback), 1)


def fail(connection: Connection, held: Claim, reason: str) -> float | None:
    """An attempt failed for this reason, a traceback: the entry is due again after some seconds,
    which are returned, or goes to `shunt`, and None is."""
    if held.attempts >= ATTEMPTS:
        shunt(connection, held, reason)
        return None
    delay = FIRST_RETRY * RETRY_GROWS ** (held.attempts - 1)
    retry(connection, held, delay, reason)
    return delay


def mend(connection: Connection, queue: str, now: float | None = None) -> int:
    """Free entries whose lease has run out, and those that a clock set back holds up.

    Returns how many were freed. A new entry never waits, no wait was begun in the future or
    is longer than `LONGEST_WAIT`, no lease is longer than `LONGEST_LEASE`: other times were
    read off another clock.
    """
    now = time.time() if now is None else now
    freed = connection.execute(
        update(entry)
        .where(
            entry.c.lease.is_not(None),
            entry.c.queue == queue,
            or_(entry.c.lease_until < now, entry.c.lease_until > now + LONGEST_LEASE),
        )
        .values(lease=None, lease_until=None, available_at=_no_later_than(now))
    ).rowcount
    held_up = connection.execute(
        update(entry)
        .where(
            entry.c.queue == queue,
            entry.c.available_at > now,
            entry.c.lease.is_(None),
            or_(
                entry.c.retried_at.is_(None),
                entry.c.retried_at > now + SKEW,
                entry.c.available_at > now + LONGEST_WAIT,
            ),
        )
        .values(available_at=now)
    ).rowcount
    return freed + held_up


def _shunt(connection: Connection, numbers: Sequence[int], lease: str, reason: str) -> int:
    ours = entry.c.id.in_(numbers) & (entry.c.lease == lease)
    return set_aside(connection, ours, reason)


def set_aside(connection: Connection, which: ColumnElement[bool], reason: str) -> int:
    """Move the entries that meet a condition to `shunt`, which remembers where they were;
    returns how many."""
    # Locked, so that the condition still holds when they are moved.
    chosen = select(entry.c.id, entry.c.queue, METADATA).where(which).with_for_update()
    found = connection.execute(chosen).all()
    for number, queue, text in found:
        facts = facts_of(text)
        facts["shunted_from"] = facts.get("shunted_from", queue)
        connection.execute(
            update(entry)
            .where(entry.c.id == number)
            .values(
                queue=SHUNT,
                metadata=encode(facts),
                lease=None,
                lease_until=None,
                last_error=_storable(reason),
            )
        )
    return len(found)


def _storable(text: str) -> str:
    """A reason may quote what a message holds, which no database need take for text."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")


def _no_later_than(now: float) -> ColumnElement[float]:
    """When an entry is due that was due before, also after the clock was set back."""
    return case((entry.c.available_at > now, now), else_=entry.c.available_at)


def facts_of(text: str) -> Metadata:
    """An entry's metadata; what cannot be read is kept as it is."""
    try:
        return decode(text)
    except ValueError:
        return {"unreadable": text}


def _fenced(changed: int, expected: int) -> None:
    if changed != expected:
        raise Lost(f"{expected - changed} of {expected} entries are in other hands")
