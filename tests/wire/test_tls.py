"""Item 51: STARTTLS (RFC 3207) with real TLS, on both event loops: what is forgotten, what is
never executed, and that no connection is left behind however it ends."""

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from postroom.lmtp.protocol import Limits, capabilities
from postroom.mail import reply
from tests.wire.dialogue import HOST, IDENT
from tests.wire.harness import (
    ACCEPTED,
    INTRODUCTION,
    LARGE,
    RECIPIENT_OK,
    ROOM_FOR_ONE,
    SENDER_OK,
    Client,
    Desk,
    both_loops,
    house,
    line,
    run,
)
from tests.wire.tunnel import READY, Tunnel, begin_tls, gone, introduce, secure_house

OUT_OF_ORDER = line(reply.BAD_ORDER)
TAKEN = line(reply.CHUNK_OK)
ONE = ["MAIL FROM:<anne@example.org>", "RCPT TO:<a@example.com>", "DATA", "hello", "."]
ONE_SAID = [SENDER_OK, RECIPIENT_OK, line(reply.GO_AHEAD), ACCEPTED]


# What is said


@both_loops
def test_item_51_after_tls_lhlo_is_required_again_and_starttls_is_not_offered(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client(introduced=False) as plain:
            await plain.expect(f"220 {HOST} {IDENT}")
            plain.send("STARTTLS").send("LHLO client.example.org")
            await plain.expect(OUT_OF_ORDER)
            offered = await plain.lines(INTRODUCTION + 1)
            maximum = Limits().max_message_size
            assert "\r\n".join([*offered, ""]).encode() == capabilities(HOST, maximum, True).wire
            assert "250-STARTTLS" in offered
            plain.send("STARTTLS now")
            await plain.expect(line(reply.NO_ARGUMENT))
            client, tunnel = await begin_tls(plain)
            # There is no second greeting; what comes first is the answer to this.
            client.send("MAIL FROM:<anne@example.org>", "STARTTLS")
            await client.expect(OUT_OF_ORDER, OUT_OF_ORDER)
            assert await introduce(client) == [each for each in offered if "STARTTLS" not in each]
            client.send("STARTTLS", *ONE)
            await client.expect(OUT_OF_ORDER, *ONE_SAID)
            client.send("QUIT")
            await client.expect(line(reply.BYE))
            await client.expect_end()
            assert tunnel.closed_in_order
            assert [each.body for each in home.desk.queued] == [b"hello\r\n"]

    run(loop, test)


@both_loops
def test_item_51_what_the_client_said_in_clear_is_forgotten(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with secure_house(context, desk) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client, "within.example.org")
            client.send(*ONE)
            delivery = await desk.waiting.get()
            host, port = plain.writer.get_extra_info("sockname")
            assert delivery.envelope.peer == (f"{host}:{port}", "within.example.org")
            desk.take(delivery)
            await client.expect(*ONE_SAID)

    run(loop, test)


@both_loops
@pytest.mark.parametrize(
    "injected",
    [
        b"NOOP\r\n",
        b"LHLO evil\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<a@example.com>\r\nDATA\r\n",
        b"MAIL FROM:<evil@example.org>",
        b"x" * 300_000,
    ],
    ids=["command", "transaction", "unfinished", "much"],
)
def test_item_51_what_comes_in_clear_with_starttls_is_never_executed(
    loop: str, context: ssl.SSLContext, injected: bytes
) -> None:
    """CVE-2011-0411: an attacker puts commands before what the client says within TLS."""

    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            plain.writer.write(b"STARTTLS\r\n" + injected)
            await plain.expect(READY)
            tunnel = Tunnel(plain)
            try:
                await tunnel.shake_hands(b"\r\nLHLO client.example.org\r\n")
            except (ConnectionError, ssl.SSLError):
                # More than one read: the rest was taken for a bad beginning of TLS.
                assert len(injected) > 65536
            else:
                client = Client(tunnel, tunnel)
                await client.expect(line(reply.BAD_COMMAND))
                await client.lines(INTRODUCTION)
                client.send(*ONE)
                await client.expect(*ONE_SAID)
        assert [each.sender for each in home.desk.queued] in ([], ["anne@example.org"])
        assert home.server.admission.replies[reply.DONE.wire] == 0
        assert home.server.admission.replies[reply.SENDER_OK.wire] == len(home.desk.queued)

    run(loop, test)


@both_loops
def test_item_51_what_comes_in_clear_after_starttls_ends_the_connection(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            plain.send("STARTTLS")
            await plain.expect(READY)
            plain.send(*ONE)
            await gone(home)
            await plain.expect_gone()
        assert home.desk.queued == []

    run(loop, test)


@both_loops
@pytest.mark.parametrize("times", [1, 30])
def test_item_51_what_comes_with_the_end_of_the_handshake_is_not_lost(
    loop: str, context: ssl.SSLContext, times: int
) -> None:
    """Since TLS 1.3 a client need not wait before it goes on."""

    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            with_it = "\r\n".join(["LHLO x", *ONE * times, "QUIT", ""]).encode()
            client, _ = await begin_tls(plain, with_it)
            await client.lines(INTRODUCTION)
            await client.expect(*ONE_SAID * times, line(reply.BYE))
            await client.expect_end()
            assert len(home.desk.queued) == times

    run(loop, test)


@both_loops
def test_there_is_no_starttls_over_a_unix_socket(
    loop: str, context: ssl.SSLContext, tmp_path: Path
) -> None:
    async def test() -> None:
        async with secure_house(context) as home:
            bound = socket.socket(socket.AF_UNIX)
            bound.bind(str(tmp_path / "lmtp.sock"))
            await home.server.listen([bound])
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "lmtp.sock"))
            client = Client(reader, writer)
            await client.lines(1)
            assert "250-STARTTLS" not in await introduce(client)
            client.send("STARTTLS")
            await client.expect(line(reply.NO_TLS))
            await client.close()

    run(loop, test)


@both_loops
def test_without_a_certificate_there_is_no_starttls(loop: str) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            client.send("STARTTLS")
            await client.expect(line(reply.NO_TLS))

    run(loop, test)


@both_loops
def test_what_was_offered_holds_after_a_reload_without_it(
    loop: str, context: ssl.SSLContext
) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            server = home.server
            server.reconfigure(server.admission.config._replace(tls=None))
            client, _ = await begin_tls(plain)
            await introduce(client)
            async with home.client() as new:  # of whom INTRODUCTION lines are expected
                new.send("STARTTLS")
                await new.expect(line(reply.NO_TLS))

    run(loop, test)


# Messages


@both_loops
@pytest.mark.parametrize("chunked", [False, True])
def test_large_messages_come_through_tls_whole(
    loop: str, context: ssl.SSLContext, chunked: bool
) -> None:
    async def test() -> None:
        async with secure_house(context, **ROOM_FOR_ONE) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client)
            for _ in range(3):
                if chunked:
                    client.send(*ONE[:2])
                    half = len(LARGE) // 2
                    for part, last in (LARGE[:half], ""), (LARGE[half:], " LAST"):
                        client.writer.write(b"BDAT %d%s\r\n%s" % (len(part), last.encode(), part))
                    await client.expect(SENDER_OK, RECIPIENT_OK, TAKEN, ACCEPTED)
                else:
                    await client.open_data("a@example.com")
                    client.writer.write(LARGE + b".\r\n")
                    await client.expect(ACCEPTED)
            assert [each.body for each in home.desk.queued] == [LARGE] * 3

    run(loop, test)


@both_loops
def test_replies_to_much_at_once_come_through_tls_whole(loop: str, context: ssl.SSLContext) -> None:
    async def test() -> None:
        async with secure_house(context) as home, home.client() as plain:
            client, _ = await begin_tls(plain)
            await introduce(client)
            rcpts = ["RCPT TO:<a@example.com>"] * 1000
            client.send("MAIL FROM:<>", *rcpts, "DATA", "hello", ".", "QUIT")
            await client.expect(SENDER_OK, *[RECIPIENT_OK] * 1000, line(reply.GO_AHEAD))
            await client.expect(*[ACCEPTED] * 1000, line(reply.BYE))
            await client.expect_end()

    run(loop, test)
