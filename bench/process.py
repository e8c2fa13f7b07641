"""Processes under test: started, watched, measured and surely ended.

For: everything the bench starts. Guarantees: what was started is ended when its block is
left, by error or Ctrl-C too, and with it every process that it started. Fails with `Skip`,
which says in one line why a server cannot take part. Needs Linux's /proc.
"""

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

START_LIMIT = 30.0  # seconds until a server must answer
STOP_LIMIT = 20.0  # seconds until a server that was told to end is killed


class Skip(Exception):
    """A server or a table cannot take part; `str()` says why."""


class Memory(NamedTuple):
    """Memory of a process tree in octets. `pss` counts shared pages once; `high` is the sum of
    the highest resident sizes (VmHWM), shared pages counted in each process."""

    pss: int
    high: int


def clean_environment(**extra: str) -> dict[str, str]:
    """Our environment without what would change how Python or postroom run."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "POSTROOM_"))}
    return kept | extra


@contextlib.contextmanager
def running(
    command: Sequence[str | Path], log: Path, directory: Path, env: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a command with its output in `log` for as long as the block lasts."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=directory,
            env=clean_environment() if env is None else env,
            start_new_session=True,  # a terminal's Ctrl-C is for the bench, which ends it
        )
    try:
        yield process
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started: politely, and if need be not."""
    family = {pid: _birth(pid) for pid in tree(process.pid)}
    process.terminate()
    try:
        process.wait(STOP_LIMIT)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()
        process.wait()
    for pid, birth in family.items():
        # A number may by now belong to a stranger: the time of birth tells.
        if birth is not None and _birth(pid) == birth:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def run(
    command: Sequence[str | Path],
    directory: Path,
    text: str = "",
    env: Mapping[str, str] | None = None,
) -> str:
    """Run a command to its end; returns what it printed. Raises `Skip` if it fails."""
    done = subprocess.run(
        command,
        input=text,
        capture_output=True,
        text=True,
        cwd=directory,
        env=clean_environment() if env is None else env,
    )
    if done.returncode:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        called = " ".join([Path(command[0]).name, *map(str, command[1:])])
        raise Skip(f"`{called}` failed: {lines[-1]}")
    return done.stdout


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def await_ready(process: subprocess.Popen[bytes], log: Path) -> int:
    """Wait for the line `ready HOST:PORT` in the log; returns the port."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        for line in log.read_text(errors="replace").splitlines(keepends=True):
            if line.startswith("ready ") and line.endswith("\n"):
                return int(line.split()[1].rpartition(":")[2])
        _alive(process, log)
        time.sleep(0.001)
    raise Skip(f"it was not ready within {START_LIMIT:.0f} s")


def await_greeting(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    """Wait until a server greets on its port."""
    deadline = time.monotonic() + START_LIMIT
    while time.monotonic() < deadline:
        with (
            contextlib.suppress(OSError),
            socket.create_connection(("127.0.0.1", port), timeout=5) as client,
        ):
            if client.recv(512).startswith(b"220"):
                client.sendall(b"QUIT\r\n")
                client.recv(512)
                return
        _alive(process, log)
        time.sleep(0.05)
    raise Skip(f"it did not greet within {START_LIMIT:.0f} s")


def _alive(process: subprocess.Popen[bytes], log: Path) -> None:
    if process.poll() is not None:
        lines = log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise Skip(f"it ended with status {process.returncode}: {lines[-1]}")


def tree(root: int) -> list[int]:
    """A process and all its descendants."""
    parents: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = _stat(int(name))
            if fields:
                parents.setdefault(int(fields[1]), []).append(int(name))
    family = [root]
    for pid in family:
        family.extend(parents.get(pid, ()))
    return family


def find(root: int, word: str) -> int:
    """The process of a tree that was started with this word. Raises `Skip`."""
    for pid in tree(root):
        with contextlib.suppress(OSError):
            if word in Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0"):
                return pid
    raise Skip(f"no process of it was started with {word}")


@contextlib.contextmanager
def paused(*pids: int) -> Iterator[None]:
    """Have processes do nothing (SIGSTOP) while the block lasts."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


def memory(root: int) -> Memory:
    """What a process tree uses now, and the most that its processes ever had."""
    pss = high = 0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            pss += _kilobytes(Path(f"/proc/{pid}/smaps_rollup"), "Pss:")
            high += _kilobytes(Path(f"/proc/{pid}/status"), "VmHWM:")
    return Memory(pss * 1024, high * 1024)


@contextlib.contextmanager
def peak_memory(root: int, every: float = 0.05) -> Iterator[list[Memory]]:
    """Sample a tree's memory while the block lasts; its peak is the one element afterwards."""
    peak: list[Memory] = []
    over = threading.Event()
    most = memory(root)

    def sample() -> None:
        nonlocal most
        while not over.wait(every):
            now = memory(root)
            most = Memory(max(most.pss, now.pss), max(most.high, now.high))

    sampler = threading.Thread(target=sample)
    sampler.start()
    try:
        yield peak
    finally:
        over.set()
        sampler.join()
        peak.append(most)


def _kilobytes(path: Path, key: str) -> int:
    for line in path.read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1])
    return 0


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on: the name may hold anything."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def _birth(pid: int) -> str | None:
    fields = _stat(pid)
    return fields[19] if fields else None
