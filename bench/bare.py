"""A bare aiosmtpd LMTP server that stores nothing, in a process of its own.

For: knowing what the framework alone costs. Guarantees: every recipient and every message is
accepted and thrown away. Prints `ready HOST:PORT` on stderr; ends on SIGTERM.
"""

import asyncio
import sys

from aiosmtpd.lmtp import LMTP


class AcceptAll:
    """Says yes and keeps nothing."""

    async def handle_DATA(self, server: object, session: object, envelope: object) -> str:
        return "250 OK"


async def main() -> None:
    """Serve until the process is ended."""
    server = await asyncio.get_running_loop().create_server(
        lambda: LMTP(AcceptAll(), hostname="localhost"), "127.0.0.1", 0, backlog=128
    )
    host, port = server.sockets[0].getsockname()
    print(f"ready {host}:{port}", file=sys.stderr, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
