"""The docket: processes that end, suspects, transactions and posts that fail."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from postroom.delivery import courier as courier_module
from postroom.delivery import docket as docket_module
from postroom.delivery import ledger, transaction
from postroom.spool.queue import ATTEMPTS, Claim
from postroom.store import schema
from tests.delivery.office import RAW, Clock, Office, Transactions, mails, people
from tests.delivery.servers import HOLD, SILENT, MailServer, Said, at, times
from tests.wire.harness import run

pytestmark = pytest.mark.usefixtures("brisk")
HOUR = 3600.0
POISON = RAW.replace(b"hello", b"poison")


# Processes that end


def test_a_stop_that_is_cut_off_gives_posts_back_and_counts_against_none(office: Office) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer(at("END", SILENT)) as server:
            number = office.post()
            for attempt in range(1, ATTEMPTS + 2):
                courier = office.courier(server)
                task = asyncio.ensure_future(courier.run())
                await server.hears("END", attempt)
                courier.stop()
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
                entry = office.entry(number)
                assert entry is not None
                assert (entry.queue, entry.attempts, entry.lease) == ("out", 0, None)
            server.hooks.clear()
            async with office.working(server):
                await office.done(number)
        assert mails(server) == sorted(people(3))

    run("asyncio", test)


def test_a_stop_that_is_cut_off_gives_back_what_was_being_taken_up(office: Office) -> None:
    office.join(*people(3))
    taken_up, go_on = threading.Event(), threading.Event()

    def personal(held: Claim) -> Any:
        taken_up.set()
        assert go_on.wait(30)
        return lambda email: held.raw

    async def test() -> None:
        with MailServer() as server:
            number = office.post(personal=True)
            courier = office.courier(server, personal=personal)
            task = asyncio.ensure_future(courier.run())
            await asyncio.to_thread(taken_up.wait, 30)
            courier.stop()
            task.cancel()
            go_on.set()
            with contextlib.suppress(asyncio.CancelledError):
                await task
        entry = office.entry(number)
        assert entry is not None
        assert (entry.queue, entry.attempts, entry.lease) == ("out", 0, None)

    run("asyncio", test)


class Corrupt(Exception):
    """The database is broken (PostgreSQL's code for that): it needs a new process."""

    sqlstate = "XX001"


def test_a_post_that_ends_its_process_is_counted(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office.join(*people(3))

    def broken(*_: object) -> None:
        raise Corrupt

    async def test() -> None:
        monkeypatch.setattr(ledger, "record", broken)
        with MailServer() as server:
            number = office.post()
            with pytest.raises(ExceptionGroup) as died:
                await office.courier(server).run()
            assert [type(each) for each in died.value.exceptions] == [Corrupt]
        entry = office.entry(number)
        assert entry is not None
        assert (entry.queue, entry.attempts) == ("out", 1)
        assert entry.lease is not None

    run("asyncio", test)


def test_a_suspect_that_has_lived_for_a_while_is_none_any_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "RENEW_EVERY", 0.0)
    monkeypatch.setattr(docket_module, "PROVED", HOUR)
    office.join(*people(3))

    def attempts(number: int) -> int:
        entry = office.entry(number)
        assert entry is not None
        return entry.attempts

    async def test() -> None:
        with MailServer(times(1, at("END", HOLD))) as server:
            number = office.post()
            office.change(number, attempts=ATTEMPTS - 1)
            seen = Transactions(office.store)
            async with office.working(server):
                await server.hears("END")
                await seen.looks(office, 10)
                assert attempts(number) == ATTEMPTS
                monkeypatch.setattr(docket_module, "PROVED", 0.0)
                await office.until(lambda: attempts(number) == 1)
                other = office.notice("ann@example.org")
                await office.done(other)
                server.release()
                await office.done(number)

    run("asyncio", test)


def test_a_suspect_has_no_company_but_not_for_long(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "RENEW_EVERY", 0.0)  # so that its looks can be seen
    monkeypatch.setattr(docket_module, "ALONE", HOUR)
    office.join(*people(3))

    async def test() -> None:
        with MailServer(times(1, at("END", HOLD))) as server:
            suspect = office.post()
            office.change(suspect, attempts=1)
            seen = Transactions(office.store)
            async with office.working(server):
                await server.hears("END")
                other = office.notice("ann@example.org")
                await seen.looks(office, 10)
                waits = office.entry(other)
                assert waits is not None and waits.lease is None
                monkeypatch.setattr(docket_module, "ALONE", 0.0)
                await office.done(other)
                assert office.entry(suspect) is not None
                server.release()
                await office.done(suspect)

    run("asyncio", test)


def test_a_suspect_that_gets_on_is_none_any_more(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "ALONE", HOUR)
    office.join(*people(2))

    def second(said: Said) -> Any:
        return HOLD if (said.verb, said.address) == ("RCPT", "p2@example.net") else None

    async def test() -> None:
        with MailServer(second) as server:
            suspect = office.post()
            office.change(suspect, attempts=ATTEMPTS - 1)
            async with office.working(server, recipients=1, connections=2):
                await office.done(office.notice("ann@example.org"))
                entry = office.entry(suspect)
                assert entry is not None and entry.attempts == 1
                assert office.of(suspect, "sent") == {"p1"}
                server.release()
                await office.done(suspect)

    run("asyncio", test)


# Transactions that come to nothing


def test_after_some_that_came_to_nothing_a_post_makes_room_and_is_not_counted(
    office: Office,
) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer(at("MAIL", "421 4.3.2 Bye")) as server:
            number, before = office.post(), time.time()
            async with office.working(server, connections=1):
                await office.put_off(number)
            lines = office.said("not delivered")
            assert len(lines) == courier_module.MOST_FAILURES
            assert lines[-1]["again_in"] == courier_module.REST
            entry = office.entry(number)
            assert entry is not None
            assert (entry.queue, entry.attempts, entry.last_error) == ("out", 0, None)
            waited = entry.available_at - courier_module.REST
            assert before <= waited <= time.time()
            assert {each.attempts for each in office.recipients(number)} == {0}
            server.hooks.clear()
            office.make_due(number)
            async with office.working(server):
                await office.done(number)
        assert mails(server) == sorted(people(3))

    run("asyncio", test)


def test_transactions_that_come_to_nothing_at_once_count_as_one(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(courier_module, "LONGEST_PAUSE", HOUR)
    monkeypatch.setattr(courier_module, "MOST_FAILURES", 3)
    office.join(*people(50))

    async def test() -> None:
        bye = at("END", "421 4.3.2 Bye")
        with MailServer(at("DATA", HOLD), bye) as server:
            number = office.post()
            async with office.working(server, recipients=10, connections=5) as courier:
                await server.hears("DATA", 5)
                courier.stop()  # it ends after these
                server.release()
            assert len(server.heard("END")) == 5
            assert len(office.said("not delivered")) == 1
            assert len(office.of(number, "pending")) == 50

    run("asyncio", test)


# Posts that fail


def is_poison(held: Claim) -> bool:
    return b"poison" in held.raw


def single_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """See `personal`."""


def single_that_fails_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier_module, "LARGE", 0)


def preparation_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = transaction.prepare

    def prepare(raw: bytes) -> Any:
        if b"poison" in raw:
            raise ValueError("cannot be prepared")
        return real(raw)

    monkeypatch.setattr(docket_module, "prepare", prepare)


def reading_that_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ledger.due

    def due(connection: Any, held: Claim, *rest: Any) -> Any:
        if is_poison(held):
            raise ValueError("cannot be read")
        return real(connection, held, *rest)

    monkeypatch.setattr(ledger, "due", due)


def personal(held: Claim) -> Any:
    """The message for each; not for that post."""

    def single(email: str) -> bytes:
        if is_poison(held):
            raise ValueError(f"cannot be made for {email}")
        return RAW

    return single


@pytest.mark.parametrize(
    "fail",
    [
        single_that_fails,
        single_that_fails_in_a_thread,
        preparation_that_fails,
        reading_that_fails,
    ],
)
def test_d17_a_post_that_fails_is_tried_again_alone_and_put_aside_in_the_end(
    office: Office, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None]
) -> None:
    fail(monkeypatch)
    office.join(*people(6))

    async def test() -> None:
        with MailServer() as server:
            poison = office.post(POISON, personal=True)
            other = office.post(personal=True)
            async with office.working(server, personal=personal):
                await office.done(other)
                await office.put_off(poison)
                entry = office.entry(poison)
                assert entry is not None and entry.last_error is not None
                assert (entry.queue, entry.attempts) == ("out", 1)
                assert "ValueError: cannot be" in entry.last_error
                office.change(poison, attempts=ATTEMPTS - 1, available_at=0.0)
                await office.until(lambda: office.facts("shunt"))
                await office.done(office.post(personal=True))
        assert mails(server) == sorted(people(6) * 2)

    run("asyncio", test)


def test_a_post_that_fails_when_it_is_looked_at_again_fails_alone(
    office: Office, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> None:
        raise ValueError("cannot be read")

    monkeypatch.setattr(ledger, "gone", gone)
    office.join(*people(3))

    async def test() -> None:
        with MailServer() as server:
            server.stop()
            poison = office.post()
            async with office.working(server):
                await office.until(lambda: office.said("mail server"))
                clock.ahead = 10.0
                await office.put_off(poison)
                server.start()
                await office.done(office.notice("ann@example.org"))
            entry = office.entry(poison)
            assert entry is not None and entry.last_error is not None
            assert (entry.queue, entry.attempts) == ("out", 1)
        assert mails(server) == ["ann@example.org"]

    run("asyncio", test)


def test_a_post_whose_list_was_removed_before_its_turn_is_put_aside_not_done(
    any_office: Office,
) -> None:
    office = any_office
    office.join(*people(3))

    async def test() -> None:
        with MailServer() as server:
            number = office.post()
            office.change(number, list=None)
            async with office.working(server):
                await office.put_off(number)
                office.change(number, attempts=ATTEMPTS - 1, available_at=0.0)
                await office.until(lambda: office.facts("shunt"))
                await office.done(office.notice("ann@example.org"))
            entry = office.entry(number)
            assert entry is not None and entry.last_error is not None
            assert "its list was removed" in entry.last_error
            posts = office.look(select(schema.post.c.id).where(schema.post.c.id == number))
            assert posts == [], "it was expanded to nobody"
        assert mails(server) == ["ann@example.org"]

    run("asyncio", test)
