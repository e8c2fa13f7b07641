"""The supervisor: starts the processes of postroom and keeps them running.

For: `postroom serve`. It imports little and does nothing but wait. Guarantees: it is the only
one on its sockets' paths and its SQLite database; the sockets stay bound while a process is
started again, so clients wait instead of being refused; it never gives up on a process that
has once served, and its backoff resets; SIGTERM drains, a second one ends at once; SIGHUP
reloads. systemd is told how things are, and not that all is well when the door hangs. If it
is killed, its processes drain and end.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple

from postroom.base.observe import Log
from postroom.base.settings import Settings, SettingsError, load
from postroom.service.locks import LockError, lock_database
from postroom.service.sockets import (
    BEAT,
    LMTP,
    READY,
    UNFIT,
    BindError,
    Listener,
    address_of,
    bind,
)
from postroom.service.systemd import Manager, take_sockets

BACKOFF_FIRST, BACKOFF_MOST = 0.1, 30.0  # seconds
STEADY = 60.0  # seconds after which a process counts as steady and its backoff resets
STARTING = 60.0  # seconds that a process may take until its event loop runs
GRACE = 5.0  # seconds beyond the drain limit before a process is killed
BEATS = 3  # of the door in one interval of the watchdog, so that one may be late
_SIGNALS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD}
_STOPS = {signal.SIGTERM, signal.SIGINT}


class Listeners(NamedTuple):
    """What is bound, by what it is for; `troubles` says what else should be."""

    lmtp: Sequence[Listener]
    maps: Sequence[Listener] = ()
    metrics: Sequence[Listener] = ()
    troubles: Sequence[str] = ()

    def arguments(self) -> list[str]:
        """What the door must know of them."""
        words = []
        for kind in ("lmtp", "maps", "metrics"):
            for each in getattr(self, kind):
                words += [f"--{kind}", str(each.socket.fileno())]
        for trouble in self.troubles:
            words += ["--trouble", trouble]
        return words

    @property
    def all(self) -> list[Listener]:
        """Each of them."""
        return [*self.lmtp, *self.maps, *self.metrics]


class Child:
    """The `lmtp` process, in whatever incarnation."""

    def __init__(
        self, config: str | None, listeners: Listeners, log: Log, manager: Manager
    ) -> None:
        self._config, self._listeners, self._log = config, listeners, log
        self._manager = manager
        self._places = ", ".join(address_of(each.socket) for each in listeners.lmtp)
        self._stopping = False
        self._backoff = BACKOFF_FIRST
        self._started = 0.0
        self._heard = False  # something from this incarnation
        self.control: socket.socket | None = None
        self.served = False
        self.process: subprocess.Popen[bytes] | None = None
        self.start_at: float | None = 0.0  # time.monotonic(); None while it runs

    def start(self) -> None:
        """Start the process; if the system cannot do that now, try again later."""
        self._started, self.start_at, self._heard = time.monotonic(), None, False
        try:
            self._launch()
        except OSError as error:
            self._again("lmtp process not started", reason=error.strerror or str(error))

    def _launch(self) -> None:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "postroom.service.door", "--control", str(theirs.fileno())]
        command += self._listeners.arguments()
        if self._config:
            command += ["--config", self._config]
        if self._manager.watchdog:
            command += ["--beat", str(self._manager.watchdog / BEATS)]
        numbers = [each.socket.fileno() for each in self._listeners.all]
        # It unblocks them when it can act on them: no early signal is lost, or kills it.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            self.process = subprocess.Popen(
                command,
                pass_fds=[*numbers, theirs.fileno()],
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

    def signal(self, number: int) -> bool:
        """Send a signal; False if nothing runs."""
        if self.process is None or self.process.poll() is not None:
            return False
        self.process.send_signal(number)
        return True

    def stop(self) -> None:
        """Have it drain and end."""
        self._stopping = True
        self.signal(signal.SIGTERM)

    def hear(self) -> None:
        """Take in what the process has said, and pass on what concerns systemd."""
        if self.control is None:
            return
        said = b""
        with contextlib.suppress(BlockingIOError, ConnectionResetError):
            said = self.control.recv(4096)
            if not said:
                self.control.close()
                self.control = None
        self._heard = self._heard or bool(said)
        if BEAT in said:
            self._manager.tell("WATCHDOG=1")
        if READY in said:
            self.served = True
            if not self._stopping:
                self._manager.tell("READY=1", f"STATUS=serving on {self._places}")

    def excused(self) -> bool:
        """Whether it need not prove now that it is alive: it is to start, or starting."""
        return self.process is None or (
            not self._heard and time.monotonic() < self._started + STARTING
        )

    def reap(self) -> int | None:
        """Look whether it ended. Returns the status to end with, or None to go on."""
        if self.process is None or self.process.poll() is None:
            return None
        status = self.process.returncode
        self.hear()
        if self.control is not None:
            self.control.close()
            self.control = None
        self.process = None
        if status == UNFIT and not self.served:
            return 1  # it has said why
        if time.monotonic() - self._started >= STEADY:
            self._backoff = BACKOFF_FIRST
        self._again("lmtp process ended", status=status)
        return None

    def _again(self, event: str, **facts: object) -> None:
        self.start_at = time.monotonic() + self._backoff
        self._log.error(event, **facts, again_in=self._backoff)
        self._manager.tell(f"STATUS={event}; starting it again in {self._backoff:g} s")
        self._backoff = min(self._backoff * 2, BACKOFF_MOST)


class Supervisor:
    """One run of `postroom serve`, once everything is bound. `signals` is what they come on."""

    def __init__(
        self,
        settings: Settings,
        config: str | None,
        log: Log,
        manager: Manager,
        child: Child,
        signals: int,
    ) -> None:
        self._settings, self._config, self._log = settings, config, log
        self._manager, self._child, self._signals = manager, child, signals

    def run(self, let_go: contextlib.ExitStack) -> int:
        """Serve until stopped; `let_go` is closed when that begins. Returns the exit status."""
        child = self._child
        while True:
            if child.start_at is not None and time.monotonic() >= child.start_at:
                child.start()
            received = self._wait(child.start_at)
            if received & _STOPS:
                let_go.close()
                return self._stop()
            if signal.SIGHUP in received:
                self._reload()
            status = child.reap()
            if status is not None:
                return status

    def _wait(self, until: float | None) -> set[int]:
        """Wait for signals, no longer than `until`; returns which came. Meanwhile listen."""
        waits = [] if until is None else [max(0.0, until - time.monotonic())]
        if self._manager.watchdog:
            waits.append(self._manager.watchdog / BEATS)
            if self._child.excused():
                self._manager.tell("WATCHDOG=1")
        sources = [self._signals]
        if self._child.control is not None:
            sources.append(self._child.control.fileno())
        ready = select.select(sources, [], [], min(waits, default=None))[0]
        self._child.hear()
        return set(os.read(self._signals, 4096)) if self._signals in ready else set()

    def _reload(self) -> None:
        if self._child.served:  # else systemd waits for the first READY=1 still
            now = time.monotonic_ns() // 1000
            self._manager.tell("RELOADING=1", f"MONOTONIC_USEC={now}")
        told = "STATUS=settings reloaded"
        try:
            self._settings = load(self._config)
            waits = self._child.signal(signal.SIGHUP)  # it says READY when it has done it
        except SettingsError as error:
            self._log.error("settings not reloaded, the old ones stay", reason=str(error))
            told, waits = f"STATUS=settings not reloaded: {error}", False
        if self._child.served and not waits:
            self._manager.tell("READY=1", told)

    def _stop(self) -> int:
        """Let the process drain; a second signal, or too long a time, kills it."""
        self._manager.tell("STOPPING=1", "STATUS=stopping: finishing the messages in hand")
        process = self._child.process
        if process is None:
            return 0
        self._child.stop()
        deadline = time.monotonic() + self._settings.service.drain + GRACE
        while process.poll() is None:
            again = self._wait(deadline) & _STOPS
            if again or time.monotonic() >= deadline:
                reason = "told twice" if again else "did not drain"
                self._log.error("lmtp process killed", reason=reason)
                process.kill()
                process.wait()
                return 1
        return 0 if process.returncode == 0 else 1


def run(settings: Settings, config: str | None) -> int:
    """Serve until stopped; returns the exit status."""
    log = Log(settings.log)
    signals = _catch_signals()
    manager = Manager(os.environ)
    _raise_file_limit()
    with contextlib.ExitStack() as held:
        try:
            listeners = _listeners(settings, log, held)
        except (BindError, LockError) as error:
            print(f"postroom: {error}", file=sys.stderr)
            manager.tell(f"STATUS={error}")
            return 1
        child = Child(config, listeners, log, manager)
        return Supervisor(settings, config, log, manager, child, signals).run(held)


def _listeners(settings: Settings, log: Log, held: contextlib.ExitStack) -> Listeners:
    """Take all that only one may have; `held` lets go of it. Raises `BindError`, `LockError`."""
    handed = take_sockets(os.environ)
    lmtp = _take_or_bind(handed.get("lmtp"), settings.lmtp.listen, LMTP, settings, held)
    lock = lock_database(settings.store.url)
    if lock is not None:
        held.callback(os.close, lock)
    others: dict[str, list[Listener]] = {}
    troubles: list[str] = []
    for kind, address in ("maps", settings.maps.listen), ("metrics", settings.metrics.listen):
        listen = [address] if address else []
        try:
            others[kind] = _take_or_bind(handed.get(kind), listen, f"{kind}.listen", settings, held)
        except BindError as error:  # mail can do without
            log.error(f"{kind} not served", reason=str(error))
            troubles.append(f"{kind}: {error}")
    return Listeners(lmtp, **others, troubles=troubles)


def _take_or_bind(
    handed: Sequence[socket.socket] | None,
    addresses: Sequence[str],
    setting: str,
    settings: Settings,
    held: contextlib.ExitStack,
) -> list[Listener]:
    """What systemd handed over, instead of what the settings name."""
    if handed:
        listeners = [Listener(each) for each in handed]
    else:
        lmtp = settings.lmtp
        listeners = bind(addresses, setting, int(lmtp.socket_mode, 8), lmtp.socket_group)
    for each in listeners:
        held.callback(each.close)
    return listeners


def _raise_file_limit() -> None:
    """Each connection is an open file: allow what the system allows, processes inherit it."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _catch_signals() -> int:
    """Have signals come as octets, their numbers, on the descriptor that is returned."""
    ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(theirs, warn_on_full_buffer=False)
    for number in _SIGNALS:
        signal.signal(number, lambda *_: None)
    return ours
