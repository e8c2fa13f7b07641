"""The docket: the posts that are under way.

For: the courier, from the claim of an entry until it is done or put off. Guarantees: a post's
recipients are expanded once; a window of them is read ahead; its lease is renewed while it is
here, and whoever lost it lets go of it; what cannot be taken up or wound up is tried again, and
put aside in the end, while the others go on. Trouble of the database costs time and nothing
else. Used from one event loop.
"""

import asyncio
import contextlib
import time
import traceback
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from sqlalchemy import Connection

from postroom.base.observe import Facts, Log
from postroom.delivery import ledger
from postroom.delivery.active import WINDOW, Active, Single
from postroom.delivery.desk import Desk
from postroom.delivery.ledger import Expanded, Record, Told
from postroom.delivery.transaction import prepare
from postroom.spool import ids, queue, steps
from postroom.spool.handing import Handed, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT, Order, order_of
from postroom.spool.queue import Claim, Lost
from postroom.spool.steps import Step
from postroom.spool.trouble import diagnose

MOST_ACTIVE = 20  # posts under way
MOST_OCTETS = 67_108_864  # of their messages, but always one
HEADER = 16_384  # octets of a message that are kept for reports
LEASE, RENEW_EVERY = 120.0, 30.0  # seconds
MEND_EVERY = 60.0  # seconds
ATTEMPTS = 5  # that ended with a failure of ours, and then a post is put aside
FIRST_RETRY, LONGEST_RETRY = 10.0, 600.0  # seconds, after such a failure
PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts, while the database is in trouble
SHORT = 5.0  # seconds that a post may wait in memory for its next recipient

T = TypeVar("T")


class Docket:
    """The posts under way. `spawn` has work done beside; `changed` is called when there is
    something to send, or room for another post."""

    def __init__(
        self,
        desk: Desk,
        log: Log,
        share: float,
        expire_after: float,
        personal: Callable[[Claim], Single | None],
        undeliverable: Callable[[Claim, Told], Handed | None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        changed: Callable[[], None],
    ) -> None:
        self._desk, self._log = desk, log
        self._share, self._expire_after = share, expire_after
        self._personal, self._undeliverable = personal, undeliverable
        self._spawn, self._changed = spawn, changed
        self._ids = IdMaker()
        self._beginning: list[Claim] = []
        self._owed: list[Claim] = []  # to be given back as soon as the database allows
        self._mend_at = self._renew_at = 0.0
        self.stopping = False
        self.posts: deque[Active] = deque()  # the next to have its turn comes first

    # Posts come

    async def take_in(self) -> bool:
        """Claim what is due, if there is room; whether there was any. Trouble of the database is
        said, and there is nothing then."""
        try:
            await self._give_back_owed()
            await self._renew()
            taken = await self._claim()
        except Exception as error:
            self._in_trouble(error)
            return False
        self._beginning += taken
        for held in taken:
            self._spawn(self._begin(held))
        return bool(taken)

    async def _claim(self) -> list[Claim]:
        if time.monotonic() >= self._mend_at:
            await self._desk.write(lambda connection: queue.mend(connection, OUT))
            self._mend_at = time.monotonic() + MEND_EVERY
        room = MOST_ACTIVE - len(self._beginning) - len(self.posts)
        octets = MOST_OCTETS - sum(len(held.raw) for held in self._beginning)
        octets -= sum(post.content.size for post in self.posts)
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
            if order.kind == "post" and held.list_key is None:
                raise _Defect("its list was removed: it has nobody to go to")
            made = await self._desk.write(lambda connection: self._expand(connection, held, order))
            content = await asyncio.to_thread(prepare, held.raw)
            single = await asyncio.to_thread(self._personal, held) if order.personal else None
        except Exception as error:
            await self._fail(held, error)
            return
        finally:
            self._beginning.remove(held)
        held = held._replace(raw=held.raw[:HEADER])  # what goes out is in `content`
        post = Active(held, order, made.created_at, content, single, self._share)
        self.posts.append(post)
        self.care_for(post)

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
        if of_the_database(error):
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

        try:
            await self.insist(put_aside)
        except Lost as lost:
            self._lost(held, lost)
            return
        event = "shunted" if held.attempts >= ATTEMPTS else "to be tried again"
        self._log.error(event, **facts)

    # Posts go on

    def care_for(self, post: Active) -> None:
        """Read on, begin another pass, or wind up, as the post needs it."""
        if post not in self.posts or self.stopping:
            return
        if post.wants_rows:
            post.reading = True
            self._spawn(self._read(post))
        elif post.is_stale(time.monotonic()) and not post.reading:
            post.reading = True
            self._spawn(self._look_again(post))
        elif post.passed:
            self.posts.remove(post)
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
            await asyncio.sleep(PAUSE)
        else:
            post.read(rows, WINDOW)
        post.reading = False
        if post.rows:
            self._changed()
        self.care_for(post)

    async def _look_again(self, post: Active) -> None:
        """Those in memory have waited: some may have left the list meanwhile."""
        number, (first, last) = post.held.id, post.numbers
        try:
            gone = await self._desk.read(lambda c: ledger.gone(c, number, first, last))
            if gone:
                await self._desk.write(lambda c: ledger.leave_out(c, number, gone))
        except Exception as error:
            self._in_trouble(error)
            await asyncio.sleep(PAUSE)
        else:
            post.leave_out(frozenset(gone))
        post.reading = False
        self._changed()
        self.care_for(post)

    async def _wind_up(self, post: Active) -> None:
        """A pass is over: the post is done, or goes on now or later."""
        held, now = post.held, time.time()
        try:
            if now - post.created_at > self._expire_after:
                while await self._desk.write(lambda c: self._expire(c, post)):
                    pass
            next_at = await self._desk.write(lambda c: self._settle(c, post, now))
        except Lost as error:
            self._lost(held, error)
        except Exception as error:
            await self._fail(held, error)
        else:
            if next_at is not None and next_at - now <= SHORT:
                pause = SHORT if post.has_waiting else max(0.0, next_at - now)
                post.again(time.monotonic() + pause)
                self.posts.append(post)
                self.care_for(post)
        self._changed()

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

    # What was achieved

    async def write_down(self, some: Sequence[tuple[Active, Record]]) -> None:
        """Durable when it returns. A post of which it cannot be written is let go of alone."""
        failed = await self.insist(partial(self.record, some))
        for post, _ in some:
            post.suspected = False
        for post, error in failed:
            if post in self.posts:
                self.posts.remove(post)
                self._spawn(self._fail(post.held, error))

    def record(
        self, some: Sequence[tuple[Active, Record]], connection: Connection
    ) -> list[tuple[Active, Exception]]:
        """What transactions achieved, and refusals handed on; returns what could not be."""
        records: dict[Active, list[Record]] = {}
        for post, each in some:
            records.setdefault(post, []).append(each)
        failed: list[tuple[Active, Exception]] = []
        for post, every in records.items():
            try:
                with connection.begin_nested():
                    ledger.record(connection, self._ids, post.held.id, every)
                    if post.suspected:
                        queue.forgive(connection, post.held)
                    told = (each for one in every for each in one.told)
                    self._tell(connection, post, [each for each in told if each.again_at is None])
            except Exception as error:
                if of_the_database(error):
                    raise
                failed.append((post, error))
        return failed

    def _tell(self, connection: Connection, post: Active, refused: Sequence[Told]) -> None:
        """Hand refusals on: members' to `bounces`, others' to the site's owner."""
        if not refused:
            return
        if post.order.kind == "post":
            handed = [ledger.bounce(post.held, post.order, refused)]
        else:
            handed = [one for each in refused if (one := self._undeliverable(post.held, each))]
        if not ledger.has_list(connection, post.held.list_key):  # it was removed meanwhile
            handed = [each._replace(list_key=None) for each in handed]
        hand_on(connection, self._ids, handed)

    # Leases

    async def hand_back(self) -> None:
        """Give back what is not done."""
        for held in [*self._owed, *(post.held for post in self.posts)]:
            with contextlib.suppress(Exception):  # its lease runs out
                await self._desk.write(partial(_give_back, held))

    async def _give_back_owed(self) -> None:
        while self._owed:
            held = self._owed[0]
            with contextlib.suppress(Lost):
                await self._desk.write(partial(_give_back, held))
            self._owed.remove(held)

    async def _renew(self) -> None:
        """Hold on to the posts under way; let go of what another took over."""
        if time.monotonic() < self._renew_at:
            return
        claims = [post.held for post in self.posts]
        kept = await self._desk.write(lambda c: queue.renew(c, claims, LEASE))
        ours, asked = {each.id for each in kept}, {each.id for each in claims}
        for post in list(self.posts):
            if post.held.id in asked - ours:
                self.posts.remove(post)
                self._lost(post.held, "another worker has it")
        self._renew_at = time.monotonic() + RENEW_EVERY

    def _lost(self, held: Claim, why: object) -> None:
        self._log.warning("lease lost", queue=OUT, entry=ids.show(held.id), reason=str(why))

    # The database

    async def insist(self, act: Callable[[Connection], T]) -> T:
        """Write what must be written, however long the database is in trouble."""
        pause = PAUSE
        while True:
            try:
                return await self._desk.write(act)
            except Exception as error:
                if not of_the_database(error):
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


class _Defect(Exception):
    """A post that is put aside; `str()` says why."""


def of_the_database(error: Exception) -> bool:
    """Whether the database is in trouble, rather than one post."""
    return not diagnose(error, committing=False).one_envelope


def _give_back(held: Claim, connection: Connection) -> None:
    queue.give_back(connection, held)
