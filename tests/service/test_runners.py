"""The runners process from inside: what is woken, what ends it, how it stops and reloads.

What it runs are a thread that does what a test says and a task that does nothing, in the place
of what `build` would put together; database, control socket and bell are real.
"""

import asyncio
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings, Service, Settings, SettingsError
from postroom.runners.base import Outcome, Worker
from postroom.service import runners as module
from postroom.service.build import Parts
from postroom.service.runners import Handed, Process
from postroom.spool.handing import Handed as NewEntry
from postroom.spool.handing import Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.queue import Claim
from postroom.store.engine import Store
from tests.integration.mail import depth

PATIENCE = 30.0  # seconds


class Counted:
    """A runner: `work` is what an entry asks for."""

    queue = "in"

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work

    def process(self, held: Claim, store: Store) -> Outcome:
        self._work()
        return Outcome(lambda _: None, "served", {})


class Idle:
    """A task that waits for its `end`, which a stop is too. `lingers`: it does not stop."""

    def __init__(self, lingers: bool = False) -> None:
        self.turned_at = time.monotonic()
        self.woken, self.stopped = asyncio.Event(), asyncio.Event()
        self.end: asyncio.Future[None]
        self._lingers = lingers

    async def run(self) -> None:
        self.end = asyncio.get_running_loop().create_future()
        await self.end

    def wake(self) -> None:
        self.woken.set()

    def stop(self) -> None:
        self.stopped.set()
        if not self._lingers and not self.end.done():
            self.end.set_result(None)


class Run:
    """A process in the loop of a test, and the test in the place of its supervisor."""

    def __init__(self, store: Store, directory: Path) -> None:
        self._store, self._config = store, directory / "postroom.toml"
        self._config.touch()
        self._log = io.StringIO()
        self.control, self._theirs = socket.socketpair()
        self.control.setblocking(False)
        self.heard, self.bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.work: Callable[[], None] = lambda: None
        self.task = Idle()
        self.settings = Settings(service=Service(drain=PATIENCE))
        self.built: list[Settings] = []  # for which settings, each time
        self.workers: list[Worker] = []
        self.refuses = ""  # why what is to be built cannot be
        self.process: Process

    def build(self, store: Store, settings: Settings, log: Log, woken: Callable[[], None]) -> Parts:
        if self.refuses:
            raise SettingsError(self.refuses)
        if self.built:
            self.task = Idle()
        self.built.append(settings)
        self.workers.append(Worker(store, Counted(lambda: self.work()), log, woken))
        return Parts([self.workers[-1]], [self.task])

    def play(self, scenario: Callable[[], Coroutine[Any, Any, None]], beat: float = 0.0) -> int:
        """Run the process and, once it serves, what a test does; returns its exit status."""

        async def both() -> int:
            handed = Handed(self._theirs, beat, self.heard)
            log = Log(LogSettings("json", "debug"), self._log)
            self.process = Process(
                self._store, self.settings, str(self._config), log, handed, self.build
            )
            running = asyncio.create_task(self.process.run())
            await self.hear(b"R")
            await asyncio.wait_for(scenario(), PATIENCE)
            return await asyncio.wait_for(running, PATIENCE)

        return asyncio.run(both())

    async def hear(self, octet: bytes) -> None:
        """Wait until the supervisor is told this."""
        loop = asyncio.get_running_loop()
        while octet not in await asyncio.wait_for(loop.sock_recv(self.control, 1), PATIENCE):
            pass

    async def stop(self) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    def add(self) -> None:
        """An entry, and nobody is told."""
        with self._store.begin() as connection:
            letter = Letter(b"Subject: x\r\n\r\nx\r\n", "anne@example.org")
            hand_on(connection, IdMaker(), [NewEntry("in", None, {}, letter)])

    def reload(self, text: str) -> None:
        self._config.write_text(text)
        os.kill(os.getpid(), signal.SIGHUP)

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self._log.getvalue().splitlines()]

    def close(self) -> None:
        for worker in self.workers:
            worker.stop()
        for each in self.control, self._theirs:
            each.close()
        for number in self.heard, self.bell:
            os.close(number)


@pytest.fixture
def run(sqlite_store: Store, tmp_path: Path) -> Iterator[Run]:
    before = signal.getsignal(signal.SIGINT)
    made = Run(sqlite_store, tmp_path)
    yield made
    made.close()
    signal.signal(signal.SIGINT, before)


async def nothing() -> None:
    """A test that has done what it does."""


def test_it_serves_its_queues_and_stops(run: Run, sqlite_store: Store) -> None:
    run.add()

    async def scenario() -> None:
        await run.task.woken.wait()  # after the commit
        await run.stop()

    assert run.play(scenario) == 0
    assert depth(sqlite_store) == 0
    ends = ["stopping runners", "runners stopped"]
    assert [each for each in run.events if each != "bell"] == ["serving queues", "served", *ends]
    assert not run.process.cut_off


def test_the_bell_wakes_all_that_serve(run: Run) -> None:
    async def scenario() -> None:
        os.write(run.bell, b"!")
        await run.task.woken.wait()
        run.task.woken.clear()
        os.write(run.bell, b"!!!")
        await run.task.woken.wait()
        await run.stop()

    assert run.play(scenario) == 0
    assert "bell" in run.events


def test_a_bell_that_nobody_can_ring_any_more_is_no_trouble(run: Run) -> None:
    async def scenario() -> None:
        os.close(run.bell)
        await run.task.woken.wait()
        await run.stop()

    assert run.play(scenario) == 0
    assert run.events.count("bell") == 1
    run.bell = os.open(os.devnull, os.O_WRONLY)


def test_what_rings_while_it_stops_is_left_for_the_next_process(run: Run) -> None:
    async def scenario() -> None:
        await run.stop()
        await run.task.stopped.wait()
        os.write(run.bell, b"!")

    assert run.play(scenario) == 0
    assert os.read(run.heard, 10) == b"!"


def test_what_one_hands_on_wakes_the_others(run: Run) -> None:
    run.add()

    async def scenario() -> None:
        await run.task.woken.wait()
        await run.stop()

    assert run.play(scenario) == 0
    assert "bell" not in run.events


def test_a_thread_that_dies_ends_the_process_to_be_started_again(run: Run) -> None:
    def die() -> None:
        raise SystemExit

    run.work = die
    run.add()
    assert run.play(nothing) == 1
    assert run.task.stopped.is_set()  # the others could finish what they had in hand
    assert "runner in died" in run.events
    assert run.events[-3:] == ["runner-in has ended", "stopping runners", "runners stopped"]


def test_a_task_that_dies_ends_the_process_to_be_started_again(run: Run) -> None:
    async def scenario() -> None:
        run.task.end.set_exception(ZeroDivisionError())

    assert run.play(scenario) == 1
    assert run.events[-3:] == ["delivery died", "stopping runners", "runners stopped"]
    assert "ZeroDivisionError" in run._log.getvalue()


def test_a_task_that_just_ends_has_died_too(run: Run) -> None:
    async def scenario() -> None:
        run.task.end.set_result(None)

    assert run.play(scenario) == 1
    assert "delivery died" in run.events


def test_a_thread_that_hangs_ends_the_process(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.settings = Settings(service=Service(drain=0.05))
    working, free = threading.Event(), threading.Event()

    def hang() -> None:
        working.set()
        free.wait(PATIENCE)

    run.work = hang
    run.add()

    async def scenario() -> None:
        await asyncio.to_thread(working.wait, PATIENCE)
        monkeypatch.setattr(module, "HANGS", 0.0)

    assert run.play(scenario) == 1
    free.set()
    assert run.process.cut_off  # so it must not wait for the thread
    assert "runner-in hangs" in run.events


def test_a_task_that_hangs_ends_the_process(run: Run) -> None:
    async def scenario() -> None:
        run.task.turned_at -= module.HANGS

    assert run.play(scenario) == 1
    assert "delivery hangs" in run.events


def test_it_beats_while_all_of_it_turns_and_no_longer(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOK", PATIENCE)  # it is not noticed otherwise

    async def scenario() -> None:
        for _ in range(3):
            await run.hear(b"B")
        run.task.turned_at -= module.HANGS
        await asyncio.sleep(0.05)  # what was on its way, and time for more
        with suppress(BlockingIOError):
            run.control.recv(65536)
        await asyncio.sleep(0.05)
        with pytest.raises(BlockingIOError):
            run.control.recv(1)
        run.task.turned_at += module.HANGS
        await run.hear(b"B")
        await run.stop()

    assert run.play(scenario, beat=0.01) == 0


def test_it_beats_while_it_stops(run: Run) -> None:
    free = threading.Event()
    working = threading.Event()

    def take_long() -> None:
        working.set()
        free.wait(PATIENCE)

    run.work = take_long
    run.add()

    async def scenario() -> None:
        await asyncio.to_thread(working.wait, PATIENCE)
        await run.stop()
        await run.task.stopped.wait()
        run.task.turned_at -= module.HANGS  # what has ended turns no more
        with suppress(BlockingIOError):
            run.control.recv(65536)
        for _ in range(5):
            await run.hear(b"B")
        free.set()

    assert run.play(scenario, beat=0.01) == 0


def test_the_end_of_the_supervisor_is_a_stop(run: Run) -> None:
    async def scenario() -> None:
        run.control.close()

    assert run.play(scenario) == 0
    assert "supervisor is gone" in run.events


def test_what_is_in_hand_is_finished_before_it_stops(run: Run, sqlite_store: Store) -> None:
    working, free = threading.Event(), threading.Event()

    def take_long() -> None:
        working.set()
        free.wait(PATIENCE)

    run.work = take_long
    run.add()

    async def scenario() -> None:
        await asyncio.to_thread(working.wait, PATIENCE)
        await run.stop()
        await run.task.stopped.wait()
        assert depth(sqlite_store) == 1
        free.set()

    assert run.play(scenario) == 0
    assert depth(sqlite_store) == 0


def test_what_does_not_end_in_time_is_cut_off(run: Run) -> None:
    run.settings = Settings(service=Service(drain=0.05))
    run.task = Idle(lingers=True)
    assert run.play(run.stop) == 0
    assert "work in hand was cut off; the next process does it" in run.events
    assert run.process.cut_off  # so it must not wait for what it may have left behind


def test_new_settings_are_for_what_is_built_with_them(run: Run) -> None:
    first = run.task

    async def scenario() -> None:
        run.reload("[delivery]\nexpire_after = 3.0\n")
        await run.hear(b"R")
        assert first.stopped.is_set()
        assert run.task is not first
        os.write(run.bell, b"!")
        await run.task.woken.wait()
        await run.stop()

    assert run.play(scenario) == 0
    assert [each.delivery.expire_after for each in run.built] == [5.0, 3.0]
    assert "settings reloaded" in run.events


@pytest.mark.parametrize(
    ("text", "refuses"), [("[nonsense]\n", ""), ("", "arc.key: there is no such file")]
)
def test_bad_settings_leave_everything_as_it_is(run: Run, text: str, refuses: str) -> None:
    async def scenario() -> None:
        run.refuses = refuses
        run.reload(text)
        await run.hear(b"R")  # the reload is over
        assert not run.task.stopped.is_set()
        await run.stop()

    assert run.play(scenario) == 0
    assert len(run.built) == 1
    line = next(line for line in run._log.getvalue().splitlines() if "not reloaded" in line)
    assert (refuses or "nonsense: unknown section") in json.loads(line)["reason"]


def test_settings_that_it_cannot_start_with_are_not_survived(run: Run) -> None:
    run.refuses = "arc.key: there is no such file"
    handed = Handed(run._theirs)
    process = Process(run._store, run.settings, None, Log(LogSettings()), handed, run.build)
    with pytest.raises(SettingsError, match="no such file"):
        asyncio.run(process.run())


def test_what_does_not_end_for_new_settings_needs_a_new_process(run: Run) -> None:
    run.settings = Settings(service=Service(drain=0.05))
    run.task = Idle(lingers=True)

    async def scenario() -> None:
        run.reload("[service]\ndrain = 0.05\n")

    assert run.play(scenario) == 1


def test_a_stop_during_a_reload_is_not_lost(run: Run) -> None:
    first = run.task

    async def scenario() -> None:
        run.reload("")
        await first.stopped.wait()
        await run.stop()

    assert run.play(scenario) == 0
    assert run.events[-1] == "runners stopped"
