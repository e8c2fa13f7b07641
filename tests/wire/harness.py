"""A door and clients for tests of the real server, all in one event loop.

For: running `Server` on loopback with a door that answers at once, or when it is told.
Guarantees: every wait has an event and an end; what is started is stopped.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any, NamedTuple, Protocol, Self

import pytest
import uvloop

from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.budget import Budget, Ticket
from postroom.lmtp.connection import Answer, Connection
from postroom.lmtp.protocol import Limits, capabilities
from postroom.lmtp.server import Server
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply
from tests.wire.dialogue import HOST, IDENT, Dialogue, Queued, queued

PATIENCE = 30.0  # seconds after which a test is stuck
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "uvloop": uvloop.new_event_loop,
    "asyncio": asyncio.SelectorEventLoop,
}
Test = Callable[[], Coroutine[Any, Any, None]]
both_loops = pytest.mark.parametrize("loop", LOOPS)


def run(loop: str, test: Test) -> None:
    """Run a test in a new loop of this kind."""

    async def bounded() -> None:
        async with asyncio.timeout(PATIENCE):
            await test()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())


class Delivery(NamedTuple):
    """An envelope that waits for its answer."""

    envelope: Envelope
    answer: Answer


class Desk:
    """A door that answers as `dialogue` says: in the loop's next turn, `at_once` before it
    has returned, or if it `holds` when the test does."""

    def __init__(
        self, dialogue: Dialogue | None = None, holds: bool = False, at_once: bool = False
    ) -> None:
        self.dialogue = dialogue or Dialogue("desk")
        self._holds = holds
        self._at_once = at_once
        self.waiting: asyncio.Queue[Delivery] = asyncio.Queue()
        self.questions: asyncio.Queue[tuple[tuple[Mailbox, ...], Answer]] = asyncio.Queue()
        self.defects: list[Exception] = []
        self.fails: Exception | None = None
        self.queued: list[Queued] = []

    def deliver(self, envelope: Envelope, answer: Answer) -> None:
        if self.fails is not None:
            raise self.fails
        if self._holds:
            self.waiting.put_nowait(Delivery(envelope, answer))
            return
        self.take(Delivery(envelope, answer))

    def take(self, delivery: Delivery) -> None:
        """Answer a delivery."""
        replies = self.dialogue.delivered(delivery.envelope)
        if message := queued(delivery.envelope, replies):
            self.queued.append(message)
        self._tell(delivery.answer, replies)

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        if self._holds:
            self.questions.put_nowait((recipients, answer))
            return
        self._tell(answer, self.dialogue.verified(recipients))

    def _tell(self, answer: Answer, replies: Sequence[Reply] | None) -> None:
        if self._at_once:
            answer(replies)
        else:
            asyncio.get_running_loop().call_soon(answer, replies)

    def admit(self, size: int) -> Reply | None:
        return self.dialogue.admit

    def broken(self, peer: str, error: Exception) -> None:
        self.defects.append(error)


class WatchedBudget(Budget):
    """A budget that tells when somebody asks for room or gives it back."""

    def __init__(self, total: int) -> None:
        super().__init__(total)
        self.requests: asyncio.Queue[Ticket] = asyncio.Queue()
        self.releases: asyncio.Queue[Ticket] = asyncio.Queue()

    def request(self, octets: int, granted: Callable[[], object]) -> Ticket:
        ticket = super().request(octets, granted)
        self.requests.put_nowait(ticket)
        return ticket

    def release(self, ticket: Ticket) -> None:
        super().release(ticket)
        self.releases.put_nowait(ticket)


class WatchedServer(Server):
    """A server that tells when a connection is gone."""

    def __init__(self, config: ServerConfig, desk: Desk) -> None:
        super().__init__(config, desk)
        self.departures: asyncio.Queue[Connection] = asyncio.Queue()
        self.gone: list[Connection] = []

    def left(self, connection: Connection) -> None:
        super().left(connection)
        self.departures.put_nowait(connection)
        self.gone.append(connection)


class Reader(Protocol):
    """What a client reads with."""

    async def readline(self) -> bytes: ...
    async def read(self, octets: int = -1) -> bytes: ...


class Writer(Protocol):
    """What a client writes with."""

    @property
    def transport(self) -> asyncio.WriteTransport: ...
    def write(self, data: bytes) -> None: ...
    def write_eof(self) -> None: ...
    def get_extra_info(self, name: str) -> Any: ...
    def close(self) -> None: ...
    async def wait_closed(self) -> None: ...


class House(NamedTuple):
    """A running server and where it listens."""

    server: WatchedServer
    desk: Desk
    budget: WatchedBudget
    port: int

    def change(self, **config: Any) -> None:
        """Use other settings from this moment on; so a test can let time run out when it is
        ready for that."""
        server = self.server
        server.reconfigure(server.admission.config._replace(**config))
        if server._round is not None:
            server._round.cancel()
        server._go_round()

    async def until_left(self, stay: int = 0) -> None:
        """Wait until so many connections are left."""
        while len(self.server.connections) > stay:
            await self.server.departures.get()

    @contextlib.asynccontextmanager
    async def client(
        self, introduced: bool = True, address: str = "127.0.0.1"
    ) -> AsyncIterator["Client"]:
        """Connect from this address; unless told otherwise, the greeting is read and LHLO
        said."""
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port, local_addr=(address, 0)
        )
        client = Client(reader, writer)
        try:
            if introduced:
                await client.expect(f"220 {HOST} {IDENT}")
                client.send("LHLO client.example.org")
                tls = self.server.admission.config.tls is not None
                await client.lines(INTRODUCTION + tls)
            yield client
        finally:
            await client.close()


@contextlib.asynccontextmanager
async def house(desk: Desk | None = None, **config: Any) -> AsyncIterator[House]:
    """A server on a free port; `config` as in `ServerConfig`, `limits` among it."""
    desk = desk or Desk()
    settings = ServerConfig(HOST, IDENT, penalty=0.05)._replace(**config)
    server = WatchedServer(settings, desk)
    server.budget = budget = WatchedBudget(settings.memory_budget)
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as bound:
        bound.bind(("127.0.0.1", 0))
        await server.listen([bound])
        try:
            yield House(server, desk, budget, bound.getsockname()[1])
        finally:
            await server.stop(0)


class Client:
    """A client that says exactly what it is told and reads no more than it is told."""

    def __init__(self, reader: Reader, writer: Writer) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *lines: str) -> Self:
        """Send lines in one write."""
        self.writer.write("".join(f"{line}\r\n" for line in lines).encode())
        return self

    async def lines(self, count: int) -> list[str]:
        """Read so many lines."""
        read = [await self.reader.readline() for _ in range(count)]
        return [line.decode("ascii").removesuffix("\r\n") for line in read]

    async def expect(self, *lines: str) -> None:
        """Read lines, which must be these."""
        assert await self.lines(len(lines)) == list(lines)

    async def expect_end(self) -> None:
        """The server must say nothing more and close."""
        assert await self.reader.read() == b""

    async def expect_gone(self) -> None:
        """The connection must end without a word, if need be by a reset."""
        with contextlib.suppress(ConnectionError):
            await self.expect_end()

    async def open_data(self, *recipients: str, sender: str = "anne@example.org") -> None:
        """MAIL, RCPTs and DATA in one write, all of which must be accepted."""
        rcpts = [f"RCPT TO:<{recipient}>" for recipient in recipients]
        self.send(f"MAIL FROM:<{sender}>", *rcpts, "DATA")
        await self.expect(
            SENDER_OK, *[RECIPIENT_OK] * len(recipients), "354 End data with <CR><LF>.<CR><LF>"
        )

    def reset(self) -> None:
        """End the connection as a crash would: RST, not FIN."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        """Close, if the server did not."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def small_buffers(connection: Connection, client: Client) -> None:
    """Let the system hold little between the two, so that one is soon clogged."""
    for transport, option in (
        (connection._transport, socket.SO_SNDBUF),
        (client.writer.transport, socket.SO_RCVBUF),
    ):
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, option, 4096)


def line(answer: Reply) -> str:
    """A reply of one line as a client reads it."""
    return answer.wire.decode("ascii").removesuffix("\r\n")


def limits(**values: Any) -> Limits:
    """Limits that differ from the defaults."""
    return Limits()._replace(**values)


SENDER_OK = line(reply.SENDER_OK)
RECIPIENT_OK = line(reply.RECIPIENT_OK)
ACCEPTED = line(reply.ACCEPTED)
NO_ROOM = line(reply.NO_ROOM)
SHUTTING_DOWN = line(reply.SHUTTING_DOWN)
INTRODUCTION = capabilities(HOST, 1, False).wire.count(b"\n")  # lines, without STARTTLS
# Too much for one read, so that it has to ask for room.
LARGE = b"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n" * 10_000
ROOM_FOR_ONE: dict[str, Any] = {
    "limits": limits(max_message_size=1_000_000),
    "memory_budget": 1_000_000,
}
