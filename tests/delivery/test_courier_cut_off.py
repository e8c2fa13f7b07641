"""The courier is stopped, cut off, robbed of its lease, or has no database."""

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from sqlalchemy import event, text, update

from postroom.delivery import book as book_module
from postroom.delivery import docket as docket_module
from postroom.spool import queue
from postroom.spool.metadata import Metadata
from postroom.spool.orders import OUT, Order, order_of
from postroom.store import schema
from postroom.store.engine import Store
from tests.delivery.office import Office, mails, people
from tests.delivery.servers import HOLD, Action, Hook, MailServer, Said, refusing
from tests.wire.harness import both_loops, run

pytestmark = pytest.mark.usefixtures("brisk")


def nth(number: int, verb: str, reply: str | Action) -> Hook:
    """Reply so to the n-th of these."""
    seen = 0

    def hook(said: Said) -> str | Action | None:
        nonlocal seen
        seen += said.verb == verb
        return reply if said.verb == verb and seen == number else None

    return hook


def at_nth(number: int, verb: str, action: Callable[[], object]) -> Hook:
    """Do something before the usual reply to the n-th of these."""
    seen = 0

    def hook(said: Said) -> None:
        nonlocal seen
        seen += said.verb == verb
        if said.verb == verb and seen == number:
            action()

    return hook


async def heard(server: MailServer, verb: str, number: int) -> None:
    """Wait until a server heard so many of these."""
    await asyncio.to_thread(server.wait_until, lambda: len(server.heard(verb)) >= number, verb)


@both_loops
def test_d3_a_stop_ends_what_is_in_hand_and_gives_the_post_back(office: Office, loop: str) -> None:
    office.join(*people(30))

    async def test() -> None:
        with MailServer(nth(2, "END", HOLD)) as server:
            number = office.post()
            async with office.working(server, recipients=10, connections=1) as courier:
                await heard(server, "END", 2)
                courier.stop()
                server.release()
            assert len(server.taken) == 2
            assert len(office.of(number, "sent")) == 20
            entry = office.entry(number)
            assert entry is not None
            assert (entry.queue, entry.attempts, entry.lease) == ("out", 0, None)
            async with office.working(server, recipients=10):
                await office.done(number)
        assert mails(server) == sorted(people(30))
        assert office.facts("shunt") == []

    run(loop, test)


def test_d3_a_stop_before_anything_is_sent_changes_nothing(office: Office) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer() as server:
            server.stop()
            number = office.post()
            async with office.working(server):
                await office.until(lambda: office.said("mail server"))
            entry = office.entry(number)
            assert entry is not None
            assert (entry.queue, entry.attempts, entry.lease) == ("out", 0, None)
            assert office.of(number, "pending") == {"p1", "p2", "p3"}

    run("asyncio", test)


def test_d4_after_a_crash_between_two_transactions_nobody_gets_it_again(
    any_office: Office,
) -> None:
    office = any_office
    office.join(*people(30))

    async def test() -> None:
        with MailServer(nth(2, "END", HOLD)) as server:
            number = office.post()
            courier = office.courier(server, recipients=10, connections=1)
            task = asyncio.ensure_future(courier.run())
            await heard(server, "END", 2)
            assert len(office.of(number, "sent")) == 10, "not written down before it went on"
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            with office.writing() as connection:
                queue.release(connection, OUT)
            async with office.working(server, recipients=10):
                await office.done(number)
        assert mails(server) == sorted(people(30))
        assert {each.attempts for each in office.recipients(number)} == {1}

    run("asyncio", test)


def test_d4_a_crash_before_a_transaction_is_written_down_doubles_that_one_alone(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.join(*people(30))

    async def test() -> None:
        with MailServer() as server:
            number = office.post()
            courier = office.courier(server, recipients=10, connections=1)
            task = asyncio.ensure_future(courier.run())
            crashed = asyncio.Event()
            real = book_module.Book.record

            def crash(*arguments: object) -> object:
                if len(server.taken) == 2:
                    task.get_loop().call_soon_threadsafe(crashed.set)
                    raise ConnectionError("the power is out")
                return real(*arguments)  # type: ignore[arg-type]

            monkeypatch.setattr(book_module.Book, "record", crash)
            await crashed.wait()
            task.cancel()
            with contextlib.suppress(BaseException):
                await task
            monkeypatch.undo()
            with office.writing() as connection:
                queue.release(connection, OUT)
            async with office.working(server, recipients=10):
                await office.done(number)
        twice = [each for each in people(30) if mails(server).count(each) == 2]
        assert sorted(twice) == sorted(server.taken[1].recipients)
        assert set(mails(server)) == set(people(30))

    run("asyncio", test)


def test_d4_when_the_database_ends_its_connections_it_goes_on(postgresql_office: Office) -> None:
    office = postgresql_office
    office.join(*people(30))

    def terminate() -> None:
        with office.writing() as connection:
            others = "datname = current_database() AND pid <> pg_backend_pid()"
            connection.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {others}")
            )

    async def test() -> None:
        with MailServer(at_nth(2, "END", terminate), at_nth(4, "RCPT", terminate)) as server:
            async with office.working(server, recipients=10):
                number = office.post()
                await office.done(number)
        assert mails(server) == sorted(people(30))
        assert {each.attempts for each in office.recipients(number)} == {1}

    run("asyncio", test)


def impatient(store: Store) -> None:
    """Have a store wait for a lock no longer than a moment."""

    @event.listens_for(store.engine, "checkout")
    def hurry(connection: object, *_: object) -> None:
        if store.is_sqlite:
            connection.execute("PRAGMA busy_timeout = 20")  # type: ignore[attr-defined]


def test_what_was_sent_while_the_database_was_locked_is_written_down_once(
    office: Office,
) -> None:
    office.join(*people(4))
    impatient(office.store)
    lock = contextlib.ExitStack()
    bad = refusing({"p2@example.net": "550 5.1.1 No such user"})

    async def test() -> None:
        with MailServer(at_nth(1, "END", lambda: lock.enter_context(office.writing())), bad) as s:
            async with office.working(s):
                number = office.post()
                await office.until(lambda: len(office.said("queue not served")) > 2)
                assert len(s.taken) == 1
                assert len(office.of(number, "pending")) == 4
                lock.close()
                await office.done(number)
        assert len(s.taken) == 1
        assert office.of(number, "sent") == {"p1", "p3", "p4"}
        assert [many for many, _ in office.transactions(number)] == [4]
        assert len(office.facts("bounces")) == 1

    run("asyncio", test)


@pytest.mark.parametrize("taken", [False, True], ids=["still ours", "taken by another"])
def test_a_post_that_could_not_be_taken_up_is_given_back_when_the_database_allows(
    office: Office, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    office.join(*people(3))
    impatient(office.store)
    real = order_of
    lock = contextlib.ExitStack()

    def lock_and_read(facts: Metadata) -> Order:
        monkeypatch.setattr(docket_module, "order_of", real)
        connection = lock.enter_context(office.writing())
        if taken:  # by another, as soon as the lock is gone
            connection.execute(update(schema.entry).values(lease="another's"))
        return real(facts)

    async def test() -> None:
        monkeypatch.setattr(docket_module, "order_of", lock_and_read)
        with MailServer() as server:
            async with office.working(server):
                number = office.post()
                await office.until(lambda: office.said("queue not served"))
                lock.close()
                if taken:
                    await office.done(office.notice("ann@example.org"))  # it lives
                    assert len(server.taken) == 1
                    office.change(number, lease=None, attempts=0)
                await office.done(number)
        assert mails(server)[-3:] == sorted(people(3))

    run("asyncio", test)


def test_who_lost_the_lease_lets_go(any_office: Office, monkeypatch: pytest.MonkeyPatch) -> None:
    office = any_office
    monkeypatch.setattr(docket_module, "RENEW_EVERY", 0.0)
    office.join(*people(30))

    async def test() -> None:
        with MailServer(nth(1, "END", HOLD)) as server:
            number = office.post()
            async with office.working(server, recipients=10, connections=1):
                await heard(server, "END", 1)
                office.change(number, lease="another's", attempts=2)
                await office.until(lambda: office.said("lease lost"))
                server.release()
                await office.until(lambda: len(office.of(number, "sent")) == 10)
        assert len(server.taken) == 1
        entry = office.entry(number)
        assert entry is not None
        assert (entry.lease, entry.attempts) == ("another's", 2)

    run("asyncio", test)


def test_who_lost_the_lease_at_the_very_end_does_not_finish_the_post(any_office: Office) -> None:
    office = any_office
    office.join(*people(3))

    async def test() -> None:
        with MailServer(nth(1, "END", HOLD)) as server:
            number = office.post()
            async with office.working(server):
                await heard(server, "END", 1)
                office.change(number, lease="another's")
                server.release()
                await office.until(lambda: office.said("lease lost"))
        entry = office.entry(number)
        assert entry is not None
        assert entry.lease == "another's"
        assert office.of(number, "sent") == {"p1", "p2", "p3"}

    run("asyncio", test)


def test_a_lease_is_renewed_while_a_post_goes_out(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "RENEW_EVERY", 0.0)
    office.join(*people(3))

    async def test() -> None:
        with MailServer(nth(1, "END", HOLD)) as server:
            number = office.post()
            async with office.working(server):
                await heard(server, "END", 1)
                office.change(number, lease_until=1.0)
                await office.until(lambda: until(number) > 1.0)
                server.release()
                await office.done(number)

    def until(number: int) -> float:
        [(found,)] = office.look(text(f"SELECT lease_until FROM entry WHERE id = {number}"))
        return float(found)

    run("asyncio", test)


def test_a_post_that_cannot_be_given_back_at_the_end_is_no_obstacle(office: Office) -> None:
    office.join(*people(3))
    impatient(office.store)

    async def test() -> None:
        with MailServer() as server:
            server.stop()
            number = office.post()
            async with office.working(server):
                await office.until(lambda: office.said("mail server"))
                office.change(number, lease="another's")
        entry = office.entry(number)
        assert entry is not None
        assert entry.lease == "another's"

    run("asyncio", test)
