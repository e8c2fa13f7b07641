"""Servers for tests of the client, each in a thread of its own.

For: the real server, and scripts that misbehave in one exact way. Guarantees: both are
gone when the `with` ends; what fails in a script fails the test.
"""

import asyncio
import contextlib
import smtplib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, Self

from postroom.lmtp.client import LMTPClient
from tests.wire.harness import PATIENCE, Desk, house


def connect(port: int, timeout: float = PATIENCE) -> LMTPClient:
    """A client of the server on this port."""
    return LMTPClient("127.0.0.1", port, timeout=timeout)


def recipients_of(error: smtplib.SMTPRecipientsRefused) -> dict[str, object]:
    """Whom the error lists; its own type says that texts are bytes."""
    return dict(error.recipients)


@contextlib.contextmanager
def serving(desk: Desk, **config: Any) -> Iterator[int]:
    """The real server; gives its port."""
    ready, ports, stops = threading.Event(), [], []

    async def serve() -> None:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        stops.append(lambda: loop.call_soon_threadsafe(stop.set))
        async with house(desk, **config) as home:
            ports.append(home.port)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield ports[0]
    finally:
        stops[0]()
        thread.join(PATIENCE)
        assert not thread.is_alive()


class Script:
    """What a script may do with its one client."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._file = connection.makefile("rb")

    def say(self, *lines: str) -> Self:
        """Send reply lines in one write."""
        self._connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        return self

    def raw(self, octets: bytes) -> None:
        """Send octets as they are."""
        self._connection.sendall(octets)

    def hear(self, *commands: str) -> Self:
        """Read lines, which must begin so; nothing is answered meanwhile."""
        for command in commands:
            line = self._file.readline().decode()
            assert line.startswith(command), f"expected {command}, heard {line!r}"
        return self

    def hear_data(self) -> bytes:
        """Read up to the lone dot."""
        data = b""
        while not data.endswith(b"\r\n.\r\n") and data != b".\r\n":
            line = self._file.readline()
            assert line, f"the data has no end: {data!r}"
            data += line
        return data[:-3]

    def introduce(self, *extensions: str) -> Self:
        """Greeting and LHLO; offers these extensions."""
        self.say("220 scripted").hear("LHLO ")
        offered = ["scripted", *extensions]
        self.say(*(f"250-{each}" for each in offered[:-1]), f"250 {offered[-1]}")
        return self

    def hear_end(self) -> None:
        """The client must say nothing more."""
        assert self._file.read() == b""

    def close(self) -> None:
        """Close the connection."""
        self._file.close()
        self._connection.close()


@contextlib.contextmanager
def scripted(script: Callable[[Script], object], path: str | None = None) -> Iterator[int]:
    """A server that plays `script` with the first client; gives its port."""
    failures: list[BaseException] = []
    if path is None:
        listener = socket.create_server(("127.0.0.1", 0))
    else:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()

    def play() -> None:
        connection, _ = listener.accept()
        connection.settimeout(PATIENCE)
        player = Script(connection)
        try:
            script(player)
        except BaseException as failure:
            failures.append(failure)
        finally:
            player.close()

    listener.settimeout(PATIENCE)
    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield 0 if path else listener.getsockname()[1]
    finally:
        thread.join(PATIENCE)
        listener.close()
        for failure in failures:
            raise failure
