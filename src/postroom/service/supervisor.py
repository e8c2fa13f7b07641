"""The supervisor: starts the processes of postroom and keeps them running.

For: `postroom serve`. It imports little and does nothing but wait. Guarantees: the sockets
stay bound while a process is started again, so clients wait instead of being refused; it
never gives up on a process that has once served, and its backoff resets; SIGTERM drains,
a second one ends at once; SIGHUP reloads. If it is killed, its processes drain and end.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

from postroom.service.observe import Log
from postroom.service.settings import Settings, SettingsError, load
from postroom.service.sockets import READY, UNFIT, BindError, bind

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0  # seconds
STEADY = 60.0  # seconds after which a process counts as steady and its backoff resets
GRACE = 5.0  # seconds beyond the drain limit before a process is killed
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


class Child:
    """The `lmtp` process, in whatever incarnation."""

    def __init__(self, config: str | None, sockets: Sequence[socket.socket], log: Log) -> None:
        self._config, self._sockets, self._log = config, sockets, log
        self._backoff = BACKOFF_FIRST
        self._started = 0.0
        self._control: socket.socket | None = None
        self._served = False
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at: float | None = 0.0  # time.monotonic(); None while it runs

    def start(self) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair()
        numbers = [each.fileno() for each in self._sockets]
        command = [sys.executable, "-m", "postroom.service.door", "--control", str(theirs.fileno())]
        if self._config:
            command += ["--config", self._config]
        self.process = subprocess.Popen(
            [*command, *map(str, numbers)],
            pass_fds=[*numbers, theirs.fileno()],
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
            # Else glibc keeps what large messages took (mallopt(3), M_MMAP_THRESHOLD).
            env={"MALLOC_MMAP_THRESHOLD_": "1048576"} | os.environ,
        )
        theirs.close()
        ours.setblocking(False)
        self._control, self.start_at, self._started = ours, None, time.monotonic()

    def signal(self, number: int) -> None:
        """Send a signal if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def close_sockets(self) -> None:
        """It will not be started again: who connects now must be refused, not left waiting."""
        for each in self._sockets:
            each.close()

    def reap(self) -> int | None:
        """Look whether it ended. Returns the status to end with, or None to go on."""
        if self.process is None or self.process.poll() is None:
            return None
        status = self.process.returncode
        assert self._control is not None
        with contextlib.suppress(OSError):
            self._served = self._served or self._control.recv(1) == READY
        self._control.close()
        self.process = None
        if status == UNFIT and not self._served:
            return 1  # it has said why
        now = time.monotonic()
        if now - self._started >= STEADY:
            self._backoff = BACKOFF_FIRST
        self.start_at = now + self._backoff
        self._log.error("lmtp process ended", status=status, again_in=self._backoff)
        self._backoff = min(self._backoff * 2, BACKOFF_MOST)
        return None


def run(settings: Settings, config: str | None) -> int:
    """Serve until stopped; returns the exit status."""
    log = Log(settings.log)
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        sockets = bind(settings.lmtp.listen)
    except BindError as error:
        print(f"postroom: {error}", file=sys.stderr)
        return 1
    child = Child(config, sockets, log)
    while True:
        if child.start_at is not None and time.monotonic() >= child.start_at:
            child.start()
        wait = 3600.0 if child.start_at is None else max(0.0, child.start_at - time.monotonic())
        received = signal.sigtimedwait(_SIGNALS, wait)
        number = received.si_signo if received else None
        if number in (signal.SIGTERM, signal.SIGINT):
            return _stop(child, settings.service.drain, log)
        if number == signal.SIGHUP:
            _reload(child, config, log)
        status = child.reap()
        if status is not None:
            return status


def _reload(child: Child, config: str | None, log: Log) -> None:
    try:
        load(config)
    except SettingsError as error:
        log.error("settings not reloaded, the old ones stay", reason=str(error))
        return
    child.signal(signal.SIGHUP)


def _stop(child: Child, drain: float, log: Log) -> int:
    """Let the process drain; a second signal, or too long a time, kills it."""
    child.close_sockets()
    process = child.process
    if process is None:
        return 0
    child.signal(signal.SIGTERM)
    deadline = time.monotonic() + drain + GRACE
    while process.poll() is None:
        left = deadline - time.monotonic()
        received = signal.sigtimedwait(_SIGNALS, left) if left > 0 else None
        again = received and received.si_signo in (signal.SIGTERM, signal.SIGINT)
        if left <= 0 or again:
            log.error("lmtp process killed", reason="told twice" if again else "did not drain")
            process.kill()
            process.wait()
            return 1
    return 0 if process.returncode == 0 else 1
