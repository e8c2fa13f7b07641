"""The LMTP server: listeners, and the connections that come through them.

For: accepting, looking after and ending connections. Guarantees: connections that take too
long are ended; a stop tells idle clients 421 and lets messages in hand finish. Fails with
OSError when it cannot listen.
"""

import asyncio
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from postroom.lmtp.admission import Admission, ServerConfig
from postroom.lmtp.budget import Budget
from postroom.lmtp.connection import Connection, Door

BACKLOG = 512  # connections that wait to be accepted


class Server:
    """All listeners and connections of one process."""

    def __init__(self, config: ServerConfig, door: Door) -> None:
        self.admission = Admission(config)
        self.budget = Budget(config.memory_budget)
        self.connections: set[Connection] = set()
        self._door = door
        self._listeners: list[asyncio.Server] = []
        self._now = 0.0
        self._round: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()

    async def listen(self, sockets: Sequence[socket.socket]) -> None:
        """Accept on bound sockets, of the internet or unix. Raises OSError."""
        if self._round is None:
            self._go_round()
        for bound in sockets:
            self._listeners.append(await accept(self.new_connection, bound))

    def reconfigure(self, config: ServerConfig) -> None:
        """Use `config`: limits of a session for those that come from now on."""
        self.budget.resize(config.memory_budget - self.admission.config.memory_budget)
        self.admission.config = config

    async def stop(self, patience: float) -> None:
        """Stop accepting, tell idle clients 421, let messages in hand finish.

        What is not done after `patience` seconds is closed without a reply.
        """
        self.admission.stopping = True
        for listener in self._listeners:
            listener.close()
        for connection in list(self.connections):
            connection.shut_down()
        try:
            async with asyncio.timeout(patience):
                while self.connections:
                    self._empty.clear()
                    await self._empty.wait()
        except TimeoutError:
            for connection in list(self.connections):
                connection.abort()
        if self._round is not None:
            self._round.cancel()

    def new_connection(self) -> Connection:
        """The protocol of a connection that is about to be made."""
        return Connection(
            self.admission, self._door, self.budget, lambda: self._now, self.joined, self.left
        )

    def joined(self, connection: Connection) -> None:
        """A connection has been made."""
        self.connections.add(connection)

    def left(self, connection: Connection) -> None:
        """A connection is gone."""
        self.connections.discard(connection)
        if not self.connections:
            self._empty.set()

    def _go_round(self) -> None:
        """Look after all connections: one timer instead of one for each of thousands."""
        loop = asyncio.get_running_loop()
        self._now = loop.time()
        for connection in list(self.connections):
            connection.look_after(self._now)
        config = self.admission.config
        soonest = min(config.idle_timeout, config.message_timeout, config.write_timeout)
        self._round = loop.call_later(min(1.0, soonest / 4), self._go_round)


async def accept(factory: Callable[[], asyncio.Protocol], bound: socket.socket) -> asyncio.Server:
    """Accept on a bound socket of the internet or unix, whose file is left to whoever made it.
    Raises OSError."""
    loop = asyncio.get_running_loop()
    options: dict[str, Any] = {"sock": bound, "backlog": BACKLOG}
    start: Callable[..., Awaitable[asyncio.Server]] = loop.create_server
    if bound.family == socket.AF_UNIX:
        start = loop.create_unix_server
        if sys.version_info >= (3, 13):
            options["cleanup_socket"] = False
    return await start(factory, **options)
