"""Item 57: a server that stops owes nothing to anybody, or pays it, and never guesses."""

import asyncio

import pytest

from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.server import Server
from postroom.mail import reply
from tests.wire.dialogue import HOST, IDENT, Queued
from tests.wire.harness import (
    ACCEPTED,
    SHUTTING_DOWN,
    Desk,
    House,
    both_loops,
    house,
    line,
    run,
)
from tests.wire.recorder import Recorder


async def _stop(home: House, patience: float = 20.0) -> "asyncio.Task[None]":
    stopping = asyncio.get_running_loop().create_task(home.server.stop(patience))
    await asyncio.sleep(0)  # it has told every connection when it first waits
    return stopping


@both_loops
@pytest.mark.parametrize(
    "commands",
    [[], ["MAIL FROM:<>"], ["MAIL FROM:<>", "RCPT TO:<a@example.com>"]],
    ids=["ready", "mail", "rcpt"],
)
def test_item_57_at_shutdown_a_client_to_whom_nothing_is_owed_gets_421(
    loop: str, commands: list[str]
) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            client.send(*commands)
            await client.lines(len(commands))
            stopping = await _stop(home)
            await client.expect(SHUTTING_DOWN)
            await client.expect_end()
            await stopping

    run(loop, test)


@both_loops
def test_item_57_at_shutdown_a_message_in_data_may_finish(loop: str) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            await client.open_data("a@example.com", "b@example.com")
            client.send("hello")
            stopping = await _stop(home)
            client.send("more", ".")
            await client.expect(ACCEPTED, ACCEPTED)
            await client.expect_end()
            await stopping
            recipients = ("a@example.com", "b@example.com")
            body = b"hello\r\nmore\r\n"
            assert home.desk.queued == [Queued("anne@example.org", recipients, body)]

    run(loop, test)


@both_loops
def test_item_57_at_shutdown_a_commit_under_way_is_answered_and_no_more(loop: str) -> None:
    async def test() -> None:
        async with house(Desk(holds=True)) as home, home.client() as client:
            await client.open_data("a@example.com", "unknown@example.com")
            client.send("hello", ".")
            delivery = await home.desk.waiting.get()
            stopping = await _stop(home)
            assert not stopping.done()
            home.desk.take(delivery)
            await client.expect(ACCEPTED, line(reply.NO_MAILBOX))
            await client.expect_end()
            await stopping

    run(loop, test)


@both_loops
def test_item_57_what_outlasts_the_patience_is_closed_in_silence(loop: str) -> None:
    async def test() -> None:
        async with house(Desk(holds=True)) as home:
            async with home.client() as waiting, home.client() as sending:
                await waiting.open_data("a@example.com")
                waiting.send("hello", ".")
                delivery = await home.desk.waiting.get()
                await sending.open_data("a@example.com")
                await home.server.stop(0.01)
                await waiting.expect_gone()
                await sending.expect_gone()
            # The answer comes too late for anybody.
            home.desk.take(delivery)
            await asyncio.sleep(0)
            assert home.desk.defects == []

    run(loop, test)


@both_loops
def test_item_57_at_shutdown_nobody_is_let_in(loop: str) -> None:
    async def test() -> None:
        async with house(Desk(holds=True)) as home, home.client() as client:
            await client.open_data("a@example.com")
            stopping = await _stop(home)
            try:
                async with home.client(introduced=False) as late:
                    said = await late.lines(1)
            except ConnectionError:
                pass
            else:  # the system had let it in already
                assert said == [SHUTTING_DOWN]
            client.writer.write_eof()
            await client.expect_end()
            await stopping

    run(loop, test)


def test_item_57_a_connection_that_comes_while_the_server_stops_gets_421() -> None:
    async def test() -> None:
        server = Server(ServerConfig(HOST, IDENT), Desk())
        await server.stop(0)
        connection, transport = server.new_connection(), Recorder()
        connection.connection_made(transport)
        connection.data_received(b"LHLO x\r\n")
        assert transport.writes == [reply.SHUTTING_DOWN.wire, b"closed"]
        connection.connection_lost(None)
        assert server.connections == set()

    run("asyncio", test)
