"""The HTTP responder, octet by octet."""

import asyncio
import io
import json
import socket
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path

import pytest
import uvloop

from postroom.base.observe import Log
from postroom.base.places import Tcp, Unix
from postroom.base.settings import LogSettings
from postroom.watch import http
from postroom.watch.http import MAX_CONNECTIONS, MAX_REQUEST, Page, Refused, Responder, fetch

WHOLE = 30.0  # seconds; a wait that takes as long has failed
LARGE, LONG = b"x" * 6_000_000, b"x" * 5_000_000
Script = Callable[["Served"], Awaitable[None]]
Loop = Callable[[], asyncio.AbstractEventLoop]


class Served:
    """A responder with the pages /hello, /long, /large, /broken and /slow."""

    def __init__(self, bound: socket.socket) -> None:
        self.logged = io.StringIO()
        self.responder = Responder(self._pages, Log(LogSettings("json"), self.logged))
        self.bound, self.name = bound, bound.getsockname()
        self.slow = asyncio.Event()
        self.asked: list[str] = []

    async def _pages(self, path: str) -> Page | None:
        self.asked.append(path)
        if path == "/broken":
            raise ZeroDivisionError("oops")
        if path == "/slow":
            self.slow.set()
            await asyncio.Event().wait()
        pages = {"/hello": b"hello\n", "/large": LARGE, "/long": LONG}
        return Page(pages[path]) if path in pages else None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if isinstance(self.name, str):
            return await asyncio.open_unix_connection(self.name)
        return await asyncio.open_connection(*self.name)

    async def say(self, octets: bytes) -> bytes:
        """Everything that comes back until the connection is closed."""
        reader, writer = await self.connect()
        writer.write(octets)
        found = await asyncio.wait_for(reader.read(-1), WHOLE)
        writer.close()
        return found


async def ended(reader: asyncio.StreamReader) -> bool:
    """Whether a connection was closed without a word, kindly or with a reset."""
    try:
        return await asyncio.wait_for(reader.read(-1), WHOLE) == b""
    except ConnectionResetError:
        return True


async def until(look: Callable[[], bool]) -> None:
    """Wait for what tells nobody when it happens."""
    async with asyncio.timeout(WHOLE):
        while not look():
            await asyncio.sleep(0.01)


def play(
    script: Script, bound: socket.socket | None = None, loop: Loop = uvloop.new_event_loop
) -> Served:
    """Run a script against a responder; it is closed afterwards."""

    async def run() -> Served:
        served = Served(bound or socket.create_server(("127.0.0.1", 0)))
        await served.responder.listen([served.bound])
        try:
            await script(served)
        finally:
            served.responder.close()
        return served

    with asyncio.Runner(loop_factory=loop) as runner:
        return runner.run(run())


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, header and body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii").split("\r\n")
    assert first.startswith("HTTP/1.1 ")
    fields = dict(line.split(": ", 1) for line in lines)
    return int(first.split()[1]), fields, body


def answers(*requests: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """What each request gets, on a connection of its own."""
    found: list[tuple[int, dict[str, str], bytes]] = []

    async def script(served: Served) -> None:
        found.extend([parsed(await served.say(request)) for request in requests])

    play(script)
    return found


def test_a_page_comes_with_its_length_and_the_connection_ends() -> None:
    [(status, fields, body)] = answers(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (status, body) == (200, b"hello\n")
    assert fields["Content-Length"] == "6"
    assert fields["Connection"] == "close"
    assert fields["Content-Type"] == "text/plain; charset=utf-8"


def test_head_gets_the_header_alone() -> None:
    get, head = answers(
        b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", b"HEAD /hello HTTP/1.1\r\nhost:x\r\n\r\n"
    )
    assert head == (200, get[1], b"")


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /hello?a=b#c HTTP/1.1\r\nHost: x\r\n\r\n", 200),
        (b"GET http://x:1/hello HTTP/1.1\r\nHost: x\r\n\r\n", 200),  # RFC 9112 3.2.2
        (b"GET /hello HTTP/1.0\r\n\r\n", 200),
        (b"GET /hello/ HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"GET /%00\x7f HTTP/1.1\r\nHost: x\r\n\r\n", 404),
        (b"POST /hello HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        (b"get /hello HTTP/1.1\r\nHost: x\r\n\r\n", 405),
        (b"GET /hello HTTP/1.1\r\n\r\n", 400),  # RFC 9112 3.2
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400),
        (b"GET /hello HTTP/2.0\r\nHost: x\r\n\r\n", 400),
        (b"GET /hello\r\n\r\n", 400),
        (b"GET  /hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET http://[x/hello HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"\r\n\r\n", 400),
        (b"LHLO client\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
        (b"GET /" + b"a" * 2000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET /" + b"a" * 3 * MAX_REQUEST, 414),
        (b"GET /hello HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 3 * MAX_REQUEST, 431),
    ],
)
def test_each_request_gets_the_status_that_is_meant_for_it(request_: bytes, status: int) -> None:
    [(found, _, body)] = answers(request_)
    assert found == status
    if status != 200:
        assert body == f"{status} {HTTPStatus(status).phrase}\n".encode()


def test_who_may_not_is_told_what_may_be_done() -> None:
    [(_, fields, _)] = answers(b"DELETE /hello HTTP/1.1\r\nHost: x\r\n\r\n")
    assert fields["Allow"] == "GET, HEAD"


def test_a_request_octet_by_octet_is_the_same_request() -> None:
    async def script(served: Served) -> None:
        reader, writer = await served.connect()
        for octet in b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n":
            writer.write(bytes([octet]))
            await writer.drain()
        assert parsed(await reader.read(-1))[0] == 200
        writer.close()

    play(script)


def test_a_page_arrives_whole_at_one_who_reads_in_bites_and_has_closed_his_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "PATIENCE", 10 * WHOLE)

    async def script(served: Served) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)
            client.setblocking(False)
            await loop.sock_connect(client, served.name)
            await loop.sock_sendall(client, b"GET /long HTTP/1.1\r\nHost: x\r\n\r\n")
            client.shutdown(socket.SHUT_WR)
            found = b""
            while bite := await asyncio.wait_for(loop.sock_recv(client, 16_000), WHOLE):
                found += bite
        assert parsed(found)[2] == LONG

    play(script)


def test_a_page_that_fails_is_500_and_told_to_the_log() -> None:
    async def script(served: Served) -> None:
        assert parsed(await served.say(b"GET /broken HTTP/1.0\r\n\r\n"))[0] == 500
        assert parsed(await served.say(b"GET /hello HTTP/1.0\r\n\r\n"))[0] == 200

    line = json.loads(play(script).logged.getvalue())
    assert "ZeroDivisionError: oops" in line["exception"]


@pytest.mark.parametrize("said", [b"", b"GET /hello HTTP/1.1\r\n", b"GET /slow HTTP/1.0\r\n\r\n"])
def test_a_connection_that_takes_too_long_is_ended(
    monkeypatch: pytest.MonkeyPatch, said: bytes
) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.05)

    async def script(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(said)
        assert await ended(reader)
        writer.close()

    play(script)


def test_one_who_does_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 0.05)

    async def script(served: Served) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(served.name)
            client.sendall(b"GET /large HTTP/1.0\r\n\r\n")
            await until(lambda: bool(served.asked) and not served.responder._tasks)

    assert play(script).asked == ["/large"]


def test_no_more_connections_than_there_are_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 10 * WHOLE)  # it is not time that ends one

    async def script(served: Served) -> None:
        held = [await served.connect() for _ in range(MAX_CONNECTIONS)]
        await until(lambda: len(served.responder._tasks) == MAX_CONNECTIONS)
        reader, writer = await served.connect()
        assert await ended(reader)
        writer.close()
        for _, each in held:
            each.close()
        await until(lambda: not served.responder._tasks)
        assert parsed(await served.say(b"GET /hello HTTP/1.0\r\n\r\n"))[0] == 200

    play(script)


def test_closing_ends_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "PATIENCE", 10 * WHOLE)  # it is not time that ends it

    async def script(served: Served) -> None:
        reader, writer = await served.connect()
        writer.write(b"GET /slow HTTP/1.0\r\n\r\n")
        await asyncio.wait_for(served.slow.wait(), WHOLE)
        served.responder.close()
        assert await ended(reader)
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await served.connect()

    play(script)


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_a_page_is_fetched_over_tcp_and_unix_sockets(tmp_path: Path, loop: Loop) -> None:
    path = f"{tmp_path}/http"
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(path)
    unix.listen()
    tcp = socket.create_server(("127.0.0.1", 0))
    for bound, where in (unix, Unix(path)), (tcp, Tcp(*tcp.getsockname())):

        async def script(served: Served, where: Tcp | Unix = where) -> None:
            assert await asyncio.to_thread(fetch, where, "/hello") == (200, b"hello\n")
            assert (await asyncio.to_thread(fetch, where, "/nowhere"))[0] == 404

        play(script, bound, loop)
    assert Path(path).is_socket()  # it belongs to who bound it


def test_what_is_no_http_is_an_error_of_the_network() -> None:
    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 lists.example.com LMTP\r\n")
        writer.close()

    async def script() -> None:
        bound = socket.create_server(("127.0.0.1", 0))
        server = await asyncio.start_server(hello, sock=bound)
        with pytest.raises(OSError, match="no HTTP"):
            await asyncio.to_thread(fetch, Tcp(*bound.getsockname()), "/hello")
        server.close()

    asyncio.run(script())


def test_nobody_there_is_an_error_of_the_network(tmp_path: Path) -> None:
    with pytest.raises(OSError):
        fetch(Unix(f"{tmp_path}/nobody"), "/hello")
    with socket.create_server(("127.0.0.1", 0)) as bound:
        name = bound.getsockname()
    with pytest.raises(OSError):
        fetch(Tcp(*name), "/hello")


def test_refused_says_why() -> None:
    assert str(Refused(HTTPStatus.NOT_FOUND)) == "Not Found"
