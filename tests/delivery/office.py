"""A post office for tests of delivery: a list with members, posts in `out`, and couriers.

For: looking at what couriers do, without waiting for time to pass. Guarantees: the store, the
courier, the pool and the connections are the real ones; `until` looks again whenever the
courier's database connection came back or something was logged, so nothing is polled.
"""

import asyncio
import contextlib
import io
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, TypeVar

import pytest
from sqlalchemy import Connection, event, select, update
from sqlalchemy.exc import OperationalError

from postroom.base.observe import Log
from postroom.base.places import Tcp
from postroom.base.settings import LogSettings
from postroom.delivery import book as book_module
from postroom.delivery import courier as courier_module
from postroom.delivery import docket as docket_module
from postroom.delivery import pool as pool_module
from postroom.delivery.access import Access
from postroom.delivery.active import Single
from postroom.delivery.book import Undeliverable
from postroom.delivery.courier import Courier, Terms
from postroom.delivery.destinations import Destinations, Limit
from postroom.delivery.ledger import STATES
from postroom.delivery.policy import Limits
from postroom.delivery.pool import Pool
from postroom.lists.registry import create_list
from postroom.lists.roster import add_members, person
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT, Order
from postroom.spool.queue import Claim
from postroom.store import schema
from postroom.store.engine import Store, open_store
from tests.delivery.servers import MailServer

PATIENCE = 30.0  # seconds after which a test is stuck
LIST, SENDER = "ants@example.com", "ants-bounces@example.com"
RAW = b"From: ann@example.org\r\nSubject: hello\r\nMessage-ID: <ant@example.org>\r\n\r\nHello.\r\n"
ACCESS = Access("lists.example.com", "never")
T = TypeVar("T")


def people(number: int) -> list[str]:
    """So many members, the n-th recipient is `p<n>`."""
    return [f"p{n}@example.net" for n in range(1, number + 1)]


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    """All pauses are short: tests look at what is done after them."""
    monkeypatch.setattr(courier_module, "POLL", 0.01)
    monkeypatch.setattr(courier_module, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(docket_module, "PAUSE", 0.01)
    monkeypatch.setattr(book_module, "PAUSE", 0.01)
    monkeypatch.setattr(book_module, "LONGEST_PAUSE", 0.01)
    monkeypatch.setattr(pool_module, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(pool_module, "LONGEST_PAUSE", 0.02)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> "Clock":
    """A clock that is right."""
    return Clock(monkeypatch)


class Clock:
    """What all of the process takes for the time of day."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ahead = 0.0  # seconds
        right = time.time
        monkeypatch.setattr(time, "time", lambda: right() + self.ahead)


class Transactions:
    """Counts those that are begun on a store."""

    def __init__(self, store: Store) -> None:
        self.all = self.writing = 0
        event.listen(store.engine, "begin", self._begun)

    def _begun(self, connection: Connection) -> None:
        self.all += 1
        self.writing += not connection.get_execution_options().get("postroom_read")

    async def looks(self, office: "Office", many: int) -> None:
        """Wait until there were so many more."""
        enough = self.all + many
        await office.until(lambda: self.all >= enough, "looks")


class Recipient(NamedTuple):
    """What the ledger has of one; `at` is when the last transaction was."""

    n: int
    email: str
    state: str
    attempts: int
    next_at: float | None
    reply: str | None
    at: float | None


class Post(NamedTuple):
    """An entry of `out`, or what became of it."""

    queue: str
    attempts: int
    lease: str | None
    available_at: float
    last_error: str | None


class _Target(io.StringIO):
    """A log that tells when something was written."""

    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def flush(self) -> None:
        self._told()


class Office:
    """One list, ants@example.com, and its posts."""

    def __init__(self, store: Store, members: Sequence[str] = ()) -> None:
        self.store = store
        self._look = open_store(store.engine.url.render_as_string(hide_password=False))
        self._ids = IdMaker()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._changed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._target = _Target(self._tell)
        self.log = Log(LogSettings(format="json"), self._target)
        event.listen(store.engine, "checkin", lambda *_: self._tell())
        with store.begin() as connection:
            self.key = create_list(connection, LIST).key
        self.join(*members)

    def close(self) -> None:
        self._look.close()

    def _tell(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the test's loop has ended
                self._loop.call_soon_threadsafe(self._changed.set)

    # What a test does

    def join(self, *members: str) -> None:
        """Make these members."""
        with self.store.begin() as connection:
            add_members(connection, self.key, [person(each) for each in members], "member")

    def post(self, raw: bytes = RAW, **order: Any) -> int:
        """Put a post to the members into `out`; returns its id."""
        return self.order(Order("post", SENDER, "<ant@example.org>", **order), raw)

    def notice(self, *recipients: str, raw: bytes = RAW) -> int:
        """Put a notice into `out`."""
        return self.order(Order("notice", "", "<note@example.com>", recipients), raw)

    def order(self, order: Order, raw: bytes = RAW, *, ours: bool = True) -> int:
        """Put anything into `out`, the list's or the site's own."""
        facts = order.metadata(LIST if ours else "", len(raw))
        handed = Handed(OUT, self.key if ours else None, facts, Letter(raw, order.sender))
        with self.store.begin() as connection:
            return hand_on(connection, self._ids, [handed])[0]

    def writing(self) -> AbstractContextManager[Connection]:
        """A writing transaction that the courier's connections know nothing of."""
        return self._look.begin()

    def change(self, number: int, **values: object) -> None:
        """Change columns of an entry behind everybody's back."""
        with self.writing() as connection:
            entry = update(schema.entry).where(schema.entry.c.id == number).values(**values)
            assert connection.execute(entry).rowcount == 1

    def make_due(self, number: int) -> None:
        """Whoever of a post waits is due now, and so is its entry."""
        waits = schema.delivery.c.next_at.is_not(None) & (schema.delivery.c.post == number)
        with self.writing() as connection:
            connection.execute(update(schema.delivery).where(waits).values(next_at=0.0))
        self.change(number, available_at=0.0, retried_at=None)

    # What a test sees

    def look(self, statement: Any) -> Sequence[Any]:
        """Rows, as others see them. Some tests end all connections, also the one looked with."""
        for _ in range(3):
            with contextlib.suppress(OperationalError), self._look.read() as connection:
                return connection.execute(statement).all()
        with self._look.read() as connection:
            return connection.execute(statement).all()

    def recipients(self, number: int) -> list[Recipient]:
        """The ledger of a post."""
        one, by = schema.delivery.c, schema.transmission.c
        found = (
            select(one.n, one.email, one.state, one.attempts, one.next_at, one.reply, by.at)
            .join_from(
                schema.delivery, schema.transmission, by.id == one.transmission, isouter=True
            )
            .where(one.post == number)
            .order_by(one.n)
        )
        return [
            Recipient(n, email, STATES[state], *rest) for n, email, state, *rest in self.look(found)
        ]

    def of(self, number: int, state: str) -> set[str]:
        """Recipients in a state: `p1`, `p2`..."""
        found = self.recipients(number)
        return {each.email.partition("@")[0] for each in found if each.state == state}

    def entry(self, number: int) -> Post | None:
        """An entry, None if it is done."""
        this = schema.entry.c
        columns = (this.queue, this.attempts, this.lease, this.available_at, this.last_error)
        found = self.look(select(*columns).where(this.id == number))
        return Post(*found[0]) if found else None

    def facts(self, queue: str) -> list[dict[str, Any]]:
        """The metadata of a queue's entries, oldest first."""
        this = schema.entry.c
        found = self.look(select(this.metadata).where(this.queue == queue).order_by(this.id))
        return [json.loads(text) for (text,) in found]

    def transactions(self, number: int) -> list[tuple[int, str]]:
        """Those with the mail server: how many recipients each had, and its reply."""
        this = schema.transmission.c
        chosen = select(this.recipients, this.reply).where(this.post == number)
        return [tuple(row) for row in self.look(chosen.order_by(this.id))]

    def steps(self) -> list[tuple[str, dict[str, Any]]]:
        """All steps, oldest first."""
        found = self.look(
            select(schema.step.c.what, schema.step.c.facts).order_by(schema.step.c.id)
        )
        return [(what, json.loads(facts)) for what, facts in found]

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        lines = map(json.loads, self._target.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    # Waiting

    async def until(self, look: Callable[[], T], what: str = "") -> T:
        """Wait until this holds; it is looked at when something was committed or logged."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PATIENCE):
                while True:
                    self._changed.clear()
                    if found := look():
                        return found
                    assert self._task is None or not self._task.done(), self._task
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(f"{what}: {self._target.getvalue()[-2000:]}") from None

    async def done(self, *numbers: int) -> None:
        """Wait until these posts are done."""
        await self.until(lambda: all(self.entry(each) is None for each in numbers), "done")

    async def put_off(self, number: int) -> None:
        """Wait until a post is in nobody's hands, with more to do later."""

        def look() -> bool:
            found = self.entry(number)
            assert found is not None, "it is done"
            return found.lease is None and found.available_at > time.time()

        await self.until(look, "put off")

    # Couriers

    def courier(
        self,
        *servers: MailServer | int,
        recipients: int = 100,
        share: float = 0.0,
        limits: Limits | None = None,
        places: Mapping[str, Limit] | None = None,
        connections: int = 4,
        personal: Callable[[Claim], Single | None] = lambda held: None,
        undeliverable: Undeliverable = lambda connection, held, told: None,
    ) -> Courier:
        """A courier that nobody has started."""
        self._loop = asyncio.get_running_loop()
        ports = [each if isinstance(each, int) else each.port for each in servers]
        where = [Tcp("127.0.0.1", port) for port in ports]
        pool = Pool(where, ACCESS, self.log, connections)
        terms = Terms(recipients, share, limits or Limits(), Destinations(places or {}))
        return Courier(self.store, pool, terms, self.log, personal, undeliverable)

    @contextlib.asynccontextmanager
    async def working(self, *servers: MailServer | int, **how: Any) -> AsyncIterator[Courier]:
        """A courier at work, stopped at the end."""
        courier = self.courier(*servers, **how)
        self._task = task = asyncio.ensure_future(courier.run())
        task.add_done_callback(lambda _: self._changed.set())
        try:
            yield courier
            assert not task.done(), "it died"
        finally:
            self._task = None
            courier.stop()
            async with asyncio.timeout(PATIENCE):
                await task


def mails(server: MailServer) -> list[str]:
    """Who got mail from a server, as often as they did, sorted."""
    return sorted(each for taken in server.taken for each in taken.recipients)
