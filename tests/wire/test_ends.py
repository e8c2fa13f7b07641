"""Connections that end between chunks, and what comes too late for them."""

import asyncio

import pytest

from postroom.lmtp.server import Server
from postroom.mail import reply
from tests.wire.harness import (
    ACCEPTED,
    RECIPIENT_OK,
    SENDER_OK,
    Desk,
    both_loops,
    house,
    line,
    run,
)
from tests.wire.recorder import CONFIG, DAY, TRANSACTION, in_data, look, met


@both_loops
@pytest.mark.parametrize("end", ["fin", "reset", "quit"])
@pytest.mark.parametrize("octets", [b"BDAT 5\r\nhello", b"BDAT 5 LAST\r\nhell", b"BDAT 5 L"])
def test_item_43_a_client_that_ends_between_or_within_chunks_queues_nothing(
    loop: str, end: str, octets: bytes
) -> None:
    async def test() -> None:
        async with house() as home:
            async with home.client() as client:
                client.writer.write(TRANSACTION + octets)
                await client.expect(SENDER_OK, *[RECIPIENT_OK] * 2)
                if end == "fin":
                    client.writer.write_eof()
                    await client.reader.read()
                elif end == "reset":
                    client.reset()
                elif octets.endswith(b"hello"):
                    client.send("QUIT")
                    await client.expect(line(reply.CHUNK_OK), line(reply.BYE))
                    await client.expect_end()
            await home.until_left()
            assert home.desk.queued == []
            assert home.desk.defects == []

    run(loop, test)


@both_loops
def test_item_57_at_shutdown_a_message_between_chunks_may_finish(loop: str) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            client.writer.write(TRANSACTION + b"BDAT 5\r\nhello")
            await client.expect(SENDER_OK, *[RECIPIENT_OK] * 2, line(reply.CHUNK_OK))
            stopping = asyncio.get_running_loop().create_task(home.server.stop(20))
            await asyncio.sleep(0)
            client.writer.write(b"BDAT 1\r\n\r")
            await client.expect(line(reply.CHUNK_OK))
            client.writer.write(b"BDAT 1 LAST\r\n\n")
            await client.expect(ACCEPTED, ACCEPTED)
            await client.expect_end()
            await stopping
            assert [each.body for each in home.desk.queued] == [b"hello\r\n"]

    run(loop, test)


def test_item_57_at_shutdown_a_message_that_is_given_up_between_chunks_closes() -> None:
    async def test() -> None:
        for said, answer in ((b"RSET\r\n", reply.DONE), (b"QUIT\r\n", reply.BYE)):
            connection, transport = met(TRANSACTION + b"BDAT 5\r\nhello")
            connection.shut_down()
            assert transport.writes == []
            connection.data_received(said)
            assert transport.writes == [answer.wire, b"closed"]

    run("asyncio", test)


def test_late_answers_to_a_connection_that_has_ended_do_nothing() -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        server = Server(CONFIG, desk)
        connection, transport = in_data(server)
        connection.data_received(b"hello\r\n.\r\n")
        connection.abort()
        connection.connection_lost(None)
        desk.take(desk.waiting.get_nowait())
        await asyncio.sleep(0)
        look(connection, DAY)
        connection.shut_down()
        connection.data_received(b"NOOP\r\n")
        assert transport.writes in ([b"aborted"], [b"aborted", b"aborted"])
        assert (server.connections, server.admission._inside, desk.defects) == (set(), 0, [])

    run("asyncio", test)
