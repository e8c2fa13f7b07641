"""The runners process: a thread for each queue that is served, a loop for what goes out.

For: running what `build` puts together, on a database that the door fills. Guarantees: it
says that it serves once all of that runs; it beats only while every thread and the loop turn;
SIGTERM, or the end of the supervisor, drains; SIGHUP has everything built anew with the new
settings, once what was in hand is done, and bad ones leave the old in force; the bell wakes
all at once. Exits 0 when stopped, 1 when it should be started again (a part of it died, as the
log says), `UNFIT` when a person has to do something first.
"""

import argparse
import asyncio
import contextlib
import gc
import os
import signal
import socket
import sys
import time
from typing import Any, NamedTuple

from postroom.base.loading import load
from postroom.base.observe import Log
from postroom.base.settings import Settings, SettingsError
from postroom.service.build import Build, Parts, build, take_over
from postroom.service.control import Control, loop_factory
from postroom.service.sockets import UNFIT
from postroom.store.engine import Store, StoreError, open_store

NICENESS = 5  # mail that comes is more urgent than mail that goes
LOOK = 0.5  # seconds between looks whether all of it lives
HANGS = 300.0  # seconds without a turn; by then what was claimed may be claimed by others
SOON = 0.02  # seconds between looks whether threads have ended
BRIEF = 1.0  # seconds for a task to end once it is cancelled


class Handed(NamedTuple):
    """What the supervisor hands over: the line to it, how often it wants to hear a beat, and
    the descriptor of the bell, if there is one."""

    control: socket.socket
    beat: float = 0.0
    bell: int | None = None


class Process:
    """One run of the runners."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        config: str | None,
        log: Log,
        handed: Handed,
        build: Build = build,
    ) -> None:
        self._store, self._settings, self._config, self._log = store, settings, config, log
        self._control = Control(handed.control, handed.beat, log)
        self._bell, self._build = handed.bell, build
        self._change = asyncio.Event()  # there is a reason to end what runs
        self._stopping = self._draining = False
        self._failed = False
        self._parts = self._next = Parts()
        self._tasks: list[asyncio.Task[None]] = []
        self._loop: asyncio.AbstractEventLoop
        self.cut_off = False  # there may be threads that will not end

    async def run(self) -> int:
        """Serve the queues until told to stop; returns the exit status. Raises `SettingsError`
        if they cannot be used."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._defect)
        self._next = self._put_together(self._settings)
        self._control.open(self._stop, self._turns)
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, self._stop)
        self._loop.add_signal_handler(signal.SIGHUP, self._reload)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
        if self._bell is not None:
            self._loop.add_reader(self._bell, self._rung, self._bell)
        gc.collect()
        gc.freeze()  # what is here now stays: no need to look at it again
        self._log.info("serving queues", database=self._store.name)
        while not self._stopping and not self._failed:
            self._start()
            self._control.ready()
            await self._until_change()
            self._failed = not await self._drain() or self._failed
        self._control.close()
        self._log.info("runners stopped")
        return 1 if self._failed else 0

    def _put_together(self, settings: Settings) -> Parts:
        return self._build(self._store, settings, self._log, self._handed_on)

    def _start(self) -> None:
        self._parts = self._next
        self._draining = False
        self._tasks = [self._loop.create_task(each.run()) for each in self._parts.tasks]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)
        for worker in self._parts.workers:
            worker.start()

    async def _until_change(self) -> None:
        """Wait until there is a reason to end what runs; look after it meanwhile."""
        while not self._change.is_set():
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._change.wait(), LOOK)
            fault = self._fault()
            if fault:
                self._log.error(fault)
                self._failed = True
                return
        self._change.clear()

    def _fault(self) -> str:
        """What is wrong with the parts that run; empty if nothing is."""
        for worker in self._parts.workers:
            name = worker.thread.name
            if not worker.alive:
                return f"{name} has ended"
            if time.monotonic() > worker.turned_at + HANGS:
                return f"{name} hangs"
        if any(time.monotonic() > each.turned_at + HANGS for each in self._parts.tasks):
            return "delivery hangs"
        return ""

    def _turns(self) -> bool:
        return self._draining or not self._fault()

    async def _drain(self) -> bool:
        """Have everything end, within the time for that; returns whether it has."""
        self._draining = True
        if self._stopping or self._failed:
            self._log.info("stopping runners")
            if self._bell is not None:
                self._loop.remove_reader(self._bell)  # what rings now is for the next process
        deadline = time.monotonic() + self._settings.service.drain
        for part in self._parts.all:
            part.stop()
        while self._busy() and time.monotonic() < deadline:
            await asyncio.sleep(SOON)
        if not self._busy():
            return True
        self._log.warning("work in hand was cut off; the next process does it")
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=BRIEF)
        self.cut_off = True
        return self._stopping  # else this process is fit for nothing more

    def _busy(self) -> bool:
        threads = any(worker.alive for worker in self._parts.workers)
        return threads or not all(task.done() for task in self._tasks)

    def _task_ended(self, task: "asyncio.Task[None]") -> None:
        if self._draining or task.cancelled():
            return
        self._log.error("delivery died", exc_info=task.exception())
        self._failed = True
        self._change.set()

    def _defect(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        facts = {} if error is None else {"exc_info": error}
        self._log.error("defect", reason=context.get("message"), **facts)

    def _stop(self) -> None:
        self._stopping = True
        self._change.set()

    def _rung(self, bell: int) -> None:
        with contextlib.suppress(BlockingIOError):
            if not os.read(bell, 65536):
                self._loop.remove_reader(bell)  # nobody is left who could ring it
        self._log.write("debug", [("bell", {})])
        self._wake()

    def _handed_on(self) -> None:
        """A thread has committed something."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, which it need not wait for
            self._loop.call_soon_threadsafe(self._wake)

    def _wake(self) -> None:
        for part in self._parts.all:
            part.wake()

    def _reload(self) -> None:
        try:
            new = load(self._config)
            self._next = self._put_together(new)
        except SettingsError as error:
            self._log.error("settings not reloaded, the old ones stay", reason=str(error))
            self._control.ready()
            return
        old, self._settings = self._settings, new
        fixed = {"store.url": old.store.url != new.store.url, "log": old.log != new.log}
        needs = [name for name, changed in fixed.items() if changed]
        self._log.info("settings reloaded", **({"needs_a_restart": needs} if needs else {}))
        self._change.set()


def main() -> None:
    """`python -m postroom.service.runners`, started by the supervisor."""
    config, handed = _arguments()
    try:
        settings = load(config)
        store = open_store(settings.store.url)
        take_over(store)
    except (SettingsError, StoreError) as error:
        print(f"postroom: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    log = Log(settings.log)
    os.nice(NICENESS)
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        process = Process(store, settings, config, log, handed)
        try:
            status = runner.run(process.run())
        except SettingsError as error:
            print(f"postroom: {error}", file=sys.stderr)
            status = UNFIT
        except Exception as error:
            log.error("runners process died", exc_info=error)
            os._exit(1)  # without waiting for threads that nobody told to stop
        if process.cut_off:
            os._exit(status)
    store.close()
    sys.exit(status)


def _arguments() -> tuple[str | None, Handed]:
    """The settings file, and what was handed over."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--control", type=int, required=True)
    parser.add_argument("--beat", type=float, default=0.0)
    parser.add_argument("--bell", type=int)
    options = parser.parse_args()
    return options.config, Handed(socket.socket(fileno=options.control), options.beat, options.bell)


if __name__ == "__main__":
    main()
