"""The book: what must be written, is written.

For: the courier and its docket. Guarantees: what is written is durable when the call returns,
however long the database is in trouble meanwhile; what a commit of unknown outcome has written
is not written again; a post whose record cannot be written, or whose lease is lost, is named, and
the others go on. Trouble that needs a new process is raised. Used from one event loop; the
database is touched by the desk's thread alone.
"""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from sqlalchemy import Connection

from postroom.base.observe import Log
from postroom.delivery import ledger
from postroom.delivery.active import Active
from postroom.delivery.desk import Desk
from postroom.delivery.ledger import Record, Told
from postroom.spool import queue
from postroom.spool.handing import Handed, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT
from postroom.spool.queue import Claim, Lost
from postroom.spool.trouble import diagnose, of_the_database

PAUSE, LONGEST_PAUSE = 1.0, 30.0  # seconds between attempts, while the database is in trouble
T = TypeVar("T")
LOST = "another worker has it"
Failed = list[tuple[Active, Exception]]  # posts of which it could not be written, and why
# What the site's owner is told of one who could not be reached, made in a transaction.
Undeliverable = Callable[[Connection, Claim, Told], Handed | None]


class Book:
    """One for a courier and its docket."""

    def __init__(self, desk: Desk, log: Log, undeliverable: Undeliverable) -> None:
        self._desk, self._log, self._undeliverable = desk, log, undeliverable
        self.ids = IdMaker()

    async def write(self, some: Sequence[tuple[Active, Record]]) -> Failed:
        """What transactions achieved; durable when it returns. Returns what failed."""
        tried = False

        def act(connection: Connection) -> Failed:
            nonlocal tried
            again, tried = tried, True
            return self.record(some, connection, again)

        return await self.insist(act)

    def record(
        self, some: Sequence[tuple[Active, Record]], connection: Connection, again: bool = False
    ) -> Failed:
        """The same, in a transaction. `again` if it may be there already: the outcome of a commit
        is not always known."""
        there = ledger.known(connection, [each.id for _, each in some]) if again else set()
        records: dict[Active, list[Record]] = {}
        for post, each in some:
            if each.id not in there:
                records.setdefault(post, []).append(each)
        failed: Failed = []
        for post, every in records.items():
            try:
                with connection.begin_nested():
                    self._record(connection, post, every)
            except Exception as error:
                if of_the_database(error):
                    raise
                failed.append((post, error))
        ours = queue.still_ours(connection, [post.held for post in records])
        failed += [
            (post, Lost(LOST)) for post in records if (post.held.id, post.held.lease) not in ours
        ]
        return failed

    def _record(self, connection: Connection, post: Active, every: Sequence[Record]) -> None:
        ledger.record(connection, post.held.id, every)
        if post.suspected:
            queue.forgive(connection, post.held)
        told = (each for one in every for each in one.told)
        self._tell(connection, post, [each for each in told if each.again_at is None])

    def expire(self, connection: Connection, post: Active, most: int) -> bool:
        """Give up on up to `most` recipients who wait; whether there were as many."""
        late = ledger.expire(connection, self.ids, post.held, most)
        self._tell(connection, post, late)
        return len(late) == most

    def _tell(self, connection: Connection, post: Active, refused: Sequence[Told]) -> None:
        """Hand refusals on: of posts and probes to `bounces`, of others to the site's owner."""
        if not refused:
            return
        if post.order.kind in ("post", "probe"):
            handed = [ledger.bounce(post.held, post.order, refused)]
        else:
            reports = (self._undeliverable(connection, post.held, each) for each in refused)
            handed = [each for each in reports if each is not None]
        if not ledger.has_list(connection, post.held.list_key):  # it was removed meanwhile
            handed = [each._replace(list_key=None) for each in handed]
        hand_on(connection, self.ids, handed)

    async def insist(self, act: Callable[[Connection], T]) -> T:
        """Write what must be written, however long the database is in trouble."""
        pause = PAUSE
        while True:
            try:
                return await self._desk.write(act)
            except Exception as error:
                if not of_the_database(error):
                    raise
                self.in_trouble(error)
                await asyncio.sleep(pause)
                pause = min(pause * 2, LONGEST_PAUSE)

    def in_trouble(self, error: Exception) -> None:
        """Say so, and wait. Raises what needs a new process."""
        trouble = diagnose(error, committing=False)
        if trouble.unhealthy or trouble.one_envelope:
            raise error
        self._log.error("queue not served", queue=OUT, reason=str(trouble))
