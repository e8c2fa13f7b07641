"""One client's connection: an asyncio protocol that drives a session.

For: the octets, time and memory of one client; every protocol decision is the session's.
Guarantees: the event loop never waits for storage (the `Door` answers later); all replies
to one piece of input leave in one write; a client that does not read its replies is not
read from, and one that is silent, slow or does not read for too long is closed. An
exception ends this connection only, without a reply, and is given to `Door.broken`.
"""

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable, Sequence
from typing import Protocol, cast

from postroom.lmtp.admission import Admission
from postroom.lmtp.budget import Budget, Ticket
from postroom.lmtp.protocol import Close, Deliver, Event, Later, Reserve, StartTls, Verify
from postroom.lmtp.session import Session
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply

Answer = Callable[[Sequence[Reply] | None], None]
_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: struct ucred of unix(7)


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


class Connection(asyncio.Protocol):
    """One client. At most one event of its session is under way; meanwhile it is not read."""

    def __init__(
        self,
        admission: Admission,
        door: Door,
        budget: Budget,
        clock: Callable[[], float],
        begun: Callable[["Connection"], None],
        ended: Callable[["Connection"], None],
    ) -> None:
        """`clock()` gives the time of the last look around; `begun` is called when there is a
        connection, `ended` once, when it is no more."""
        self._admission, self._door, self._budget = admission, door, budget
        self._clock, self._begun, self._ended = clock, begun, ended
        self._transport: asyncio.Transport
        self._session: Session | None = None  # None: it was not let in
        self.host = ""
        self._peer = ""
        self._ticket: Ticket | None = None
        self._ticket_of = 0  # the number of the message it is for
        self._room_timer: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None  # what STARTTLS would use
        self._handshake: asyncio.Task[None] | None = None
        self._secured = False  # or about to be: all that comes is from the new transport
        self._early = b""  # came with the end of the handshake
        self._event: Event | None = None  # under way
        self._clogged = False
        self._reading = True
        self._half_closed = False
        self._stopping = False
        self._gone = self._lost = False
        self._penalty: asyncio.TimerHandle | None = None  # until it is let go
        self._moved = 0.0  # when it last got a reply
        self._watched = 0, 0.0  # which message is being watched, since when

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._moved = self._clock()
        self._begun(self)
        try:
            self.host, self._peer = _name(transport)
        except OSError:  # it is gone already, and who it was cannot be told any more
            self.abort()
            return
        refusal = self._admission.enter(self)
        if refusal is not None:
            self._transport.write(refusal.wire)
            self._turn_out()
            return
        config = self._admission.config
        self._tls = config.tls if self.host else None
        self._session = Session(
            config.hostname,
            config.ident,
            config.limits,
            self._peer,
            self._door.admit,
            self._admission.replies,
            tls=self._tls is not None,
        )
        self._transport.write(self._session.output())

    def data_received(self, data: bytes) -> None:
        if self._gone or self._session is None:
            return
        self._admission.octets_in += len(data)
        try:
            event = self._session.receive(data)
            if self._event is None:
                self._carry_out(event)
            elif self._secured and type(self._event) is StartTls:
                # asyncio may hand on what came with the end of the handshake before it tells
                # us of that end.
                self._early += data
            else:
                self._steer()
        except Exception as error:
            self._defect(error)

    def eof_received(self) -> bool:
        """A client that only stopped sending still gets the answer to what it sent."""
        self._half_closed = True
        return self._event is not None and not self._secured

    def pause_writing(self) -> None:
        self._clogged = True
        self._steer()

    def resume_writing(self) -> None:
        self._clogged = False
        self._moved = self._clock()
        self._steer()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lost:
            return
        self._gone = self._lost = True
        self._let_go()
        if type(self._event) is not Deliver:  # else the message is still in memory
            self._release()
        if self._session is not None:
            self._admission.leave(self)
        self._ended(self)

    # What the server calls

    @property
    def state(self) -> str:
        """Where it stands, for people: the session's state, or "leaving"."""
        return "leaving" if self._gone or self._session is None else self._session.state.value

    def shut_down(self) -> None:
        """Close as soon as nothing is owed."""
        self._stopping = True
        if self._gone or self._session is None:
            self._let_go()
        elif type(self._event) is StartTls:
            self.abort()  # it would take a 421 for a part of the handshake
        elif (event := self._session.shut_down()) is not None:
            self._answered(lambda: event)

    def abort(self) -> None:
        """Close now, without a word."""
        self._gone = True
        self._transport.abort()

    def look_after(self, now: float) -> None:
        """Called every now and then: end what has taken too long."""
        config = self._admission.config
        waited = now - self._moved
        if self._gone or self._clogged:
            if waited > config.write_timeout:  # it does not read what it is told
                self.abort()
        elif self._event is None and self._session is not None:
            session = self._session
            late = waited > config.idle_timeout
            if session.owes_replies:
                number, since = self._watched
                if number != session.messages:
                    self._watched = session.messages, now
                    return
                self._moved = now  # it is not idle
                took = now - since
                late = took > config.message_timeout or (
                    took > config.rate_grace and session.received < took * config.least_rate
                )
            if late:
                self._answered(session.time_out)

    # Carrying out events

    def _carry_out(self, event: Event | None) -> None:
        session = self._session
        assert session is not None
        output = session.output()
        if output:
            self._transport.write(output)
            self._moved = self._clock()
        self._event = event
        if self._ticket is not None and (
            self._ticket_of != session.messages or not session.owes_replies
        ):
            self._release()  # that message was refused or dropped
        if event is None:
            if self._half_closed or (self._stopping and not session.owes_replies):
                self._close()
        elif type(event) is Deliver:
            self._door.deliver(event.envelope, self._delivered)
        elif type(event) is Verify:
            self._door.verify(event.recipients, self._verified)
        elif type(event) is Reserve:
            self._reserve(event.octets)
        elif type(event) is Later:
            self._admission.turns.wait(lambda: self._answered(session.resume))
        elif type(event) is StartTls:
            self._start_tls()
        elif type(event) is Close:
            if event.punish:
                self._turn_out()
            else:
                self._close()
        if not self._reading or session.backlog:
            self._steer()

    def _steer(self) -> None:
        """Read or do not read, as the state of both directions asks.

        While an event is under way we go on reading until something comes: nearly every
        client waits for our answer, and to pause and resume costs system calls.
        """
        if self._gone or self._session is None or type(self._event) is StartTls:
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
        assert self._session is not None
        deliver = self._session.delivered
        self._answered(lambda: deliver(replies))

    def _verified(self, replies: Sequence[Reply] | None) -> None:
        assert self._session is not None
        verified = self._session.verified
        self._answered(lambda: verified(replies or ()))

    # Memory

    def _reserve(self, octets: int) -> None:
        """Wait for room, but not for ever: then the message is refused 452."""
        loop = asyncio.get_running_loop()
        wait = self._admission.config.room_wait
        self._room_timer = loop.call_later(wait, self._room_answer, False)
        if self._ticket is None:
            assert self._session is not None
            self._ticket_of = self._session.messages
            self._ticket = self._budget.request(
                octets, lambda: loop.call_soon(self._room_answer, True)
            )
        else:
            # Its declared size proved false. To wait while holding room could stall all.
            loop.call_soon(self._room_answer, self._budget.grow(self._ticket, octets))

    def _room_answer(self, granted: bool) -> None:
        if self._room_timer is None:
            return
        if granted and not (self._ticket and self._ticket.octets):
            return  # this was the answer to an earlier wait, which had ended just before
        self._room_timer.cancel()
        self._room_timer = None
        if not granted:
            self._release()
        assert self._session is not None
        reserved = self._session.reserved
        self._answered(lambda: reserved(granted))

    def _release(self) -> None:
        if self._room_timer is not None:
            self._room_timer.cancel()
            self._room_timer = None
        if self._ticket is not None:
            self._budget.release(self._ticket)
            self._ticket = None

    # TLS (RFC 3207)

    def _start_tls(self) -> None:
        self._transport.pause_reading()  # what comes now is for the new transport
        if self._clogged:  # the new transport would not be told when it may write again
            self.abort()
        else:
            self._handshake = asyncio.get_running_loop().create_task(self._secure())

    async def _secure(self) -> None:
        assert self._session is not None and self._tls is not None
        if self._gone:
            return
        plain, self._secured = self._transport, True
        secured: asyncio.Transport | None = None
        try:
            secured = await asyncio.get_running_loop().start_tls(
                plain,
                self,
                self._tls,
                server_side=True,
                ssl_handshake_timeout=self._admission.config.write_timeout,
            )
        except OSError:  # no TLS after all, or no client; ssl.SSLError is one
            pass
        except Exception as error:
            self._door.broken(self._peer, error)
        if secured is None or secured.is_closing() or self._gone:
            plain.abort()
            # A connection that ends within the handshake is not always said to be lost.
            self.connection_lost(None)
            return
        self._transport, self._moved = secured, self._clock()
        self._answered(self._session.secured)
        if self._early:
            early, self._early = self._early, b""
            receive = self._session.receive
            self._answered(lambda: receive(early))

    # The end

    def _close(self) -> None:
        self._gone = True
        self._transport.close()

    def _turn_out(self) -> None:
        """It was told 421. A client that waits for us to close cannot come back at once, and
        input that we never read cannot make the system take the 421 back (RFC 1122 4.2.2.13).
        """
        self._gone = True
        if self._admission.detain(inside=self._session is not None):
            loop, penalty = asyncio.get_running_loop(), self._admission.config.penalty
            loop.call_soon(self._transport.pause_reading)  # uvloop begins to read just now
            self._penalty = loop.call_later(penalty, self._let_go)
        else:
            self._transport.close()

    def _let_go(self) -> None:
        if self._penalty is not None:
            self._penalty.cancel()
            self._penalty = None
            self._admission.release()
            self._transport.close()

    def _defect(self, error: Exception) -> None:
        self._event = None  # nobody will answer it, so its room is free when we are gone
        self.abort()
        self._door.broken(self._peer, error)


def _name(transport: asyncio.BaseTransport) -> tuple[str, str]:
    """The client's address ("" over a unix socket), and its name in logs."""
    name = transport.get_extra_info("peername")
    if isinstance(name, tuple):
        host, port = name[:2]
        return host.partition("%")[0], f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    sock = transport.get_extra_info("socket")
    if sock.family != socket.AF_UNIX:
        raise ConnectionError("it has no address any more")
    octets = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    pid, uid, _ = _CREDENTIALS.unpack(octets)
    return "", f"unix:uid={uid},pid={pid}"
