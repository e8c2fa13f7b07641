"""Memory for messages in flight: who waits, who is told 452, what is given back."""

import asyncio

import pytest

from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.server import Server
from postroom.lmtp.transfer import SMALL_BODY
from postroom.mail import reply
from tests.wire.dialogue import HOST, IDENT
from tests.wire.harness import (
    ACCEPTED,
    LARGE,
    NO_ROOM,
    RECIPIENT_OK,
    ROOM_FOR_ONE,
    SENDER_OK,
    Client,
    Desk,
    House,
    both_loops,
    house,
    limits,
    line,
    run,
)
from tests.wire.recorder import TRANSACTION, in_data

DONE = line(reply.DONE)


async def _begin(client: Client, sender: str) -> None:
    await client.open_data("a@example.com", sender=sender)
    client.writer.write(LARGE)
    client.send(".")


@both_loops
def test_large_messages_wait_for_room_in_order_and_are_all_accepted(loop: str) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with (
            house(desk, **ROOM_FOR_ONE) as home,
            home.client() as one,
            home.client() as two,
            home.client() as three,
            home.client() as small,
        ):
            for client, sender in ((one, "1@x"), (two, "2@x"), (three, "3@x")):
                await _begin(client, sender)
                await home.budget.requests.get()
            # A small message needs no room, so it passes them.
            first = await desk.waiting.get()
            await small.open_data("a@example.com", sender="small@x")
            small.send("hello", ".")
            desk.take(await desk.waiting.get())
            await small.expect(ACCEPTED)
            desk.take(first)
            await one.expect(ACCEPTED)
            for client in (two, three):
                assert desk.waiting.empty()
                desk.take(await desk.waiting.get())
                await client.expect(ACCEPTED)
            senders = ["small@x", "1@x", "2@x", "3@x"]
            assert [each.sender for each in desk.queued] == senders
            assert {each.body for each in desk.queued[1:]} == {LARGE}

    run(loop, test)


@both_loops
def test_when_the_wait_for_room_is_over_the_message_is_told_452_for_each_recipient(
    loop: str,
) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with (
            house(desk, room_wait=0.01, **ROOM_FOR_ONE) as home,
            home.client() as one,
            home.client() as two,
        ):
            await _begin(one, "1@x")
            held = await desk.waiting.get()
            await two.open_data("a@example.com", "b@example.com")
            two.writer.write(LARGE + b".\r\n")
            await two.expect(NO_ROOM, NO_ROOM)
            desk.take(held)
            await one.expect(ACCEPTED)
            # There is room again, in the same session.
            await _begin(two, "2@x")
            desk.take(await desk.waiting.get())
            await two.expect(ACCEPTED)

    run(loop, test)


@both_loops
def test_a_message_larger_than_it_declared_does_not_wait_while_it_holds_room(
    loop: str,
) -> None:
    """Two that hold a piece each and wait for more would wait for ever."""

    async def test() -> None:
        desk = Desk(holds=True)
        size = {"limits": limits(max_message_size=1_000_000), "memory_budget": 1_100_000}
        async with house(desk, **size) as home, home.client() as one, home.client() as two:
            await _begin(one, "1@x")
            held = await desk.waiting.get()
            await home.budget.requests.get()
            await declare_too_little(home, two)
            await two.expect(NO_ROOM)
            desk.take(held)
            await one.expect(ACCEPTED)
            # With nobody else there it grows.
            await declare_too_little(home, two)
            desk.take(await desk.waiting.get())
            await two.expect(ACCEPTED)
            assert [each.sender for each in desk.queued] == ["1@x", "2@x"]

    async def declare_too_little(home: House, client: Client) -> None:
        client.send("MAIL FROM:<2@x> SIZE=100000", "RCPT TO:<a@example.com>", "DATA")
        await client.lines(3)
        client.writer.write(LARGE[:70_000])
        ticket = await home.budget.requests.get()
        assert ticket.octets < 100_000
        client.writer.write(LARGE[70_000:] + b".\r\n")

    run(loop, test)


@both_loops
def test_room_is_given_back_when_a_connection_is_lost(loop: str) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with house(desk, **ROOM_FOR_ONE) as home, home.client() as last:
            async with home.client() as holder, home.client() as waiter:
                for client in (holder, waiter):
                    await client.open_data("a@example.com")
                    client.writer.write(LARGE)  # and no end
                    await home.budget.requests.get()
                await _begin(last, "last@x")
                await home.budget.requests.get()
                waiter.reset()
                holder.reset()
            desk.take(await desk.waiting.get())
            await last.expect(ACCEPTED)
            assert [each.sender for each in desk.queued] == ["last@x"]

    run(loop, test)


@both_loops
def test_who_is_lost_while_waiting_for_room_leaves_the_queue(loop: str) -> None:
    async def test() -> None:
        desk = Desk(holds=True)
        async with house(desk, **ROOM_FOR_ONE) as home, home.client() as holder:
            await _begin(holder, "holder@x")
            await home.budget.requests.get()
            async with home.client() as waiter:
                await waiter.open_data("a@example.com")
                waiter.writer.write(b"x" * (SMALL_BODY + 1))
                ticket = await home.budget.requests.get()
                waiter.reset()
                await home.server.departures.get()
            desk.take(await desk.waiting.get())
            await holder.expect(ACCEPTED)
            assert ticket.octets == 0
            await _begin(holder, "again@x")
            desk.take(await desk.waiting.get())
            await holder.expect(ACCEPTED)

    run(loop, test)


def test_room_granted_to_a_connection_that_is_lost_in_the_same_turn_is_given_back() -> None:
    async def test() -> None:
        server = Server(ServerConfig(HOST, IDENT, **ROOM_FOR_ONE), Desk())
        connection, transport = in_data(server)
        connection.data_received(LARGE)
        connection.connection_lost(None)
        await asyncio.sleep(0)
        assert transport.writes == []
        assert server.budget.request(1_000_000, lambda: None).octets == 1_000_000

    run("asyncio", test)


def test_room_granted_when_the_wait_is_over_is_not_taken_for_the_next_messages() -> None:
    async def test() -> None:
        server = Server(ServerConfig(HOST, IDENT, room_wait=0.0, **ROOM_FOR_ONE), Desk())
        connection, transport = in_data(server)
        held = server.budget.request(1_000_000, lambda: None)
        # Room is given back in the turn in which the wait ends, just before that.
        asyncio.get_running_loop().call_later(0.0, server.budget.release, held)
        connection.data_received(LARGE)
        server.budget.request(1_000_000, lambda: None)
        again = b"MAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\nDATA\r\n"
        connection.data_received(b".\r\n" + again + LARGE)
        while not transport.writes:
            await asyncio.sleep(0)
        connection.data_received(b".\r\nQUIT\r\n")
        while transport.writes[-1] != b"closed":
            await asyncio.sleep(0)
        # The second message waited, in vain, for what another has got.
        assert b"".join(transport.writes).count(reply.NO_ROOM.wire) == 2

    run("asyncio", test)


@both_loops
def test_room_of_a_message_in_storage_is_kept_until_it_is_answered(loop: str) -> None:
    """Its connection may be lost, but its octets are still in memory."""

    async def test() -> None:
        desk = Desk(holds=True)
        async with house(desk, **ROOM_FOR_ONE) as home, home.client() as two:
            async with home.client() as one:
                await _begin(one, "1@x")
                held = await desk.waiting.get()
                ticket = await home.budget.requests.get()
                one.reset()
                await home.server.departures.get()
            await _begin(two, "2@x")
            await home.budget.requests.get()
            assert ticket.octets and desk.waiting.empty()
            desk.take(held)
            desk.take(await desk.waiting.get())
            await two.expect(ACCEPTED)

    run(loop, test)


# After a refusal, or between chunks


@both_loops
@pytest.mark.parametrize("way", ["refused", "dropped"])
def test_room_of_a_message_that_is_refused_or_dropped_is_given_back(loop: str, way: str) -> None:
    async def test() -> None:
        async with house(**ROOM_FOR_ONE) as home, home.client() as client, home.client() as other:
            for _ in range(2):
                if way == "refused":
                    await client.open_data("a@example.com")
                    client.writer.write(LARGE * 2 + b".\r\n")
                    await client.expect(line(reply.TOO_BIG))
                else:
                    client.send("MAIL FROM:<>", "RCPT TO:<a@example.com>")
                    client.writer.write(b"BDAT %d\r\n%s" % (len(LARGE), LARGE))
                    await client.expect(SENDER_OK, RECIPIENT_OK, line(reply.CHUNK_OK))
                    assert home.budget.free < home.budget.total
                    client.send("RSET")
                    await client.expect(DONE)
                assert home.budget.free == home.budget.total
            await other.open_data("a@example.com")
            other.writer.write(LARGE + b".\r\n")
            await other.expect(ACCEPTED)

    run(loop, test)


@both_loops
def test_room_of_a_message_is_not_taken_for_that_of_the_next_in_the_same_segment(
    loop: str,
) -> None:
    async def test() -> None:
        async with house(**ROOM_FOR_ONE) as home, home.client() as client:
            chunk = b"BDAT 100000\r\n" + b"x" * 100_000
            client.writer.write(TRANSACTION + chunk)
            await client.expect(SENDER_OK, *[RECIPIENT_OK] * 2, line(reply.CHUNK_OK))
            # The first is dropped; if its room were kept, there would be none for the second.
            client.writer.write(b"RSET\r\n" + TRANSACTION + chunk + b"BDAT 0 LAST\r\n")
            await client.expect(DONE, SENDER_OK, *[RECIPIENT_OK] * 2, line(reply.CHUNK_OK))
            await client.expect(ACCEPTED, ACCEPTED)
            assert home.budget.free == home.budget.total

    run(loop, test)


@both_loops
def test_room_refused_between_chunks_is_said_for_each_chunk_and_recipient(loop: str) -> None:
    async def test() -> None:
        async with (
            house(Desk(holds=True), room_wait=0.01, **ROOM_FOR_ONE) as home,
            home.client() as holder,
            home.client() as client,
        ):
            await holder.open_data("a@example.com")
            holder.writer.write(LARGE)
            await home.budget.requests.get()
            client.writer.write(TRANSACTION + b"BDAT 60000\r\n" + b"x" * 60_000)
            await client.expect(SENDER_OK, *[RECIPIENT_OK] * 2, line(reply.CHUNK_OK))
            client.writer.write(b"BDAT 60000\r\n" + b"x" * 60_000)
            await client.expect(NO_ROOM)
            client.writer.write(b"BDAT 60000 LAST\r\n" + b"x" * 60_000 + b"NOOP\r\n")
            await client.expect(NO_ROOM, NO_ROOM, DONE)
            holder.send(".")
            home.desk.take(await home.desk.waiting.get())
            await holder.expect(ACCEPTED)
            assert home.budget.free == home.budget.total

    run(loop, test)
