"""The pool: connections that are shared and used again, servers that are away, and others'
servers: smtp-sink and Postfix."""

import asyncio
import contextlib
import io
import json
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from postroom.base.observe import Log
from postroom.base.places import Tcp
from postroom.base.settings import LogSettings, Settings, Smtp
from postroom.delivery import connection as connection_module
from postroom.delivery.access import Access
from postroom.delivery.pool import Pool, Unavailable, pool_of
from postroom.delivery.transaction import Fate, Outcome, Transaction, prepare
from tests.delivery.servers import (
    DROP,
    HOLD,
    MailServer,
    at,
    at_most,
    refusing,
    times,
)
from tests.integration.processes import eventually, listens
from tests.interop.mail import free_port
from tests.interop.postfix import Postfix
from tests.lmtp.servers import serving
from tests.peers import need
from tests.wire.harness import Desk, both_loops, run

SENDER = "list-bounces@lists.example.com"
PEOPLE = [f"p{number}@example.net" for number in range(10)]
CONTENT = prepare(b"Subject: hello\r\n\r\nHello.\r\n")
ACCESS = Access("lists.example.com", "never")


class Story:
    """A log that can be read."""

    def __init__(self) -> None:
        self._text = io.StringIO()
        self.log = Log(LogSettings(format="json"), self._text)

    def told(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._text.getvalue().splitlines()]


@contextlib.asynccontextmanager
async def pooled(
    *servers: MailServer | int, story: Story | None = None, **how: Any
) -> AsyncIterator[Pool]:
    """A pool over these servers."""
    ports = [server if isinstance(server, int) else server.port for server in servers]
    places = [Tcp("127.0.0.1", port) for port in ports]
    pool = Pool(places, ACCESS, (story or Story()).log, **how)
    try:
        yield pool
    finally:
        await pool.close()


async def send(pool: Pool, people: list[str] = PEOPLE) -> Outcome:
    """One transaction over a connection of the pool."""
    async with pool.connection() as connection:
        return await connection.send(Transaction(SENDER, people, CONTENT))


def fates(outcome: Outcome) -> set[Fate]:
    return {verdict.fate for verdict in outcome.verdicts}


# Connections


@both_loops
def test_a_connection_is_used_again_and_closed_with_quit(loop: str) -> None:
    async def test() -> None:
        with MailServer() as server:
            async with pooled(server) as pool:
                for _ in range(5):
                    assert fates(await send(pool)) == {Fate.ACCEPTED}
            assert server.connections == 1 and len(server.taken) == 5
            await asyncio.to_thread(server.wait_until, lambda: server.open == 0)
            assert len(server.heard("QUIT")) == 1

    run(loop, test)


@both_loops
def test_there_are_never_more_connections_than_allowed_and_those_who_wait_get_theirs(
    loop: str,
) -> None:
    async def test() -> None:
        with MailServer() as server:
            async with pooled(server, connections=3) as pool:
                assert pool.size == 3
                await asyncio.gather(*(send(pool) for _ in range(30)))
            assert len(server.taken) == 30
            assert server.most_open <= 3

    run(loop, test)


def test_a_connection_that_is_in_use_is_waited_for() -> None:
    async def test() -> None:
        with MailServer(at("END", HOLD)) as server:
            async with pooled(server, connections=1) as pool:
                first, second = (asyncio.ensure_future(send(pool)) for _ in range(2))
                await asyncio.to_thread(server.wait_until, lambda: server.heard("END"))
                assert not second.done() and server.connections == 1
                server.release()
                await asyncio.gather(first, second)
            assert server.connections == 1

    run("uvloop", test)


def test_a_connection_is_closed_after_so_many_transactions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection_module, "MOST_TRANSACTIONS", 2)

    async def test() -> None:
        with MailServer() as server:
            async with pooled(server) as pool:
                for _ in range(5):
                    await send(pool)
            assert server.connections == 3
            await asyncio.to_thread(server.wait_until, lambda: server.open == 0)
            assert len(server.heard("QUIT")) == 3

    run("uvloop", test)


def test_an_idle_connection_is_closed_with_quit() -> None:
    async def test() -> None:
        with MailServer() as server:
            async with pooled(server, most_idle=0.05) as pool:
                await send(pool)
                await asyncio.to_thread(server.wait_until, lambda: server.heard("QUIT"))
                await send(pool)
                assert server.connections == 2

    run("uvloop", test)


@both_loops
def test_a_connection_that_the_server_closed_meanwhile_is_no_trouble(loop: str) -> None:
    async def test() -> None:
        story = Story()
        with MailServer() as server:
            async with pooled(server, story=story) as pool:
                await send(pool)
                server.stop()
                server.start()
                # It is known to be gone, or the transaction shows it; a new one works at once.
                while fates(await send(pool)) == {Fate.PENDING}:
                    pass
                assert len(server.taken) == 2 and story.told() == []

    run(loop, test)


def test_what_is_learnt_of_a_server_holds_for_all_its_connections() -> None:
    async def test() -> None:
        with MailServer(at_most(4)) as server:
            async with pooled(server, connections=3) as pool:
                async with pool.connection() as early:
                    assert early.recipients == 500
                    await send(pool)
                    async with pool.connection() as used, pool.connection() as new:
                        assert (used.recipients, new.recipients) == (4, 4)
                async with pool.connection() as one, pool.connection() as two:
                    assert (one.recipients, two.recipients) == (4, 4)

    run("uvloop", test)


def test_a_caller_that_fails_gives_its_connection_back() -> None:
    async def test() -> None:
        with MailServer() as server:
            async with pooled(server, connections=1) as pool:
                with pytest.raises(ZeroDivisionError):
                    async with pool.connection():
                        raise ZeroDivisionError
                assert fates(await send(pool)) == {Fate.ACCEPTED}
            assert server.connections == 1

    run("uvloop", test)


def test_a_caller_that_is_cancelled_while_it_connects_or_waits_leaves_its_place() -> None:
    async def test() -> None:
        with MailServer(times(1, at("CONNECT", HOLD))) as server:
            async with pooled(server, connections=1) as pool:
                callers = [asyncio.ensure_future(send(pool)) for _ in range(2)]
                await asyncio.to_thread(server.wait_until, lambda: server.heard("CONNECT"))
                for caller in callers:
                    caller.cancel()
                await asyncio.gather(*callers, return_exceptions=True)
                assert fates(await send(pool)) == {Fate.ACCEPTED}

    run("uvloop", test)


# Servers that are away


def pauses(story: Story) -> list[float]:
    return [event["again_in"] for event in story.told() if "again_in" in event]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that the pool goes by; set it."""
    now = [1000.0]
    monkeypatch.setattr("postroom.delivery.pool.monotonic", lambda: now[0])
    return now


def test_d5_a_server_that_is_away_is_left_alone_longer_and_longer_and_said_once_each_time(
    clock: list[float],
) -> None:
    story = Story()

    async def test() -> None:
        async with pooled(free_port(), story=story) as pool:
            for _ in range(8):
                for _ in range(3):  # only the first one tries
                    with pytest.raises(Unavailable, match="refused") as away:
                        await send(pool)
                clock[0] = away.value.until

    run("uvloop", test)
    assert pauses(story) == [1, 2, 4, 8, 16, 32, 60, 60]
    assert all(event["level"] == "warning" for event in story.told())


def test_d2_a_server_that_says_421_is_left_alone_and_success_ends_that(clock: list[float]) -> None:
    story = Story()

    async def test() -> None:
        with MailServer(times(2, at("MAIL", "421 4.3.2 Bye"))) as server:
            async with pooled(server, story=story) as pool:
                for pause in 1, 2:
                    assert fates(await send(pool)) == {Fate.PENDING}
                    with pytest.raises(Unavailable, match=r"421 4\.3\.2 Bye") as away:
                        await send(pool)
                    assert away.value.until == clock[0] + pause
                    clock[0] = away.value.until
                assert fates(await send(pool)) == {Fate.ACCEPTED}
                server.hooks.append(times(1, at("CONNECT", "421 4.3.2 Busy")))
                async with pool.connection(), contextlib.AsyncExitStack() as more:
                    with pytest.raises(Unavailable, match="Busy"):
                        await more.enter_async_context(pool.connection())

    run("uvloop", test)
    assert pauses(story) == [1, 2, 1]
    assert [event.get("state") for event in story.told()] == [None, None, "works again", None]


def test_a_server_that_was_away_is_tried_by_one_connection_first(clock: list[float]) -> None:
    async def test() -> None:
        with MailServer(times(1, at("CONNECT", DROP)), at("END", HOLD)) as server:
            async with pooled(server, connections=4) as pool:
                with pytest.raises(Unavailable) as away:
                    await send(pool)
                clock[0] = away.value.until
                callers = [asyncio.ensure_future(send(pool)) for _ in range(4)]
                await asyncio.to_thread(server.wait_until, lambda: server.heard("END"))
                assert server.connections == 2 and server.open == 1
                server.release()
                assert [fates(each) for each in await asyncio.gather(*callers)] == (
                    [{Fate.ACCEPTED}] * 4
                )

    run("uvloop", test)


def test_connections_that_fail_together_count_once(clock: list[float]) -> None:
    story = Story()

    async def test() -> None:
        with MailServer(at("CONNECT", HOLD), at("EHLO", "421 4.3.2 Bye")) as server:
            async with pooled(server, story=story, connections=5) as pool:
                callers = [asyncio.ensure_future(send(pool)) for _ in range(5)]
                await asyncio.to_thread(
                    server.wait_until, lambda: len(server.heard("CONNECT")) == 5
                )
                clock[0] += 0.25
                server.release()
                results = await asyncio.gather(*callers, return_exceptions=True)
                assert all(isinstance(each, Unavailable) for each in results)

    run("uvloop", test)
    assert pauses(story) == [1]


def test_another_server_takes_over_and_work_is_shared_while_both_are_there(
    clock: list[float],
) -> None:
    async def test() -> None:
        with MailServer() as one, MailServer() as two:
            async with pooled(free_port(), one, two, connections=2) as pool:
                assert pool.size == 6
                await send(pool)
                async with contextlib.AsyncExitStack() as held:
                    taken = [await held.enter_async_context(pool.connection()) for _ in range(4)]
                assert sorted(each.server.port for each in taken) == (
                    sorted([one.port, two.port] * 2)
                )

    run("uvloop", test)


def test_one_recipient_who_is_refused_is_no_trouble_of_the_server() -> None:
    story = Story()

    async def test() -> None:
        with MailServer(refusing(dict.fromkeys(PEOPLE, "550 5.1.1 no"))) as server:
            async with pooled(server, story=story) as pool:
                for _ in range(3):
                    assert fates(await send(pool)) == {Fate.REFUSED}
            assert server.connections == 1

    run("uvloop", test)
    assert story.told() == []


def test_the_pool_is_what_the_settings_say() -> None:
    smtp = Smtp(host=("a.example.com", "[::1]:587"), port=2525, connections=3)
    pool = pool_of(Settings(smtp=smtp), Story().log)
    assert pool.size == 6
    assert [server.place for server in pool._servers] == [
        Tcp("a.example.com", 2525),
        Tcp("::1", 587),
    ]


# Servers of others


def test_smtp_sink_takes_thousands_of_recipients(tmp_path: Path) -> None:
    port, people = free_port(), [f"p{number}@example.net" for number in range(1000)]
    sink = Path(need("smtp-source")).with_name("smtp-sink")
    command = [str(sink), "-u", "nobody", "-c", f"127.0.0.1:{port}", "100"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: listens(port), "smtp-sink listens")

            async def test() -> None:
                async with pooled(port, connections=4) as pool:
                    found = await asyncio.gather(*(send(pool, people) for _ in range(20)))
                    assert [fates(each) for each in found] == [{Fate.ACCEPTED}] * 20
                    assert {len(each.verdicts) for each in found} == {1000}

            run("uvloop", test)
        finally:
            process.terminate()


def test_postfix_makes_a_sender_for_each_recipient_of_one_transaction() -> None:
    people = ["a@example.com", "<>", "b@example.com"]
    story, desk = Story(), Desk()
    found: list[Outcome] = []

    async def test() -> None:
        async with pooled(postfix.port, story=story) as pool, pool.connection() as connection:
            assert connection.xverp
            found.append(await connection.send(Transaction(SENDER, people, CONTENT, verp=True)))

    with serving(desk) as port:
        postfix = Postfix({"example.com": Tcp("127.0.0.1", port)})
        with (postfix.configuration / "main.cf").open("a") as settings:
            settings.write("authorized_verp_clients = 127.0.0.0/8\n")
        with postfix:
            run("uvloop", test)
            eventually(lambda: len(desk.queued) == 2, "both have it")
    (outcome,) = found
    accepted, refused = Fate.ACCEPTED, Fate.REFUSED
    assert [verdict.fate for verdict in outcome.verdicts] == [accepted, refused, accepted]
    assert outcome.answer.text.startswith("Ok: queued as ")
    assert {(each.sender, *each.recipients) for each in desk.queued} == {
        ("list-bounces+a=example.com@lists.example.com", "a@example.com"),
        ("list-bounces+b=example.com@lists.example.com", "b@example.com"),
    }
    assert story.told() == []
