"""The docket: clocks that jump, leases that are lost, posts that wait."""

import asyncio
import threading
import time
from typing import Any, Self

import pytest
from sqlalchemy import event, select

from postroom.delivery import docket as docket_module
from postroom.delivery.active import Active
from postroom.delivery.book import Book
from postroom.delivery.desk import Desk
from postroom.delivery.destinations import Destinations, Limit
from postroom.delivery.docket import Docket
from postroom.delivery.policy import Limits
from postroom.spool import queue
from postroom.spool.queue import Claim
from postroom.store import schema
from tests.delivery.office import RAW, Clock, Office, Transactions, mails, people
from tests.delivery.servers import HOLD, MailServer, at, refusing, times
from tests.wire.harness import run

pytestmark = pytest.mark.usefixtures("brisk")
FAR = Limits(3600.0, 14_400.0)  # nobody is due again before the test is over
HOUR, YEAR = 3600.0, 365 * 86_400.0
POISON = RAW.replace(b"hello", b"poison")


def leased_until(office: Office, number: int) -> float:
    this = schema.entry.c
    [(found,)] = office.look(select(this.lease_until).where(this.id == number))
    return float(found or 0.0)


def lease_of(office: Office, number: int) -> str | None:
    entry = office.entry(number)
    assert entry is not None
    return entry.lease


def jumping(office: Office, clock: Clock) -> threading.Event:
    """When it is set the clock jumps at the courier's next look: not amid a transaction."""
    ready = threading.Event()

    def jump(_: object) -> None:
        if ready.is_set():
            clock.ahead = HOUR

    event.listen(office.store.engine, "begin", jump)
    return ready


# Clocks


def test_a_clock_that_jumps_ahead_sends_nothing_twice(
    any_office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Leases that ran out are freed at each look; its own is renewed before."""
    office = any_office
    monkeypatch.setattr(docket_module, "MEND_EVERY", 0.0)
    office.join(*people(30))

    async def test() -> None:
        with MailServer(times(1, at("END", HOLD))) as server:
            number, ready = office.post(), jumping(office, clock)
            async with office.working(server, recipients=10, connections=1):
                await server.hears("END")
                before = time.time()
                ready.set()
                await office.until(lambda: leased_until(office, number) > before + HOUR)
                server.release()
                await office.done(number)
        assert mails(server) == sorted(people(30))
        assert office.said("lease lost") == []

    run("asyncio", test)


def test_a_clock_that_jumps_ahead_while_a_post_is_taken_up_sends_nothing_twice(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "MEND_EVERY", 0.0)
    office.join(*people(3))
    taken_up, go_on = threading.Event(), threading.Event()

    def personal(held: Claim) -> Any:
        taken_up.set()
        assert go_on.wait(30)
        return lambda email: held.raw

    async def test() -> None:
        with MailServer() as server:
            number, ready = office.post(personal=True), jumping(office, clock)
            async with office.working(server, personal=personal):
                await asyncio.to_thread(taken_up.wait, 30)
                before = time.time()
                ready.set()
                await office.until(lambda: leased_until(office, number) > before + HOUR)
                go_on.set()
                await office.done(number)
        assert mails(server) == sorted(people(3))
        assert office.said("lease lost") == []

    run("asyncio", test)


def test_who_was_put_off_by_a_clock_that_was_wrong_gets_it_when_it_is_right(
    any_office: Office, clock: Clock
) -> None:
    office = any_office
    office.join(*people(3))
    later = refusing({"p2@example.net": "451 4.2.0 Later"})

    async def test() -> None:
        with MailServer(later) as server:
            clock.ahead = YEAR
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            clock.ahead = 0.0
            server.hooks.clear()
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert mails(server) == sorted(people(3))
        assert office.of(number, "refused") == set()

    run("asyncio", test)


# Leases


def test_a_post_that_is_claimed_again_replaces_itself(office: Office) -> None:
    """Somebody whose clock is ahead freed it."""
    office.join(*people(30))

    async def test() -> None:
        with MailServer() as server:
            server.stop()
            number = office.post()
            async with office.working(server, recipients=10, connections=1):
                await office.until(lambda: office.said("mail server"))
                office.change(number, lease=None, lease_until=None)
                [line] = await office.until(lambda: office.said("lease lost"))
                assert line["reason"] == "it was claimed again"
                server.start()
                await office.done(number)
        assert mails(server) == sorted(people(30))

    run("asyncio", test)


def test_a_post_that_is_claimed_again_while_it_is_taken_up_is_given_back(office: Office) -> None:
    """Somebody whose clock is ahead freed it."""
    office.join(*people(3))
    taken_up, go_on = threading.Event(), threading.Event()

    def personal(held: Claim) -> Any:
        taken_up.set()
        assert go_on.wait(30)
        return lambda email: held.raw

    async def test() -> None:
        with MailServer() as server:
            number, seen = office.post(personal=True), Transactions(office.store)
            async with office.working(server, personal=personal):
                await asyncio.to_thread(taken_up.wait, 30)
                first = lease_of(office, number)
                office.change(number, lease=None, lease_until=None)
                await office.until(lambda: lease_of(office, number) not in (None, first))
                await seen.looks(office, 2)  # so it knows of its claim
                go_on.set()
                await office.done(number)
        assert mails(server) == sorted(people(3))

    run("asyncio", test)


def test_who_lost_the_lease_sends_no_more_than_what_is_in_hand(any_office: Office) -> None:
    office = any_office
    office.join(*people(60))

    async def test() -> None:
        with MailServer(at("END", HOLD)) as server:
            number = office.post()
            async with office.working(server, recipients=10, connections=3):
                await server.hears("END", 3)
                office.change(number, lease="another's", attempts=2)
                server.release()
                await office.until(lambda: office.said("lease lost"))
                await office.done(office.notice("ann@example.org"))
        assert len(server.taken) == 4
        assert len(office.of(number, "sent")) == 30, "what was sent is written down"
        entry = office.entry(number)
        assert entry is not None
        assert (entry.lease, entry.attempts) == ("another's", 2)

    run("asyncio", test)


def test_who_lost_the_lease_and_waited_sends_nothing_more(any_office: Office, clock: Clock) -> None:
    office = any_office
    office.join(*people(30))

    async def test() -> None:
        with MailServer() as server:
            server.stop()
            number = office.post()
            async with office.working(server):
                await office.until(lambda: office.said("mail server"))
                office.change(number, lease="another's")
                clock.ahead = 10.0  # what is in memory is not fresh any more
                await office.until(lambda: office.said("lease lost"))
                server.start()
                await office.done(office.notice("ann@example.org"))
        assert mails(server) == ["ann@example.org"]
        assert len(office.of(number, "pending")) == 30

    run("asyncio", test)


# Waiting


class Alone:
    """A docket without a courier, that does nothing but what a test says. Some of the members
    are at slow.example, which takes nobody just now."""

    def __init__(self, office: Office) -> None:
        self._desk = Desk(office.store)
        self._tasks: set[asyncio.Task[None]] = set()
        book = Book(self._desk, office.log, lambda connection, held, told: None)
        self.docket = Docket(
            self._desk,
            book,
            office.log,
            0.0,
            HOUR,
            lambda held: None,
            lambda work: self._tasks.add(asyncio.ensure_future(work)),
            lambda: None,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._desk.close()

    async def rest(self) -> None:
        """Wait until nothing is going on."""
        while self._tasks:
            done, self._tasks = self._tasks, set()
            await asyncio.gather(*done)

    async def take_up(self) -> list[Active]:
        """Take up what is due; all recipients must wait."""
        await self.docket.take_in()
        await self.rest()
        places = Destinations({"slow.example": Limit(per_minute=1)})
        places.begin("slow.example", 1)
        for post in self.docket.posts:
            post.resume(places, 0.0)
            assert post.take(100, False, places, 0.0) is None
        return list(self.docket.posts)


def test_a_post_that_waits_for_its_next_recipient_leaves_the_database_alone(
    office: Office,
) -> None:
    office.join(*people(3))
    later = refusing({"p2@example.net": "451 4.2.0 Later"})

    async def test() -> None:
        with MailServer(times(1, later)) as server:
            number = office.post()
            seen = Transactions(office.store)
            async with office.working(server, limits=Limits(4.0, 4.0)):
                await office.until(lambda: len(office.of(number, "sent")) == 2)
                before = seen.writing
                await seen.looks(office, 40)
                assert seen.writing - before <= 3
                assert office.entry(number) is not None

    run("asyncio", test)


def bounded(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    """There is room for two posts."""
    if bound == "posts":
        monkeypatch.setattr(docket_module, "MOST_ACTIVE", 2)
    else:
        monkeypatch.setattr(docket_module, "MOST_OCTETS", 2 * len(RAW))


@pytest.mark.parametrize("bound", ["posts", "octets"])
def test_a_post_that_waits_for_a_limited_destination_makes_room_for_others(
    office: Office, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    bounded(monkeypatch, bound)
    office.join("a@slow.example", "b@slow.example")

    async def test() -> None:
        numbers = [office.post(), office.post()]
        async with Alone(office) as alone:
            one, two = await alone.take_up()
            assert [one.held.id, two.held.id] == numbers
            other = office.notice("ann@example.org")
            assert not await alone.docket.take_in(), "there is no room"
            alone.docket.care_for(one)
            await alone.rest()
            await alone.docket.take_in()
            await alone.rest()
            assert [post.held.id for post in alone.docket.posts] == [numbers[1], other]
        entry = office.entry(numbers[0])
        assert entry is not None
        assert (entry.queue, entry.attempts, entry.lease) == ("out", 0, None)

    run("asyncio", test)


@pytest.mark.parametrize("bound", ["posts", "octets"])
def test_posts_that_wait_for_it_at_the_same_time_make_room_too(
    office: Office, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    bounded(monkeypatch, bound)
    office.join("a@slow.example", "b@slow.example")

    async def test() -> None:
        for _ in range(2):
            office.post()
        async with Alone(office) as alone:
            posts = await alone.take_up()
            other = office.notice("ann@example.org")
            for post in posts:
                alone.docket.care_for(post)
            await alone.rest()
            await alone.docket.take_in()
            await alone.rest()
            assert other in [post.held.id for post in alone.docket.posts]

    run("asyncio", test)


@pytest.mark.parametrize("bound", ["posts", "octets"])
def test_others_are_delivered_while_posts_wait_for_a_limited_destination(
    office: Office, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    bounded(monkeypatch, bound)
    office.join("a@slow.example", "b@slow.example", "c@slow.example")

    async def test() -> None:
        with MailServer() as server:
            places = {"slow.example": Limit(per_minute=1)}
            numbers = [office.post() for _ in range(3)]
            async with office.working(server, places=places):
                await office.until(lambda: server.taken)
                await office.done(office.notice("ann@example.org"))
            waiting = [office.entry(number) for number in numbers]
            assert [each.attempts for each in waiting if each is not None] == [0, 0, 0]

    run("asyncio", test)


def test_a_post_that_waits_for_a_limited_destination_stays_while_there_is_room(
    office: Office,
) -> None:
    office.join("a@slow.example", "b@slow.example")

    async def test() -> None:
        number = office.post()
        async with Alone(office) as alone:
            [post] = await alone.take_up()
            alone.docket.care_for(post)
            await alone.rest()
            assert list(alone.docket.posts) == [post]
            assert post.not_before > time.monotonic()
        entry = office.entry(number)
        assert entry is not None and entry.lease is not None

    run("asyncio", test)


def test_a_clock_that_jumps_while_leases_are_renewed_sends_nothing_twice(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = queue.mend

    def jump_and_mend(*given: Any) -> int:
        clock.ahead = HOUR
        return real(*given)

    async def test() -> None:
        number = office.notice("a@slow.example")
        async with Alone(office) as alone:
            await alone.take_up()
            monkeypatch.setattr(docket_module, "MEND_EVERY", 0.0)
            alone.docket._mend_at = 0.0
            monkeypatch.setattr(queue, "mend", jump_and_mend)
            await alone.docket.take_in()
            await alone.rest()
        entry = office.entry(number)
        assert entry is not None and entry.attempts == 1
        assert office.said("lease lost") == []

    run("asyncio", test)
