"""Postfix's smtp-sink, with what reaches it counted inside of it.

For: knowing when the last recipient of a post has come, for whatever delivers, without anything
in between. Guarantees: a recipient counts when its message has come to the final dot, and the
time is that of the sink's own process; recipients whose address begins with `APART` are counted
apart. Fails with `Skip` where there is no smtp-sink or no C compiler, and with `LoadError` when
recipients do not come.
"""

import contextlib
import os
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import load, process
from bench.load import LoadError
from bench.peers import NOBODY
from bench.process import Skip

APART = "apart."
BACKLOG = "128"
LOOK = 0.002  # seconds between looks
RECORD = struct.Struct("=4Q")
RECORDS = 2


class Arrived(NamedTuple):
    """What has come since the last `clear`; `first` is when the first transaction began (MAIL),
    `last` when the last one was complete, as of time.monotonic()."""

    recipients: int
    messages: int
    first: float
    last: float


class Sink:
    """A running sink on 127.0.0.1; messages are in the directory `kept`, if they are kept."""

    def __init__(self, port: int, pid: int, counts: Path, kept: Path | None = None) -> None:
        self.port, self.pid, self._counts, self._kept = port, pid, counts, kept

    def clear(self) -> None:
        """Begin to count anew; only while nothing comes in."""
        with self._counts.open("r+b") as counts:  # the same file: it is shared
            counts.write(bytes(RECORD.size * RECORDS))

    def arrived(self, apart: bool = False) -> Arrived:
        """What has come: of those apart, or of all others."""
        octets = self._counts.read_bytes()
        recipients, messages, first, last = RECORD.unpack_from(octets, RECORD.size * apart)
        return Arrived(recipients, messages, first / 1e9, last / 1e9)

    def take(self) -> list[bytes]:
        """Take out the messages that were kept, each with lines of the sink's own on top (see
        smtp-sink(1)); only while nothing comes in."""
        found = []
        for path in self._kept.iterdir() if self._kept else ():
            found.append(path.read_bytes())
            path.unlink()
        return found

    def wait(self, recipients: int, limit: float, apart: bool = False) -> Arrived:
        """Wait until that many have come. Raises `LoadError` after `limit` seconds."""
        deadline = time.monotonic() + limit
        while (found := self.arrived(apart)).recipients < recipients:
            if time.monotonic() > deadline:
                raise LoadError(
                    f"{found.recipients:,} of {recipients:,} recipients within {limit:.0f} s"
                )
            time.sleep(LOOK)
        return found


@contextlib.contextmanager
def sink(directory: Path, keep: bool = False) -> Iterator[Sink]:
    """Run a sink for as long as the block lasts; it can `keep` what comes."""
    path = load.program("smtp-sink")
    if path is None:
        raise Skip("smtp-sink is not here (it comes with Postfix)")
    directory.mkdir(parents=True)
    counts = directory / "counts"
    counts.write_bytes(bytes(RECORD.size * RECORDS))
    environment = process.clean_environment(
        LD_PRELOAD=str(_library(directory)), COUNT_SINK=str(counts), COUNT_SINK_APART=APART
    )
    port, log = process.free_port(), directory / "smtp-sink.log"
    user = ["-u", NOBODY] if os.geteuid() == 0 else []
    kept = directory / "kept" if keep else None
    dump: list[str] = []
    if kept:
        kept.mkdir()
        dump = ["-d", f"{kept.name}/m"]  # it may not get through what is above
        if user:
            shutil.chown(kept, NOBODY)
    command: list[str | Path] = [path, *user, *dump, f"127.0.0.1:{port}", BACKLOG]
    with process.running(command, log, directory, environment) as running:
        process.await_greeting(running, port, log)
        yield Sink(port, running.pid, counts, kept)


def _library(directory: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skip("there is no C compiler (cc), which the counting of recipients needs")
    library = directory / "count_sink.so"
    source = Path(__file__).with_name("count_sink.c")
    process.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], directory)
    return library
