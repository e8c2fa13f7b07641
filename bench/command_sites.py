"""Who serves commands: postroom and GNU Mailman, each with its command runner in reach.

For: `bench.command`. Guarantees: both run all of their processes, as they would in service; what
waits is told by the database, or the directory, that is the queue, so that looking costs them
next to nothing. Fails with `Skip` and `LoadError`.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import pysqlite3.dbapi2 as sqlite

from bench import process
from bench.load import LoadError
from bench.mailman_post import NAME as MAILMAN
from bench.mailman_post import mailman, members, waiting
from bench.post_ours import NAME as OURS
from bench.post_ours import Site, runners_of
from bench.process import Skip
from bench.servers import Server

# So that nothing of it is refused; the part `flood` leaves them as they are.
UNLIMITED = {
    f"COMMANDS__{name}": "1000000"
    for name in ("PER_ADDRESS", "PER_LIST", "PER_SOURCE", "PER_SITE", "REPLIES")
}
CONFIGURATION = (
    f"{OURS}: `postroom serve` with SQLite and its defaults; for all but the flood, the limits of "
    "[commands] are raised. The command runner of either is held (SIGSTOP) while mail is put in."
)
COMMAND = "command"  # the queue, with both
MAILMANS = (COMMAND, "virgin", "in", "pipeline", "out", "retry")  # queues on the way
ASTRAY = ("shunt", "bad")
SETTLE_LIMIT = 600.0  # seconds until nothing is left to do
LOOK = 0.05  # seconds between looks
_WAITING = "SELECT count(*) FROM entry WHERE queue = ?"
Lists = Mapping[str, Sequence[str]]


class Contender(Protocol):
    """A server of commands. `runner` is the process that serves them; `idle` are those that have
    to be held so that nobody serves the queue `bounces`; ours leaves it alone anyway."""

    @property
    def server(self) -> Server: ...
    @property
    def runner(self) -> int: ...
    @property
    def idle(self) -> Sequence[int]: ...

    def waiting(self, queue: str = COMMAND) -> int:
        """How many entries wait in a queue."""
        ...

    def settle(self) -> None:
        """Wait until nothing is on its way. Raises `LoadError`."""
        ...

    def members(self, address: str) -> int:
        """How many members a list has."""
        ...


class Ours(NamedTuple):
    """postroom."""

    site: Site
    server: Server
    runner: int
    database: sqlite.Connection
    idle: Sequence[int] = ()

    def waiting(self, queue: str = COMMAND) -> int:
        """How many entries wait in a queue."""
        found: int = self.database.execute(_WAITING, (queue,)).fetchone()[0]
        return found

    def settle(self) -> None:
        """Wait until nothing is on its way. Raises `LoadError`."""
        self.site.settle()

    def members(self, address: str) -> int:
        """How many members a list has."""
        return self.site.members(address)


@contextlib.contextmanager
def ours(
    directory: Path, sink_port: int, lists: Lists, settings: Mapping[str, str] = UNLIMITED
) -> Iterator[Ours]:
    """Run postroom with these lists and members; nobody serves the queue `bounces`."""
    site = Site(directory, sink_port, verp=True, more=settings, aside=True)
    site.create(lists)
    with site.serve() as server:
        path = f"file:{directory / 'postroom.db'}?mode=ro"
        database = sqlite.connect(path, uri=True, isolation_level=None)
        with contextlib.closing(database):
            yield Ours(site, server, runners_of(server.pid), database)


class Peer(NamedTuple):
    """GNU Mailman in a directory."""

    venv: Path
    directory: Path
    server: Server
    runner: int
    idle: Sequence[int]

    def waiting(self, queue: str = COMMAND) -> int:
        """How many entries wait in a queue."""
        return waiting(self.directory, queue)

    def settle(self) -> None:
        """Wait until nothing is on its way. Raises `LoadError`."""
        deadline = time.monotonic() + SETTLE_LIMIT
        while left := waiting(self.directory, *MAILMANS):
            if time.monotonic() > deadline:
                raise LoadError(f"{MAILMAN}: {left:,} messages do not get on")
            time.sleep(LOOK)
        if astray := waiting(self.directory, *ASTRAY):
            raise LoadError(f"{MAILMAN}: {astray:,} messages went astray")

    def members(self, address: str) -> int:
        """How many members a list has."""
        return members(self.venv, self.directory, address)


@contextlib.contextmanager
def peer(venv: Path, directory: Path, sink_port: int, lists: Lists) -> Iterator[Peer]:
    """Run Mailman with these lists and members."""
    with mailman(venv, directory, sink_port, lists) as server:
        runner, bounces = (_runner(server.pid, name) for name in (COMMAND, "bounces"))
        yield Peer(venv, directory, server, runner, (bounces,))


def _runner(root: int, name: str) -> int:
    """The process that serves a queue, as soon as there is one. Raises `Skip`."""
    deadline = time.monotonic() + process.START_LIMIT
    while True:
        try:
            return process.find(root, f"--runner={name}:0:1")
        except Skip:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOOK)
