"""The real server on loopback: what only sockets, time and memory can show."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from postroom.base.loading import load
from postroom.base.settings import SettingsError
from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.server import Server
from postroom.mail import reply
from tests.wire.dialogue import HOST, IDENT, Dialogue, load_all
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
    limits,
    line,
    run,
)
from tests.wire.player import Played, check, turns
from tests.wire.recorder import Recorder, in_data

FOLDER = Path(__file__).parent
# The dialogues


@both_loops
@pytest.mark.parametrize(
    ("dialogue", "refuse_at_rcpt"),
    [
        pytest.param(each, mode, id=f"{each.name}-{'at-rcpt' if mode else 'after-data'}")
        for each in load_all(FOLDER)
        for mode in each.modes
    ],
)
def test_dialogue_played_over_a_socket(loop: str, dialogue: Dialogue, refuse_at_rcpt: bool) -> None:
    async def test() -> None:
        desk = Desk(dialogue)
        config: dict[str, Any] = {"limits": dialogue.limits._replace(refuse_at_rcpt=refuse_at_rcpt)}
        if dialogue.no_room:
            config |= {"memory_budget": 0, "room_wait": 0.01}
        async with house(desk, **config) as home, home.client(introduced=False) as client:
            output: list[str] = []
            for said, octets in turns(dialogue):
                output += await client.lines(len(said))
                client.writer.write(octets)
            if not dialogue.closes:
                client.writer.write_eof()
            await client.expect_end()
        assert desk.defects == []
        played = "".join(f"{each}\r\n" for each in output).encode()
        check(dialogue, Played(played, tuple(desk.queued), dialogue.closes))

    run(loop, test)


# Connections


@both_loops
def test_item_1_a_connection_too_many_gets_421_until_there_is_room(loop: str) -> None:
    async def test() -> None:
        async with house(max_connections=1) as home:
            async with home.client() as first:
                async with home.client(introduced=False) as second:
                    await second.expect(line(reply.OVERLOADED))
                    await second.expect_end()
                first.send("QUIT")
                await first.expect(line(reply.BYE))
                await first.expect_end()
            async with home.client() as third:
                third.send("NOOP")
                await third.expect(line(reply.DONE))

    run(loop, test)


def test_item_8_port_25_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "postroom.toml"
    path.write_text('[lmtp]\nlisten = ["127.0.0.1:25"]\n', encoding="utf-8")
    with pytest.raises(SettingsError, match=r"lmtp\.listen: .*RFC 2033"):
        load(str(path), {})


@both_loops
def test_item_41_a_bare_lf_in_a_command_closes(loop: str) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            client.writer.write(b"NOOP\nNOOP\r\n")
            await client.expect(line(reply.BARE_LF))
            await client.expect_end()

    run(loop, test)


@both_loops
@pytest.mark.parametrize("data", [b"", b"hello\r\n", b"hello\r\n.", b"hello\r\n.\r"])
def test_item_43_a_client_that_ends_in_data_gets_no_reply_and_nothing_is_queued(
    loop: str, data: bytes
) -> None:
    async def test() -> None:
        async with house() as home, home.client() as client:
            await client.open_data("a@example.com")
            client.writer.write(data)
            client.writer.write_eof()
            await client.expect_end()
            assert home.desk.queued == []
            assert home.server.connections == set()

    run(loop, test)


@both_loops
def test_a_client_that_only_stopped_sending_gets_its_answer(loop: str) -> None:
    async def test() -> None:
        async with house(Desk(holds=True)) as home, home.client() as client:
            await client.open_data("a@example.com", "unknown@example.com")
            client.send("hello", ".").writer.write_eof()
            home.desk.take(await home.desk.waiting.get())
            await client.expect(ACCEPTED, line(reply.NO_MAILBOX))
            await client.expect_end()

    run(loop, test)


def test_the_end_of_input_closes_at_once_only_if_nothing_is_under_way() -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        server = Server(ServerConfig(HOST, IDENT), desk)
        for end, stays in ((b"", False), (b".\r\n", True)):
            connection, transport = in_data(server)
            connection.data_received(end)
            assert connection.eof_received() is stays
        desk.take(desk.waiting.get_nowait())
        await asyncio.sleep(0)
        assert transport.writes == [reply.ACCEPTED.wire, b"closed"]

    run("asyncio", test)


@both_loops
def test_the_envelope_tells_the_peer_and_its_name(loop: str, tmp_path: Path) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with house(desk) as home, home.client() as client:
            await client.open_data("a@example.com")
            client.send(".")
            delivery = await desk.waiting.get()
            host, port = client.writer.get_extra_info("sockname")
            assert delivery.envelope.peer == (f"{host}:{port}", "client.example.org")
            desk.take(delivery)
            await client.expect(ACCEPTED)
            path = str(tmp_path / "lmtp.sock")
            bound = socket.socket(socket.AF_UNIX)
            bound.bind(path)
            await home.server.listen([bound])
            local = Client(*await asyncio.open_unix_connection(path))
            await local.lines(1)
            local.send("LHLO local")
            await local.lines(INTRODUCTION)
            await local.open_data("a@example.com")
            local.send(".")
            delivery = await desk.waiting.get()
            assert delivery.envelope.peer == (f"unix:uid={os.getuid()},pid={os.getpid()}", "local")
            desk.take(delivery)
            await local.expect(ACCEPTED)
            await local.close()

    run(loop, test)


@both_loops
def test_new_settings_hold_for_new_connections(loop: str) -> None:
    async def test() -> None:
        async with house() as home, home.client() as old:
            home.server.reconfigure(
                home.server.admission.config._replace(limits=limits(max_message_size=1000))
            )
            async with home.client(introduced=False) as new:
                new.send("LHLO x", "MAIL FROM:<> SIZE=2000")
                said = await new.lines(INTRODUCTION + 2)
                assert said[-2:] == ["250 SIZE 1000", line(reply.TOO_BIG)]
            old.send("MAIL FROM:<> SIZE=2000")
            await old.expect(SENDER_OK)

    run(loop, test)


# Writes


@pytest.mark.parametrize("refuse_at_rcpt", [False, True])
def test_item_48_the_replies_of_a_pipelined_group_leave_in_one_write(
    refuse_at_rcpt: bool,
) -> None:
    async def test() -> None:
        settings = limits(refuse_at_rcpt=refuse_at_rcpt)
        connection = Server(ServerConfig(HOST, IDENT, settings), Desk()).new_connection()
        transport = Recorder()
        connection.connection_made(transport)
        connection.data_received(b"LHLO x\r\n")
        group = b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@example.com>\r\n" * 50 + b"DATA\r\n"
        del transport.writes[:]
        connection.data_received(group)
        await asyncio.sleep(0)
        # With a look-up under way what is known goes out first: it is slow work.
        assert len(transport.writes) == (2 if refuse_at_rcpt else 1)
        assert b"".join(transport.writes).count(b"\r\n") == 52
        del transport.writes[:]
        connection.data_received(b"hello\r\n.\r\nQUIT\r\n")
        await asyncio.sleep(0)
        accepted = reply.ACCEPTED.wire * 50
        assert transport.writes == [accepted + reply.BYE.wire, b"closed"]

    run("asyncio", test)


def test_a_connection_that_is_closing_says_and_hears_nothing_more() -> None:
    async def test() -> None:
        server = Server(ServerConfig(HOST, IDENT), Desk())
        connection, transport = server.new_connection(), Recorder()
        connection.connection_made(transport)
        connection.data_received(b"QUIT\r\n")
        assert transport.writes[1:] == [reply.BYE.wire, b"closed"]
        connection.data_received(b"NOOP\r\n")
        connection.shut_down()
        assert len(transport.writes) == 3

    run("asyncio", test)


@both_loops
@pytest.mark.parametrize("refuse_at_rcpt", [False, True])
def test_a_door_that_answers_before_it_has_returned_is_understood(
    loop: str, refuse_at_rcpt: bool
) -> None:
    """As the real one does when its storage is gone."""

    async def test() -> None:
        desk = Desk(at_once=True)
        allowed = limits(refuse_at_rcpt=refuse_at_rcpt)
        async with house(desk, limits=allowed) as home, home.client() as client:
            one = ["MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA", "hello", "."]
            client.send(*one * 20, "QUIT")
            said = [SENDER_OK, RECIPIENT_OK, line(reply.GO_AHEAD), ACCEPTED]
            await client.expect(*said * 20, line(reply.BYE))
            await client.expect_end()
            assert len(desk.queued) == 20

    run(loop, test)


@both_loops
def test_item_48_replies_are_flushed_before_slow_work(loop: str) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with (
            house(desk, limits=limits(refuse_at_rcpt=True)) as home,
            home.client() as client,
        ):
            client.send("NOOP", "MAIL FROM:<>", "RCPT TO:<a@example.com>", "DATA")
            await client.expect(line(reply.DONE), SENDER_OK)
            recipients, answer = await desk.questions.get()
            answer(desk.dialogue.verified(recipients))
            await client.expect(RECIPIENT_OK, line(reply.GO_AHEAD))
            client.send("hello", ".", "NOOP")
            desk.take(await desk.waiting.get())
            await client.expect(ACCEPTED, line(reply.DONE))

    run(loop, test)


@both_loops
def test_small_writes_are_not_delayed(loop: str) -> None:
    """Nagle's algorithm would cost some 90 ms a message."""

    async def test() -> None:
        async with house() as home, home.client():
            (connection,) = home.server.connections
            sock = connection._transport.get_extra_info("socket")
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)

    run(loop, test)


@both_loops
def test_a_client_that_does_not_read_its_replies_is_not_read_from(loop: str) -> None:
    async def test() -> None:
        patient = limits(max_junk=10_000_000, max_commands=10_000_000)
        async with house(limits=patient) as home:
            running = asyncio.get_running_loop()
            with socket.create_connection(("127.0.0.1", home.port)) as client:
                client.setblocking(False)
                sent = b""
                flood = b"HELP\r\n" * 1000
                await running.sock_recv(client, 4096)  # the greeting
                (connection,) = home.server.connections
                transport, session = connection._transport, connection._session
                assert session is not None
                while transport.is_reading():
                    assert len(sent) < 50_000_000, "read on although nobody reads the replies"
                    with contextlib.suppress(BlockingIOError):
                        sent += flood[: client.send(flood)]
                    await asyncio.sleep(0)
                assert transport.get_write_buffer_size() < 8_000_000
                assert session.backlog < 1_000_000
                # Once it reads, everything is answered and nothing twice.
                whole = sent + flood[len(sent) % len(flood) :] if len(sent) % len(flood) else sent
                await asyncio.gather(
                    running.sock_sendall(client, whole[len(sent) :]),
                    _read_exactly(client, len(reply.HELP.wire) * (len(whole) // 6)),
                )

    run(loop, test)


async def _read_exactly(client: socket.socket, octets: int) -> None:
    running = asyncio.get_running_loop()
    while octets:
        piece = await running.sock_recv(client, 1 << 20)
        assert piece
        octets -= len(piece)
        assert octets >= 0


# Answers of the door


@both_loops
def test_an_unknown_outcome_closes_in_silence(loop: str) -> None:
    async def test() -> None:
        async with house(Desk(holds=True)) as home, home.client() as client:
            await client.open_data("a@example.com", "b@example.com")
            client.send("hello", ".", "QUIT")
            (await home.desk.waiting.get()).answer(None)
            await client.expect_end()

    run(loop, test)


@both_loops
@pytest.mark.parametrize("body", [b"hello\r\n", LARGE])
def test_a_defect_of_the_door_ends_only_its_connection(loop: str, body: bytes) -> None:
    async def test() -> None:
        async with house(**ROOM_FOR_ONE) as home, home.client() as other:
            async with home.client() as client:
                await client.open_data("a@example.com")
                home.desk.fails = RuntimeError("a defect")
                client.writer.write(body + b".\r\n")
                await client.expect_gone()
                assert home.desk.defects == [home.desk.fails]
            home.desk.fails = None
            # What it held of the budget is free again.
            await other.open_data("a@example.com")
            other.writer.write(LARGE + b".\r\n")
            await other.expect(ACCEPTED)

    run(loop, test)


@both_loops
@pytest.mark.parametrize("replies", [[], [reply.ACCEPTED], [reply.ACCEPTED] * 3])
def test_a_wrong_number_of_answers_is_never_passed_on(
    loop: str, replies: Sequence[reply.Reply]
) -> None:
    async def test() -> None:
        async with house(Desk(holds=True)) as home, home.client() as client:
            await client.open_data("a@example.com", "b@example.com")
            client.send("hello", ".")
            (await home.desk.waiting.get()).answer(replies)
            await client.expect_gone()
            assert [type(error) for error in home.desk.defects] == [AssertionError]

    run(loop, test)


@both_loops
@pytest.mark.parametrize("replies", [None, [], [reply.RECIPIENT_OK] * 2])
def test_a_look_up_that_fails_ends_only_its_connection(
    loop: str, replies: Sequence[reply.Reply] | None
) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with (
            house(desk, limits=limits(refuse_at_rcpt=True)) as home,
            home.client() as client,
            home.client() as other,
        ):
            client.send("MAIL FROM:<>", "RCPT TO:<a@example.com>")
            await client.expect(SENDER_OK)
            _, answer = await desk.questions.get()
            answer(replies)
            await client.expect_gone()
            assert [type(error) for error in desk.defects] == [AssertionError]
            other.send("NOOP")
            await other.expect(line(reply.DONE))

    run(loop, test)
