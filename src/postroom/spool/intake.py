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
from typing import NamedTuple

from postroom.lists.endpoint import Endpoint, name_of
from postroom.lists.routing import route
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.message import Identity, identify
from postroom.mail.reply import Reply
from postroom.spool import ids, metadata
from postroom.spool.trouble import Trouble, diagnose
from postroom.store import schema
from postroom.store.direct import Direct

Replies = Sequence[Reply] | None
LOCK_WAIT = 1.0  # seconds for one attempt to get the write lock; the deadline bounds them all
LARGE = 4_194_304  # octets of a message that memory should not keep
PAUSE = 0.1  # seconds between attempts, against a server that refuses at once


class Draft(NamedTuple):
    """An envelope with what can be known of it before the transaction."""

    envelope: Envelope
    message: int
    identity: Identity
    deadline: float  # time.monotonic()


class Stored(NamedTuple):
    """A draft that was stored. `entries` are those that this delivery added; `again` counts
    recipients that had it already; `endpoints` has one for each recipient."""

    draft: Draft
    entries: tuple[int, ...]
    again: int
    replies: Sequence[Reply]
    endpoints: Sequence[Endpoint | None]


class _Row(NamedTuple):
    """An entry to be: its receipt key, and where it goes."""

    key: bytes
    entry: int
    draft: Draft
    endpoint: Endpoint


class Writer:
    """Commits batches of drafts. Used by one thread."""

    def __init__(self, store: Direct, site_owner: str) -> None:
        self.site_owner = site_owner
        self.receipts = 0  # written so far
        self._store = store
        self._ids = ids.IdMaker()

    def draft(self, envelope: Envelope, deadline: float) -> Draft:
        """Prepare an envelope; the ids stay the same through all attempts."""
        return Draft(envelope, self._ids(), identify(envelope.raw), deadline)

    def commit(self, drafts: Sequence[Draft]) -> list[Stored]:
        """Store `drafts` in one transaction. Raises `Trouble`; then nothing is stored,
        unless it says that the outcome is unknown."""
        deadline = min(draft.deadline for draft in drafts)
        committing = False
        try:
            left = max(0.0, deadline - time.monotonic())
            self._store.begin(min(LOCK_WAIT, left), left)
            stored = self._store_all(drafts)
            if time.monotonic() > deadline:
                raise Trouble("deadline", reply.LOCAL_ERROR, retry=True)
            committing = True
            self._store.commit()
        except BaseException as error:
            self._store.discard()
            if not isinstance(error, Exception) or isinstance(error, Trouble):
                raise
            trouble = diagnose(error, committing)
            if committing and trouble.unhealthy:
                self._store.overwrite()
            raise trouble from error
        self.receipts += sum(len(each.entries) for each in stored)
        if any(len(draft.envelope.raw) > LARGE for draft in drafts):
            self._store.close()  # its statements keep what was last bound to them
        return stored

    def _store_all(self, drafts: Sequence[Draft]) -> list[Stored]:
        routes = route(
            self._store.execute,
            self._store.is_sqlite,
            (box for draft in drafts for box in draft.envelope.recipients),
        )
        rows = [row for draft in drafts for row in self._rows(draft, routes)]
        old = self._write_receipts(rows) if rows else set()
        new = [row for row in rows if row.entry not in old]
        if new:
            self._write(new)
        return self._report(drafts, rows, old, routes)

    def _rows(self, draft: Draft, routes: dict[Mailbox, Endpoint | None]) -> list[_Row]:
        """One row per endpoint, however often and in whatever form it was named."""
        endpoints = {
            name_of(endpoint): endpoint
            for box in draft.envelope.recipients
            if (endpoint := routes[box]) is not None
        }
        return [
            _Row(_receipt_key(draft, name), self._ids(), draft, endpoint)
            for name, endpoint in endpoints.items()
        ]

    def _write_receipts(self, rows: Sequence[_Row]) -> set[int]:
        """Write receipts; returns the entries of `rows` that were accepted before."""
        now = time.time()
        # In order of key, so that two servers never wait for each other crosswise.
        receipts = [(row.entry, row.key, now) for row in sorted(rows, key=_by_key)]
        written = self._store.insert(schema.receipt, receipts, unless_there=True)
        if written == len(rows):
            return set()
        mark = "?" if self._store.is_sqlite else "%s"
        held: dict[bytes, int] = {}
        for first in range(0, len(rows), 1000):
            keys = tuple(row.key for row in rows[first : first + 1000])
            marks = ", ".join([mark] * len(keys))
            found = self._store.execute(
                f"SELECT key, entry FROM receipt WHERE key IN ({marks})", keys
            )
            held.update((bytes(key), number) for key, number in found)
        return {row.entry for row in rows if held[row.key] != row.entry}

    def _write(self, rows: Sequence[_Row]) -> None:
        drafts = {row.draft.message: row.draft for row in rows}
        self._store.insert(
            schema.message,
            [
                (
                    number,
                    identity.digest,
                    envelope.sender,
                    len(envelope.raw),
                    envelope.received_at,
                    envelope.peer.address,
                    envelope.peer.lhlo,
                    envelope.raw,
                )
                for envelope, number, identity, _ in drafts.values()
            ],
        )
        self._store.insert(schema.entry, [self._entry(row) for row in rows])

    def _entry(self, row: _Row) -> tuple[object, ...]:
        envelope, endpoint = row.draft.envelope, row.endpoint
        facts = metadata.describe(endpoint, len(envelope.raw), self.site_owner)
        queue, text = metadata.queue_of(endpoint), metadata.encode(facts)
        due, attempts = envelope.received_at, 0
        return row.entry, queue, endpoint.list_key, row.draft.message, text, due, attempts

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
                draft,
                tuple(added[draft.message]),
                again[draft.message],
                answers(draft.envelope.recipients, routes, reply.ACCEPTED),
                [routes[box] for box in draft.envelope.recipients],
            )
            for draft in drafts
        ]


def _by_key(row: _Row) -> bytes:
    return row.key


def answers(
    recipients: Iterable[Mailbox], routes: dict[Mailbox, Endpoint | None], yes: Reply
) -> list[Reply]:
    """A reply per recipient: `yes`, or 550 for what is no endpoint."""
    return [reply.NO_MAILBOX if routes[box] is None else yes for box in recipients]


def _receipt_key(draft: Draft, endpoint: str) -> bytes:
    """What makes two deliveries the same one: sender, endpoint, message bytes."""
    state = blake2b(draft.identity.digest, digest_size=16)
    state.update(draft.envelope.sender.encode() + b"\0" + endpoint.encode())
    return state.digest()


class Item(NamedTuple):
    """An envelope that waits; `ticket` is the caller's name for it, `deadline` as of
    time.monotonic()."""

    envelope: Envelope
    deadline: float
    ticket: int


_Waiting = list[tuple[Draft, int]]


class Intake:
    """Takes batches of items apart, retries them and answers each one exactly once."""

    def __init__(
        self,
        writer: Writer,
        answer: Callable[[Sequence[tuple[int, Replies]]], None],
        journal: Callable[[Sequence[Stored]], None],
        trouble: Callable[[Trouble, int], None],
    ) -> None:
        self._writer, self._answer = writer, answer
        self._journal, self._trouble = journal, trouble

    def work(self, items: list[Item]) -> None:
        """Store a batch; every item is answered when this returns."""
        drafts = [self._writer.draft(item.envelope, item.deadline) for item in items]
        self._settle([(draft, item.ticket) for draft, item in zip(drafts, items, strict=True)])

    def _settle(self, waiting: _Waiting, unknown: bool = False) -> None:
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
                    [
                        (ticket, each.replies)
                        for each, (_, ticket) in zip(stored, waiting, strict=True)
                    ]
                )
                self._journal(stored)
                return

    def _after(self, trouble: Trouble, waiting: _Waiting, unknown: bool) -> _Waiting:
        """What is left to try after `trouble`; the others are answered."""
        if trouble.one_envelope and len(waiting) > 1:
            for one in waiting:
                self._settle([one], unknown)
            return []
        now = time.monotonic()
        left = [one for one in waiting if trouble.retry and now < one[0].deadline]
        self._answer(
            [
                (ticket, None if unknown else [trouble.reply] * len(draft.envelope.recipients))
                for draft, ticket in waiting
                if not trouble.retry or now >= draft.deadline
            ]
        )
        if left:
            time.sleep(PAUSE)
        return left
