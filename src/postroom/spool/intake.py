"""The intake: envelopes from the door become entries, many in one transaction.

For: what stands between the data's final dot and 250. Guarantees: an accepting reply is
given only after the commit that holds the message, its entry and its receipt; a message
that comes again is answered alike and queued once; an envelope that cannot be stored
never fails its neighbours; a reply 451 or 452 means that nothing of the envelope was
stored. Trouble of ours is 4xx, or None where the outcome cannot be known.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import Any, NamedTuple

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import DBAPIError

from postroom.lists.endpoint import Endpoint
from postroom.lists.routing import route
from postroom.mail import message, reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply
from postroom.spool import ids, metadata
from postroom.spool.trouble import Trouble, diagnose
from postroom.store import schema
from postroom.store.engine import Store

Replies = Sequence[Reply] | None
LOCK_WAIT = 1.0  # seconds for one attempt to get the write lock; the deadline bounds them all
PAUSE = 0.1  # seconds between attempts, against a server that refuses at once


class Stored(NamedTuple):
    """One stored envelope, for the log. `entries` are those that this delivery added;
    `again` counts recipients that had it already."""

    envelope: Envelope
    message: int
    entries: tuple[int, ...]
    again: int
    replies: Sequence[Reply]


class Draft(NamedTuple):
    """An envelope with what can be known of it before the transaction."""

    envelope: Envelope
    message: int
    digest: bytes
    deadline: float  # time.monotonic()


class _Row(NamedTuple):
    """An entry to be: its receipt key, and where it goes."""

    key: bytes
    entry: int
    draft: Draft
    endpoint: Endpoint


class Writer:
    """Commits batches of drafts. Used by one thread."""

    def __init__(self, store: Store, site_owner: str) -> None:
        self.site_owner = site_owner
        self._store = store
        self._ids = ids.IdMaker()
        self._insert_receipt = _compiled(store, schema.receipt) + " ON CONFLICT DO NOTHING"
        self._insert_message = _compiled(store, schema.message)
        self._insert_entry = _compiled(store, schema.entry)

    def draft(self, envelope: Envelope, deadline: float) -> Draft:
        """Prepare an envelope; the ids stay the same through all attempts."""
        return Draft(envelope, self._ids(), message.digest(envelope.raw), deadline)

    def commit(self, drafts: Sequence[Draft]) -> list[Stored]:
        """Store `drafts` in one transaction. Raises `Trouble`; then nothing is stored,
        unless it says that the outcome is unknown."""
        committing = False
        try:
            with self._store.engine.connect() as connection:
                self._bound(connection, drafts)
                stored = self._store_all(connection, drafts)
                if time.monotonic() > min(draft.deadline for draft in drafts):
                    raise Trouble("deadline", reply.LOCAL_ERROR, retry=True)
                committing = True
                connection.commit()
                return stored
        except DBAPIError as error:
            raise diagnose(error, committing) from error
        except Trouble:
            raise
        except Exception as error:  # a defect of ours must not cost the neighbours
            raise Trouble(f"defect: {error!r}", reply.LOCAL_ERROR, one_envelope=True) from error

    def _bound(self, connection: Connection, drafts: Sequence[Draft]) -> None:
        """No statement may outlast the deadline; no wait for a lock the attempt."""
        if self._store.is_sqlite:
            driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA busy_timeout = {int(LOCK_WAIT * 1000)}")
            return
        left = min(draft.deadline for draft in drafts) - time.monotonic()
        connection.exec_driver_sql(
            "SELECT set_config('statement_timeout', %s, true), set_config('lock_timeout', %s, true)",
            (str(max(1, int(left * 1000))), str(int(LOCK_WAIT * 1000))),
        )

    def _store_all(self, connection: Connection, drafts: Sequence[Draft]) -> list[Stored]:
        routes = route(connection, (box for d in drafts for box in d.envelope.recipients))
        rows = [row for draft in drafts for row in self._rows(draft, routes)]
        old = self._write_receipts(connection, rows) if rows else set()
        new = [row for row in rows if row.entry not in old]
        if new:
            self._write(connection, new)
        return self._report(drafts, rows, old, routes)

    def _rows(self, draft: Draft, routes: dict[Mailbox, Endpoint | None]) -> list[_Row]:
        """One row per endpoint, however often and in whatever form it was named."""
        endpoints = {
            endpoint.identity: endpoint
            for box in draft.envelope.recipients
            if (endpoint := routes[box]) is not None
        }
        return [
            _Row(_receipt_key(draft, identity), self._ids(), draft, endpoint)
            for identity, endpoint in endpoints.items()
        ]

    def _write_receipts(self, connection: Connection, rows: Sequence[_Row]) -> set[int]:
        """Write receipts; returns the entries of `rows` that were accepted before."""
        now = time.time()
        # In order of key, so that two servers never wait for each other crosswise.
        result = connection.exec_driver_sql(
            self._insert_receipt, sorted((row.key, now, row.entry) for row in rows)
        )
        if result.rowcount == len(rows):
            return set()
        keys = [row.key for row in rows]
        held: dict[bytes, int] = {}
        for first in range(0, len(keys), 1000):
            held.update(
                (bytes(row.key), row.entry)
                for row in connection.execute(
                    select(schema.receipt.c.key, schema.receipt.c.entry).where(
                        schema.receipt.c.key.in_(keys[first : first + 1000])
                    )
                )
            )
        return {row.entry for row in rows if held[row.key] != row.entry}

    def _write(self, connection: Connection, rows: Sequence[_Row]) -> None:
        drafts = {row.draft.message: row.draft for row in rows}
        connection.exec_driver_sql(
            self._insert_message,
            [
                (
                    number,
                    draft.digest,
                    envelope.sender,
                    len(envelope.raw),
                    envelope.received_at,
                    envelope.peer.address,
                    envelope.peer.lhlo,
                    envelope.raw,
                )
                for number, draft in drafts.items()
                for envelope in (draft.envelope,)
            ],
        )
        connection.exec_driver_sql(
            self._insert_entry,
            [
                (
                    row.entry,
                    metadata.queue_of(row.endpoint),
                    row.endpoint.list_key,
                    row.draft.message,
                    metadata.encode(
                        metadata.describe(
                            row.endpoint, len(row.draft.envelope.raw), self.site_owner
                        )
                    ),
                    row.draft.envelope.received_at,
                    0,
                    None,
                    None,
                    None,
                )
                for row in rows
            ],
        )

    def _report(
        self,
        drafts: Sequence[Draft],
        rows: Iterable[_Row],
        old: set[int],
        routes: dict[Mailbox, Endpoint | None],
    ) -> list[Stored]:
        added: dict[int, list[int]] = {draft.message: [] for draft in drafts}
        again = dict.fromkeys(added, 0)
        for row in rows:
            if row.entry in old:
                again[row.draft.message] += 1
            else:
                added[row.draft.message].append(row.entry)
        return [
            Stored(
                draft.envelope,
                draft.message,
                tuple(added[draft.message]),
                again[draft.message],
                answers(draft.envelope.recipients, routes, reply.ACCEPTED),
            )
            for draft in drafts
        ]


def answers(
    recipients: Iterable[Mailbox], routes: dict[Mailbox, Endpoint | None], yes: Reply
) -> list[Reply]:
    """A reply per recipient: `yes`, or 550 for what is no endpoint."""
    return [reply.NO_MAILBOX if routes[box] is None else yes for box in recipients]


def _receipt_key(draft: Draft, identity: str) -> bytes:
    """What makes two deliveries the same one: sender, endpoint, message bytes."""
    state = blake2b(draft.digest, digest_size=16)
    state.update(draft.envelope.sender.encode() + b"\0" + identity.encode())
    return state.digest()


def _compiled(store: Store, table: Any) -> str:
    """The INSERT for all columns of `table` in the driver's own words, made once."""
    return str(insert(table).compile(dialect=store.engine.dialect))


Done = Callable[[Replies], None]


class Item(NamedTuple):
    """An envelope that waits, and whom to tell."""

    envelope: Envelope
    deadline: float
    done: Done


class Intake:
    """Takes batches of items apart, retries them and answers each one exactly once."""

    def __init__(
        self,
        writer: Writer,
        answer: Callable[[list[tuple[Done, Replies]]], None],
        journal: Callable[[Sequence[Stored]], None],
        trouble: Callable[[Trouble, int], None],
    ) -> None:
        self._writer, self._answer = writer, answer
        self._journal, self._trouble = journal, trouble

    def work(self, items: list[Item]) -> None:
        """Store a batch; every item is answered when this returns."""
        drafts = [self._writer.draft(item.envelope, item.deadline) for item in items]
        self._settle([(draft, item.done) for draft, item in zip(drafts, items, strict=True)])

    def _settle(self, waiting: list[tuple[Draft, Done]], unknown: bool = False) -> None:
        while waiting:
            try:
                stored = self._writer.commit([draft for draft, _ in waiting])
            except Trouble as trouble:
                self._trouble(trouble, len(waiting))
                # Once a commit's outcome is in doubt only a later success can tell:
                # the receipts are the same, so trying again finds what is there.
                unknown = unknown or trouble.unknown
                waiting = self._after(trouble, waiting, unknown)
            else:
                self._answer(
                    [(done, each.replies) for each, (_, done) in zip(stored, waiting, strict=True)]
                )
                self._journal(stored)
                return

    def _after(
        self, trouble: Trouble, waiting: list[tuple[Draft, Done]], unknown: bool
    ) -> list[tuple[Draft, Done]]:
        """What is left to try after `trouble`; the others are answered."""
        if trouble.one_envelope and len(waiting) > 1:
            for one in waiting:
                self._settle([one], unknown)
            return []
        now = time.monotonic()
        left = [one for one in waiting if trouble.retry and now < one[0].deadline]
        self._answer(
            [
                (done, None if unknown else [trouble.reply] * len(draft.envelope.recipients))
                for draft, done in waiting
                if not trouble.retry or now >= draft.deadline
            ]
        )
        if left:
            time.sleep(PAUSE)
        return left
