"""A listener that takes connections and understands nothing, in a process of its own.

For: knowing what attackers cost by themselves, where they share the processors with those who
are attacked. Guarantees: it stores nothing, says nothing and has the least priority; whoever
sends much is left alone for a second and then put out, as postroom does it. Prints
`ready HOST:PORT` on stderr; ends on SIGTERM.
"""

import asyncio
import sys
from typing import cast

from bench.clients import HOST, step_back

MUCH = 4000  # octets
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
            asyncio.get_running_loop().call_later(HELD, self._transport.close)


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(Deaf, HOST, 0, backlog=512)
    host, port = server.sockets[0].getsockname()
    print(f"ready {host}:{port}", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    step_back()
    asyncio.run(main())
