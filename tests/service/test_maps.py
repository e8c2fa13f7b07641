"""Look-ups of mail servers, over real sockets; the registry is scripted."""

import asyncio
import io
import json
import socket
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.lmtp.connection import Answer
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.service import maps
from postroom.service.control import loop_factory
from postroom.service.maps import MapServer
from postroom.service.netstring import netstring

WHOLE = 10.0  # seconds; a wait that takes as long has failed
WHERE = "lmtp:inet:127.0.0.1:8024"
ANTS = Mailbox("ants", "example.com")
HERE = {ANTS, Mailbox("postmaster", "example.com")}


class Registry:
    """Knows who is `HERE`. While it is `silent` it keeps those who ask waiting."""

    def __init__(self) -> None:
        self.asked: list[tuple[Mailbox, ...]] = []
        self.silent = False
        self._waiting: list[tuple[tuple[Mailbox, ...], Answer]] = []
        self._somebody = asyncio.Event()

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        self.asked.append(recipients)
        self._somebody.set()
        if recipients[0].local == "defect":
            raise ZeroDivisionError("oops")
        if self.silent:
            self._waiting.append((recipients, answer))
        else:
            self.answer(recipients, answer)

    @staticmethod
    def answer(recipients: Sequence[Mailbox], answer: Answer) -> None:
        found = [reply.RECIPIENT_OK if box in HERE else reply.NO_MAILBOX for box in recipients]
        asyncio.get_running_loop().call_soon(answer, found)

    async def somebody(self) -> None:
        """Wait until it is asked."""
        self._somebody.clear()
        await asyncio.wait_for(self._somebody.wait(), WHOLE)

    def speak(self) -> None:
        """Answer all."""
        self.silent = False
        for each in self._waiting:
            self.answer(*each)


class Client:
    """A mail server's end of a connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def say(self, *requests: str) -> None:
        self.writer.write(b"".join(netstring(each.encode()) for each in requests))

    async def hear(self) -> str | None:
        """The next answer; None when the connection has ended."""
        try:
            length = await asyncio.wait_for(self.reader.readuntil(b":"), WHOLE)
            content = await asyncio.wait_for(self.reader.readexactly(int(length[:-1]) + 1), WHOLE)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        assert content.endswith(b",")
        return content[:-1].decode()

    async def ask(self, request: str) -> str | None:
        self.say(request)
        return await self.hear()

    async def rest(self) -> bytes:
        """All octets until the connection ends."""
        try:
            return await asyncio.wait_for(self.reader.read(-1), WHOLE)
        except ConnectionError:
            return b""


class Place:
    """A server for look-ups, and who connects to it."""

    def __init__(self, path: Path | None = None) -> None:
        self.registry = Registry()
        self.logged = io.StringIO()
        log = Log(LogSettings("json"), self.logged)
        self.server = MapServer(self.registry, log, WHERE)
        self._bound = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self._bound.bind(str(path) if path else ("127.0.0.1", 0))
        self._address = self._bound.getsockname()
        self._clients: list[Client] = []

    async def open(self) -> None:
        await self.server.listen([self._bound])

    async def client(self) -> Client:
        if isinstance(self._address, str):
            streams = await asyncio.open_unix_connection(self._address)
        else:
            streams = await asyncio.open_connection(*self._address)
        self._clients.append(Client(*streams))
        return self._clients[-1]

    async def close(self) -> None:
        self.server.close()
        for each in self._clients:
            each.writer.close()
        while self.server.connections:
            await asyncio.sleep(0)


Script = Callable[[Place], Awaitable[None]]


def play(script: Script, path: Path | None = None) -> Place:
    """Run a script in the loop that the door uses."""

    async def run() -> Place:
        place = Place(path)
        await place.open()
        try:
            await script(place)
        finally:
            await place.close()
        return place

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(run())


DIALOGUE = [
    ("recipients ants@example.com", "OK ants@example.com"),
    ("recipients bees@example.com", "NOTFOUND "),
    ("transport ants@example.com", f"OK {WHERE}"),
    ("transport bees@example.com", "NOTFOUND "),
    ("transport ants", "NOTFOUND "),
    ("nothing ants@example.com", "PERM no such map: there are recipients, transport, domains"),
    ("domains example.com", f"OK {WHERE}"),
    ("domains example.net", "NOTFOUND "),
    ("", "PERM a request is the name of a map, a space and a key"),
    ("domains bees@example.com", f"OK {WHERE}"),
]
SAID = b"".join(netstring(request.encode()) for request, _ in DIALOGUE)
HEARD = b"".join(netstring(answer.encode()) for _, answer in DIALOGUE)


@pytest.mark.parametrize("unix", [False, True])
def test_a_dialogue_one_by_one(tmp_path: Path, unix: bool) -> None:
    async def script(place: Place) -> None:
        client = await place.client()
        for request, answer in DIALOGUE:
            assert await client.ask(request) == answer
        client.writer.write_eof()
        assert await client.hear() is None

    counted = play(script, tmp_path / "maps" if unix else None).server.answers
    assert counted["recipients", "OK"] == counted["recipients", "NOTFOUND"] == 1
    assert counted["transport", "NOTFOUND"] == counted["domains", "OK"] == counted["", "PERM"] == 2
    assert counted.total() == len(DIALOGUE)


@pytest.mark.parametrize(
    "pieces",
    [
        [SAID],
        [SAID[at : at + 1] for at in range(len(SAID))],
        [SAID[at : at + 7] for at in range(0, len(SAID), 7)],
        [SAID + b"17:recipients ants"],  # cut off: no answer
        [SAID + b"no netstring, but the ones before it count"],
    ],
    ids=["whole", "octet by octet", "in sevens", "with a beginning", "with rubbish"],
)
def test_the_same_dialogue_however_it_is_cut(pieces: list[bytes]) -> None:
    async def script(place: Place) -> None:
        client = await place.client()
        connection = client.writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for each in pieces:
            client.writer.write(each)
            await asyncio.sleep(0)
        client.writer.write_eof()
        assert await client.rest() == HEARD

    play(script)


def test_a_thousand_requests_at_once_are_few_questions_answered_in_order() -> None:
    async def script(place: Place) -> None:
        client = await place.client()
        client.say(*(f"recipients {'ants' if n % 3 else n}@example.com" for n in range(1000)))
        client.writer.write_eof()
        expected = ["OK ants@example.com" if n % 3 else "NOTFOUND " for n in range(1000)]
        assert [await client.hear() for _ in range(1000)] == expected
        assert await client.hear() is None
        assert [len(each) for each in place.registry.asked] == [100] * 10

    play(script)


def test_while_the_registry_is_silent_nobody_else_is_told_anything_wrong() -> None:
    async def script(place: Place) -> None:
        place.registry.silent = True
        first, second = await place.client(), await place.client()
        first.say("recipients ants@example.com", "recipients bees@example.com")
        await place.registry.somebody()
        assert await second.ask("recipients ants") == "NOTFOUND "  # nobody has to be asked
        second.say("domains example.com")
        second.writer.write_eof()
        await place.registry.somebody()
        place.registry.speak()
        assert await second.hear() == f"OK {WHERE}"
        assert await second.hear() is None
        assert await first.hear() == "OK ants@example.com"
        assert await first.hear() == "NOTFOUND "

    play(script)


@pytest.mark.parametrize(
    "octets",
    [
        b"99999999999999999999:recipients ants@example.com,",
        b"16385:recipients ",
        b"028:recipients ants@example.com,",
        b"27:recipients ants@example.com;",
        b"26:recipients ants@example.com,",
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"1" * 1_000_000,
        b"\0" * 1_000_000,
    ],
    ids=lambda octets: ascii(octets[:12]),
)
def test_what_is_no_netstring_ends_its_connection_without_a_word(octets: bytes) -> None:
    async def script(place: Place) -> None:
        bad, good = await place.client(), await place.client()
        bad.writer.write(netstring(b"domains example.com") + octets)
        assert await bad.hear() in (f"OK {WHERE}", None)  # what is unread may reset it
        assert await bad.rest() == b""
        assert await good.ask("domains example.com") == f"OK {WHERE}"

    assert play(script).server.answers["", "malformed"] == 1


def test_the_longest_request_is_answered() -> None:
    async def script(place: Place) -> None:
        client = await place.client()
        filling = maps.MAX_REQUEST - len("recipients @example.com")
        assert await client.ask(f"recipients {'x' * filling}@example.com") == "NOTFOUND "
        assert await client.ask("recipients ants@example.com") == "OK ants@example.com"

    play(script)


def test_a_client_that_does_not_read_is_not_read_from_and_gets_everything_later(
    tmp_path: Path,
) -> None:
    request = netstring(b"recipients ants@example.com")
    answer = netstring(b"OK ants@example.com")
    many, bound = request * 40_000, 5_000_000  # octets

    async def script(place: Place) -> None:
        other = await place.client()
        loop, flood, sent, refused = asyncio.get_running_loop(), socket.socket(socket.AF_UNIX), 0, 0
        with flood:
            flood.setblocking(False)
            await loop.sock_connect(flood, other.writer.get_extra_info("peername"))
            while refused < 50 and sent < bound:  # so often it could have been read, and was not
                try:
                    sent += flood.send(many[sent % len(request) :])
                    refused = 0
                except BlockingIOError:
                    refused += 1
                assert await other.ask("domains example.com") == f"OK {WHERE}"
            assert sent < bound
            flood.shutdown(socket.SHUT_WR)
            received = bytearray()
            while data := await asyncio.wait_for(loop.sock_recv(flood, 1_000_000), WHOLE):
                received += data
            assert received == answer * (sent // len(request))

    # Their buffers do not grow, as those of TCP do.
    play(script, tmp_path / "maps")


def test_a_client_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "IDLE", 0.05)

    async def script(place: Place) -> None:
        silent, halting = await place.client(), await place.client()
        halting.writer.write(b"27:recipients ants")
        assert await silent.rest() == await halting.rest() == b""

    assert not play(script).server.answers


def test_a_registry_that_is_silent_for_too_long_is_a_timeout(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "IDLE", 0.05)

    async def script(place: Place) -> None:
        place.registry.silent = True
        client = await place.client()
        client.say("recipients ants@example.com", "domains example.com")
        assert await client.hear() == "TIMEOUT the registry does not answer"
        assert await client.hear() == "TIMEOUT the registry does not answer"
        assert await client.hear() is None
        place.registry.speak()
        await asyncio.sleep(0)  # what comes too late is for nobody
        assert place.logged.getvalue() == ""

    assert play(script).server.answers == {("recipients", "TIMEOUT"): 1, ("domains", "TIMEOUT"): 1}


def test_more_connections_than_are_allowed_are_closed_and_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maps, "MAX_CONNECTIONS", 2)

    async def script(place: Place) -> None:
        first, second = await place.client(), await place.client()
        for each in first, second:
            assert await each.ask("domains example.com") == f"OK {WHERE}"
        for _ in range(3):
            assert await (await place.client()).hear() is None
        first.writer.write_eof()
        assert await first.hear() is None
        assert await (await place.client()).ask("domains example.com") == f"OK {WHERE}"
        assert await second.ask("domains example.com") == f"OK {WHERE}"

    [line] = play(script).logged.getvalue().splitlines()
    assert json.loads(line)["event"] == "too many connections for look-ups"


def test_a_defect_ends_its_connection_alone_and_is_logged() -> None:
    async def script(place: Place) -> None:
        bad, good = await place.client(), await place.client()
        assert await bad.ask("recipients defect@example.com") is None
        assert await good.ask("domains example.com") == f"OK {WHERE}"

    line = json.loads(play(script).logged.getvalue())
    assert line["level"] == "error"
    assert "ZeroDivisionError: oops" in line["exception"]


def test_after_closing_nobody_is_served() -> None:
    async def script(place: Place) -> None:
        client = await place.client()
        assert await client.ask("domains example.com") == f"OK {WHERE}"
        place.server.close()
        assert await client.hear() is None
        with pytest.raises(ConnectionError):
            await place.client()

    play(script)
