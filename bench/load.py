"""The load: Postfix's smtp-source, timed.

For: one measurement at a time. Guarantees: a rate is only ever told of a run in which every
message was accepted. Fails with `LoadError`, with what smtp-source said.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import NamedTuple

LIST = "list@bench.example.com"
SENDER = "sender@example.org"
RUN_LIMIT = 180.0  # seconds until a run counts as stuck
# Postfix keeps its test programs where a user's PATH may not lead.
_PATH = os.pathsep.join(
    [os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin", "/usr/libexec/postfix"]
)


class LoadError(Exception):
    """A run failed; `str()` says how."""


class Load(NamedTuple):
    """What is sent. `size` in octets without headers; `to` is a posting address; with
    `spread` each message goes to another list: 1`to`, 2`to`, 3`to`..."""

    sessions: int
    size: int = 4000
    to: str = LIST
    spread: bool = False


class Run(NamedTuple):
    """One run: messages accepted, and the seconds that it took."""

    messages: int
    seconds: float

    @property
    def rate(self) -> float:
        return self.messages / self.seconds


def program(name: str) -> str | None:
    """Where a program is, also where system programs are kept."""
    return shutil.which(name, path=_PATH)


def send(port: int, load: Load, messages: int) -> Run:
    """Send messages to an LMTP server on this machine. Raises `LoadError`."""
    source = program("smtp-source")
    if source is None:
        raise LoadError("smtp-source is not here: install Postfix (Debian: apt install postfix)")
    command = [source, "-L", "-d", "-l", str(load.size), "-s", str(load.sessions)]
    command += ["-m", str(messages), "-f", SENDER, "-t", load.to]
    command += ["-N"] if load.spread else []
    began = time.perf_counter()
    try:
        done = subprocess.run(
            [*command, f"inet:127.0.0.1:{port}"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=RUN_LIMIT,
        )
    except subprocess.TimeoutExpired:
        raise LoadError(f"smtp-source did not end within {RUN_LIMIT:.0f} s") from None
    seconds = time.perf_counter() - began
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["it said nothing"]
        raise LoadError(f"smtp-source ended with status {done.returncode}: {said[-1]}")
    return Run(messages, seconds)


def calibrate(
    run: Callable[[int], Run], sessions: int, seconds: float, most: int | None = None
) -> int:
    """How many messages take about `seconds`: found with runs that grow to a quarter of it."""
    messages = 2 * sessions
    while True:
        done = run(messages)
        wanted = max(sessions, round(done.rate * seconds))
        if most is not None and (wanted >= most or messages >= most):
            return most
        if done.seconds >= seconds / 4:
            return wanted
        messages = max(messages + 1, min(messages * 10, round(done.rate * seconds / 3)))
