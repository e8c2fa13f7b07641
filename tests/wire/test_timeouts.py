"""What a client may take of our time, and of the turns of others: items 54 and 56, faults 20 to
22. In the first half the test tells the time.
"""

import asyncio
from typing import Any

import pytest

from postroom.lmtp.server import Server
from postroom.lmtp.session import LINES_AT_ONCE
from postroom.mail import reply
from tests.wire.harness import (
    ACCEPTED,
    LARGE,
    RECIPIENT_OK,
    SENDER_OK,
    Desk,
    both_loops,
    house,
    limits,
    line,
    run,
    small_buffers,
)
from tests.wire.recorder import CONFIG, DAY, TRANSACTION, Recorder, look, met

TOO_SLOW = line(reply.TOO_SLOW)
IDLE = line(reply.IDLE)


# Told by the test


def test_item_56_a_client_is_idle_after_so_long_without_a_reply() -> None:
    connection, transport = met()
    look(connection, CONFIG.idle_timeout)
    assert transport.writes == []
    look(connection, CONFIG.idle_timeout + 1)
    assert transport.writes == [reply.IDLE.wire, b"closed"]


def test_item_56_one_octet_at_a_time_of_a_command_is_no_progress() -> None:
    connection, transport = met()
    for second in range(int(CONFIG.idle_timeout) + 1):
        connection.data_received(b"N")
        look(connection, second)
        assert transport.writes == []
    look(connection, CONFIG.idle_timeout + 1)
    assert transport.writes == [reply.IDLE.wire, b"closed"]


@pytest.mark.parametrize(
    ("said", "replies"),
    [
        (b"DATA\r\n", 2),
        (b"BDAT 1000000\r\n", 1),
        (b"BDAT 1000000 LAST\r\n", 2),
        (b"RSET\r\nBDAT 1000000\r\n", 1),
        (b"RSET\r\nBDAT 1000000 LAST\r\n", 0),
    ],
)
def test_item_56_a_message_that_takes_too_long_is_told_once_for_each_reply(
    said: bytes, replies: int
) -> None:
    connection, transport = met(TRANSACTION + said, least_rate=1.0)
    timeout = CONFIG.message_timeout
    # The time of the first look is when it began.
    for second in range(1000, 1000 + int(timeout), 10):
        connection.data_received(b"x" * 20)
        look(connection, second)
        assert transport.writes == []
    look(connection, 1000 + timeout + 1)
    told = [reply.TOO_SLOW.wire * replies] if replies else []
    assert transport.writes == [*told, b"closed"]


@pytest.mark.parametrize(
    "said",
    [b"DATA\r\n", b"BDAT 100000\r\n", b"BDAT 0\r\nBDAT 9\r\n123456789", b"RSET\r\nBDAT 99999\r\n"],
)
def test_item_56_a_message_must_not_come_too_slowly(said: bytes) -> None:
    """Fault 20: one octet now and then."""
    connection, transport = met(TRANSACTION + said, desk=(desk := Desk()))
    del transport.writes[:]
    began = 1000.0
    look(connection, began)
    for second in range(10, int(CONFIG.rate_grace) + 1, 10):
        connection.data_received(b"" if b"123456789" in said else b"x")
        look(connection, began + second)
        assert transport.writes == []
    look(connection, began + CONFIG.rate_grace + 1)
    assert transport.writes[-1] == b"closed"
    assert transport.writes[0].startswith(b"421 4.4.2")
    connection.data_received(b"\r\n.\r\n")
    assert desk.queued == []


def test_item_56_a_message_may_come_at_the_least_rate() -> None:
    connection, transport = met(TRANSACTION + b"DATA\r\n")
    for second in range(1000, 1500):
        connection.data_received(b"x" * (101))
        look(connection, second)
    assert transport.writes == []
    look(connection, 1500 + DAY)
    assert transport.writes == [reply.TOO_SLOW.wire * 2, b"closed"]


@pytest.mark.parametrize("said", [b"BDAT 1000\r\n", b"BDAT 1000 LAST\r\n"])
def test_item_56_a_stray_chunk_has_the_time_of_a_message(said: bytes) -> None:
    """It may be the message of a client that did not wait for the refusal of all recipients;
    after it the client is not idle."""
    connection, transport = met(said)
    connection.data_received(b"x" * 999)
    for now in (DAY, DAY + 60):
        look(connection, now)
    connection.data_received(b"x")
    look(connection, DAY + 60 + CONFIG.idle_timeout)
    assert b"closed" not in transport.writes
    # The next message is another one.
    connection.data_received(TRANSACTION + b"DATA\r\n")
    look(connection, DAY + DAY)
    look(connection, DAY + DAY + 60)
    assert b"closed" not in transport.writes


def test_item_56_each_message_has_its_own_time() -> None:
    connection, transport = met(desk=Desk(at_once=True))
    for hour in range(24):
        connection.data_received(TRANSACTION + b"DATA\r\n")
        look(connection, hour * 3600)
        look(connection, hour * 3600 + 60)
        connection.data_received(b"hello\r\n.\r\n")
    assert b"closed" not in transport.writes
    assert b"".join(transport.writes).count(reply.ACCEPTED.wire) == 48


def test_item_56_whoever_waits_for_us_is_never_too_late() -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        connection, transport = met(TRANSACTION + b"DATA\r\nhello\r\n.\r\n", desk)
        look(connection, DAY)
        look(connection, 2 * DAY)
        desk.take(desk.waiting.get_nowait())
        await asyncio.sleep(0)
        assert transport.writes == [reply.ACCEPTED.wire * 2]
        connection, transport = met(desk=desk, limits=limits(refuse_at_rcpt=True))
        connection.data_received(TRANSACTION)
        look(connection, DAY)
        _, answer = desk.questions.get_nowait()
        answer([reply.RECIPIENT_OK] * 2)
        assert transport.writes == [reply.SENDER_OK.wire, reply.RECIPIENT_OK.wire * 2]

    async def room() -> None:
        connection, transport = met(TRANSACTION + b"DATA\r\n", memory_budget=0)
        connection.data_received(LARGE)
        look(connection, DAY)
        look(connection, 2 * DAY)
        assert transport.writes == []
        connection.connection_lost(None)

    run("asyncio", test)
    run("asyncio", room)


def test_fault_21_one_that_does_not_read_is_ended_even_if_it_waits_for_us() -> None:
    connection, transport = met(TRANSACTION + b"DATA\r\nhello\r\n.\r\n", Desk(holds=True))
    connection.pause_writing()
    look(connection, CONFIG.write_timeout)
    assert transport.writes == []
    look(connection, CONFIG.write_timeout + 1)
    assert transport.writes == [b"aborted"]


@pytest.mark.parametrize("said", [b"QUIT\r\n", b"NOOP\nx"])
def test_fault_21_one_that_does_not_read_its_last_reply_is_ended(said: bytes) -> None:
    connection, transport = met(said)
    look(connection, CONFIG.write_timeout + 1)
    assert transport.writes == [b"aborted"]


def test_a_defect_in_one_connection_does_not_keep_the_others_from_their_care() -> None:
    async def test() -> None:
        class Broken(Recorder):
            def write(self, data: bytes | bytearray | memoryview) -> None:
                raise RuntimeError("a defect")

        desk = Desk()
        server = Server(CONFIG._replace(idle_timeout=0.01), desk)
        recorders = [Recorder(), Broken(), Recorder()]
        for each in recorders:
            connection = server.new_connection()
            connection.connection_made(Recorder())
            connection._transport = each
        await server.listen([])
        while recorders[0].writes == [] or recorders[2].writes == []:
            await asyncio.sleep(0)
        assert recorders[0].writes == recorders[2].writes == [reply.IDLE.wire, b"closed"]
        assert recorders[1].writes == [b"aborted"]
        assert [str(each) for each in desk.defects] == ["a defect"]
        await server.stop(0)

    run("asyncio", test)


def test_one_round_is_made_for_all_listeners() -> None:
    async def test() -> None:
        server = Server(CONFIG, Desk())
        await server.listen([])
        going = server._round
        await server.listen([])
        assert going is not None and server._round is going
        await server.stop(0)
        assert going.cancelled()

    run("asyncio", test)


# On sockets


@both_loops
def test_item_56_an_idle_client_is_told_421_and_closed(loop: str) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            client.send("MAIL FROM:<>", "RCPT TO:<a@example.com>")
            await client.expect(SENDER_OK, RECIPIENT_OK)
            home.change(idle_timeout=0.05)
            await client.expect(IDLE)
            await client.expect_end()

    run(loop, test)


@both_loops
@pytest.mark.parametrize(
    "slow",
    [{"message_timeout": 0.05}, {"rate_grace": 0.05, "write_timeout": 0.1}],
    ids=["deadline", "rate"],
)
def test_item_56_a_slow_message_is_told_421_for_each_recipient_and_not_queued(
    loop: str, slow: dict[str, Any]
) -> None:
    async def test() -> None:
        async with house() as home, home.client() as one, home.client() as two:
            await one.open_data("a@example.com", "b@example.com")
            two.send("MAIL FROM:<>", "RCPT TO:<a@example.com>", "BDAT 5")
            await two.expect(SENDER_OK, RECIPIENT_OK)
            home.change(**slow)
            await one.expect(TOO_SLOW, TOO_SLOW)
            await one.expect_end()
            await two.expect(TOO_SLOW)
            await two.expect_end()
            assert home.desk.queued == []
            assert home.server.admission.replies[reply.TOO_SLOW.wire] == 3

    run(loop, test)


@both_loops
def test_fault_21_a_client_that_never_reads_its_replies_is_ended_with_bounded_memory(
    loop: str,
) -> None:
    async def test() -> None:
        async with house(write_timeout=0.2) as home, home.client() as client:
            (connection,) = home.server.connections
            transport, session = connection._transport, connection._session
            assert session is not None
            small_buffers(connection, client)
            client.send("MAIL FROM:<>")
            while not connection._gone:
                flooded = client.writer.transport
                if not flooded.get_write_buffer_size():
                    client.writer.write(b"RCPT TO:<>\r\n" * 1000)
                assert transport.get_write_buffer_size() < 4_000_000
                assert session.backlog < 1_000_000
                await asyncio.sleep(0)
            await home.server.departures.get()
            assert home.server.connections == set()

    run(loop, test)


@both_loops
def test_fault_22_a_flood_on_one_connection_does_not_keep_another_from_its_turn(
    loop: str,
) -> None:
    async def test() -> None:
        async with house() as home, home.client() as flooding, home.client() as other:
            flooding.send("MAIL FROM:<>")
            await flooding.expect(SENDER_OK)
            bad = line(reply.BAD_RECIPIENT)
            for _ in range(5):
                flooding.writer.write(b"RCPT TO:<>\r\n" * 5_000)
                other.send("MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA", "hello", ".")
                await other.expect(SENDER_OK, RECIPIENT_OK, line(reply.GO_AHEAD), ACCEPTED)
                await flooding.expect(*[bad] * 5_000)

    run(loop, test)


def test_fault_22_a_flood_is_worked_through_so_many_lines_a_turn() -> None:
    async def test() -> None:
        server = Server(CONFIG._replace(pause=1000.0), Desk())
        one, other = Recorder(), Recorder()
        flooding, polite = server.new_connection(), server.new_connection()
        flooding.connection_made(one)
        polite.connection_made(other)
        before = b"LHLO x\r\nMAIL FROM:<>\r\n"
        flooding.data_received(before)
        del one.writes[:], other.writes[:]
        flooding.data_received(b"RCPT TO:<a@example.com>\r\n" * (LINES_AT_ONCE * 7))
        for turn in range(1, 8):
            worked_through = LINES_AT_ONCE * turn - before.count(b"\n")
            assert b"".join(one.writes) == reply.RECIPIENT_OK.wire * worked_through
            polite.data_received(b"RSET\r\n")
            assert other.writes == [reply.DONE.wire] * turn
            server.admission.turns._next()
        flooding.data_received(b"QUIT\r\n")
        await asyncio.sleep(0)
        assert one.writes[-1] == b"closed"

    run("asyncio", test)


def test_a_connection_may_be_lost_while_others_have_their_turn() -> None:
    async def test() -> None:
        desk = Desk()
        for end in ("lost", "stop", "abort"):
            connection, transport = met(b"MAIL FROM:<>\r\n", desk)
            connection.data_received(b"RCPT TO:<a@example.com>\r\n" * 1000)
            if end == "lost":
                connection.connection_lost(None)
            elif end == "stop":
                connection.shut_down()
            else:
                connection.abort()
            said = list(transport.writes)
            for _ in range(20):
                await asyncio.sleep(0)
            assert transport.writes == said
        assert desk.defects == []

    run("asyncio", test)
