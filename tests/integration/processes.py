"""Processes and their logs, as seen from outside.

For: finding the processes of a server, waiting for one to end, following a log. Guarantees:
every wait has a deadline, and says what it waited for when it fails.
"""

import contextlib
import os
import select
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self, TypeVar

PATIENCE = 30.0  # seconds; a wait that takes as long has failed
DOOR, INTAKE = "postroom.service.door", "postroom.service.intake"
RUNNERS = "postroom.service.runners"

_Found = TypeVar("_Found")


def eventually(look: Callable[[], _Found], what: str = "", within: float = PATIENCE) -> _Found:
    """What `look()` returns once that is true; for what tells nobody when it happens."""
    deadline = time.monotonic() + within
    while not (found := look()):
        assert time.monotonic() < deadline, f"not within {within} s: {what or look}"
        time.sleep(0.01)
    return found


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, each with its command line."""
    parents: dict[int, list[int]] = {}
    for place in Path("/proc").iterdir():
        if place.name.isdigit() and (stat := _read(place / "stat")):
            parent = int(stat.rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(place.name))
    found: dict[int, str] = {}
    below = parents.get(pid, [])
    while below:
        each = below.pop()
        found[each] = _read(Path(f"/proc/{each}/cmdline")).replace("\0", " ")
        below += parents.get(each, [])
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""  # it ended meanwhile


def process_of(supervisor: int, role: str) -> int:
    """The process of a role (`DOOR`, `INTAKE`, `RUNNERS`) of a server; waits until there is one."""

    def look() -> list[int]:
        return [pid for pid, command in descendants(supervisor).items() if f"-m {role}" in command]

    return eventually(look, f"a process {role}")[0]


def wait_ended(pid: int, within: float = PATIENCE) -> None:
    """Wait until a process is gone; it need not be a child of ours."""
    try:
        handle = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        assert select.select([handle], [], [], within)[0], f"{pid} runs after {within} s"
    finally:
        os.close(handle)


def kill(pid: int) -> None:
    """SIGKILL, if it is still there."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def listens(port: int) -> bool:
    """Whether somebody can connect."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Follower:
    """Reads what is added to a log from now on, or all of it. A context manager."""

    def __init__(self, path: Path, from_start: bool = False) -> None:
        path.touch()
        self._path = path
        first = 1 if from_start else path.stat().st_size + 1
        command = ["tail", "-c", f"+{first}", "-f", str(path)]
        self._tail = subprocess.Popen(command, stdout=subprocess.PIPE)
        assert self._tail.stdout is not None
        self._output = self._tail.stdout.fileno()
        self._partial = b""
        self._lines: list[str] = []

    def wait_for(self, *texts: str, within: float = PATIENCE) -> str:
        """The next line that holds all `texts`; lines that were passed over are not seen again."""
        deadline = time.monotonic() + within
        while True:
            while self._lines:
                line = self._lines.pop(0)
                if all(text in line for text in texts):
                    return line
            self._more(deadline, texts)

    def _more(self, deadline: float, texts: tuple[str, ...]) -> None:
        left = max(0.0, deadline - time.monotonic())
        if not select.select([self._output], [], [], left)[0]:
            told = self._path.read_text(errors="replace")[-4000:]
            raise AssertionError(f"no line with {texts}; the log ends:\n{told}")
        data = os.read(self._output, 65536)
        assert data, "tail has ended"
        *lines, self._partial = (self._partial + data).split(b"\n")
        self._lines += [line.decode("utf-8", "replace") for line in lines]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._tail.kill()
        self._tail.wait()
        assert self._tail.stdout is not None
        self._tail.stdout.close()
