"""The courier: takes posts from the queue `out` and brings them to everybody.

For: delivery, from the claim of an entry to the last recipient. Several posts are under way at
once and have their turns, so that a small one does not wait for a large one. Guarantees: what a
transaction achieved is durable before its connection goes on to the next, so a crash can double
no more than the transactions that were open; a recipient who was not reached stays pending; a
stop ends after the transactions in hand and gives the posts back. When the mail server is away
it waits, without counting that against anybody; when the database is, it keeps what it must
write until it is written. Used from one event loop.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NamedTuple

from postroom.base.observe import Log
from postroom.delivery.active import Active, Batch, Single
from postroom.delivery.book import Book, Undeliverable
from postroom.delivery.connection import Connection as Smtp
from postroom.delivery.desk import Desk
from postroom.delivery.destinations import Destinations
from postroom.delivery.docket import Docket
from postroom.delivery.ledger import Record, Row, Told
from postroom.delivery.policy import Later, Limits, Sent, judge
from postroom.delivery.pool import Pool, Unavailable
from postroom.delivery.transaction import Outcome, Transaction, prepare
from postroom.delivery.verp import sender_of
from postroom.mail.address import ascii_domain
from postroom.spool import ids
from postroom.spool.queue import Claim
from postroom.store.engine import Store

POLL = 1.0  # seconds between looks, when nobody wakes us
LONGEST_PAUSE = 30.0  # seconds that a post waits whose transactions come to nothing
LARGE = 1_048_576  # octets
LONGEST_REPLY = 1000  # characters of a reply that are kept
MOST_FAILURES, REST = 5, 60.0  # in a row, and then it makes room for so many seconds
_Waiting = tuple[Active, Record, asyncio.Future[None]]


class Terms(NamedTuple):
    """What the site decides: the recipients of one transaction; the share of them who are sent to
    singly, for VERP; when to try again, and for how long; limits of destinations."""

    recipients: int
    share: float
    limits: Limits
    destinations: Destinations


class Courier:
    """Delivers what is in `out`. `personal` makes the message for each recipient of a post that
    asks for it, None where all get the same; `undeliverable` what the site's owner is told of
    one who could not be reached."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        terms: Terms,
        log: Log,
        personal: Callable[[Claim], Single | None],
        undeliverable: Undeliverable,
    ) -> None:
        self._store, self._pool, self._terms, self._log = store, pool, terms, log
        self._personal, self._undeliverable = personal, undeliverable
        self._bell, self._work = asyncio.Event(), asyncio.Event()
        self._stopping = asyncio.Event()
        self._large = asyncio.Semaphore(2)  # large messages made for one recipient each, at once
        self._seeking = 0  # those who are about to ask for a batch
        self._records: list[_Waiting] = []
        self._writing = False
        self.turned_at = time.monotonic()
        self._book: Book
        self._docket: Docket
        self._tasks: asyncio.TaskGroup

    def wake(self) -> None:
        """There may be new posts. Called in the loop's thread."""
        self._bell.set()

    def stop(self) -> None:
        """End after the transactions in hand. Called in the loop's thread."""
        self._stopping.set()
        self._bell.set()
        self._work.set()

    async def run(self) -> None:
        """Deliver until stopped."""
        desk = Desk(self._store)
        self._book = Book(desk, self._log, self._undeliverable)
        self._docket = Docket(
            desk,
            self._book,
            self._log,
            self._terms.share,
            self._terms.limits.expire_after,
            self._personal,
            self._spawn,
            self._changed,
        )
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._spawn(self._take_in())
                for _ in range(self._pool.size):
                    self._spawn(self._send())
        finally:
            if self._stopping.is_set():  # else one of the posts may be to blame: it counts
                await self._docket.hand_back()
            await self._pool.close()
            desk.close()

    async def _take_in(self) -> None:
        while not self._stopping.is_set():
            self.turned_at = time.monotonic()
            self._bell.clear()
            if not await self._docket.take_in():
                await _wait(self._bell, POLL)
            self._look_around()
        self._docket.stopping = True
        self._work.set()

    def _changed(self) -> None:
        self._bell.set()
        self._work.set()

    def _look_around(self) -> None:
        """Somebody's time to wait may be over."""
        now = time.monotonic()
        for post in list(self._docket.posts):
            post.resume(self._terms.destinations, now)
            self._docket.care_for(post)
        if self._has_work():
            self._work.set()

    async def _send(self) -> None:
        """One of those who send; there are as many as there may be connections."""
        while not self._stopping.is_set():
            if not self._has_work():
                self._work.clear()
                await self._work.wait()
                continue
            self._seeking += 1
            try:
                async with self._pool.connection() as connection:
                    self._seeking -= 1
                    used = await self._use(connection)
            except Unavailable as gone:
                self._seeking -= 1
                await _wait(self._stopping, gone.until - time.monotonic())
            else:
                if not used and not self._stopping.is_set():  # nothing can be sent just now
                    self._work.clear()
                    await self._work.wait()

    async def _use(self, connection: Smtp) -> bool:
        """Send over a connection for as long as it lasts and there is something to send; whether
        there was anything."""
        used = False
        while not self._stopping.is_set() and connection.usable:
            taken = self._next(connection)
            if taken is None:
                break
            used = True
            post, batch = taken
            await self._carry(connection, post, batch)  # whatever leaves it ends the courier
            post.in_hand -= 1
            if batch.domain:
                self._terms.destinations.end(batch.domain)
                self._look_around()
            self._docket.care_for(post)
        return used

    def _has_work(self) -> bool:
        """Whether there are more batches than there are those who are on their way to get one."""
        now, most = time.monotonic(), self._terms.recipients
        batches = (each.batches(most) for each in self._docket.posts if each.is_ready(now))
        return sum(batches) > self._seeking

    def _next(self, connection: Smtp) -> tuple[Active, Batch] | None:
        """The next batch, of the post whose turn it is."""
        now, places, posts = time.monotonic(), self._terms.destinations, self._docket.posts
        limit = min(self._terms.recipients, connection.recipients)
        for _ in range(len(posts)):
            post = posts[0]
            posts.rotate(-1)
            if not post.is_ready(now):
                continue
            batch = None if post.is_stale() else post.take(limit, connection.xverp, places, now)
            if batch is not None and batch.domain:
                places.begin(batch.domain, len(batch.rows))
            self._docket.care_for(post)
            if batch is not None:
                return post, batch
        return None

    async def _carry(self, connection: Smtp, post: Active, batch: Batch) -> None:
        """One transaction, and what became of it."""
        large = post.single is not None and post.content.size > LARGE
        async with self._large if large else contextlib.nullcontext():
            try:
                transaction = await self._transaction(post, batch, large)
            except Exception as error:
                self._docket.give_up(post, error)
                return
            outcome = await connection.send(transaction)
        record, pending = self._judge(post, batch, outcome, str(connection.server))
        if record is not None:
            await self._write_down(post, record)
        if record is not None or outcome.limit:
            post.failures = 0
        elif time.monotonic() >= post.not_before:  # else others found out at the same time
            self._pause(post, str(outcome.answer))
        post.put_back(pending, batch.single)

    async def _transaction(self, post: Active, batch: Batch, large: bool) -> Transaction:
        """What is to be sent. Large messages are made in another thread."""
        recipients = [row.email for row in batch.rows]
        if not "".join(recipients).isascii():
            recipients = [ascii_domain(each) for each in recipients]
        order, content = post.order, post.content
        sender = sender_of(order, batch.rows[0].email if batch.single else "")
        if post.single is not None:
            make, whose = post.single, batch.rows[0].email
            if large:
                content = await asyncio.to_thread(lambda: prepare(make(whose)))
            else:
                content = prepare(make(whose))
        return Transaction(sender, recipients, content, order.verp and not batch.single)

    def _pause(self, post: Active, reason: str) -> None:
        """A transaction came to nothing: the post waits a little, and at last leaves its place."""
        post.failures += 1
        pause = min(2.0 ** min(post.failures, 10), LONGEST_PAUSE)
        post.not_before = time.monotonic() + pause
        if post.failures >= MOST_FAILURES:
            pause = post.rest = REST
        facts = {"entry": ids.show(post.held.id), "again_in": pause}
        self._log.warning("not delivered", **facts, reason=reason)

    def _judge(
        self, post: Active, batch: Batch, outcome: Outcome, server: str
    ) -> tuple[Record | None, list[Row]]:
        """What is to be written, and who is to be tried again at once."""
        now, chance = time.time(), random.random()
        age, limits = now - post.created_at, self._terms.limits
        reached: list[int] = []
        told: list[Told] = []
        pending: list[Row] = []
        for row, verdict in zip(batch.rows, outcome.verdicts, strict=True):
            ruling = judge(verdict, row.attempts, age, limits, chance)
            who = row.n, row.email, row.member
            if isinstance(ruling, Sent):
                reached.append(row.n)
            elif not isinstance(ruling, Later):
                told.append(Told(*who, ruling.reason[:LONGEST_REPLY], None, ruling.about))
            elif ruling.counted:
                again_at = now + ruling.delay
                told.append(Told(*who, str(verdict.answer)[:LONGEST_REPLY], again_at, ruling.about))
            else:
                pending.append(row)
        self._complain(post, told, server)
        if not reached and not told:
            return None, pending
        reply = str(outcome.answer)[:LONGEST_REPLY]
        return Record(self._book.ids(), server, now, reply, reached, told), pending

    def _complain(self, post: Active, told: Sequence[Told], server: str) -> None:
        """An operator must know when it is us whom the mail server does not want."""
        ours = [each for each in told if each.about == "us"]
        if ours:
            facts = {"entry": ids.show(post.held.id), "server": server, "recipients": len(ours)}
            self._log.error("mail server refuses us", **facts, reply=ours[0].reply)

    async def _write_down(self, post: Active, record: Record) -> None:
        """Durable when it returns. What many have to write while a commit is under way is
        written together."""
        written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._records.append((post, record, written))
        if not self._writing:
            self._writing = True
            self._spawn(self._write_all())
        await written

    async def _write_all(self) -> None:
        while self._records:
            some, self._records = self._records, []
            failed = await self._book.write([(post, record) for post, record, _ in some])
            self._docket.written([post for post, _, _ in some], failed)
            for _, _, written in some:
                if not written.done():  # whoever asked may have been cancelled
                    written.set_result(None)
        self._writing = False

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(work)


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, no longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
