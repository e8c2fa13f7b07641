"""Connections without a socket: turns of the loop can be told apart, and the test tells the time.

For: what would take hours, or must happen in the same turn. Guarantees: nothing happens but
what the test does.
"""

import asyncio
from typing import Any

from postroom.lmtp.admission import ServerConfig
from postroom.lmtp.connection import Connection
from postroom.lmtp.server import Server
from tests.wire.dialogue import HOST, IDENT
from tests.wire.harness import Desk

CONFIG = ServerConfig(HOST, IDENT)
DAY = 86_400.0
TRANSACTION = b"MAIL FROM:<>\r\n" + b"RCPT TO:<a@example.com>\r\n" * 2


class Recorder(asyncio.Transport):
    """A transport that keeps each write apart."""

    def __init__(self, **extra: Any) -> None:
        super().__init__({"peername": ("127.0.0.1", 2500)} | extra)
        self.writes: list[bytes] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.writes.append(b"closed")

    def abort(self) -> None:
        self.writes.append(b"aborted")

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


def in_data(server: Server) -> tuple[Connection, Recorder]:
    """A connection after 354."""
    connection, transport = server.new_connection(), Recorder()
    connection.connection_made(transport)
    connection.data_received(b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\nDATA\r\n")
    del transport.writes[:]
    return connection, transport


def met(said: bytes = b"", desk: Desk | None = None, **config: Any) -> tuple[Connection, Recorder]:
    """A connection that said this at 0 o'clock."""
    server = Server(CONFIG._replace(**config), desk or Desk())
    connection, transport = server.new_connection(), Recorder()
    connection.connection_made(transport)
    connection.data_received(b"LHLO x\r\n" + said)
    del transport.writes[:]
    return connection, transport


def look(connection: Connection, now: float) -> None:
    """The server looks after its connections at this time."""
    connection._clock = lambda: now
    connection.look_after(now)
