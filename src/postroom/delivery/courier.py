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
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection

from postroom.base.observe import Facts, Log
from postroom.delivery import ledger
from postroom.delivery.active import WINDOW, Active, Batch
from postroom.delivery.connection import Connection as Smtp
from postroom.delivery.desk import Desk
from postroom.delivery.destinations import Destinations
from postroom.delivery.ledger import Expanded, Record, Row, Told
from postroom.delivery.policy import Later, Limits, Sent, judge
from postroom.delivery.pool import Pool, Unavailable
from postroom.delivery.transaction import Outcome, Transaction, prepare
from postroom.delivery.verp import verp_sender
from postroom.spool import ids, queue, steps
from postroom.spool.handing import Handed, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT, Order, order_of
from postroom.spool.queue import Claim, Lost
from postroom.spool.steps import Step
from postroom.spool.trouble import diagnose
from postroom.store.engine import Store

MOST_ACTIVE = 20  # posts under way
MOST_OCTETS = 67_108_864  # of their messages, but always one
LEASE, RENEW_EVERY = 120.0, 30.0  # seconds
POLL, MEND_EVERY = 1.0, 60.0  # seconds
ATTEMPTS = 5  # that ended with a failure of ours, and then a post is put aside
FIRST_RETRY, LONGEST_RETRY = 10.0, 600.0  # seconds, after such a failure
LONGEST_PAUSE = 30.0  # seconds between attempts to write while the database is in trouble
SHORT = 5.0  # seconds that a post may wait in memory for its next recipient

Single = Callable[[str], bytes]
T = TypeVar("T")
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
    asks for it; `undeliverable` what the site's owner is told of one who could not be."""

    def __init__(
        self,
        store: Store,
        pool: Pool,
        terms: Terms,
        log: Log,
        personal: Callable[[Claim], Single | None],
        undeliverable: Callable[[Claim, Told], Handed | None],
    ) -> None:
        self._store, self._pool, self._terms, self._log = store, pool, terms, log
        self._personal, self._undeliverable = personal, undeliverable
        self._ids = IdMaker()
        self._posts: deque[Active] = deque()  # the next to have its turn comes first
        self._beginning: list[Claim] = []
        self._records: list[_Waiting] = []
        self._writing = False
        self._seeking = 0  # those who are about to ask for a batch
        self._owed: list[Claim] = []  # to be given back as soon as the database allows
        self._bell, self._work = asyncio.Event(), asyncio.Event()
        self._stopping = asyncio.Event()
        self._mend_at = self._renew_at = 0.0
        self.turned_at = time.monotonic()
        self._desk: Desk
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
        self._desk = Desk(self._store)
        try:
            async with asyncio.TaskGroup() as self._tasks:
                self._spawn(self._take_in())
                for _ in range(self._pool.size):
                    self._spawn(self._send())
            await self._hand_back()
        finally:
            await self._pool.close()
            self._desk.close()

    # Posts come in

    async def _take_in(self) -> None:
        while not self._stopping.is_set():
            self.turned_at = time.monotonic()
            self._bell.clear()
            try:
                await self._renew()
                taken = await self._claim()
            except Exception as error:
                self._in_trouble(error)
                taken = []
            self._beginning += taken
            for held in taken:
                self._spawn(self._begin(held))
            if not taken:
                await _wait(self._bell, POLL)
            if self._has_work():  # somebody's time to wait may be over
                self._work.set()
        self._work.set()

    async def _claim(self) -> list[Claim]:
        now = time.monotonic()
        if now >= self._mend_at:
            await self._desk.write(lambda connection: queue.mend(connection, OUT))
            self._mend_at = now + MEND_EVERY
        while self._owed:
            await self._desk.write(lambda connection: queue.give_back(connection, self._owed[-1]))
            self._owed.pop()
        in_hand = [*self._beginning, *(post.held for post in self._posts)]
        room = MOST_ACTIVE - len(in_hand)
        octets = MOST_OCTETS - sum(len(each.raw) for each in in_hand)
        if room <= 0 or octets <= 0:
            return []
        if not await self._desk.read(lambda connection: queue.is_due(connection, OUT)):
            return []
        return await self._desk.write(
            lambda connection: queue.claim(connection, OUT, room, LEASE, octets=octets)
        )

    async def _begin(self, held: Claim) -> None:
        """Take up a post: expand its recipients, if that is still to be done."""
        try:
            if held.attempts > ATTEMPTS:
                raise _Defect(f"{held.attempts - 1} attempts ended with the process that made them")
            order = order_of(held.metadata)
            made = await self._desk.write(lambda connection: self._expand(connection, held, order))
            content = await asyncio.to_thread(prepare, held.raw)
            single = await asyncio.to_thread(self._personal, held) if order.personal else None
        except Exception as error:
            await self._fail(held, error)
            return
        finally:
            self._beginning.remove(held)
        post = Active(held, order, made.created_at, content, single, self._terms.share)
        self._posts.append(post)
        self._care_for(post)

    def _expand(self, connection: Connection, held: Claim, order: Order) -> Expanded:
        made = ledger.expand(connection, held, order)
        if made.new:
            facts = {"recipients": made.recipients, "entry": ids.show(held.id)}
            self._step(connection, held, order, "expanded", facts)
        return made

    def _step(
        self, connection: Connection, held: Claim, order: Order, what: str, facts: Facts
    ) -> None:
        name = str(held.metadata.get("listname", ""))
        told = Step(order.message_id, time.time(), name, what, {"kind": order.kind} | facts)
        steps.write(connection, self._ids, [told])

    async def _fail(self, held: Claim, error: Exception) -> None:
        """A post cannot be taken up, or wound up: later, or never."""
        if _of_the_database(error):
            self._in_trouble(error)
            self._owed.append(held)
            return
        reason = "".join(traceback.format_exception(error))
        facts: Facts = {"queue": OUT, "entry": ids.show(held.id), "attempts": held.attempts}
        facts["reason"] = reason.rstrip().rpartition("\n")[2]

        def put_aside(connection: Connection) -> None:
            if held.attempts >= ATTEMPTS:
                queue.shunt(connection, held, reason)
            else:
                delay = min(FIRST_RETRY * 4.0 ** (held.attempts - 1), LONGEST_RETRY)
                queue.retry(connection, held, delay, reason)

        await self._insist(put_aside)
        event = "shunted" if held.attempts >= ATTEMPTS else "to be tried again"
        self._log.error(event, **facts)

    # Recipients go out

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
                    await self._use(connection)
            except Unavailable as gone:
                self._seeking -= 1
                await _wait(self._stopping, gone.until - time.monotonic())

    async def _use(self, connection: Smtp) -> None:
        """Send over a connection for as long as it lasts and there is something to send."""
        while not self._stopping.is_set() and connection.usable:
            taken = self._next(connection)
            if taken is None:
                return
            post, batch = taken
            try:
                await self._carry(connection, post, batch)
            finally:
                post.in_hand -= 1
                if batch.domain:
                    self._terms.destinations.end(batch.domain)
                self._care_for(post)

    def _has_work(self) -> bool:
        """Whether there are more batches than there are those who are on their way to get one."""
        now, most = time.monotonic(), self._terms.recipients
        batches = (each.batches(most) for each in self._posts if each.not_before <= now)
        return sum(batches) > self._seeking

    def _next(self, connection: Smtp) -> tuple[Active, Batch] | None:
        """The next batch, of the post whose turn it is."""
        now, places = time.monotonic(), self._terms.destinations
        limit = min(self._terms.recipients, connection.recipients)
        for _ in range(len(self._posts)):
            post = self._posts[0]
            self._posts.rotate(-1)
            if post.not_before <= now:
                batch = post.take(limit, connection.xverp, places, now)
                if batch is not None and batch.domain:
                    places.begin(batch.domain, len(batch.rows))
                self._care_for(post)
                if batch is not None:
                    return post, batch
        return None

    async def _carry(self, connection: Smtp, post: Active, batch: Batch) -> None:
        """One transaction, and what became of it."""
        recipients = [row.email for row in batch.rows]
        order, sender, content = post.order, post.order.sender, post.content
        if batch.single and order.verp:
            sender = verp_sender(sender, recipients[0])
        if post.single is not None:
            content = prepare(post.single(recipients[0]))
        together = order.verp and not batch.single
        outcome = await connection.send(Transaction(sender, recipients, content, together))
        record, pending = self._judge(post, batch, outcome, str(connection.server))
        if record is not None:
            await self._write_down(post, record)
        if record is not None or outcome.limit:
            post.failures = 0
        else:
            post.failures += 1
            pause = min(2.0 ** min(post.failures, 10), LONGEST_PAUSE)
            post.not_before = time.monotonic() + pause
            facts = {"entry": ids.show(post.held.id), "again_in": pause}
            self._log.warning("not delivered", **facts, reason=str(outcome.answer))
        post.put_back(pending, batch.single)

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
                told.append(Told(*who, ruling.reason, None, ruling.about))
            elif ruling.counted:
                again_at = now + ruling.delay
                told.append(Told(*who, str(verdict.answer), again_at, ruling.about))
            else:
                pending.append(row)
        self._complain(post, told, server)
        if not reached and not told:
            return None, pending
        return Record(server, now, str(outcome.answer), reached, told), pending

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
            await self._insist(partial(self._record, some))
            for _, _, written in some:
                if not written.done():  # whoever asked may have been cancelled
                    written.set_result(None)
        self._writing = False

    def _record(self, some: Sequence[_Waiting], connection: Connection) -> None:
        records: dict[Active, list[Record]] = {}
        for post, record, _ in some:
            records.setdefault(post, []).append(record)
        for post, every in records.items():
            ledger.record(connection, self._ids, post.held.id, every)
            told = (each for record in every for each in record.told)
            self._tell(connection, post, [each for each in told if each.again_at is None])

    def _tell(self, connection: Connection, post: Active, refused: Sequence[Told]) -> None:
        """Hand refusals on: members' to `bounces`, others' to the site's owner."""
        if not refused:
            return
        if post.order.kind == "post":
            handed = [ledger.bounce(post.held, post.order, refused)]
        else:
            handed = [one for each in refused if (one := self._undeliverable(post.held, each))]
        hand_on(connection, self._ids, handed)

    # Posts come and go

    def _care_for(self, post: Active) -> None:
        """Read on, begin another pass, or wind up, as the post needs it."""
        if post not in self._posts:
            return
        if post.wants_rows:
            post.reading = True
            self._spawn(self._read(post))
        elif post.passed and not self._stopping.is_set():
            self._posts.remove(post)
            self._spawn(self._wind_up(post))

    async def _read(self, post: Active) -> None:
        number, after, waiting = post.held.id, post.cursor, frozenset(post.waiting)
        try:
            rows = await self._desk.read(lambda c: ledger.due(c, number, after, WINDOW, waiting))
            gone = [row.n for row in rows if not row.there]
            if gone:
                await self._desk.write(lambda c: ledger.leave_out(c, number, gone))
        except Exception as error:
            self._in_trouble(error)
            post.not_before = time.monotonic() + POLL
        else:
            post.read(rows, WINDOW)
        post.reading = False
        if post.rows:
            self._work.set()
        self._care_for(post)

    async def _wind_up(self, post: Active) -> None:
        """A pass is over: the post is done, or goes on now or later."""
        held, now = post.held, time.time()
        try:
            if now - post.created_at > self._terms.limits.expire_after:
                while await self._desk.write(lambda c: self._expire(c, post)):
                    pass
            next_at = await self._desk.write(lambda c: self._settle(c, post, now))
        except Lost as error:
            self._log.warning("lease lost", queue=OUT, entry=ids.show(held.id), reason=str(error))
            return
        except Exception as error:
            await self._fail(held, error)
            return
        if next_at is not None and next_at - now <= SHORT:
            clock = time.monotonic()
            waits = [self._terms.destinations.free_at(each, clock) for each in post.waiting]
            post.again(min(waits, default=clock + max(0.0, next_at - now)))
            self._posts.append(post)
            self._care_for(post)

    def _expire(self, connection: Connection, post: Active) -> bool:
        late = ledger.expire(connection, self._ids, post.held.id, WINDOW)
        self._tell(connection, post, late)
        return len(late) == WINDOW

    def _settle(self, connection: Connection, post: Active, now: float) -> float | None:
        """Finish a post, or put it off; returns when its next recipient is due."""
        held = post.held
        next_at = ledger.next_due(connection, held.id)
        if next_at is None:
            ledger.done(connection, held.id)
            counts = ledger.counts(connection, held.id)
            self._step(connection, held, post.order, "done", counts)
            queue.finish(connection, [held])
            facts: Facts = {"entry": ids.show(held.id), "message_id": post.order.message_id}
            self._log.info("delivered", **facts, **counts)
        elif next_at - now > SHORT:
            queue.put_off(connection, held, next_at - now, None)
        return next_at

    async def _hand_back(self) -> None:
        """Give back what is not done."""
        rest = [*self._owed, *(post.held for post in self._posts)]
        for held in rest:
            with contextlib.suppress(Exception):  # its lease runs out
                await self._desk.write(partial(_give_back, held))

    async def _renew(self) -> None:
        """Hold on to the posts under way; let go of what another took over."""
        if time.monotonic() < self._renew_at:
            return
        claims = [post.held for post in self._posts]
        kept = await self._desk.write(lambda c: queue.renew(c, claims, LEASE))
        ours = {each.id for each in kept}
        for post in [each for each in self._posts if each.held.id not in ours]:
            if post.held in claims:
                self._posts.remove(post)
                self._log.warning("lease lost", queue=OUT, entry=ids.show(post.held.id))
        self._renew_at = time.monotonic() + RENEW_EVERY

    # The database

    async def _insist(self, act: Callable[[Connection], T]) -> T:
        """Write what must be written, however long the database is in trouble."""
        pause = POLL
        while True:
            try:
                return await self._desk.write(act)
            except Exception as error:
                if not _of_the_database(error):
                    raise
                self._in_trouble(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def _in_trouble(self, error: Exception) -> None:
        """Say so, and wait. Raises what needs a new process."""
        trouble = diagnose(error, committing=False)
        if trouble.unhealthy or trouble.one_envelope:
            raise error
        self._log.error("queue not served", queue=OUT, reason=str(trouble))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.create_task(work)


def _give_back(held: Claim, connection: Connection) -> None:
    queue.give_back(connection, held)


class _Defect(Exception):
    """A post that is put aside; `str()` says why."""


def _of_the_database(error: Exception) -> bool:
    """Whether the database is in trouble, rather than one post."""
    return not diagnose(error, committing=False).one_envelope


async def _wait(event: asyncio.Event, seconds: float) -> None:
    """Wait for an event, no longer than that."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(max(0.0, seconds)):
            await event.wait()
