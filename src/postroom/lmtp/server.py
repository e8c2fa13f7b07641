"""The LMTP server: asyncio connections that drive sessions.

For: sockets, time and memory; every protocol decision is the session's. Guarantees: the
event loop never waits for storage (the `Door` answers later); all replies to one piece
of input leave in one write; a client that does not read its replies is not read from.
An exception in one connection ends that connection only, without a reply, and is given
to `Door.broken`.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol, cast

from postroom.lmtp.budget import Budget, Ticket
from postroom.lmtp.session import Close, Deliver, Event, Limits, Reserve, Session, Verify
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply

Answer = Callable[[Sequence[Reply] | None], None]


class Door(Protocol):
    """What the server hands on to. `answer` is called once, later, in the loop's thread."""

    def deliver(self, envelope: Envelope, answer: Answer) -> None:
        """Store; answer a reply per recipient, or None if the outcome cannot be known."""

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        """Look up; answer a reply per recipient."""

    def admit(self, size: int) -> Reply | None:
        """A reason not to take a message of `size` octets now, or None. Must not wait."""

    def broken(self, peer: str, error: Exception) -> None:
        """A connection ended by a defect of ours."""


class ServerConfig(NamedTuple):
    """What connections need to know. Times in seconds, sizes in octets. `memory_budget` is
    for messages that are being received or stored, each counted once."""

    hostname: str
    ident: str
    limits: Limits = Limits()
    memory_budget: int = 134_217_728
    max_connections: int = 1000
    room_wait: float = 150.0  # below the time in which clients give up on sending data


class Server:
    """All listeners and connections of one process."""

    def __init__(self, config: ServerConfig, door: Door) -> None:
        self.config = config
        self.door = door
        self.budget = Budget(config.memory_budget)
        self.connections: set[Connection] = set()
        self._listeners: list[asyncio.Server] = []
        self._stopping = False
        self._empty = asyncio.Event()

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on bound sockets. Raises OSError."""
        loop = asyncio.get_running_loop()
        for bound in sockets:
            listener = await loop.create_server(lambda: Connection(self), sock=bound, backlog=512)
            self._listeners.append(listener)

    def reconfigure(self, config: ServerConfig) -> None:
        """Use `config` for connections that come from now on."""
        self.budget.resize(config.memory_budget - self.config.memory_budget)
        self.config = config

    async def stop(self, patience: float) -> None:
        """Stop accepting, tell idle clients 421, let messages in hand finish.

        What is not done after `patience` seconds is closed without a reply.
        """
        self._stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.shut_down()
        try:
            async with asyncio.timeout(patience):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in list(self.connections):
                connection.abort()

    def joined(self, connection: "Connection") -> Reply | None:
        """A reason to refuse a new connection, or None."""
        if self._stopping:
            return reply.SHUTTING_DOWN
        if len(self.connections) >= self.config.max_connections:
            return reply.OVERLOADED
        self.connections.add(connection)
        return None

    def left(self, connection: "Connection") -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()


class Connection(asyncio.Protocol):
    """One client. At most one event of its session is under way; meanwhile it is not read."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._transport: asyncio.Transport
        self._session: Session
        self._peer = ""
        self._ticket: Ticket | None = None
        self._room_timer: asyncio.TimerHandle | None = None
        self._event: Event | None = None  # under way
        self._clogged = False
        self._reading = True
        self._half_closed = False
        self._stopping = False
        self._gone = False

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._peer = _peer_name(transport)
        config = self._server.config
        refusal = self._server.joined(self)
        if refusal is not None:
            # RFC 2033 has no other greeting that a client retries on.
            self._gone = True
            self._transport.write(refusal.wire)
            self._transport.close()
            return
        self._session = Session(
            config.hostname, config.ident, config.limits, self._peer, self._server.door.admit
        )
        self._transport.write(self._session.output())

    def data_received(self, data: bytes) -> None:
        if self._gone:
            return
        try:
            event = self._session.receive(data)
            if self._event is None:
                self._carry_out(event)
            else:
                self._steer()
        except Exception as error:
            self._defect(error)

    def eof_received(self) -> bool:
        """A client that only stopped sending still gets the answer to what it sent."""
        self._half_closed = True
        return self._event is not None

    def pause_writing(self) -> None:
        self._clogged = True
        self._steer()

    def resume_writing(self) -> None:
        self._clogged = False
        self._steer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gone = True
        if type(self._event) is not Deliver:  # else the message is still in memory
            self._release()
        self._server.left(self)

    # What the server calls

    def shut_down(self) -> None:
        """Close as soon as nothing is owed."""
        self._stopping = True
        if not self._gone:
            event = self._session.shut_down()
            if event is not None:
                self._carry_out(event)

    def abort(self) -> None:
        """Close now, without a word."""
        self._gone = True
        self._transport.abort()

    # Carrying out events

    def _carry_out(self, event: Event | None) -> None:
        output = self._session.output()
        if output:
            self._transport.write(output)
        self._event = event
        if event is None:
            if self._half_closed or (self._stopping and not self._session.owes_replies):
                self._close()
        elif type(event) is Deliver:
            self._server.door.deliver(event.envelope, self._delivered)
        elif type(event) is Verify:
            self._server.door.verify(event.recipients, self._verified)
        elif type(event) is Reserve:
            self._reserve(event.octets)
        elif type(event) is Close:
            self._close()
        if not self._reading or self._session.backlog:
            self._steer()

    def _steer(self) -> None:
        """Read or do not read, as the state of both directions asks.

        While an event is under way we go on reading until something comes: nearly every
        client waits for our answer, and to pause and resume costs system calls.
        """
        if self._gone:
            return
        wanted = not self._clogged and not (self._event is not None and self._session.backlog)
        if wanted != self._reading:
            self._reading = wanted
            if wanted:
                self._transport.resume_reading()
            else:
                self._transport.pause_reading()

    def _answered(self, answer: Callable[[], Event | None]) -> None:
        if self._gone:
            return
        try:
            self._carry_out(answer())
        except Exception as error:
            self._defect(error)

    def _delivered(self, replies: Sequence[Reply] | None) -> None:
        self._release()
        self._answered(lambda: self._session.delivered(replies))

    def _verified(self, replies: Sequence[Reply] | None) -> None:
        self._answered(lambda: self._session.verified(replies or ()))

    def _reserve(self, octets: int) -> None:
        """Wait for room, but not for ever: then the message is refused 452."""
        loop, budget = asyncio.get_running_loop(), self._server.budget
        self._room_timer = loop.call_later(self._server.config.room_wait, self._room_answer, False)
        if self._ticket is None:
            self._ticket = budget.request(octets, lambda: loop.call_soon(self._room_answer, True))
        else:
            # Its declared size proved false. To wait while holding room could stall all.
            loop.call_soon(self._room_answer, budget.grow(self._ticket, octets))

    def _room_answer(self, granted: bool) -> None:
        if self._room_timer is None:
            return
        if granted and not (self._ticket and self._ticket.octets):
            return  # this was the answer to an earlier wait, which had ended just before
        self._room_timer.cancel()
        self._room_timer = None
        if not granted:
            self._release()
        self._answered(lambda: self._session.reserved(granted))

    def _release(self) -> None:
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
        if self._ticket is not None:
            self._server.budget.release(self._ticket)
            self._ticket = None

    def _close(self) -> None:
        self._gone = True
        self._transport.close()

    def _defect(self, error: Exception) -> None:
        self._event = None  # nobody will answer it, so its room is free when we are gone
        self.abort()
        self._server.door.broken(self._peer, error)


def _peer_name(transport: asyncio.BaseTransport) -> str:
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"
    return "unix socket"
