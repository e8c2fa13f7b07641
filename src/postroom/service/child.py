"""One process of a running server, in whatever incarnation, as its supervisor sees it.

For: starting it, hearing what it says over its control socket, starting it again. Guarantees:
it is given up on only if it is vital, has never served and says that a person has to do
something; the wait before the next start grows to a limit and resets; a signal that comes
before the process can act on it is not lost; one that may hold what others wait for is killed
when it shows no life.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from postroom.base.observe import Log
from postroom.service.sockets import BEAT, READY, UNFIT
from postroom.service.systemd import Manager

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0  # seconds
STEADY = 60.0  # seconds after which a process counts as steady and its backoff resets
STARTING = 60.0  # seconds that a process may take until its event loop runs
BEATS = 3  # of a process in the time that it is given to show life, so that one may be late
SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}


class Role(NamedTuple):
    """What a process is for: its name, as `--only` spells it, its module, what that is told,
    and the descriptors that it is given under the same numbers. If it is `vital`, the server
    ends when it says at its first start that a person has to do something. One that serves is
    killed when it shows no life for `patience` seconds; 0: never."""

    name: str
    module: str
    arguments: Sequence[str] = ()
    descriptors: Sequence[int] = ()
    vital: bool = True
    patience: float = 0.0


class Child:
    """The process of a role."""

    def __init__(self, role: Role, config: str | None, log: Log, manager: Manager) -> None:
        self.role = role
        self._config, self._log, self._manager = config, log, manager
        self._backoff = BACKOFF_FIRST
        self._started = 0.0
        self._heard = False  # something from this incarnation
        self.control: socket.socket | None = None
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at: float | None = 0.0  # time.monotonic(); None while it runs
        self.served = False  # some incarnation did
        self.serves = False  # this one does
        self.failing = False  # it ended, and has never served
        self.reloading = False  # it was told to, and has not said that it did
        self.beaten = False  # since somebody last looked
        self._alive = False  # the same, for `look`, which looked then, and saw nothing so often
        self._looked, self._missed = 0.0, 0

    def start(self) -> None:
        """Start the process; if the system cannot do that now, try again later."""
        self._started, self.start_at, self._heard = time.monotonic(), None, False
        self._looked, self._missed = self._started, 0
        try:
            self._launch()
        except OSError as error:
            self._again("not started", reason=error.strerror or str(error))

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", self.role.module, "--control", str(theirs.fileno())]
        command += self.role.arguments
        if self._config:
            command += ["--config", self._config]
        if intervals := [each for each in (self._manager.watchdog, self.role.patience) if each]:
            command += ["--beat", str(min(intervals) / BEATS)]
        # It unblocks them when it can act on them: no early signal is lost, or kills it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=[*self.role.descriptors, theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # a terminal's Ctrl-C is for the supervisor alone
                # Else glibc keeps what large messages took (mallopt(3), M_MMAP_THRESHOLD).
                env={"MALLOC_MMAP_THRESHOLD_": "1048576"} | os.environ,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
            theirs.close()
        ours.setblocking(False)
        self.control = ours

    @property
    def state(self) -> str:
        """How it is, as far as others must know."""
        return "serves" if self.serves else "failing" if self.failing else "starting"

    @property
    def runs(self) -> bool:
        """Whether there is a process that has not ended."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: int) -> bool:
        """Send a signal; False if nothing runs."""
        if self.process is None or not self.runs:
            return False
        self.process.send_signal(number)
        return True

    def reload(self) -> None:
        """Have it read its settings again; it says READY when it has done so."""
        self.reloading = self.signal(signal.SIGHUP)

    def hear(self) -> None:
        """Take in what the process has said."""
        if self.control is None:
            return
        said = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            said = self.control.recv(4096)
            if not said:
                self.control.close()
                self.control = None
        self._heard = self._heard or bool(said)
        self.beaten = self.beaten or BEAT in said
        self._alive = self._alive or bool(said)
        if READY in said:
            self.served = self.serves = True
            self.failing = self.reloading = False

    def excused(self) -> bool:
        """Whether it need not prove now that it is alive: it is to start, starting, or ended."""
        return not self.runs or (not self._heard and time.monotonic() < self._started + STARTING)

    def look(self, now: float) -> None:
        """Kill it if it has shown no life for too long; `now` is as of time.monotonic()."""
        every = self.role.patience / BEATS
        if not self.serves or not every or now < self._looked + every:
            return
        # Several looks: if we were stopped together with it, it has not had the time either.
        self._looked, self._missed = now, 0 if self._alive else self._missed + 1
        self._alive = False
        if self._missed >= BEATS and self.process is not None:
            reason = f"it showed no life for {self.role.patience:g} s"
            self._log.error(f"{self.role.name} process killed", reason=reason)
            self.process.kill()
            self.serves = False

    def reap(self) -> int | None:
        """Look whether it ended. Returns the status for the server to end with, or None."""
        if self.process is None or self.process.poll() is None:
            return None
        status = self.process.returncode
        self.hear()
        if self.control is not None:
            self.control.close()
            self.control = None
        self.process = None
        self.serves = self.reloading = False
        if status == UNFIT and self.role.vital and not self.served:
            return 1  # it has said why
        if time.monotonic() - self._started >= STEADY:
            self._backoff = BACKOFF_FIRST
        self._again("ended", status=status)
        return None

    def _again(self, what: str, **facts: object) -> None:
        event = f"{self.role.name} process {what}"
        self.start_at = time.monotonic() + self._backoff
        self.failing = not self.served
        self._log.error(event, **facts, again_in=self._backoff)
        self._manager.tell(f"STATUS={event}; starting it again in {self._backoff:g} s")
        self._backoff = min(self._backoff * 2, BACKOFF_MOST)
