"""The `lmtp` process: one event loop, the door, its signals.

For: running the door on sockets that the supervisor bound. Guarantees: no socket listens
before the database is found fit; SIGTERM, or the end of the supervisor, drains; SIGHUP
reloads and keeps the old settings if the new ones are bad. Exits 0 when drained, 1 when
it should be started again, `UNFIT` when a person has to do something first.
"""

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from postroom.lists.registry import count_lists
from postroom.service.build import FrontDoor, make_server, server_config
from postroom.service.observe import Log
from postroom.service.settings import Settings, SettingsError, load
from postroom.service.sockets import READY, UNFIT, address_of
from postroom.store.engine import Store, StoreError, open_store

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
try:
    from uvloop import new_event_loop as loop_factory
except ImportError:
    loop_factory = None


class Process:
    """One run of the door."""

    def __init__(self, settings: Settings, config: str | None, store: Store, log: Log) -> None:
        self._settings, self._config, self._store, self._log = settings, config, store, log
        self._stop = asyncio.Event()
        self._failed = False

    async def run(self, sockets: Sequence[socket.socket], control: socket.socket) -> int:
        """Serve until told to stop; returns the exit status."""
        loop = asyncio.get_running_loop()
        server, door = make_server(
            self._store, self._settings, self._log, lambda: loop.call_soon_threadsafe(self._fail)
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._told_to_stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._reload(server.reconfigure, door))
        loop.add_reader(control, self._supervisor_gone, control)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        door.start()
        await server.listen(sockets)
        _introduce(self._store, self._settings, self._log, sockets)
        with contextlib.suppress(OSError):
            control.send(READY)
        gc.collect()
        gc.freeze()  # what is here now stays: no need to look at it again
        await self._stop.wait()
        loop.remove_reader(control)
        self._log.info("stopping", waits_for=len(server.connections))
        await server.stop(self._settings.service.drain)
        await loop.run_in_executor(None, door.close)
        self._log.info("stopped")
        return 1 if self._failed else 0

    def _told_to_stop(self) -> None:
        if self._stop.is_set():
            sys.exit(1)
        self._stop.set()

    def _supervisor_gone(self, control: socket.socket) -> None:
        if not control.recv(1):
            self._log.warning("supervisor is gone")
            asyncio.get_running_loop().remove_reader(control)
            self._stop.set()

    def _fail(self) -> None:
        self._failed = True
        self._stop.set()

    def _reload(self, reconfigure: Callable[..., None], door: FrontDoor) -> None:
        try:
            new = load(self._config)
        except SettingsError as error:
            self._log.error("settings not reloaded, the old ones stay", reason=str(error))
            return
        fixed = [
            name
            for name, before, after in (
                ("lmtp.listen", self._settings.lmtp.listen, new.lmtp.listen),
                ("store.url", self._settings.store.url, new.store.url),
                ("log", self._settings.log, new.log),
            )
            if before != after
        ]
        self._settings = new
        reconfigure(server_config(new))
        door.reconfigure(new)
        self._log.info("settings reloaded", **({"needs_a_restart": fixed} if fixed else {}))


def _introduce(
    store: Store, settings: Settings, log: Log, sockets: Sequence[socket.socket]
) -> None:
    """Say where we listen and what to do next."""
    with store.read() as connection:
        lists = count_lists(connection)
    log.info("serving", database=store.engine.url.render_as_string(), lists=lists)
    if not lists:
        log.info("no lists yet", create_one=f"{_command()} list create mylist@example.com")
    print("ready", *(address_of(each) for each in sockets), file=sys.stderr, flush=True)


def _command() -> str:
    """How a person on this machine calls postroom."""
    path = Path(sys.executable).with_name("postroom")
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


def main() -> None:
    """`python -m postroom.service.door`, started by the supervisor."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("sockets", type=int, nargs="+")
    options = parser.parse_args()
    try:
        settings = load(options.config)
        log = Log(settings.log)
        store = open_store(settings.store.url)
    except (SettingsError, StoreError) as error:
        print(f"postroom: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    sockets = [socket.socket(fileno=number) for number in options.sockets]
    control = socket.socket(fileno=options.control)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        process = Process(settings, options.config, store, log)
        try:
            status = runner.run(process.run(sockets, control))
        except OSError as error:
            log.error("cannot listen", reason=str(error))
            status = UNFIT
    store.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
