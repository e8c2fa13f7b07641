"""Crowds: many clients that bring no mail, held in another process.

For: measuring beside them. Guarantees: all are let in before the block begins and gone when it
is left. Fails with `Skip` where the system would not have so many, with `LoadError` when they
are not let in.
"""

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import process
from bench.load import LoadError
from bench.process import Skip

ROOT = Path(__file__).parent.parent
LIMIT = 120.0  # seconds for a crowd to come in, or to say what it did
SPARE_FILES = 1000  # what a process has open besides clients
LEEWAY = 10  # files that a server may have come to need for itself


class Told(NamedTuple):
    """What a crowd did so far. `answering` of its clients get an answer now, if they are idle
    ones; `processor` is in seconds of one processor."""

    answering: int
    connections: int
    octets: int
    processor: float

    def since(self, before: "Told") -> "Told":
        """What it did after `before`."""
        return Told(
            self.answering,
            self.connections - before.connections,
            self.octets - before.octets,
            self.processor - before.processor,
        )


class Crowd:
    """A process of clients."""

    def __init__(self, child: "subprocess.Popen[bytes]", log: Path) -> None:
        self._child, self._log = child, log

    def told(self) -> Told:
        """What they did so far. Raises `LoadError`."""
        assert self._child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.write(b"\n")
            self._child.stdin.flush()
        return Told(**json.loads(self.hear()))

    def hear(self) -> bytes:
        """The next line of what they say. Raises `LoadError`."""
        assert self._child.stdout is not None
        if not select.select([self._child.stdout], [], [], LIMIT)[0]:
            raise LoadError(f"the clients said nothing for {LIMIT:.0f} s")
        line = self._child.stdout.readline()
        if not line:
            said = self._log.read_text(errors="replace").strip().splitlines() or ["nothing"]
            raise LoadError(f"the clients ended; they said: {said[-1]}")
        return line


@contextlib.contextmanager
def crowd(kind: str, port: int, count: int, log: Path) -> Iterator[Crowd]:
    """So many clients of a kind on a port of this machine. Raises `Skip`, `LoadError`."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files < count + SPARE_FILES:
        raise Skip(f"{count:,} clients need {count + SPARE_FILES:,} open files (ulimit -Hn)")
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [sys.executable, "-m", "bench.clients", kind, str(port), str(count)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            env=process.clean_environment(PYTHONPATH=str(ROOT)),
            start_new_session=True,
        ) as child,
    ):
        try:
            found = Crowd(child, log)
            found.hear()
            yield found
        finally:
            process.stop(child)


@contextlib.contextmanager
def deaf(log: Path, directory: Path) -> Iterator[int]:
    """A listener that ignores who comes; yields its port. Raises `Skip`."""
    environment = process.clean_environment(PYTHONPATH=str(ROOT))
    with process.running([sys.executable, "-m", "bench.deaf"], log, directory, environment) as it:
        yield process.await_ready(it, log)


def open_files(root: int) -> int:
    """How many files a process tree has open."""
    count = 0
    for pid in process.tree(root):
        with contextlib.suppress(OSError):
            count += len(os.listdir(f"/proc/{pid}/fd"))
    return count


@contextlib.contextmanager
def tidied(root: int) -> Iterator[None]:
    """Afterwards, wait until a server has let go of all that it let in during the block.
    Raises `LoadError`."""
    before = open_files(root)
    yield
    deadline = time.monotonic() + LIMIT
    while open_files(root) > before + LEEWAY:
        if time.monotonic() > deadline:
            raise LoadError(f"clients that are gone were still held {LIMIT:.0f} s later")
        time.sleep(0.05)
