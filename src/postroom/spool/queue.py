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

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Row,
    Select,
    Text,
    case,
    cast,
    delete,
    func,
    or_,
    select,
    update,
)

from postroom.mail.message import with_mail_from
from postroom.spool.metadata import SHUNT, Metadata, decode, encode
from postroom.store.schema import entry, mailing_list, message

LONGEST_WAIT = 7 * 86_400.0  # seconds; no retry is set later than this
LONGEST_LEASE = 3_600.0  # seconds; no lease ends later than this
SKEW = 60.0  # seconds that the clocks of two workers may differ
NO_MESSAGE = "its message is not in the database: restore a backup, or delete the entry"

# A SQLite file that somebody wrote to by hand may hold text for octets, or octets for text.
_RAW = cast(message.c.raw, LargeBinary)
_SENDER, _METADATA = cast(message.c.sender, Text), cast(entry.c.metadata, Text)


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
        select(
            entry.c.id,
            entry.c.message,
            entry.c.list,
            entry.c.attempts,
            _METADATA.label("metadata"),
            _SENDER.label("sender"),
            _RAW.label("raw"),
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
    _lock(connection, messages)
    for lease in {each.lease for each in claims}:
        own = [each.id for each in claims if each.lease == lease]
        ours = entry.c.id.in_(own) & (entry.c.lease == lease)
        _fenced(connection.execute(delete(entry).where(ours)).rowcount, len(own))
    _free(connection, messages)


def retry(connection: Connection, held: Claim, delay: float, error: str) -> None:
    """Give an entry back, due again after `delay` seconds."""
    now = time.time()
    due = now + min(delay, LONGEST_WAIT)
    _fenced(
        connection.execute(
            update(entry)
            .where(entry.c.id == held.id, entry.c.lease == held.lease)
            .values(
                lease=None, lease_until=None, available_at=due, last_error=error, retried_at=now
            )
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
                entry.c.attempts == 0,
                entry.c.retried_at > now + SKEW,
                entry.c.available_at > now + LONGEST_WAIT,
            ),
        )
        .values(available_at=now)
    ).rowcount
    return freed + held_up


# What operators ask


def entries(
    connection: Connection, queue: str | None = None, limit: int = 100, octets: int = 0
) -> Iterator[tuple[Entry, bytes]]:
    """The first `limit` entries of a queue, or of all, oldest first, each with the first
    `octets` of its message; one statement, read as they are consumed."""
    statement = _entries().add_columns(_beginning(octets))
    statement = statement.order_by(entry.c.id).limit(limit)
    if queue is not None:
        statement = statement.where(entry.c.queue == queue)
    for row in connection.execute(statement.execution_options(yield_per=100)):
        yield Entry._make(row[:-1]), bytes(row[-1] or b"")


def find(connection: Connection, number: int) -> Entry | None:
    """One entry."""
    row = connection.execute(_entries().where(entry.c.id == number)).first()
    return Entry._make(row) if row else None


def raw_of(connection: Connection, number: int) -> bytes:
    """The message of an entry as received. Raises `QueueError` if it is not there."""
    raw = _of_message(connection, number, _RAW)
    if raw is None:
        raise QueueError(NO_MESSAGE)
    return raw


def headers_of(connection: Connection, number: int, octets: int = 65_536) -> bytes:
    """The first octets of the message of an entry: enough to show it, whatever its size;
    empty if it is not there."""
    return _of_message(connection, number, _beginning(octets)) or b""


def _of_message(connection: Connection, number: int, what: ColumnElement[bytes]) -> bytes | None:
    found = select(what).join_from(entry, message, message.c.id == entry.c.message)
    raw = connection.execute(found.where(entry.c.id == number)).scalar()
    return None if raw is None else bytes(raw)


def _beginning(octets: int) -> ColumnElement[bytes]:
    return func.substr(_RAW, 1, octets, type_=LargeBinary)


def requeue(connection: Connection, number: int) -> None:
    """Make an entry due now, with no attempts counted; one in `shunt` goes back where it
    came from. Raises `QueueError`."""
    found = _in_nobodys_hands(connection, number)
    values: dict[str, object] = {"available_at": time.time(), "attempts": 0, "last_error": None}
    if connection.scalar(select(message.c.id).where(message.c.id == found.message)) is None:
        raise QueueError(NO_MESSAGE)
    if found.queue == SHUNT:
        facts = _facts(found.metadata)
        if "unreadable" in facts or "shunted_from" not in facts:
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


def _entries() -> Select[Any]:
    return (
        select(
            entry.c.id,
            entry.c.queue,
            cast(mailing_list.c.posting_address, Text),
            func.coalesce(_SENDER, ""),
            func.coalesce(message.c.size, 0),
            func.coalesce(message.c.received_at, entry.c.available_at),
            entry.c.attempts,
            entry.c.available_at,
            entry.c.lease_until,
            cast(entry.c.last_error, Text),
            _METADATA,
            entry.c.message,
        )
        .join_from(entry, message, message.c.id == entry.c.message, isouter=True)
        .join(mailing_list, mailing_list.c.id == entry.c.list, isouter=True)
    )


def _shunt(connection: Connection, numbers: Sequence[int], lease: str, reason: str) -> int:
    ours = entry.c.id.in_(numbers) & (entry.c.lease == lease)
    return set_aside(connection, ours, reason)


def set_aside(connection: Connection, which: ColumnElement[bool], reason: str) -> int:
    """Move the entries that meet a condition to `shunt`, which remembers where they were;
    returns how many."""
    # Locked, so that the condition still holds when they are moved.
    chosen = select(entry.c.id, entry.c.queue, _METADATA).where(which).with_for_update()
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
