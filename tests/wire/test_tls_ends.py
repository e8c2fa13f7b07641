"""Item 51: however a connection with TLS ends, nothing of it is left behind."""

import asyncio
import contextlib
import ssl
from typing import cast

import pytest

from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.server import Server
from postroom.mail import reply
from tests.wire.dialogue import HOST, IDENT, Queued
from tests.wire.harness import (
    ACCEPTED,
    LARGE,
    RECIPIENT_OK,
    ROOM_FOR_ONE,
    SENDER_OK,
    SHUTTING_DOWN,
    Client,
    Desk,
    House,
    both_loops,
    limits,
    line,
    run,
    small_buffers,
)
from tests.wire.recorder import Recorder
from tests.wire.tunnel import READY, Tunnel, begin_tls, gone, introduce, secure_house

DONE = line(reply.DONE)
ONE = ["MAIL FROM:<anne@example.org>", "RCPT TO:<a@example.com>", "DATA", "hello", "."]
ONE_SAID = [SENDER_OK, RECIPIENT_OK, line(reply.GO_AHEAD), ACCEPTED]


# Ends of the handshake


@both_loops
@pytest.mark.parametrize(
    "octets",
    [b"", b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"hello\r\n", b"\x80" * 5000],
    ids=["nothing", "one octet", "unfinished", "text", "garbage"],
)
@pytest.mark.parametrize("end", ["fin", "reset", "stays"])
def test_item_51_a_handshake_that_does_not_succeed_leaves_nothing_behind(
    loop: str, context: ssl.SSLContext, octets: bytes, end: str
) -> None:
    async def test() -> None:
        timeout = 0.1 if end == "stays" else 30.0
        async with secure_house(context, write_timeout=timeout) as home, home.client() as plain:
            plain.send("STARTTLS")
            await plain.expect(READY)
            plain.writer.write(octets)
            if end == "fin":
                plain.writer.write_eof()
            elif end == "reset":
                plain.reset()
            await gone(home)
            with contextlib.suppress(ConnectionError):
                assert b"421" not in await plain.reader.read()

    run(loop, test)


@both_loops
@pytest.mark.parametrize("end", ["fin", "reset", "stays"])
def test_item_51_a_client_that_leaves_after_its_hello_leaves_nothing_behind(
    loop: str, context: ssl.SSLContext, end: str
) -> None:
    async def test() -> None:
        timeout = 0.1 if end == "stays" else 30.0
        async with secure_house(context, write_timeout=timeout) as home, home.client() as plain:
            plain.send("STARTTLS")
            await plain.expect(READY)
            plain.writer.write(Tunnel(plain).hello())
            if end == "fin":
                plain.writer.write_eof()
            elif end == "reset":
                await plain.reader.read(1)
                plain.reset()
            await gone(home)

    run(loop, test)


@both_loops
def test_item_51_a_client_that_leaves_at_once_leaves_nothing_behind(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home:
            for leave in (Client.reset, Client.close):
                for _ in range(5):
                    async with home.client() as plain:
                        plain.send("STARTTLS")
                        await asyncio.sleep(0)
                        if leave is Client.reset:
                            plain.reset()
            await home.until_left()

    run(loop, test)


@both_loops
def test_item_51_no_protocol_in_common_ends_that_connection_only(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as other:
            async with home.client() as plain:
                plain.send("STARTTLS")
                await plain.expect(READY)
                old = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                old.check_hostname, old.verify_mode = False, ssl.CERT_NONE
                old.maximum_version = ssl.TLSVersion.TLSv1_2
                old.set_ciphers("PSK")
                outgoing = ssl.MemoryBIO()
                with pytest.raises(ssl.SSLError):
                    old.wrap_bio(ssl.MemoryBIO(), outgoing).do_handshake()
                plain.writer.write(outgoing.read() or b"\x15\x03\x01\x00\x02\x02\x28")
                await home.server.departures.get()
            other.send("NOOP")
            await other.expect(DONE)

    run(loop, test)


def test_starttls_with_replies_that_nobody_reads_ends_the_connection(
    context: ssl.SSLContext,
) -> None:
    async def test() -> None:
        server = Server(ServerConfig(HOST, IDENT, tls=context), Desk())
        connection, transport = server.new_connection(), Recorder()
        connection.connection_made(transport)
        connection.data_received(b"LHLO x\r\n")
        connection.pause_writing()
        connection.data_received(b"STARTTLS\r\n")
        assert transport.writes[-2:] == [reply.START_TLS.wire, b"aborted"]

    run("asyncio", test)


# Shutdown


@both_loops
@pytest.mark.parametrize("hello", [False, True], ids=["before its hello", "after its hello"])
def test_item_57_at_shutdown_a_handshake_ends_in_silence(
    loop: str, context: ssl.SSLContext, hello: bool
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            plain.send("STARTTLS")
            await plain.expect(READY)
            if hello:
                plain.writer.write(Tunnel(plain).hello())
                await plain.reader.read(1)
            await home.server.stop(20)
            assert home.server.connections == set()
            with contextlib.suppress(ConnectionError):
                assert b"421" not in await plain.reader.read()

    run(loop, test)


@both_loops
def test_item_57_at_shutdown_a_client_within_tls_is_told_421_within_tls(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            client, tunnel = await begin_tls(plain)
            await introduce(client)
            stopping = asyncio.get_running_loop().create_task(home.server.stop(20))
            await client.expect(SHUTTING_DOWN)
            await client.expect_end()
            assert tunnel.closed_in_order
            await client.close()
            await stopping

    run(loop, test)


@both_loops
def test_item_57_at_shutdown_a_message_within_tls_may_finish(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client)
            await client.open_data("a@example.com", "b@example.com")
            stopping = asyncio.get_running_loop().create_task(home.server.stop(20))
            await asyncio.sleep(0)
            client.send("hello", ".")
            await client.expect(ACCEPTED, ACCEPTED)
            await client.expect_end()
            await client.close()
            await stopping
            assert len(home.desk.queued) == 1

    run(loop, test)


# Other ends


@both_loops
@pytest.mark.parametrize("end", ["close notify", "fin", "both"])
def test_a_client_that_stops_sending_within_tls_leaves_nothing_behind(
    loop: str, context: ssl.SSLContext, end: str, caplog: pytest.LogCaptureFixture
) -> None:
    """TLS of asyncio knows no half-closed connections: its message is stored, and the client
    may not hear of that; if it sends it again that is recognised."""

    async def test() -> None:
        desk = Desk(holds=True)
        async with secure_house(context, desk) as home, home.client() as plain:
            client, tunnel = await begin_tls(plain)
            await introduce(client)
            await client.open_data("a@example.com")
            client.send("hello", ".")
            delivery = await desk.waiting.get()
            if end != "fin":
                tunnel.say_close()
            if end != "close notify":
                tunnel.write_eof()
            if end == "close notify":
                await client.expect_end()
                await client.close()
            await gone(home)
            desk.take(delivery)
            await asyncio.sleep(0)
            assert [each.body for each in desk.queued] == [b"hello\r\n"]
            assert caplog.messages == []

    run(loop, test)


@both_loops
def test_item_43_a_client_that_ends_in_data_within_tls_queues_nothing(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context, **ROOM_FOR_ONE) as home:
            for leave in ("close notify", "fin", "reset"):
                async with home.client() as plain:
                    client, tunnel = await begin_tls(plain)
                    await introduce(client)
                    await client.open_data("a@example.com")
                    client.writer.write(LARGE)
                    await home.budget.requests.get()
                    if leave == "close notify":
                        tunnel.say_close()
                    elif leave == "fin":
                        tunnel.write_eof()
                    else:
                        plain.reset()
            await home.until_left()
            assert home.desk.queued == []

    run(loop, test)


@both_loops
@pytest.mark.parametrize("last", ["QUIT", "FOO"])
def test_a_client_that_does_not_close_within_tls_is_closed(
    loop: str, context: ssl.SSLContext, last: str
) -> None:
    async def test() -> None:
        allowed = limits(max_errors=0)
        async with secure_house(context, limits=allowed) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client)
            home.change(write_timeout=0.1)
            client.send(last)
            bye = reply.BYE if last == "QUIT" else reply.TOO_MANY_ERRORS
            await client.expect(line(bye))
            await gone(home)

    run(loop, test)


@both_loops
def test_item_56_within_tls_an_idle_client_is_told_so(loop: str, context: ssl.SSLContext) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client)
            home.change(idle_timeout=0.05)
            await client.expect(line(reply.IDLE))
            await client.expect_end()
            await client.close()
            await gone(home)

    run(loop, test)


@both_loops
def test_within_tls_a_client_that_does_not_read_its_replies_is_ended(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client)
            home.change(write_timeout=0.1)
            (connection,) = home.server.connections
            client.send("MAIL FROM:<>")
            await client.expect(SENDER_OK)
            transport = cast(asyncio.Transport, plain.writer.transport)
            transport.pause_reading()
            small_buffers(connection, plain)
            while not connection._clogged:
                if not transport.get_write_buffer_size():
                    client.writer.write(b"RCPT TO:<>\r\n" * 1000)
                await asyncio.sleep(0)
            assert connection._transport.get_write_buffer_size() < 8_000_000
            assert connection._session is not None and connection._session.backlog < 1_000_000
            await gone(home)

    run(loop, test)


@both_loops
def test_a_defect_within_tls_ends_only_its_connection(loop: str, context: ssl.SSLContext) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as other:
            async with home.client() as plain:
                client, _ = await begin_tls(plain)
                await introduce(client)
                await client.open_data("a@example.com")
                home.desk.fails = RuntimeError("a defect")
                client.send("hello", ".")
                await client.expect_gone()
            assert home.desk.defects == [home.desk.fails]
            home.desk.fails = None
            home.desk.defects.clear()
            client, _ = await begin_tls(other)
            await introduce(client)
            client.send(*ONE)
            await client.expect(*ONE_SAID)
            assert home.desk.queued == [
                Queued("anne@example.org", ("a@example.com",), b"hello\r\n")
            ]

    run(loop, test)


@both_loops
def test_many_at_once_that_leave_at_any_point_leave_nothing_behind(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home:
            await asyncio.gather(*[visit(home, number) for number in range(40)])
            await home.until_left()
            assert len(home.desk.queued) == 20

    async def visit(home: House, number: int) -> None:
        point = number % 4
        async with home.client() as plain:
            if point == 0:
                plain.send("STARTTLS")
                await plain.expect(READY)
                return
            client, _ = await begin_tls(plain)
            if point == 1:
                plain.reset()
                return
            await introduce(client)
            client.send(*ONE)
            await client.expect(*ONE_SAID)
            if point == 3:
                plain.reset()

    run(loop, test)
