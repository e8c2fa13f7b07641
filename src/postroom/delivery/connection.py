"""A connection to a mail server, on asyncio.

For: carrying transactions over one connection, one after the other. Guarantees: every step has
a deadline (RFC 5321 4.5.3.2), also against a server that does not read; no more of a message is
handed to the socket than it takes; a server that says what was not asked for, or anything that
is no reply, is not spoken to again; a password goes over TLS only, or to this machine, and into
no log. `connect` fails with `ConnectError`; `send` never fails, a lost connection is an outcome.
"""

import asyncio
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import Callable
from ipaddress import ip_address
from typing import Final, cast

from postroom.base.places import Tcp
from postroom.delivery.access import PATIENT, Access, Deadlines, context_of
from postroom.delivery.transaction import Exchange, Features, Outcome, Stage, Transaction
from postroom.lmtp.codec import Answer, ReplyReader, command_line

MOST_TRANSACTIONS = 100  # over one connection; servers count, too
BLOCK = 262_144  # octets of a message that are handed to the socket in one piece
FAREWELL = 5.0  # seconds for the reply to QUIT, which nobody needs

Noted = Callable[[Outcome, bool], None]


class ConnectError(Exception):
    """The server cannot be used now; `str()` says why, without a password."""


async def connect(server: Tcp, access: Access, deadlines: Deadlines = PATIENT) -> "Connection":
    """A connection on which transactions can be sent. Raises `ConnectError`."""
    clear = access.starttls == "never"
    while True:
        connection = Connection(server, access, deadlines)
        try:
            await connection.open(clear)
        except _TlsError as error:
            connection.close()
            if access.starttls == "always":
                raise ConnectError(f"{server}: no TLS: {error}") from error
            clear = True
        except (ConnectError, OSError) as error:
            connection.close()
            raise ConnectError(f"{server}: {_told(error)}") from error
        except BaseException:
            connection.close()
            raise
        else:
            return connection


class _TlsError(Exception):
    """TLS was not to be had."""


def _told(error: Exception) -> str:
    # asyncio and uvloop word the same errors differently; one of asyncio.timeout has no text.
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError) and error.strerror:
        number = error.errno or 0
        return os.strerror(number) if number > 0 else error.strerror
    return str(error) or "it does not answer in time"


class Connection(asyncio.Protocol):
    """Made by `connect`. `recipients` is how many a transaction may have, `noted` is called
    after each one with its outcome, and whether the server is in trouble."""

    def __init__(self, server: Tcp, access: Access, deadlines: Deadlines) -> None:
        self.server: Final = server
        self.features = Features()
        self.recipients = access.recipients
        self.transactions = 0
        self.secure = False
        self.noted: Noted | None = None
        self._access, self._deadlines = access, deadlines
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._reader = ReplyReader()
        self._waiter: asyncio.Future[Answer] | None = None  # for one reply
        self._exchange: Exchange | None = None
        self._finished: asyncio.Future[None] | None = None  # the exchange
        self._timer: asyncio.TimerHandle | None = None
        self._content: memoryview | None = None  # what is still to be written of it
        self._paused = self._reset = False

    @property
    def alive(self) -> bool:
        """Whether the server can be spoken to."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def usable(self) -> bool:
        """Whether another transaction may be sent."""
        return self.alive and self.transactions < MOST_TRANSACTIONS

    @property
    def xverp(self) -> bool:
        """Whether the server makes a sender for each recipient if told to."""
        return self.features.xverp

    # Transactions

    async def send(self, transaction: Transaction) -> Outcome:
        """Carry a transaction. If this is cancelled the connection is at its end."""
        exchange = Exchange(transaction, self.features)
        try:
            if self._reset:
                await self._ask(b"RSET\r\n", self._deadlines.command)
                self._reset = False
            if not self.alive:
                exchange.lost(f"{self.server}: the connection is closed")
            elif data := exchange.start():
                self._exchange, self._finished = exchange, self._loop.create_future()
                self._write(data)
                self._arm(self._deadlines.command)
                await self._finished
        except ConnectError as error:
            exchange.lost(str(error))
        except BaseException:
            self.close()
            raise
        finally:
            self._exchange = self._finished = self._content = None
        outcome = exchange.outcome
        assert outcome is not None
        self._conclude(outcome)
        return outcome

    def _conclude(self, outcome: Outcome) -> None:
        # One that was used before may have been closed meanwhile, by the server's own
        # deadline: a new connection shows whether there is more to it.
        stale = self.transactions > 0 and outcome.stage is Stage.MAIL
        self.transactions += 1
        self._reset = outcome.reset
        if outcome.limit is not None:
            self.recipients = min(self.recipients, outcome.limit)
        if not outcome.reusable:
            self.close()
        if self.noted is not None:
            self.noted(outcome, outcome.answer.code == 421 and not stale)

    async def quit(self) -> None:
        """Say QUIT, if there is somebody to hear it, and close."""
        try:
            if self.alive:
                await self._ask(b"QUIT\r\n", FAREWELL)
        except ConnectError:
            pass
        finally:
            self.close()

    def close(self) -> None:
        """Close without a word."""
        self._disarm()
        if self._transport is not None:
            self._transport.abort()

    # The beginning

    async def open(self, clear: bool) -> None:
        """Connect and introduce ourselves; without TLS if `clear`. Raises `ConnectError`,
        OSError or `_TlsError`."""
        self._waiter = self._loop.create_future()  # the greeting may come at once
        await self._reach()
        greeting = await self._reply(self._waiter, self._deadlines.greeting)
        if greeting.code != 220:
            raise ConnectError(f"it greets with {greeting}")
        await self._hello()
        if self._access.starttls == "always" and not self.features.starttls:
            raise _TlsError("it does not offer STARTTLS")
        if self.features.starttls and not clear:
            await self._start_tls()
        if self._access.user:
            await self._authenticate()

    async def _reach(self) -> None:
        """Each address has its time: one that swallows all must not hide the next."""
        async with asyncio.timeout(self._deadlines.connect):
            found = await self._loop.getaddrinfo(*self.server, type=socket.SOCK_STREAM)
        error: OSError = TimeoutError()
        for *_, address in found:
            try:
                async with asyncio.timeout(self._deadlines.connect):
                    await self._loop.create_connection(lambda: self, *address[:2])
                return
            except OSError as failure:
                error = failure
        raise error

    async def _hello(self) -> None:
        """EHLO, or HELO to a server that does not know it. RFC 5321 3.2."""
        name, deadline = self._access.hello, self._deadlines.command
        answer = await self._ask(command_line("EHLO", name), deadline)
        if answer.code >= 500:
            answer = await self._ask(command_line("HELO", name), deadline)
            answer = answer._replace(text="")
        if answer.code != 250:
            raise ConnectError(f"it answers EHLO with {answer}")
        self.features = Features.offered(answer)

    async def _start_tls(self) -> None:
        answer = await self._ask(b"STARTTLS\r\n", self._deadlines.command)
        if answer.code != 220:
            if self._access.starttls == "always":
                raise _TlsError(f"it answers STARTTLS with {answer}")
            return
        if self._reader.amid or not self.alive:
            # What comes in clear before TLS must not be taken for what comes within.
            raise ConnectError("it said more than it was asked before TLS began")
        assert self._transport is not None
        context = self._access.tls or context_of(self._access.starttls == "always")
        try:
            async with asyncio.timeout(self._deadlines.connect):
                transport = await self._loop.start_tls(
                    self._transport, self, context, server_hostname=self.server.host
                )
        except OSError as error:
            raise _TlsError(_told(error)) from error
        assert transport is not None
        self._transport, self.secure = transport, True
        await self._hello()  # RFC 3207 4.2

    async def _authenticate(self) -> None:
        """AUTH, RFC 4954. The password is in no exception."""
        user, password = self._access.user.encode(), self._access.password.encode()
        if not (self.secure or self._is_local()):
            raise ConnectError("it offers no TLS, and a password must not go in clear")
        if "PLAIN" in self.features.auth:
            steps = [b"AUTH PLAIN " + b64encode(b"\0%b\0%b" % (user, password))]
        elif "LOGIN" in self.features.auth:
            steps = [b"AUTH LOGIN", b64encode(user), b64encode(password)]
        else:
            raise ConnectError("smtp.user is set, but it offers neither AUTH PLAIN nor LOGIN")
        for number, step in enumerate(steps, 1):
            answer = await self._ask(step + b"\r\n", self._deadlines.command)
            if answer.code != (235 if number == len(steps) else 334):
                raise ConnectError(f"it does not let smtp.user in: {answer}")

    def _is_local(self) -> bool:
        assert self._transport is not None
        peer = self._transport.get_extra_info("peername")
        return bool(peer) and ip_address(peer[0].partition("%")[0]).is_loopback

    async def _ask(self, command: bytes, deadline: float) -> Answer:
        if not self.alive:
            raise ConnectError("the connection is closed")
        self._write(command)
        self._waiter = self._loop.create_future()
        return await self._reply(self._waiter, deadline)

    async def _reply(self, waiter: asyncio.Future[Answer], deadline: float) -> Answer:
        if not waiter.done():
            self._arm(deadline)
        try:
            return await waiter
        finally:
            self._waiter = None
            self._disarm()

    # Sockets

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        answers = self._reader.feed(data)
        if self._exchange is not None:
            self._drive(self._exchange, answers)
        elif self._waiter is not None and not self._waiter.done() and len(answers) == 1:
            self._waiter.set_result(answers[0])
        elif answers:
            self._fail(f"{answers[-1]}, which was not asked for")
        if self._reader.fault is not None:
            self._fail(str(self._reader.fault))

    def _drive(self, exchange: Exchange, answers: list[Answer]) -> None:
        deadlines = self._deadlines
        data = exchange.receive(answers)
        if exchange.outcome is not None:
            self._finish()
        elif data and exchange.stage is Stage.CONTENT:
            self._content = memoryview(data)
            self._push()
        elif answers:
            if data:
                self._write(data)
            known = {Stage.DATA: deadlines.data, Stage.END: deadlines.final}
            self._arm(known.get(exchange.stage, deadlines.command))

    def _push(self) -> None:
        """As much of the message as the socket takes."""
        assert self._exchange is not None and self._content is not None
        while self._content and not self._paused:
            self._write(self._content[:BLOCK])
            self._content = self._content[BLOCK:]
        if self._content:
            self._arm(self._deadlines.block)
        else:
            self._content = None
            self._exchange.sent()
            self._arm(self._deadlines.final)

    def _write(self, data: bytes | memoryview) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def pause_writing(self) -> None:
        self._paused = True

    def resume_writing(self) -> None:
        self._paused = False
        if self._content is not None and self._exchange is not None:
            self._push()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._fail(f"it closed the connection ({error})" if error else "it closed the connection")

    def _finish(self) -> None:
        self._disarm()
        if self._reader.amid:
            self.close()  # a reply too many has begun
        self._exchange = self._content = None
        if self._finished is not None and not self._finished.done():
            self._finished.set_result(None)

    def _fail(self, why: str) -> None:
        """The connection is at its end."""
        self.close()
        if self._exchange is not None:
            self._exchange.lost(f"{self.server}: {why}")
            self._finish()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(ConnectError(why))

    # Deadlines

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._expire, seconds)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self, seconds: float) -> None:
        self._timer = None
        what = "did not read" if self._content is not None else "did not answer"
        self._fail(f"it {what} for {seconds:g} seconds")
