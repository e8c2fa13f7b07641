"""Held posts: entries that wait for a person, in the queue `held`, which no runner serves.

For: the runner that holds, and moderators. Each function works in the caller's transaction.
Guarantees: a held post is its entry and that entry's own message, so what a moderator sees is
what goes out, whatever Message-ID it claims; of two moderators at once one decides, the other
is told. `QueueError` says what is wrong with an id; `Lost` is raised to a worker whose lease is
gone.
"""

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import (
    Connection,
    LargeBinary,
    Row,
    Select,
    Text,
    cast,
    delete,
    func,
    select,
    update,
)

from postroom.mail.fields import take_apart
from postroom.mail.message import message_id
from postroom.spool import ids
from postroom.spool.messages import METADATA, RAW, SENDER, free_messages, lock_messages
from postroom.spool.metadata import HELD, IN, Metadata, encode
from postroom.spool.queue import NO_MESSAGE, Claim, Lost, QueueError, facts_of
from postroom.store.schema import entry, mailing_list, message

HEAD = 32_768  # octets of a message that are read to show it
MOST = 2**63 - 1
_OURS = ("reason", "sentence", "author", "held_at")


class Held(NamedTuple):
    """A post that waits, or that was just decided on. `list` is the posting address; `sender`
    is of the envelope, `author` of the message; `subject` is decoded; `reason` is a code and
    `sentence` says it to people; `size` in octets, times in seconds since the epoch."""

    id: int
    list_key: int
    list: str
    sender: str
    author: str
    subject: str
    message_id: str
    size: int
    received_at: float
    held_at: float
    reason: str
    sentence: str


class Found(NamedTuple):
    """A held post with the first `HEAD` octets of its message."""

    post: Held
    head: bytes


def hold(
    connection: Connection,
    claim: Claim,
    reason: str,
    sentence: str,
    author: str,
    now: float | None = None,
) -> None:
    """Put a claimed entry before the moderators. It is no longer the worker's."""
    now = time.time() if now is None else now
    facts = claim.metadata | {
        "reason": reason,
        "sentence": sentence,
        "author": author,
        "held_at": now,
    }
    changed = connection.execute(
        update(entry)
        .where(entry.c.id == claim.id, entry.c.lease == claim.lease)
        .values(
            queue=HELD,
            metadata=encode(facts),
            available_at=now,
            attempts=0,
            lease=None,
            lease_until=None,
            last_error=None,
            retried_at=None,
        )
    ).rowcount
    if changed != 1:
        raise Lost("the entry to be held is in other hands")


def held(connection: Connection, list_key: int | None = None, limit: int = MOST) -> Iterator[Found]:
    """The held posts of a list, or of all, oldest first; one statement, read as they are
    consumed."""
    chosen = _posts().where(entry.c.queue == HELD).order_by(entry.c.available_at, entry.c.id)
    if list_key is not None:
        chosen = chosen.where(entry.c.list == list_key)
    chosen = chosen.limit(limit)
    for row in connection.execute(chosen.execution_options(yield_per=100)):
        yield _found(row)


def find_held(connection: Connection, number: int) -> Found:
    """One held post. Raises `QueueError`."""
    return _found(_row(connection, number))


def accept(connection: Connection, number: int, by: str) -> Found:
    """Send a post back to `in`, where the rules will let it pass; `by` says who decided.
    Raises `QueueError`."""
    row = _locked(connection, number)
    facts = facts_of(row.metadata)
    if row.there is None:
        raise QueueError(NO_MESSAGE)
    if "unreadable" in facts:
        raise QueueError(
            f"the metadata of {ids.show(number)} cannot be read: save the post with `postroom "
            "queue show --raw`, then `postroom held discard` it"
        )
    if not row.list_key:
        raise QueueError(f"the list of {ids.show(number)} was removed: it has nowhere to go")
    facts = {name: value for name, value in facts.items() if name not in _OURS}
    facts |= {"approved": True, "approved_by": by}
    connection.execute(
        update(entry)
        .where(entry.c.id == number)
        .values(queue=IN, metadata=encode(facts), available_at=time.time(), attempts=0)
    )
    return _found(row)


def discard(connection: Connection, number: int) -> Found:
    """Remove a post for good; returns what it was, for the notice to its author if it gets
    one. Raises `QueueError`."""
    row = _locked(connection, number)
    lock_messages(connection, [row.message])
    connection.execute(delete(entry).where(entry.c.id == number))
    free_messages(connection, [row.message])
    return _found(row)


def _locked(connection: Connection, number: int) -> Row[Any]:
    """A held post that nobody else decides on until this transaction ends."""
    connection.execute(select(entry.c.id).where(entry.c.id == number).with_for_update())
    row = _row(connection, number)
    if row.lease is not None:
        raise QueueError("somebody is working on it: try again in a moment")
    return row


def _row(connection: Connection, number: int) -> Row[Any]:
    row = connection.execute(_posts().where(entry.c.id == number)).first()
    if row is None:
        raise QueueError(
            f"there is no held post {ids.show(number)}: it was decided on already, or never "
            "there; `postroom held ls` shows those that wait"
        )
    if row.queue == HELD:
        return row
    if facts_of(row.metadata).get("approved"):
        raise QueueError(
            f"{ids.show(number)} was accepted already: it is on its way (queue {row.queue})"
        )
    raise QueueError(
        f"{ids.show(number)} is not held but in queue {row.queue}: "
        f"`postroom queue show {ids.show(number)}` shows it"
    )


def _posts() -> Select[Any]:
    return (
        select(
            entry.c.id,
            entry.c.queue,
            entry.c.lease,
            entry.c.message,
            entry.c.available_at,
            METADATA.label("metadata"),
            message.c.id.label("there"),
            func.coalesce(entry.c.list, 0).label("list_key"),
            func.coalesce(cast(mailing_list.c.posting_address, Text), "").label("list"),
            func.coalesce(SENDER, "").label("sender"),
            func.coalesce(message.c.size, 0).label("size"),
            func.coalesce(message.c.received_at, entry.c.available_at).label("received_at"),
            func.substr(RAW, 1, HEAD, type_=LargeBinary).label("head"),
        )
        .join_from(entry, message, message.c.id == entry.c.message, isouter=True)
        .join(mailing_list, mailing_list.c.id == entry.c.list, isouter=True)
    )


def _found(row: Row[Any]) -> Found:
    facts = facts_of(row.metadata)
    head = bytes(row.head or b"")
    post = Held(
        id=row.id,
        list_key=row.list_key,
        list=row.list,
        sender=row.sender,
        author=_text(facts, "author"),
        subject=_subject(head),
        message_id=message_id(head),
        size=row.size,
        received_at=row.received_at,
        held_at=row.available_at,
        reason=_text(facts, "reason"),
        sentence=_text(facts, "sentence"),
    )
    return Found(post, head)


def post_of(claim: Claim, address: str, reason: str, sentence: str, author: str) -> Found:
    """A claimed post in the form of a held one, for those who refuse it at once; `address` is
    the list's."""
    now = time.time()
    head = claim.raw[:HEAD]
    post = Held(
        id=claim.id,
        list_key=claim.list_key or 0,
        list=address,
        sender=claim.sender,
        author=author,
        subject=_subject(head),
        message_id=message_id(head),
        size=len(claim.raw),
        received_at=now,
        held_at=now,
        reason=reason,
        sentence=sentence,
    )
    return Found(post, head)


def _subject(head: bytes) -> str:
    found = take_apart(head).first("subject")
    return found.text if found else ""


def _text(facts: Metadata, name: str) -> str:
    value = facts.get(name, "")
    return value if isinstance(value, str) else ""
