"""A listener that takes connections and understands nothing, in a process of its own.

For: knowing what attackers cost by themselves, where they share the processors with those who
are attacked. Guarantees: it stores nothing and has the least priority; who sends more than a
slow client is told 421 a second later, whatever it said, and put out after one second more.
Prints `ready HOST:PORT` on stderr; ends on SIGTERM.
"""

import asyncio
import sys
from typing import cast

from bench.clients import HOST, step_back

MUCH = 200  # octets
HELD = 1.0  # seconds


class Deaf(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport
        self._came = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._came += len(data)
        if self._came > MUCH:
            self._transport.pause_reading()
            loop, transport = asyncio.get_running_loop(), self._transport
            loop.call_later(HELD, transport.write, b"421 4.7.0 Go away\r\n")
            loop.call_later(2 * HELD, transport.close)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Deaf, HOST, 0, backlog=512)
    host, port = server.sockets[0].getsockname()
    print(f"ready {host}:{port}", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    step_back()
    asyncio.run(main())
