"""Queue operations: claim, finish, retry, shunt, and what operators ask.

For: runners and people. Each function works in the caller's transaction, so effects and
removal are one commit. Guarantees: a claim is a lease with a token, and whoever lost the
lease can change nothing; entries are claimed in order of due time; a claim is two indexed
statements, however many entries it takes. `Lost` is raised to a worker whose lease is gone.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, delete, func, or_, select, update

from postroom.mail.message import with_mail_from
from postroom.spool.metadata import SHUNT, Metadata, decode, encode
from postroom.store.schema import entry, mailing_list, message, receipt

LONGEST_WAIT = 7 * 86_400.0  # seconds; no retry is set later than this
LONGEST_LEASE = 3_600.0  # seconds; no lease ends later than this
PURGE_STEP = 1000  # receipts per statement


class Lost(Exception):
    """The lease is no longer ours: another worker may have the entry."""


class QueueError(Exception):
    """It cannot be done; `str()` says why and what to do."""


class Entry(NamedTuple):
    """An entry as listings show it; `message` is the row id, times in seconds."""

    id: int
    queue: str
    list: str | None
    sender: str
    size: int
    received_at: float
    attempts: int
    available_at: float
    lease_until: float | None
    last_error: str | None
    metadata: str
    message: int


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


def claim(
    connection: Connection, queue: str, limit: int, lease_for: float, now: float | None = None
) -> list[Claim]:
    """Take up to `limit` due entries for `lease_for` seconds. The attempt counts from here,
    so that an entry that kills its worker is counted too."""
    now = time.time() if now is None else now
    lease = secrets.token_hex(8)
    due = (
        select(entry.c.id)
        .where(entry.c.queue == queue, entry.c.available_at <= now, entry.c.lease.is_(None))
        .order_by(entry.c.available_at, entry.c.id)
        .limit(limit)
        .with_for_update(skip_locked=True)  # PostgreSQL; SQLite has one writer anyway
        .cte("due")  # so that PostgreSQL never runs it twice, for more than `limit`
    )
    until = now + min(lease_for, LONGEST_LEASE)
    connection.execute(
        update(entry)
        .where(entry.c.id.in_(select(due.c.id)))
        .values(lease=lease, lease_until=until, attempts=entry.c.attempts + 1)
    )
    rows = connection.execute(
        select(entry, message.c.sender, message.c.raw)
        .join(message, message.c.id == entry.c.message)
        .where(entry.c.lease == lease)
        .order_by(entry.c.available_at, entry.c.id)
    )
    claims = []
    for row in rows:
        try:
            facts = decode(row.metadata)
        except ValueError as error:
            # Quarantined, so that the rest flows.
            _shunt(connection, [row.id], lease, f"unreadable metadata: {error}")
            continue
        claims.append(
            Claim(
                id=row.id,
                message=row.message,
                list_key=row.list,
                lease=lease,
                attempts=row.attempts,
                sender=row.sender,
                raw=bytes(row.raw),
                metadata=facts,
            )
        )
    return claims


def finish(connection: Connection, claims: Sequence[Claim]) -> None:
    """Remove entries that are done, and messages that no entry needs any more."""
    messages = sorted({each.message for each in claims})
    _lock(connection, messages)
    for lease in {each.lease for each in claims}:
        own = [each.id for each in claims if each.lease == lease]
        ours = entry.c.id.in_(own) & (entry.c.lease == lease)
        _fenced(connection.execute(delete(entry).where(ours)).rowcount, len(own))
    _free(connection, messages)


def retry(connection: Connection, held: Claim, delay: float, error: str) -> None:
    """Give an entry back, due again after `delay` seconds."""
    due = time.time() + min(delay, LONGEST_WAIT)
    _fenced(
        connection.execute(
            update(entry)
            .where(entry.c.id == held.id, entry.c.lease == held.lease)
            .values(lease=None, lease_until=None, available_at=due, last_error=error)
        ).rowcount,
        1,
    )


def give_back(connection: Connection, held: Claim) -> None:
    """Give an entry back untouched: it is due at once and the attempt does not count."""
    _fenced(
        connection.execute(
            update(entry)
            .where(entry.c.id == held.id, entry.c.lease == held.lease)
            .values(
                lease=None,
                lease_until=None,
                available_at=_no_later_than(time.time()),
                attempts=entry.c.attempts - 1,
            )
        ).rowcount,
        1,
    )


def shunt(connection: Connection, held: Claim, traceback: str) -> None:
    """Put a poison entry aside, with the reason."""
    _fenced(_shunt(connection, [held.id], held.lease, traceback), 1)


def mend(connection: Connection, queue: str, now: float | None = None) -> int:
    """Free entries whose lease has run out, and those that a clock set back holds up.

    Returns how many were freed. A new entry never waits, no wait is longer than
    `LONGEST_WAIT` and no lease than `LONGEST_LEASE`, so a time beyond that was read off
    another clock.
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
            or_(entry.c.attempts == 0, entry.c.available_at > now + LONGEST_WAIT),
        )
        .values(available_at=now)
    ).rowcount
    return freed + held_up


def purge_receipts(connection: Connection, older_than: float) -> int:
    """Forget one step's worth of receipts from before `older_than`; returns how many."""
    oldest = select(receipt.c.entry).order_by(receipt.c.entry).limit(PURGE_STEP)
    return connection.execute(
        delete(receipt).where(receipt.c.entry.in_(oldest), receipt.c.accepted_at < older_than)
    ).rowcount


# What operators ask


def entries(
    connection: Connection, queue: str | None = None, limit: int = 100, octets: int = 0
) -> Iterator[tuple[Entry, bytes]]:
    """The first `limit` entries of a queue, or of all, oldest first, each with the first
    `octets` of its message; one statement, read as they are consumed."""
    statement = _entries().add_columns(func.substr(message.c.raw, 1, octets))
    statement = statement.order_by(entry.c.id).limit(limit)
    if queue is not None:
        statement = statement.where(entry.c.queue == queue)
    for row in connection.execute(statement.execution_options(yield_per=100)):
        yield Entry._make(row[:-1]), bytes(row[-1])


def find(connection: Connection, number: int) -> Entry | None:
    """One entry."""
    row = connection.execute(_entries().where(entry.c.id == number)).first()
    return Entry._make(row) if row else None


def raw_of(connection: Connection, number: int) -> bytes:
    """The message of an entry as received."""
    found = select(message.c.raw).join(entry, entry.c.message == message.c.id)
    return bytes(connection.execute(found.where(entry.c.id == number)).scalar_one())


def headers_of(connection: Connection, number: int, octets: int = 65_536) -> bytes:
    """The first octets of the message of an entry: enough to show it, whatever its size."""
    found = select(func.substr(message.c.raw, 1, octets)).join(
        entry, entry.c.message == message.c.id
    )
    return bytes(connection.execute(found.where(entry.c.id == number)).scalar_one())


def requeue(connection: Connection, number: int) -> None:
    """Make an entry due now, with no attempts counted; one in `shunt` goes back where it
    came from. Raises `QueueError`."""
    found = _in_nobodys_hands(connection, number)
    values: dict[str, object] = {"available_at": time.time(), "attempts": 0, "last_error": None}
    if found.queue == SHUNT:
        facts = _facts(found.metadata)
        if "unreadable" in facts:
            raise QueueError("its metadata cannot be read: save it with `show --raw`, then delete")
        if "listname" in facts and found.list is None:
            raise QueueError(f"list {facts['listname']} was removed: it has nowhere to go")
        values["queue"] = facts.pop("shunted_from")
        values["metadata"] = encode(facts)
    connection.execute(update(entry).where(entry.c.id == number).values(values))


def remove(connection: Connection, number: int) -> None:
    """Delete an entry for good. Raises `QueueError`."""
    found = _in_nobodys_hands(connection, number)
    _lock(connection, [found.message])
    connection.execute(delete(entry).where(entry.c.id == number))
    _free(connection, [found.message])


def _in_nobodys_hands(connection: Connection, number: int) -> Entry:
    connection.execute(select(entry.c.id).where(entry.c.id == number).with_for_update())
    found = find(connection, number)
    if found is None:
        raise QueueError("there is no such entry: `postroom queue ls` shows those there are")
    if found.lease_until is not None:
        raise QueueError("a runner is working on it: try again in a moment")
    return found


def stats(connection: Connection) -> dict[str, tuple[int, float | None]]:
    """Depth of each queue that is not empty, and when its oldest message came."""
    rows = connection.execute(
        select(entry.c.queue, func.count(), func.min(message.c.received_at))
        .join(message, message.c.id == entry.c.message)
        .group_by(entry.c.queue)
    )
    return {queue: (depth, oldest) for queue, depth, oldest in rows}


def _entries() -> Select[Any]:
    return (
        select(
            entry.c.id,
            entry.c.queue,
            mailing_list.c.posting_address,
            message.c.sender,
            message.c.size,
            message.c.received_at,
            entry.c.attempts,
            entry.c.available_at,
            entry.c.lease_until,
            entry.c.last_error,
            entry.c.metadata,
            entry.c.message,
        )
        .join(message, message.c.id == entry.c.message)
        .join(mailing_list, mailing_list.c.id == entry.c.list, isouter=True)
    )


def _shunt(connection: Connection, numbers: Sequence[int], lease: str, reason: str) -> int:
    ours = entry.c.id.in_(numbers) & (entry.c.lease == lease)
    return set_aside(connection, ours, reason)


def set_aside(connection: Connection, which: ColumnElement[bool], reason: str) -> int:
    """Move the entries that meet a condition to `shunt`, which remembers where they were;
    returns how many."""
    # Locked, so that the condition still holds when they are moved.
    chosen = select(entry.c.id, entry.c.queue, entry.c.metadata).where(which).with_for_update()
    found = connection.execute(chosen).all()
    for number, queue, text in found:
        facts = _facts(text)
        facts["shunted_from"] = facts.get("shunted_from", queue)
        connection.execute(
            update(entry)
            .where(entry.c.id == number)
            .values(
                queue=SHUNT,
                metadata=encode(facts),
                lease=None,
                lease_until=None,
                last_error=reason,
            )
        )
    return len(found)


def _no_later_than(now: float) -> ColumnElement[float]:
    """When an entry is due that was due before, also after the clock was set back."""
    return case((entry.c.available_at > now, now), else_=entry.c.available_at)


def _facts(text: str) -> Metadata:
    try:
        return decode(text)
    except ValueError:
        return {"unreadable": text}


def _lock(connection: Connection, messages: Sequence[int]) -> None:
    """So that of two who remove the last two entries of a message one sees that it is last."""
    which = select(message.c.id).where(message.c.id.in_(messages)).order_by(message.c.id)
    connection.execute(which.with_for_update())


def _free(connection: Connection, messages: Sequence[int]) -> None:
    needed = select(entry.c.id).where(entry.c.message == message.c.id).exists()
    connection.execute(delete(message).where(message.c.id.in_(messages), ~needed))


def _fenced(changed: int, expected: int) -> None:
    if changed != expected:
        raise Lost(f"{expected - changed} of {expected} entries are in other hands")
