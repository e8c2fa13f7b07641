"""Mail servers for tests of delivery, each in a thread of its own, on loopback.

For: a server that takes mail and says what it got, and can be told to misbehave in one exact
way. Guarantees: it is gone when the `with` ends; commands that come before they may (pipelined
to a server that does not offer that, or after DATA) fail the test, as does whatever fails in
a hook.

    with MailServer(at_recipient(5, "421 4.3.2 Bye")) as server:
        ...
        assert server.wait_for(1)[0].recipients == ("a@example.com",)

A hook is called with each thing the client `Said` and returns the reply, or one of the actions
below, or None: the reply of a server that takes everything. Several hooks: the first that does
not return None decides. A reply that begins with 421 is followed by the end of the connection.
"""

import asyncio
import contextlib
import re
import ssl
import threading
from collections.abc import Callable, Mapping
from typing import NamedTuple, Self

PATIENCE = 30.0  # seconds after which a test is stuck
OFFERS = ("PIPELINING", "SIZE 50000000", "8BITMIME", "SMTPUTF8")


class Said(NamedTuple):
    """What the client said. `verb` is CONNECT, a command's, or END for the dot; `number` is
    that of the recipient in its transaction, from 1; `connection` counts from 1."""

    verb: str
    line: str
    number: int
    connection: int

    @property
    def address(self) -> str:
        """What stands between < and >."""
        match = re.search(r"<(.*)>", self.line)
        return match[1] if match else ""


class Action(NamedTuple):
    """Instead of a reply. For `HOLD` see `MailServer.release`."""

    name: str
    octets: bytes = b""


DROP = Action("drop")  # close without a word; a message that ended is not taken
TAKE_AND_DROP = Action("take and drop")  # the message is taken, and nobody is told
SILENT = Action("silent")  # say nothing, and go on
HOLD = Action("hold")  # wait for `release()`, then reply as usual
GO_AND_DEAF = Action("deaf")  # say 354 and read nothing more

Hook = Callable[[Said], str | Action | None]


class Received(NamedTuple):
    """A message that was taken: recipients that were accepted, content without dot-stuffing,
    and the parameters of MAIL."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    parameters: tuple[str, ...]
    connection: int


def at(verb: str, reply: str | Action) -> Hook:
    """Reply so to each CONNECT, EHLO, MAIL, RCPT, DATA, END..."""
    return lambda said: reply if said.verb == verb else None


def at_recipient(number: int, reply: str | Action) -> Hook:
    """Reply so to this recipient of each transaction, counted from 1."""
    return lambda said: reply if said.number == number else None


def refusing(replies: Mapping[str, str]) -> Hook:
    """Reply so to these recipients."""
    return lambda said: replies.get(said.address) if said.verb == "RCPT" else None


def at_most(recipients: int, reply: str = "452 4.5.3 Too many recipients") -> Hook:
    """Take no more recipients in a transaction."""
    return lambda said: reply if said.number > recipients else None


def times(number: int, hook: Hook) -> Hook:
    """The hook decides so often, and then no more."""
    left = number

    def limited(said: Said) -> str | Action | None:
        nonlocal left
        reply = hook(said) if left else None
        left -= reply is not None
        return reply

    return limited


def verbatim(octets: bytes) -> Action:
    """Say these octets, and go on."""
    return Action("verbatim", octets)


class MailServer:
    """Takes mail on `port` while its block lasts. What is offered besides: STARTTLS with `tls`,
    AUTH with `login` ("user:password"). It can be stopped and started again on its port."""

    def __init__(
        self,
        *hooks: Hook,
        offers: tuple[str, ...] = OFFERS,
        tls: ssl.SSLContext | None = None,
        login: str = "",
    ) -> None:
        self.hooks, self.offers, self.tls, self.login = list(hooks), offers, tls, login
        self.port = 0
        self.taken: list[Received] = []
        self.said: list[Said] = []  # everything
        self.connections = self.open = self.most_open = 0
        self.changed = threading.Condition()
        self.failures: list[BaseException] = []
        self._released: asyncio.Event
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop
        self._tasks: set[asyncio.Task[None]] = set()

    # What tests ask

    def wait_for(self, messages: int) -> list[Received]:
        """Wait until so many messages were taken."""
        self.wait_until(lambda: len(self.taken) >= messages, f"{messages} messages")
        return self.taken

    def wait_until(self, look: Callable[[], object], what: str = "") -> None:
        """Wait until this holds; it is looked at when something was said."""
        with self.changed:
            assert self.changed.wait_for(look, PATIENCE), f"{what}: {self.said[-5:]}"

    def heard(self, verb: str) -> list[Said]:
        """What was said with this verb."""
        return [said for said in self.said if said.verb == verb]

    async def hears(self, verb: str, number: int = 1) -> None:
        """Wait until so many of these were said, in an event loop that goes on."""
        await asyncio.to_thread(self.wait_until, lambda: len(self.heard(verb)) >= number, verb)

    def release(self) -> None:
        """Let those go on that are held, and whoever would be."""
        self._loop.call_soon_threadsafe(self._released.set)

    # Life

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
        for failure in self.failures:
            raise failure

    def start(self) -> None:
        """Listen, on the same port as before if it did before."""
        ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve(ready)))
        self._thread.start()
        assert ready.wait(PATIENCE)

    def stop(self) -> None:
        """Close all connections and listen no more."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()

    async def _serve(self, ready: threading.Event) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._released = asyncio.Event(), asyncio.Event()
        server = await asyncio.start_server(self._meet, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _meet(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        self._count(1)
        try:
            await _Session(self, reader, writer, self.connections).serve()
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass
        except BaseException as failure:
            self.failures.append(failure)
        finally:
            self._tasks.discard(task)
            self._count(-1)
            writer.transport.abort()

    def _count(self, change: int) -> None:
        with self.changed:
            self.open += change
            self.most_open = max(self.most_open, self.open)
            self.changed.notify_all()

    def note(self, said: Said) -> str | Action | None:
        """Remember what was said, and ask the hooks."""
        with self.changed:
            self.said.append(said)
            self.changed.notify_all()
        replies = (hook(said) for hook in self.hooks)
        return next((reply for reply in replies if reply is not None), None)

    def take(self, received: Received) -> None:
        """A message was taken."""
        with self.changed:
            self.taken.append(received)
            self.changed.notify_all()

    async def held(self) -> None:
        """Wait for the release."""
        await self._released.wait()


class _End(Exception):
    """The connection is to be closed."""


class _Session:
    """One connection."""

    def __init__(
        self,
        server: MailServer,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        connection: int,
    ) -> None:
        self._server, self._reader, self._writer = server, reader, writer
        self._connection = connection
        self._buffer = b""
        self._number = 0
        self._sender: str | None = None
        self._parameters: tuple[str, ...] = ()
        self._recipients: list[str] = []

    async def serve(self) -> None:
        with contextlib.suppress(_End):
            await self._answer("CONNECT", "", "220 mta.example.net ESMTP")
            while True:
                line = (await self._until(b"\r\n")).decode()
                verb = line.partition(" ")[0].rstrip("\r\n").upper()
                self._check_order(verb)
                await self._command(verb, line)

    def _check_order(self, verb: str) -> None:
        last = "PIPELINING" not in self._server.offers or verb in ("DATA", "EHLO", "QUIT")
        assert not (self._buffer and last), f"after {verb} came at once {self._buffer[:80]!r}"

    async def _until(self, end: bytes) -> bytes:
        """Octets up to and with `end`."""
        while (found := self._buffer.find(end)) < 0:
            data = await self._reader.read(1 << 20)
            if not data:
                raise _End
            self._buffer += data
        cut = found + len(end)
        octets, self._buffer = self._buffer[:cut], self._buffer[cut:]
        return octets

    async def _answer(
        self, verb: str, line: str, usual: str, first: Callable[[str], None] = lambda reply: None
    ) -> str:
        """Reply, or do what the hooks say. Returns the reply, which `first` is told before the
        client is."""
        number = self._number if verb == "RCPT" else 0
        said = Said(verb, line.rstrip("\r\n"), number, self._connection)
        reply = self._server.note(said)
        if isinstance(reply, Action):
            reply = await self._act(reply, usual, first)
        reply = usual if reply is None else reply
        if reply:
            first(reply)
            self._writer.write(f"{reply}\r\n".encode())
        if reply.startswith("421"):
            await self._leave()
        return reply

    async def _act(self, action: Action, usual: str, first: Callable[[str], None]) -> str:
        match action.name:
            case "hold":
                await self._server.held()
                return usual
            case "deaf":
                self._writer.write(b"354 Go on\r\n")
                self._writer.transport.pause_reading()  # type: ignore[attr-defined]
                await asyncio.Event().wait()
            case "take and drop":
                first(usual)
                raise _End
            case "drop":
                raise _End
        self._writer.write(action.octets)
        return ""

    async def _leave(self) -> None:
        """Close so that what was said is not lost to a reset."""
        if self._writer.can_write_eof():
            self._writer.write_eof()
        while await self._reader.read(1 << 20):
            pass
        raise _End

    async def _command(self, verb: str, line: str) -> None:
        match verb:
            case "EHLO":
                await self._answer(verb, line, self._offered())
            case "MAIL":
                await self._mail(line)
            case "RCPT":
                self._number += 1
                known = "250 2.1.5 Ok" if self._sender is not None else "503 5.5.1 Need MAIL"
                reply = await self._answer(verb, line, known)
                if reply.startswith("25"):
                    self._recipients.append(Said(verb, line, 0, 0).address)
            case "DATA":
                usual = "354 Go on" if self._recipients else "554 5.5.1 No valid recipients"
                if (await self._answer(verb, line, usual)).startswith("354"):
                    await self._content()
            case "RSET":
                await self._answer(verb, line, "250 2.0.0 Ok")
                self._clear()
            case "STARTTLS" if self._server.tls:
                if (await self._answer(verb, line, "220 2.0.0 Begin")).startswith("220"):
                    await self._writer.start_tls(self._server.tls)
            case "AUTH" if self._server.login:
                await self._auth(line)
            case "QUIT":
                await self._answer(verb, line, "221 2.0.0 Bye")
                raise _End
            case "HELO":
                await self._answer(verb, line, "250 mta.example.net")
            case _:
                await self._answer(verb, line, "500 5.5.1 What?")

    def _offered(self) -> str:
        server = self._server
        offers = ["mta.example.net", *server.offers]
        if server.tls and self._writer.get_extra_info("ssl_object") is None:
            offers.append("STARTTLS")
        if server.login and not any(offer.startswith("AUTH") for offer in offers):
            offers.append("AUTH PLAIN LOGIN")
        return "\r\n".join([*(f"250-{offer}" for offer in offers[:-1]), f"250 {offers[-1]}"])

    async def _mail(self, line: str) -> None:
        free = "503 5.5.1 Nested MAIL" if self._sender is not None else "250 2.1.0 Ok"
        self._number = 0
        if (await self._answer("MAIL", line, free)).startswith("250"):
            self._sender = Said("MAIL", line, 0, 0).address
            self._parameters = tuple(line.rpartition(">")[2].split())

    async def _content(self) -> None:
        if self._buffer:
            raise AssertionError(f"the message came before 354: {self._buffer[:80]!r}")
        self._buffer = b"\r\n"
        whole = (await self._until(b"\r\n.\r\n"))[:-3]
        content = whole.replace(b"\r\n.", b"\r\n")[2:]

        def first(reply: str) -> None:
            if reply.startswith("250") and self._recipients:
                assert self._sender is not None
                to, parameters = tuple(self._recipients), self._parameters
                received = Received(self._sender, to, content, parameters, self._connection)
                self._server.take(received)

        await self._answer("END", "", "250 2.0.0 Taken", first)
        self._clear()

    async def _auth(self, line: str) -> None:
        """The reply is a hook's, or says yes; `said` has what the client gave."""
        mechanism, _, initial = line.strip().partition(" ")[2].partition(" ")
        if mechanism == "LOGIN":
            given = []
            for prompt in "334 VXNlcm5hbWU6", "334 UGFzc3dvcmQ6":
                self._writer.write(f"{prompt}\r\n".encode())
                given.append((await self._until(b"\r\n")).decode().strip())
            initial = " ".join(given)
        await self._answer("AUTH", f"{mechanism} {initial}", "235 2.7.0 Welcome")

    def _clear(self) -> None:
        self._sender, self._parameters, self._number = None, (), 0
        self._recipients = []
