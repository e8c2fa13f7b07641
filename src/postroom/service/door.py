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
from collections.abc import Callable, Sequence
from pathlib import Path

from postroom.lmtp.server import Server, ServerConfig
from postroom.lmtp.session import Limits
from postroom.service.channel import Ready
from postroom.service.front import Front
from postroom.service.observe import Log
from postroom.service.settings import WORKING_COPIES, Settings, SettingsError, load
from postroom.service.sockets import READY, UNFIT, BindError, address_of, listen

BRIEF = 1.0  # seconds; without an intake nobody's message can be stored: start again soon

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
try:
    from uvloop import new_event_loop as loop_factory
except ImportError:
    loop_factory = None


def server_config(settings: Settings) -> ServerConfig:
    """What of the settings concerns connections."""
    lmtp = settings.lmtp
    limits = Limits(lmtp.max_message_size, lmtp.max_recipients, lmtp.refuse_unknown == "at-rcpt")
    return ServerConfig(
        hostname=settings.site.hostname,
        ident=lmtp.ident,
        limits=limits,
        memory_budget=lmtp.memory_budget - WORKING_COPIES * lmtp.max_message_size,
        max_connections=lmtp.max_connections,
    )


class Process:
    """One run of the door."""

    def __init__(
        self, settings: Settings, config: str | None, log: Log, sockets: Sequence[socket.socket]
    ) -> None:
        self._settings, self._config, self._log, self._sockets = settings, config, log, sockets
        self._stop = asyncio.Event()
        self._failed = False

    async def run(
        self, intake: "subprocess.Popen[bytes]", channel: socket.socket, control: socket.socket
    ) -> int:
        """Serve until told to stop; returns the exit status."""
        loop = asyncio.get_running_loop()
        front = Front(self._settings, self._log, self._intake_ended)
        await loop.create_unix_connection(lambda: front, sock=channel)
        server = Server(server_config(self._settings), front)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload, server, front)
        loop.add_reader(control, self._supervisor_gone, control)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        ready = await front.ready
        if ready is None:
            return await loop.run_in_executor(None, intake.wait)  # it has said why
        listen(self._sockets)  # uvloop would not say what was wrong
        await server.listen(self._sockets)
        self._introduce(ready)
        with contextlib.suppress(OSError):
            control.send(READY)
        gc.collect()
        gc.freeze()  # what is here now stays: no need to look at it again
        await self._stop.wait()
        loop.remove_reader(control)
        self._log.info("stopping", connections=len(server.connections))
        await server.stop(BRIEF if self._failed else self._settings.service.drain)
        front.close()
        await loop.run_in_executor(None, intake.wait)
        self._log.info("stopped")
        return 1 if self._failed else 0

    def _supervisor_gone(self, control: socket.socket) -> None:
        # It never reads our READY before we end, so its end comes as a reset.
        with contextlib.suppress(ConnectionResetError):
            if control.recv(1):
                return
        self._log.warning("supervisor is gone")
        asyncio.get_running_loop().remove_reader(control)
        self._stop.set()

    def _intake_ended(self) -> None:
        if not self._stop.is_set():
            self._log.error("intake ended")
            self._failed = True
            self._stop.set()

    def _reload(self, server: Server, front: Front) -> None:
        try:
            new = load(self._config)
        except SettingsError as error:
            self._log.error("settings not reloaded, the old ones stay", reason=str(error))
            return
        old, self._settings = self._settings, new
        server.reconfigure(server_config(new))
        front.reconfigure(new)
        fixed = {
            "lmtp.listen": old.lmtp.listen != new.lmtp.listen,
            "store.url": old.store.url != new.store.url,
            "log": old.log != new.log,
        }
        needs = [name for name, changed in fixed.items() if changed]
        self._log.info("settings reloaded", **({"needs_a_restart": needs} if needs else {}))

    def _introduce(self, ready: Ready) -> None:
        """Say where we listen and what to do next."""
        addresses = [address_of(each) for each in self._sockets]
        self._log.info("serving", lmtp=addresses, database=ready.database, lists=ready.lists)
        command = _command(self._config)
        hint = (
            f"To see what waits, in another terminal: {command} queue ls"
            if ready.lists
            else f"No lists yet. Make one, in another terminal: "
            f"{command} list create mylist@example.com"
        )
        if not self._log.human and not ready.lists:
            self._log.info("no lists yet", to_do=f"{command} list create mylist@example.com")
        with contextlib.suppress(OSError):  # stderr is full or gone: no reason not to serve
            if self._log.human:
                print(hint, file=sys.stderr)
            print("ready", *addresses, file=sys.stderr, flush=True)


def _command(config: str | None) -> str:
    """How a person on this machine calls postroom with these settings."""
    path = Path(sys.executable).with_name("postroom")
    with contextlib.suppress(ValueError):
        path = path.relative_to(Path.cwd())
    return f"{path} --config {config}" if config else str(path)


def _start_intake(config: str | None) -> tuple["subprocess.Popen[bytes]", socket.socket]:
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "postroom.service.intake", str(theirs.fileno())]
    if config:
        command += ["--config", config]
    process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    return process, ours


def main() -> None:
    """`python -m postroom.service.door`, started by the supervisor."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("sockets", type=int, nargs="+")
    options = parser.parse_args()
    intake, channel = _start_intake(options.config)
    try:
        settings = load(options.config)
    except SettingsError as error:
        print(f"postroom: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    log = Log(settings.log)
    sockets = [socket.socket(fileno=number) for number in options.sockets]
    control = socket.socket(fileno=options.control)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        process = Process(settings, options.config, log, sockets)
        try:
            status = runner.run(process.run(intake, channel, control))
        except (BindError, OSError) as error:
            print(f"postroom: {error}", file=sys.stderr)
            status = UNFIT
    sys.exit(status)


if __name__ == "__main__":
    main()
