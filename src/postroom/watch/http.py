"""A small HTTP/1.1 responder, and the client that asks it.

For: pages that programs fetch now and then. Guarantees: GET and HEAD only, one request a
connection (RFC 9112 9.6), requests of at most 8 KiB, a bounded number of connections and
five seconds for each; whatever a client does, it hurts nobody else. A page that fails is
500, and told to the log. `fetch` raises OSError.
"""

import asyncio
import contextlib
import http.client
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from postroom.base.observe import Log
from postroom.base.places import Tcp, Unix

MAX_REQUEST = 8192  # octets
MAX_TARGET = 1024  # octets
MAX_CONNECTIONS = 64
PATIENCE = 5.0  # seconds for one connection
_END = b"\r\n\r\n"


class Page(NamedTuple):
    """What is answered."""

    body: bytes
    content_type: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK


Pages = Callable[[str], Awaitable[Page | None]]


class Refused(Exception):
    """A request that gets no page."""

    def __init__(self, status: HTTPStatus) -> None:
        super().__init__(status.phrase)
        self.status = status


def target_of(head: bytes) -> tuple[bool, str]:
    """Whether only the header is wanted, and the path. Pure. Raises `Refused`."""
    line, *fields = head.removesuffix(_END).split(b"\r\n")
    words = line.split(b" ")
    if len(words) != 3 or not words[2].startswith(b"HTTP/1.") or not line.isascii():
        raise Refused(HTTPStatus.BAD_REQUEST)
    names = [field.partition(b":")[0].lower() for field in fields]
    if words[2] != b"HTTP/1.0" and names.count(b"host") != 1:  # RFC 9112 3.2
        raise Refused(HTTPStatus.BAD_REQUEST)
    if words[0] not in (b"GET", b"HEAD"):
        raise Refused(HTTPStatus.METHOD_NOT_ALLOWED)
    if len(words[1]) > MAX_TARGET:
        raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG)
    try:
        path = urlsplit(words[1].decode("ascii")).path
    except ValueError:
        raise Refused(HTTPStatus.BAD_REQUEST) from None
    return words[0] == b"HEAD", path


class Responder:
    """Serves pages. Used in the event loop's thread only."""

    def __init__(self, pages: Pages, log: Log) -> None:
        """`pages(path)` gives a page, or None if there is none."""
        self._pages, self._log = pages, log
        self._listeners: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Serve on bound sockets, of the internet or unix. Raises OSError."""
        for bound in sockets:
            options: dict[str, Any] = {"sock": bound, "limit": MAX_REQUEST}
            start: Callable[..., Awaitable[asyncio.Server]] = asyncio.start_server
            if bound.family == socket.AF_UNIX:
                start = asyncio.start_unix_server
                if sys.version_info >= (3, 13):
                    options["cleanup_socket"] = False  # the file belongs to whoever bound it
            self._listeners.append(await start(self._accepted, **options))

    def close(self) -> None:
        """Stop, whatever is under way."""
        for listener in self._listeners:
            listener.close()
        for task in self._tasks:
            task.cancel()

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._tasks) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(PATIENCE):
                brief, page = await self._page(reader)
                writer.transport.set_write_buffer_limits(0)  # to drain is to send it all
                writer.write(_head(page) + (b"" if brief else page.body))
                await writer.drain()
                writer.write_eof()
                # What it still sends must be read, or it may lose our answer to a reset.
                while await reader.read(MAX_REQUEST):
                    pass
        except (OSError, EOFError):  # also too late: TimeoutError is an OSError
            pass
        finally:
            writer.transport.abort()

    async def _page(self, reader: asyncio.StreamReader) -> tuple[bool, Page]:
        try:
            head = await _request(reader)
            brief, path = target_of(head)
            page = await self._pages(path)
            return brief, page or _apology(HTTPStatus.NOT_FOUND)
        except Refused as refused:
            return False, _apology(refused.status)
        except OSError:
            raise
        except Exception as error:
            self._log.error("page not made", exc_info=error)
            return False, _apology(HTTPStatus.INTERNAL_SERVER_ERROR)


async def _request(reader: asyncio.StreamReader) -> bytes:
    """A request up to the end of its header. Raises `Refused`, EOFError."""
    try:
        return await reader.readuntil(_END)
    except asyncio.LimitOverrunError:
        line = b"\r\n" in await reader.read(MAX_TARGET + len("HEAD  HTTP/1.1\r\n"))
        too_long = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        raise Refused(too_long if line else HTTPStatus.REQUEST_URI_TOO_LONG) from None


def _apology(status: HTTPStatus) -> Page:
    return Page(f"{status.value} {status.phrase}\n".encode(), status=status)


def _head(page: Page) -> bytes:
    fields = [
        f"HTTP/1.1 {page.status.value} {page.status.phrase}",
        f"Content-Type: {page.content_type}",
        f"Content-Length: {len(page.body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    if page.status is HTTPStatus.METHOD_NOT_ALLOWED:
        fields.append("Allow: GET, HEAD")  # RFC 9110 15.5.6
    return ("\r\n".join(fields) + "\r\n\r\n").encode("ascii")


def fetch(where: Tcp | Unix, path: str, timeout: float = PATIENCE) -> tuple[int, bytes]:
    """GET a page; its status and body. Raises OSError."""
    with contextlib.closing(connect(where, timeout)) as connected:
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        connection.sock = connected
        try:
            connection.request("GET", path, headers={"Connection": "close"})
            response = connection.getresponse()
            return response.status, response.read()
        except http.client.HTTPException as error:
            raise OSError(f"no HTTP: {error!r}") from error


def connect(where: Tcp | Unix, timeout: float) -> socket.socket:
    """A connection to a place where somebody should listen. Raises OSError."""
    if isinstance(where, Tcp):
        local = {"0.0.0.0": "127.0.0.1", "::": "::1"}
        return socket.create_connection((local.get(where.host, where.host), where.port), timeout)
    connected = socket.socket(socket.AF_UNIX)
    connected.settimeout(timeout)
    try:
        connected.connect(where.path)
    except BaseException:
        connected.close()
        raise
    return connected
