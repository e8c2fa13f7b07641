"""Who is let in, how many at once, and how those leave that were turned out."""

import asyncio
import contextlib
import socket
import struct
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest

from postroom.lmtp.admission import LOOPBACK, MOST_DETAINED, Admission, Networks
from postroom.lmtp.server import Server
from postroom.mail import reply
from postroom.mail.reply import Reply
from tests.wire.dialogue import HOST, IDENT
from tests.wire.harness import (
    INTRODUCTION,
    Client,
    Desk,
    both_loops,
    house,
    limits,
    line,
    run,
)
from tests.wire.recorder import CONFIG, DAY, Recorder, look

DONE = line(reply.DONE)
OVERLOADED = line(reply.OVERLOADED)
NOT_ALLOWED = line(reply.NOT_ALLOWED)


@both_loops
def test_no_more_connections_of_one_client_than_are_allowed(loop: str, tmp_path: Path) -> None:
    async def test() -> None:
        async with house(max_per_client=2, max_connections=4) as home, home.client() as first:
            async with home.client(), home.client(introduced=False) as third:
                await third.expect(OVERLOADED)
                await third.expect_end()
                async with home.client(address="127.0.0.2") as neighbour:
                    neighbour.send("NOOP")
                    await neighbour.expect(DONE)
                    # Those of unix sockets are all one host, and only counted in all.
                    path = str(tmp_path / "lmtp.sock")
                    bound = socket.socket(socket.AF_UNIX)
                    bound.bind(path)
                    await home.server.listen([bound])
                    local = Client(*await asyncio.open_unix_connection(path))
                    await local.lines(1)
                    full = Client(*await asyncio.open_unix_connection(path))
                    await full.expect(OVERLOADED)
                    await full.close()
                    await local.close()
            await home.until_left(1)
            async with home.client() as again:
                again.send("NOOP")
                await again.expect(DONE)
            first.send("NOOP")
            await first.expect(DONE)
            refused = +home.server.admission.refused
            assert refused == {"too many of one client": 1, "too many": 1}
            assert home.server.admission.replies[reply.OVERLOADED.wire] == 2

    run(loop, test)


@both_loops
def test_only_networks_that_are_allowed_come_in_over_tcp(loop: str, tmp_path: Path) -> None:
    async def test() -> None:
        allowed = (ip_network("127.0.0.2/31"), ip_network("2001:db8::/32"))
        async with house(allow=allowed) as home:
            async with home.client(introduced=False) as client:
                await client.expect(NOT_ALLOWED)
                await client.expect_end()
            for address in ("127.0.0.2", "127.0.0.3"):
                async with home.client(address=address) as client:
                    client.send("NOOP")
                    await client.expect(DONE)
            path = str(tmp_path / "lmtp.sock")
            bound = socket.socket(socket.AF_UNIX)
            bound.bind(path)
            await home.server.listen([bound])
            local = Client(*await asyncio.open_unix_connection(path))
            await local.lines(1)
            local.send("LHLO x", "NOOP")
            assert (await local.lines(INTRODUCTION + 1))[-1] == DONE
            await local.close()
            # A reload holds from now on.
            server = home.server
            server.reconfigure(server.admission.config._replace(allow=LOOPBACK))
            async with home.client() as client:
                client.send("NOOP")
                await client.expect(DONE)
            assert +server.admission.refused == {"not allowed": 1}

    run(loop, test)


class Visitor:
    """What admission sees of a connection."""

    def __init__(self, host: str) -> None:
        self.host = host


@pytest.mark.parametrize(
    ("host", "networks", "answer"),
    [
        ("127.0.0.1", LOOPBACK, None),
        ("127.255.255.254", LOOPBACK, None),
        ("::1", LOOPBACK, None),
        ("::ffff:127.0.0.1", LOOPBACK, None),
        ("", (), None),
        ("127.0.0.1", (), reply.NOT_ALLOWED),
        ("128.0.0.1", LOOPBACK, reply.NOT_ALLOWED),
        ("::2", LOOPBACK, reply.NOT_ALLOWED),
        ("::ffff:128.0.0.1", LOOPBACK, reply.NOT_ALLOWED),
        ("::7f00:1", LOOPBACK, reply.NOT_ALLOWED),
        ("fe80::1", (ip_network("fe80::/10"),), None),
        ("192.0.2.1", (ip_network("0.0.0.0/0"),), None),
        ("2001:db8::1", (ip_network("0.0.0.0/0"),), reply.NOT_ALLOWED),
        ("192.0.2.1", (ip_network("::/0"),), reply.NOT_ALLOWED),
    ],
)
def test_who_may_come_in(host: str, networks: Networks, answer: Reply | None) -> None:
    assert Admission(CONFIG._replace(allow=networks)).enter(Visitor(host)) is answer


def test_who_has_left_makes_room() -> None:
    admission = Admission(CONFIG._replace(max_connections=3, max_per_client=1))
    one, two, unix = Visitor("127.0.0.1"), Visitor("127.0.0.2"), Visitor("")
    assert [admission.enter(each) for each in (one, unix, unix)] == [None] * 3
    assert admission.enter(two) is reply.OVERLOADED
    admission.leave(unix)
    assert admission.enter(one) is reply.OVERLOADED
    assert admission.enter(two) is None
    admission.leave(one)
    assert admission.enter(one) is None
    assert (admission.accepted, admission.refused.total()) == (5, 2)
    for each in (one, two, unix):
        admission.leave(each)
    assert (admission._inside, len(admission._from)) == (0, 0)


def test_a_client_whose_address_cannot_be_told_any_more_is_not_let_in() -> None:
    """It has no address to check: not to be taken for a client of a unix socket."""

    async def test() -> None:
        with socket.socket() as unconnected:
            server = Server(CONFIG._replace(allow=()), Desk())
            connection = server.new_connection()
            transport = Recorder(peername=None, socket=unconnected)
            connection.connection_made(transport)
            assert transport.writes == [b"aborted"]
            connection.data_received(b"LHLO x\r\n")
            look(connection, DAY)
            connection.shut_down()
            connection.connection_lost(None)
            assert b"250" not in b"".join(transport.writes)
            assert (server.connections, server.admission.accepted) == (set(), 0)

    run("asyncio", test)


@both_loops
def test_connections_that_are_gone_before_they_are_accepted_leave_nothing_behind(
    loop: str,
) -> None:
    async def test() -> None:
        async with house() as home:
            linger = struct.pack("ii", 1, 0)  # close with a reset
            for _ in range(50):
                with socket.create_connection(("127.0.0.1", home.port)) as gone:
                    gone.send(b"LHLO x\r\nMAIL FROM:<>\r\n")
                    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            async with home.client() as client:  # it was accepted after them
                client.send("NOOP")
                await client.expect(DONE)
            await home.until_left()
            assert home.server.admission._inside == 0
            assert len(home.server.gone) == len(set(home.server.gone))
            assert home.desk.defects == []

    run(loop, test)


def test_a_connection_that_is_about_to_be_made_does_not_keep_a_server_from_stopping() -> None:
    async def test() -> None:
        server = Server(CONFIG, Desk())
        late = server.new_connection()
        await server.stop(0)
        transport = Recorder()
        late.connection_made(transport)
        assert transport.writes == [reply.SHUTTING_DOWN.wire, b"closed"]

    run("asyncio", test)


# Those that were turned out


@both_loops
@pytest.mark.parametrize("why", ["not let in", "speaks HTTP", "too many errors"])
def test_who_was_turned_out_waits_before_the_connection_is_closed(loop: str, why: str) -> None:
    async def test() -> None:
        allowed = () if why == "not let in" else LOOPBACK
        settings: dict[str, Any] = {
            "allow": allowed,
            "limits": limits(max_errors=0),
            "penalty": 1000.0,
        }
        async with house(**settings) as home, home.client(introduced=False) as client:
            if why != "not let in":
                await client.expect(f"220 {HOST} {IDENT}")
                # What else it sends is not read, and must not make the system drop the 421.
                client.writer.write(b"GET / HTTP/1.0\r\n" if why == "speaks HTTP" else b"FOO\r\n")
                client.writer.write(b"x" * 100_000)
            assert (await client.lines(1))[0].startswith("421 4.7.0 ")
            (connection,) = home.server.connections
            assert connection.state == "leaving"
            assert home.server.admission._detained == 1
            assert not connection._transport.is_closing()
            assert not connection._transport.is_reading()
            # A stop does not wait for it.
            await home.server.stop(20)
            await client.expect_gone()
            assert home.server.admission._detained == 0
            assert home.server.admission._inside == 0

    run(loop, test)


@both_loops
def test_who_was_turned_out_is_closed_after_the_penalty(loop: str) -> None:
    async def test() -> None:
        async with house(penalty=0.05, allow=()) as home:
            async with home.client(introduced=False) as client:
                await client.expect(NOT_ALLOWED)
                await client.expect_end()
            await home.until_left()
            assert home.server.admission._detained == 0

    run(loop, test)


@both_loops
def test_not_more_than_so_many_are_kept_waiting(loop: str) -> None:
    async def test() -> None:
        async with house(penalty=1000.0, allow=()) as home, contextlib.AsyncExitStack() as stack:
            detained = [
                await stack.enter_async_context(home.client(introduced=False))
                for _ in range(MOST_DETAINED)
            ]
            for client in detained:
                await client.expect(NOT_ALLOWED)
            for _ in range(3):
                async with home.client(introduced=False) as one_more:
                    await one_more.expect(NOT_ALLOWED)
                    await one_more.expect_end()
            assert home.server.admission._detained == MOST_DETAINED
            # One that leaves by force makes room.
            next(iter(home.server.connections)).abort()
            await home.server.departures.get()
            while home.server.admission._detained == MOST_DETAINED:
                await home.server.departures.get()

    run(loop, test)


def test_who_was_turned_out_and_is_lost_does_not_wait_any_more() -> None:
    async def test() -> None:
        server = Server(CONFIG._replace(allow=(), penalty=1000.0), Desk())
        connection = server.new_connection()
        connection.connection_made(Recorder())
        assert server.admission._detained == 1
        connection.connection_lost(None)
        assert (server.admission._detained, server.connections) == (0, set())
        connection.connection_lost(None)
        assert server.admission._detained == 0

    run("asyncio", test)
