"""Connections to the mail servers, shared by all who send.

For: having a connection when one is needed. Guarantees: never more than so many to a server;
they are used again, and closed with QUIT when they are old or idle; a server that cannot be
reached, or is in trouble, is left alone for a second, then twice as long each time up to a
minute, and then tried by one connection before others follow; a transaction that succeeds ends
that. Fails with `Unavailable`, which says until when, if no server is left. Used from one event
loop.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Sequence
from time import monotonic

from postroom.base.observe import Log
from postroom.base.places import Tcp, parse_server
from postroom.base.settings import Settings
from postroom.delivery.access import PATIENT, Access, Deadlines, access_of
from postroom.delivery.connection import ConnectError, Connection, connect
from postroom.delivery.transaction import Outcome

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0  # seconds
MOST_IDLE = 20.0  # seconds that a connection waits for the next transaction


class Unavailable(Exception):
    """There is no server before `until`, as of time.monotonic(); `str()` says why."""

    def __init__(self, why: str, until: float) -> None:
        super().__init__(why)
        self.until = until


class _Server:
    """What is known of a server. Times are those of time.monotonic()."""

    def __init__(self, place: Tcp, recipients: int) -> None:
        self.place, self.recipients = place, recipients
        self.busy = 0
        self.idle: deque[tuple[float, Connection]] = deque()  # since when; the oldest first
        self.pause = self.until = self.failed_at = 0.0
        self.why = ""

    def fail(self, why: str, begun: float) -> bool:
        """It is in trouble; whether that is news. Those who had begun before it was known tell
        nothing new."""
        if begun < self.failed_at:
            return False
        self.why, self.failed_at = why, monotonic()
        self.pause = min(self.pause * 2, LONGEST_PAUSE) or FIRST_PAUSE
        self.until = self.failed_at + self.pause
        return True

    def recover(self) -> bool:
        """It works; whether that is news."""
        news = self.pause > 0
        self.pause = self.until = self.failed_at = 0.0
        return news


class Pool:
    """At most `connections` to each of the servers."""

    def __init__(
        self,
        places: Sequence[Tcp],
        access: Access,
        log: Log,
        connections: int = 8,
        deadlines: Deadlines = PATIENT,
        most_idle: float = MOST_IDLE,
    ) -> None:
        self._servers = [_Server(place, access.recipients) for place in places]
        self._access, self._log, self._deadlines = access, log, deadlines
        self._connections, self._most_idle = connections, most_idle
        self._freed = asyncio.Event()
        self._farewells: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def size(self) -> int:
        """How many connections there may be."""
        return self._connections * len(self._servers)

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection for as many transactions as it is `usable` for; waits for one while all
        are in use. Raises `Unavailable`."""
        server, connection = await self._take()
        try:
            yield connection
        finally:
            server.busy -= 1
            self._give_back(server, connection)
            self._freed.set()

    async def close(self) -> None:
        """Take leave of all servers. Connections in use are closed when they come back."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for server in self._servers:
            while server.idle:
                self._part(server.idle.popleft()[1].quit())
        if self._farewells:
            await asyncio.wait(self._farewells)

    async def _take(self) -> tuple[_Server, Connection]:
        while True:
            now = monotonic()
            up = [server for server in self._servers if server.until <= now]
            if not up:
                soonest = min(self._servers, key=lambda server: server.until)
                raise Unavailable(soonest.why, soonest.until)
            # One that was in trouble is tried by one connection first.
            free = [each for each in up if each.busy < (1 if each.pause else self._connections)]
            if not free:
                self._freed.clear()
                await self._freed.wait()
                continue
            server = min(free, key=lambda each: each.busy)
            server.busy += 1
            try:
                return server, self._waiting(server) or await self._connect(server, now)
            except BaseException as error:
                server.busy -= 1
                self._freed.set()
                if not isinstance(error, ConnectError):
                    raise

    def _waiting(self, server: _Server) -> Connection | None:
        """One that was used before. The one used last is the likeliest to be alive."""
        while server.idle:
            _, connection = server.idle.pop()
            if connection.usable:
                connection.recipients = min(connection.recipients, server.recipients)
                return connection
            connection.close()
        return None

    async def _connect(self, server: _Server, begun: float) -> Connection:
        try:
            connection = await connect(server.place, self._access, self._deadlines)
        except ConnectError as error:
            self._in_trouble(server, str(error), begun)
            raise
        connection.recipients = server.recipients

        def noted(outcome: Outcome, trouble: bool) -> None:
            server.recipients = min(server.recipients, connection.recipients)
            if trouble:
                self._in_trouble(server, str(outcome.answer), begun)
            elif outcome.answer.code != 421 and server.recover():
                self._log.info("mail server", server=str(server.place), state="works again")
                self._freed.set()

        connection.noted = noted
        return connection

    def _in_trouble(self, server: _Server, why: str, begun: float) -> None:
        if server.fail(why, begun):
            self._log.warning(
                "mail server", server=str(server.place), trouble=why, again_in=server.pause
            )

    def _give_back(self, server: _Server, connection: Connection) -> None:
        if self._closed:
            connection.close()
        elif connection.usable:
            server.idle.append((monotonic(), connection))
            self._watch()
        elif connection.alive:
            self._part(connection.quit())

    def _part(self, farewell: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(farewell)
        self._farewells.add(task)
        task.add_done_callback(self._farewells.discard)

    def _watch(self) -> None:
        """See to it that idle connections are closed."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._most_idle, self._dismiss)

    def _dismiss(self) -> None:
        self._timer = None
        before = monotonic() - self._most_idle
        for server in self._servers:
            while server.idle and server.idle[0][0] <= before:
                self._part(server.idle.popleft()[1].quit())
            if server.idle:
                self._watch()


def pool_of(settings: Settings, log: Log) -> Pool:
    """The pool that the settings ask for."""
    smtp = settings.smtp
    places = [parse_server(text, smtp.port) for text in smtp.host]
    return Pool(places, access_of(settings), log, smtp.connections)
