"""Upkeep: what is to be done now and then, whether or not mail comes.

For: summaries for owners, the end of requests that nobody answered, what time does to members
whose mail came back, and forgetting what nobody will ask for any more. Guarantees: each step is
a short transaction of its own, so the mail hardly notices; what goes wrong is said and tried
again a minute later. A clock that is a year ahead ends all requests, forgets early what became of
messages and who changed what, and ends the waiting for answers to warnings: where a list removes
members, who had the last one is removed. Used from one event loop; works in another thread.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable

from sqlalchemy import Connection

from postroom.base.observe import Log
from postroom.bounces.moving import move_on
from postroom.delivery import care
from postroom.lists import audit, limits, pending
from postroom.notices import courtesy
from postroom.notices.sheet import House
from postroom.notices.telling import bounce_summaries, summaries
from postroom.spool.handing import Handed, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.steps import purge_steps
from postroom.store.engine import Store

EVERY = 60.0  # seconds
STEPS, ROWS = 20, 2000  # transactions of one kind at a time, rows of each
MEMBERS = 25  # of one transaction, whose mail came back


class Upkeep:
    """`kept` is how many seconds can be looked up what became of a message, `audit_kept` who
    changed what; `woken` is called when something was handed on."""

    def __init__(
        self,
        store: Store,
        house: House,
        kept: float,
        audit_kept: float,
        log: Log,
        woken: Callable[[], None],
    ) -> None:
        self._store, self._house = store, house
        self._kept, self._audit_kept = kept, audit_kept
        self._log, self._woken = log, woken
        self._ids = IdMaker()
        self._stopping = asyncio.Event()
        self.turned_at = time.monotonic()

    async def run(self) -> None:
        """Look after things until stopped."""
        while not self._stopping.is_set():
            self.turned_at = time.monotonic()
            try:
                await asyncio.to_thread(self.turn)
            except Exception as error:  # nothing of it is the mail's concern
                reason = " ".join(str(getattr(error, "orig", None) or error).split())
                self._log.warning("upkeep put off", reason=reason)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(EVERY):
                    await self._stopping.wait()

    def wake(self) -> None:
        """New mail does not concern it."""

    def stop(self) -> None:
        """End after the step in hand. Called in the loop's thread."""
        self._stopping.set()

    def turn(self) -> None:
        """Do what is due."""
        now = time.time()
        with self._store.begin() as connection:
            told = summaries(connection, self._house, now)
            hand_on(connection, self._ids, told)
        if told:
            self._log.info("owners told", lists=len(told))
            self._woken()
        self._in_steps(lambda connection: self._expire(connection, now))
        moved: list[Handed] = []
        self._in_steps(lambda connection: self._move_on(connection, now, moved))
        with self._store.begin() as connection:
            lost = bounce_summaries(connection, self._house, now)
            hand_on(connection, self._ids, lost)
        if moved or lost:
            self._woken()
        before = now - self._kept
        self._in_steps(lambda connection: care.purge(connection, before, ROWS))
        self._in_steps(lambda connection: purge_steps(connection, before))
        self._in_steps(lambda connection: courtesy.forget(connection, now), steps=1)
        self._in_steps(lambda connection: limits.purge_limits(connection, now, ROWS))
        changed = now - self._audit_kept
        self._in_steps(lambda connection: audit.purge_audit(connection, changed, ROWS))

    def _expire(self, connection: Connection, now: float) -> int:
        """End requests that nobody answered in time; returns how many."""
        ended = pending.expire(connection, now, ROWS)
        changes = [
            audit.Change(
                list_id,
                "expired",
                request.email,
                "postroom",
                {"action": request.action, "state": request.state},
            )
            for request, list_id in ended
        ]
        audit.write(connection, self._ids, changes, now)
        return len(ended)

    def _move_on(self, connection: Connection, now: float, handed: list[Handed]) -> int:
        """Members whose mail came back, on whom time acts; returns how many. Their letters are
        added to `handed`."""
        moved = move_on(connection, self._house, now, MEMBERS)
        hand_on(connection, self._ids, moved.handed)
        handed += moved.handed
        return moved.members

    def _in_steps(self, forget: Callable[[Connection], int], steps: int = STEPS) -> None:
        for _ in range(steps):
            with self._store.begin() as connection:
                gone = forget(connection)
            if not gone or self._stopping.is_set():
                return
