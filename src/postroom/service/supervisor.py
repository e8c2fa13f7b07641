"""The supervisor: starts the processes of postroom and keeps them running.

For: `postroom serve`. It imports little and does nothing but wait. Guarantees: it is the only
one on its sockets' paths, and for its roles on its SQLite database; the sockets stay bound
while a process is started again, so clients wait instead of being refused; runners that do
not come up never stop the door; SIGTERM drains, a second one ends at once; SIGHUP reloads.
systemd is told how things are, and not that all is well when a process hangs; runners that
show no life are killed and started again. If it is killed, its processes drain and end.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from postroom.base.loading import load
from postroom.base.observe import Log
from postroom.base.settings import Settings, SettingsError
from postroom.service.child import BEATS, SIGNALS, Child, Role
from postroom.service.locks import LockError, lock_database
from postroom.service.sockets import LMTP, BindError, Listener, address_of, bind
from postroom.service.systemd import Manager, take_sockets

DOOR, RUNNERS = "lmtp", "runners"
ROLES = (DOOR, RUNNERS)  # in the order in which they are started
GRACE = 5.0  # seconds beyond the drain limit before a process is killed
# Seconds without life before runners are killed: stopped in the middle of a transaction they
# would hold SQLite's lock for writing, and the door could store nothing.
FROZEN = 60.0
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

    def descriptors(self) -> list[int]:
        """What the door is given."""
        return [each.socket.fileno() for each in (*self.lmtp, *self.maps, *self.metrics)]


class Supervisor:
    """One run of `postroom serve`, once everything is bound. `children` are started in their
    order; clients reach them at `places`; `signals` is what signals come on."""

    def __init__(
        self,
        settings: Settings,
        config: str | None,
        log: Log,
        manager: Manager,
        children: Sequence[Child],
        places: Sequence[str],
        signals: int,
    ) -> None:
        self._settings, self._config, self._log = settings, config, log
        self._manager, self._children, self._signals = manager, children, signals
        self._places = places
        self._told_ready = False
        self._known: list[str] = []  # of each process, how it was when we last looked
        self._reloaded = ""  # what is to be told when those that reload have done it

    def run(self, let_go: contextlib.ExitStack) -> int:
        """Serve until stopped; `let_go` is closed when that begins. Returns the exit status."""
        while True:
            for child in self._startable():
                if child.start_at is not None and time.monotonic() >= child.start_at:
                    child.start()
            starts = [each.start_at for each in self._startable() if each.start_at is not None]
            received = self._wait(min(starts, default=None))
            if received & _STOPS:
                let_go.close()
                return self._stop()
            if signal.SIGHUP in received:
                self._reload()
            for child in self._children:
                child.look(time.monotonic())
                status = child.reap()
                if status is not None:
                    return status
            self._announce()

    def _startable(self) -> Iterator[Child]:
        """One after the other, so that what stops all of them is said once, and none opens a
        database that another is making."""
        for child in self._children:
            yield child
            if not child.served:
                return

    def _wait(self, until: float | None) -> set[int]:
        """Wait for signals, no longer than `until`; returns which came. Meanwhile listen."""
        waits = [] if until is None else [max(0.0, until - time.monotonic())]
        if self._manager.watchdog:
            waits.append(self._manager.watchdog / BEATS)
            self._feed()
        patience = [each.role.patience for each in self._children if each.serves]
        waits += [each / BEATS for each in patience if each]
        sources = [each.control.fileno() for each in self._children if each.control is not None]
        sources.append(self._signals)
        ready = select.select(sources, [], [], min(waits, default=None))[0]
        for child in self._children:
            child.hear()
        return set(os.read(self._signals, 4096)) if self._signals in ready else set()

    def _feed(self) -> None:
        """Tell the watchdog that all is well, once each process has shown it."""
        if all(child.beaten or child.excused() for child in self._children):
            self._manager.tell("WATCHDOG=1")
            for child in self._children:
                child.beaten = False

    def _announce(self) -> None:
        """Say that all serve, each time they come to; and that settings were reloaded."""
        now = [child.state for child in self._children]
        changed, self._known = now != self._known, now
        # Runners that do not come up are started again and again; mail is taken all the same.
        come = all(
            child.serves or (child.failing and not child.role.vital) for child in self._children
        )
        if come and changed:
            self._told_ready, self._reloaded = True, ""
            with contextlib.suppress(OSError):  # stderr is full or gone: no reason not to serve
                # In one piece: the processes write to the same place.
                sys.stderr.write(" ".join(["ready", *self._places]) + "\n")
                sys.stderr.flush()
            self._manager.tell("READY=1", f"STATUS={self._status()}")
        elif self._reloaded and not any(child.reloading for child in self._children):
            self._manager.tell("READY=1", f"STATUS={self._status() if come else self._reloaded}")
            self._reloaded = ""

    def _status(self) -> str:
        status = f"serving on {', '.join(self._places)}" if self._places else "serving the queues"
        failing = [child.role.name for child in self._children if child.failing]
        return f"{status}; no {', '.join(failing)} yet, see the log" if failing else status

    def _reload(self) -> None:
        if self._told_ready:  # else systemd waits for the first READY=1 still
            now = time.monotonic_ns() // 1000
            self._manager.tell("RELOADING=1", f"MONOTONIC_USEC={now}")
        try:
            self._settings = load(self._config)
        except SettingsError as error:
            self._log.error("settings not reloaded, the old ones stay", reason=str(error))
            if self._told_ready:
                self._manager.tell("READY=1", f"STATUS=settings not reloaded: {error}")
            return
        for child in self._children:
            child.reload()
        self._reloaded = "settings reloaded" if self._told_ready else ""

    def _stop(self) -> int:
        """Let the processes drain; a second signal, or too long a time, kills them."""
        self._manager.tell("STOPPING=1", "STATUS=stopping: finishing the messages in hand")
        for child in self._children:
            child.signal(signal.SIGTERM)
        deadline = time.monotonic() + self._settings.service.drain + GRACE
        while any(child.runs for child in self._children):
            again = self._wait(deadline) & _STOPS
            if again or time.monotonic() >= deadline:
                self._kill("told twice" if again else "did not drain")
                return 1
        ended = [child.process.returncode for child in self._children if child.process]
        return 1 if any(ended) else 0

    def _kill(self, reason: str) -> None:
        for child in self._children:
            if child.process is not None and child.runs:
                self._log.error(f"{child.role.name} process killed", reason=reason)
                child.process.kill()
                child.process.wait()


def run(settings: Settings, config: str | None, only: str | None = None) -> int:
    """Serve until stopped, in all roles or `only` one; returns the exit status."""
    log = Log(settings.log)
    signals = _catch_signals()
    manager = Manager(os.environ)
    _raise_file_limit()
    with contextlib.ExitStack() as held:
        try:
            listeners = _listeners(settings, log, [only] if only else ROLES, held)
            roles = _roles(listeners, only, held)
        except (BindError, LockError) as error:
            print(f"postroom: {error}", file=sys.stderr)
            manager.tell(f"STATUS={error}")
            return 1
        children = [Child(role, config, log, manager) for role in roles]
        places = [address_of(each.socket) for each in listeners.lmtp]
        supervisor = Supervisor(settings, config, log, manager, children, places, signals)
        return supervisor.run(held)


def _roles(listeners: Listeners, only: str | None, held: contextlib.ExitStack) -> list[Role]:
    """What is to run."""
    door = Role(
        DOOR, "postroom.service.door", listeners.arguments(), listeners.descriptors(), vital=True
    )
    runners = Role(RUNNERS, "postroom.service.runners", vital=only == RUNNERS, patience=FROZEN)
    if only:
        return [door if only == DOOR else runners]
    # The intake writes an octet to it when it has stored something, the runners wake.
    heard, rung = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    for each in heard, rung:
        held.callback(os.close, each)
    return [_with_bell(door, rung), _with_bell(runners, heard)]


def _with_bell(role: Role, bell: int) -> Role:
    return role._replace(
        arguments=[*role.arguments, "--bell", str(bell)], descriptors=[*role.descriptors, bell]
    )


def _listeners(
    settings: Settings, log: Log, roles: Sequence[str], held: contextlib.ExitStack
) -> Listeners:
    """Take all that only one may have; `held` lets go of it. Raises `BindError`, `LockError`."""
    handed = take_sockets(os.environ)  # in any case: they are not for our processes' environment
    if DOOR not in roles:
        _lock(settings, roles, held)
        return Listeners([])
    lmtp = _take_or_bind(handed.get("lmtp"), settings.lmtp.listen, LMTP, settings, held)
    _lock(settings, roles, held)
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


def _lock(settings: Settings, roles: Sequence[str], held: contextlib.ExitStack) -> None:
    for role in roles:
        lock = lock_database(settings.store.url, role)
        if lock is not None:
            held.callback(os.close, lock)


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
    for number in SIGNALS:
        signal.signal(number, lambda *_: None)
    return ours
