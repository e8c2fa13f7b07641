"""Caring for entries: what operators see of them and do to them.

For: people, and the commands that serve them. Each function works in the caller's transaction.
Guarantees: what a runner holds is left alone; of two who change an entry at once one comes
after the other; a listing is one statement. `QueueError` says why something cannot be done.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Text,
    cast,
    delete,
    func,
    select,
    update,
)

from postroom.spool.messages import METADATA, RAW, SENDER, free_messages, lock_messages
from postroom.spool.metadata import SHUNT, encode
from postroom.spool.queue import NO_MESSAGE, QueueError, facts_of
from postroom.store.schema import entry, mailing_list, message


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
    raw = _of_message(connection, number, RAW)
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
    return func.substr(RAW, 1, octets, type_=LargeBinary)


def requeue(connection: Connection, number: int) -> None:
    """Make an entry due now, with no attempts counted; one in `shunt` goes back where it
    came from. Raises `QueueError`."""
    found = _in_nobodys_hands(connection, number)
    values: dict[str, object] = {"available_at": time.time(), "attempts": 0, "last_error": None}
    if connection.scalar(select(message.c.id).where(message.c.id == found.message)) is None:
        raise QueueError(NO_MESSAGE)
    if found.queue == SHUNT:
        facts = facts_of(found.metadata)
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
    lock_messages(connection, [found.message])
    connection.execute(delete(entry).where(entry.c.id == number))
    free_messages(connection, [found.message])


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
            func.coalesce(SENDER, ""),
            func.coalesce(message.c.size, 0),
            func.coalesce(message.c.received_at, entry.c.available_at),
            entry.c.attempts,
            entry.c.available_at,
            entry.c.lease_until,
            cast(entry.c.last_error, Text),
            METADATA,
            entry.c.message,
        )
        .join_from(entry, message, message.c.id == entry.c.message, isouter=True)
        .join(mailing_list, mailing_list.c.id == entry.c.list, isouter=True)
    )
