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
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from sqlalchemy import Connection, select

from postroom.base.observe import Facts, Log
from postroom.delivery import ledger
from postroom.delivery.active import WINDOW, Active, Single
from postroom.delivery.book import LOST, Book
from postroom.delivery.desk import Desk
from postroom.delivery.ledger import Expanded
from postroom.delivery.transaction import prepare
from postroom.spool import ids, queue, steps
from postroom.spool.orders import OUT, Order, order_of
from postroom.spool.queue import Claim, Lost
from postroom.spool.steps import Step
from postroom.spool.trouble import of_the_database

MOST_ACTIVE = 20  # posts under way
MOST_OCTETS = 33_554_432  # of their messages, but always one
HEADER = 16_384  # octets of a message that are kept for reports
LEASE, RENEW_EVERY = 120.0, 30.0  # seconds
MEND_EVERY = 60.0  # seconds
PROVED = 20.0  # seconds after which a suspect is none any more
ALONE = 10.0  # seconds that a suspect has no company
PLACE = 15.0  # seconds that a post waits elsewhere when its place is wanted
PAUSE = 1.0  # seconds between looks, while the database is in trouble
SHORT = 5.0  # seconds that a post may wait in memory for its next recipient


class Docket:
    """The posts under way. `spawn` has work done beside; `changed` is called when there is
    something to send, or room for another post."""

    def __init__(
        self,
        desk: Desk,
        book: Book,
        log: Log,
        share: float,
        expire_after: float,
        personal: Callable[[Claim], Single | None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        changed: Callable[[], None],
    ) -> None:
        self._desk, self._book, self._log = desk, book, log
        self._share, self._expire_after = share, expire_after
        self._personal = personal
        self._spawn, self._changed = spawn, changed
        self._beginning: list[Claim] = []
        self._ending: list[Active] = []
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
            await self._keep()
            taken = await self._claim()
        except Exception as error:
            self._book.in_trouble(error)
            return False
        beginning = {held.id for held in self._beginning}
        self._owed += [held for held in taken if held.id in beginning]
        taken = [held for held in taken if held.id not in beginning]
        for held in taken:
            for post in [post for post in self.posts if post.held.id == held.id]:
                self._let_go(post, "it was claimed again")
        self._beginning += taken
        for held in taken:
            self._spawn(self._begin(held))
        return bool(taken)

    async def _claim(self) -> list[Claim]:
        room, octets = self._room()
        if room <= 0 or octets <= 0 or self._has_suspect():
            return []
        if not await self._desk.read(lambda connection: queue.is_due(connection, OUT)):
            return []
        return await self._desk.write(
            lambda connection: queue.claim(connection, OUT, room, LEASE, octets=octets)
        )

    def _room(self) -> tuple[int, int]:
        """For how many more posts there is room, and for how many octets of their messages."""
        posts = [*self.posts, *self._ending]
        octets = sum(len(held.raw) for held in self._beginning)
        octets += sum(post.content.size for post in posts)
        return MOST_ACTIVE - len(self._beginning) - len(posts), MOST_OCTETS - octets

    def _has_suspect(self) -> bool:
        """Whether there is a post that may have killed a process: it has no company, so that
        nothing else is suspected if it does so again. Not for long, for it may just be slow."""
        since = time.monotonic() - ALONE
        waiting = any(post.suspected and post.begun_at > since for post in self.posts)
        return waiting or any(held.attempts > 1 for held in self._beginning)

    async def _begin(self, held: Claim) -> None:
        """Take up a post: expand its recipients, if that is still to be done."""
        try:
            if held.attempts > queue.ATTEMPTS:
                raise _Defect(f"{held.attempts - 1} attempts ended with the process that made them")
            order = order_of(held.metadata)
            if order.kind == "post" and held.list_key is None:
                raise _Defect("its list was removed: it has nobody to go to")
            made = await self._desk.write(lambda connection: self._expand(connection, held, order))
            content = await asyncio.to_thread(prepare, held.raw)
            single = await asyncio.to_thread(self._personal, held) if order.personal else None
        except asyncio.CancelledError:
            self._owed.append(held)
            raise
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
        steps.write(connection, self._book.ids, [told])

    async def _fail(self, held: Claim, error: Exception) -> None:
        """A post cannot be taken up, or wound up: later, or never."""
        if of_the_database(error):
            self._book.in_trouble(error)
            self._owed.append(held)
            return
        reason = "".join(traceback.format_exception(error))
        facts: Facts = {"queue": OUT, "entry": ids.show(held.id), "attempts": held.attempts}
        facts["reason"] = reason.rstrip().rpartition("\n")[2]
        try:
            delay = await self._book.insist(lambda c: queue.fail(c, held, reason))
        except Lost as lost:
            self._lost(held, lost)
            return
        if delay is None:
            self._log.error("shunted", **facts)
        else:
            self._log.error("to be tried again", **facts, again_in=delay)

    # Posts go on

    def care_for(self, post: Active) -> None:
        """Read on, begin another pass, or wind up, as the post needs it."""
        if post not in self.posts or self.stopping:
            return
        now = time.monotonic()
        if post.wants_rows and post.not_before <= now:
            post.reading = True
            self._spawn(self._read(post))
        elif post.is_stale() and not post.reading:
            post.reading = True
            self._spawn(self._look_again(post))
        elif post.passed:
            self.posts.remove(post)
            self._ending.append(post)
            self._spawn(self._wind_up(post))

    async def _read(self, post: Active) -> None:
        held, after, waiting = post.held, post.cursor, frozenset(post.waiting)
        try:
            rows = await self._desk.read(lambda c: ledger.due(c, held, after, WINDOW, waiting))
            gone = [row.n for row in rows if not row.there]
            if gone:
                await self._desk.write(lambda c: ledger.leave_out(c, held, gone))
        except Exception as error:
            if not of_the_database(error):
                self.give_up(post, error)
                return
            self._book.in_trouble(error)
            await asyncio.sleep(PAUSE)
        else:
            post.read(rows, WINDOW)
        post.reading = False
        if post.rows:
            self._changed()
        self.care_for(post)

    async def _look_again(self, post: Active) -> None:
        """Those in memory have waited: some may have left the list meanwhile."""
        held, (first, last) = post.held, post.numbers
        try:
            gone = await self._desk.read(lambda c: ledger.gone(c, held, first, last))
            if gone:
                await self._desk.write(lambda c: ledger.leave_out(c, held, gone))
        except Exception as error:
            if not of_the_database(error):
                self.give_up(post, error)
                return
            self._book.in_trouble(error)
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
                while await self._desk.write(lambda c: self._book.expire(c, post, WINDOW)):
                    pass
            room, octets = self._room()
            crowded = room <= 0 or octets <= 0  # others want the place
            wait, counts = await self._desk.write(lambda c: self._settle(c, post, now, crowded))
        except asyncio.CancelledError:
            self._owed.append(held)
            raise
        except Lost as error:
            self._lost(held, error)
        except Exception as error:
            await self._fail(held, error)
        else:
            if counts:
                facts: Facts = {"entry": ids.show(held.id), "message_id": post.order.message_id}
                self._log.info("delivered", **facts, **counts)
            if wait is not None:
                post.again(time.monotonic() + wait)
                self.posts.append(post)
        finally:
            self._ending.remove(post)
        self.care_for(post)
        self._changed()

    def _settle(
        self, connection: Connection, post: Active, now: float, crowded: bool
    ) -> tuple[float | None, dict[str, int]]:
        """Finish a post, or put it off. Returns how many seconds it waits here, None if it does
        not; and how many recipients came to what, if it is done."""
        held = post.held
        if not connection.scalar(select(queue.is_ours(held))):
            raise Lost(LOST)
        next_at = ledger.next_due(connection, held.id)
        if next_at is None:
            ledger.done(connection, held.id)
            counts = ledger.counts(connection, held.id)
            self._step(connection, held, post.order, "done", counts)
            queue.finish(connection, [held])
            return None, counts or {"recipients": 0}
        wait = max(0.0, next_at - now, post.rest, SHORT if post.has_waiting else 0.0)
        if wait > SHORT or (wait and crowded):
            queue.put_off(connection, held, max(wait, PLACE if crowded else 0.0), None)
            return None, {}
        return wait, {}

    def written(self, posts: Iterable[Active], failed: Iterable[tuple[Active, Exception]]) -> None:
        """What these posts achieved was written; those of which it could not be are let go of."""
        for post, error in failed:
            if isinstance(error, Lost):
                self._let_go(post, str(error))
            else:
                self.give_up(post, error)
        for post in posts:
            if post.suspected:
                post.trust()
                self._changed()

    def give_up(self, post: Active, error: Exception) -> None:
        """Something of this post fails again and again: the others go on without it."""
        if post in self.posts:
            self.posts.remove(post)
            self._spawn(self._fail(post.held, error))
            self._changed()

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

    async def _keep(self) -> None:
        """Hold on to the posts under way, and let go of what another took over; then free what
        others have lost. In this order and at once, lest a clock that jumps makes us free and
        claim our own."""
        now = time.monotonic()
        if now < self._renew_at and now < self._mend_at:
            return
        claims = [*self._beginning, *(post.held for post in [*self.posts, *self._ending])]
        mends = now >= self._mend_at
        # What has lived here for so long killed nobody.
        trusted = [each for each in self.posts if each.suspected and each.begun_at <= now - PROVED]

        def keep(connection: Connection) -> list[Claim]:
            at = time.time()
            kept = queue.renew(connection, claims, LEASE, at)
            for each in trusted:
                queue.forgive(connection, each.held)
            if mends:
                queue.mend(connection, OUT, at)
            return kept

        kept = {(each.id, each.lease) for each in await self._desk.write(keep)}
        for each in trusted:
            each.trust()
        asked = {(each.id, each.lease) for each in claims}
        for post in list(self.posts):
            if (post.held.id, post.held.lease) in asked - kept:
                self._let_go(post, LOST)
        self._renew_at = now + RENEW_EVERY
        if mends:
            self._mend_at = now + MEND_EVERY

    def _let_go(self, post: Active, why: str) -> None:
        if post in self.posts:
            self.posts.remove(post)
            self._lost(post.held, why)

    def _lost(self, held: Claim, why: object) -> None:
        self._log.warning("lease lost", queue=OUT, entry=ids.show(held.id), reason=str(why))


class _Defect(Exception):
    """A post that is put aside; `str()` says why."""


def _give_back(held: Claim, connection: Connection) -> None:
    queue.give_back(connection, held)
