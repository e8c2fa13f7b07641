"""The door process: one event loop, the LMTP server, its signals. It touches no storage.

For: running the door on sockets that the supervisor bound, with an intake process of its
own. Guarantees: no socket listens before the database is found fit; SIGTERM, or the end of
the supervisor, drains; SIGHUP reloads and keeps the old settings if the new ones are bad.
Exits 0 when drained, 1 when it should be started again (its intake ended), `UNFIT` when a
person has to do something first.
"""

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from postroom.base.loading import load
from postroom.base.observe import Log
from postroom.base.places import parse_listen
from postroom.base.settings import Settings, SettingsError
from postroom.lmtp.server import Server
from postroom.service.channel import Ready
from postroom.service.control import Control, loop_factory
from postroom.service.front import Front, LookUps
from postroom.service.maps import MapServer, next_hop
from postroom.service.sockets import UNFIT, BindError, address_of, listen
from postroom.service.terms import server_config
from postroom.watch.observatory import DoorFigures, Observatory

BRIEF = 1.0  # seconds; without an intake nobody's message can be stored: start again soon


class Handed(NamedTuple):
    """What the supervisor hands over. `troubles` says what it could not bind; every `beat`
    seconds, unless that is 0, it wants to be told over `control` that the loop is alive.
    `bell` is the descriptor on which the intake wakes the runners, if there are any."""

    control: socket.socket
    lmtp: Sequence[socket.socket]
    maps: Sequence[socket.socket] = ()
    metrics: Sequence[socket.socket] = ()
    troubles: Sequence[str] = ()
    beat: float = 0.0
    bell: int | None = None


class Process:
    """One run of the door."""

    def __init__(self, settings: Settings, config: str | None, log: Log, handed: Handed) -> None:
        self._settings, self._config, self._log = settings, config, log
        self._control = Control(handed.control, handed.beat, log)
        self._sockets = handed.lmtp
        self._maps_sockets, self._metrics_sockets = handed.maps, handed.metrics
        self._unbound = [f"{each.partition(':')[0]}.listen" for each in handed.troubles]
        self._stop = asyncio.Event()
        self._serving = self._failed = False

    async def run(self, intake: "subprocess.Popen[bytes]", channel: socket.socket) -> int:
        """Serve until told to stop; returns the exit status."""
        loop = asyncio.get_running_loop()
        self._control.open(self._stop.set)
        front = Front(self._settings, self._log, self._intake_ended)
        await loop.create_unix_connection(lambda: front, sock=channel)
        config = server_config(self._settings)
        if config.max_connections < self._settings.lmtp.max_connections:
            self._log.warning(
                "fewer connections than lmtp.max_connections",
                most=config.max_connections,
                to_do="raise the limit of open files (ulimit -n, LimitNOFILE= of systemd)",
            )
        server = Server(config, front)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, server, front)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        ready = await front.ready
        if ready is None:
            return await loop.run_in_executor(None, intake.wait)  # it has said why
        listen(self._sockets)  # uvloop would not say what was wrong
        await server.listen(self._sockets)
        windows = await self._open_windows(server, front)
        self._introduce(ready)
        self._serving = True
        self._control.ready()
        gc.collect()
        gc.freeze()  # what is here now stays: no need to look at it again
        await self._stop.wait()
        self._control.close()
        for window in windows:
            window.close()  # another server may start while this one drains
        self._log.info("stopping", connections=len(server.connections))
        await server.stop(BRIEF if self._failed else self._settings.service.drain)
        front.close()
        await loop.run_in_executor(None, intake.wait)
        self._log.info("stopped")
        return 1 if self._failed else 0

    async def _open_windows(self, server: Server, front: Front) -> list[MapServer | Observatory]:
        """Serve what the mail can do without: trouble there is said, and stops nothing."""
        maps = MapServer(
            LookUps(front), self._log, next_hop(parse_listen(address_of(self._sockets[0])))
        )
        observatory = Observatory(lambda: self._figures(server), front, self._log)
        opened: list[MapServer | Observatory] = []
        for setting, sockets, window in (
            ("maps.listen", self._maps_sockets, maps),
            ("metrics.listen", self._metrics_sockets, observatory),
        ):
            try:
                listen(sockets, setting)
                await window.listen(sockets)
            except (BindError, OSError) as error:
                self._log.error("not served", setting=setting, reason=str(error))
                self._unbound.append(setting)
                for each in sockets:
                    each.close()
            opened.append(window)
        return opened

    def _figures(self, server: Server) -> DoorFigures:
        admission = server.admission
        return DoorFigures(
            settings=self._settings,
            replies=admission.replies,
            states=[connection.state for connection in server.connections],
            accepted=admission.accepted,
            refused=admission.refused,
            octets_in=admission.octets_in,
            budget=server.budget,
            unbound=self._unbound,
        )

    def _intake_ended(self) -> None:
        if not self._stop.is_set():
            self._log.error("intake ended")
            self._failed = True
            self._stop.set()

    def _reload(self, server: Server, front: Front) -> None:
        self._use_new_settings(server, front)
        if self._serving:
            self._control.ready()

    def _use_new_settings(self, server: Server, front: Front) -> None:
        try:
            new = load(self._config)
            config = server_config(new)
        except SettingsError as error:
            self._log.error("settings not reloaded, the old ones stay", reason=str(error))
            return
        old, self._settings = self._settings, new
        server.reconfigure(config)
        front.reconfigure(new)
        fixed = {
            "lmtp.listen": old.lmtp.listen != new.lmtp.listen,
            "lmtp.socket_mode": old.lmtp.socket_mode != new.lmtp.socket_mode,
            "lmtp.socket_group": old.lmtp.socket_group != new.lmtp.socket_group,
            "maps.listen": old.maps != new.maps,
            "metrics.listen": old.metrics != new.metrics,
            "store.url": old.store.url != new.store.url,
            "log": old.log != new.log,
        }
        needs = [name for name, changed in fixed.items() if changed]
        self._log.info("settings reloaded", **({"needs_a_restart": needs} if needs else {}))

    def _introduce(self, ready: Ready) -> None:
        """Say where we listen and what to do next. The supervisor says `ready`."""
        addresses = [address_of(each) for each in self._sockets]
        others = {"maps": self._maps_sockets, "metrics": self._metrics_sockets}
        shown = {
            kind: [address_of(each) for each in sockets]
            for kind, sockets in others.items()
            if sockets and f"{kind}.listen" not in self._unbound
        }
        self._log.info(
            "serving", lmtp=addresses, **shown, database=ready.database, lists=ready.lists
        )
        command = _command(self._config)
        hint = (
            f"To see what waits, in another terminal: {command} queue ls"
            if ready.lists
            else f"No lists yet. Make one, in another terminal: "
            f"{command} list create mylist@example.com"
        )
        if not self._log.human and not ready.lists:
            self._log.info("no lists yet", to_do=f"{command} list create mylist@example.com")
        if self._log.human:
            with contextlib.suppress(OSError):  # stderr is full or gone: no reason not to serve
                sys.stderr.write(f"{hint}\n")
                sys.stderr.flush()


def _command(config: str | None) -> str:
    """How a person on this machine calls postroom with these settings."""
    path = Path(sys.executable).with_name("postroom")
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path} --config {config}" if config else str(path)


def _start_intake(
    config: str | None, bell: int | None
) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    given = [theirs.fileno()]
    command = [sys.executable, "-m", "postroom.service.intake", str(theirs.fileno())]
    if config:
        command += ["--config", config]
    if bell is not None:
        command += ["--bell", str(bell)]
        given.append(bell)
    process = subprocess.Popen(command, pass_fds=given, stdin=subprocess.DEVNULL)
    theirs.close()
    return process, ours


def main() -> None:
    """`python -m postroom.service.door`, started by the supervisor."""
    config, handed = _arguments()
    try:
        settings = load(config)
    except SettingsError as error:
        print(f"postroom: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    intake, channel = _start_intake(config, handed.bell)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        process = Process(settings, config, Log(settings.log), handed)
        try:
            status = runner.run(process.run(intake, channel))
        except (BindError, SettingsError, OSError) as error:
            print(f"postroom: {error}", file=sys.stderr)
            status = UNFIT
    sys.exit(status)


def _arguments() -> tuple[str | None, Handed]:
    """The settings file, and what was handed over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--control", type=_socket, required=True)
    parser.add_argument("--lmtp", type=_socket, action="append", required=True)
    for kind in "--maps", "--metrics":
        parser.add_argument(kind, type=_socket, action="append", default=[])
    parser.add_argument("--trouble", action="append", default=[], dest="troubles")
    parser.add_argument("--beat", type=float, default=0.0)
    parser.add_argument("--bell", type=int)
    options = vars(parser.parse_args())
    return options.pop("config"), Handed(**options)


def _socket(number: str) -> socket.socket:
    return socket.socket(fileno=int(number))


if __name__ == "__main__":
    main()
