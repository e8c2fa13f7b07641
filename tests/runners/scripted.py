"""A runner that does as it is told, and a worker whose log and commits can be seen."""

import contextlib
import io
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any

from sqlalchemy import Connection, select

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.runners.base import Outcome, Runner, Worker
from postroom.spool.ids import IdMaker
from postroom.spool.queue import Claim
from postroom.spool.steps import Step, write
from postroom.store import schema
from postroom.store.engine import Store

PATIENCE = 30.0  # seconds after which a test is stuck
Process = Callable[[Claim], Outcome]
make_id = IdMaker()


class Gone(Exception):
    """Trouble of the database: no connection (PostgreSQL's code for that)."""

    sqlstate = "08006"


def note(connection: Connection, what: str) -> None:
    """An effect that can be seen."""
    write(connection, make_id, [Step("<note>", 1.0, "", what, {})])


def noted(held: Claim) -> Outcome:
    """The effect is a note of the message."""
    return Outcome(lambda connection: note(connection, held.raw.decode()), "noted", {"n": 1})


class Scripted:
    """Does with each entry what a function says."""

    queue = "in"

    def __init__(self, process: Process) -> None:
        self._process = process
        self.seen: list[int] = []

    def process(self, held: Claim, store: Store) -> Outcome:
        self.seen.append(held.id)
        return self._process(held)


class Watched(Worker):
    """A worker with a log that can be read, and a bell that rings at each commit and line."""

    def __init__(self, store: Store, runner: Runner) -> None:
        self.text = _Target(self._rang)
        self.commits = 0
        self.changed = threading.Condition()
        super().__init__(store, runner, Log(LogSettings(format="json"), self.text), self._handed)

    def _handed(self) -> None:
        with self.changed:
            self.commits += 1
            self.changed.notify_all()

    def _rang(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of the log with this event."""
        lines = map(json.loads, self.text.getvalue().splitlines())
        return [line for line in lines if line["event"] == event]

    def until(self, look: Callable[[], object]) -> None:
        """Wait until this holds; looked at when something was committed or logged."""
        with self.changed:
            assert self.changed.wait_for(look, PATIENCE), self.text.getvalue()


class _Target(io.StringIO):
    def __init__(self, told: Callable[[], None]) -> None:
        super().__init__()
        self._told = told

    def flush(self) -> None:
        self._told()


@contextlib.contextmanager
def working(store: Store, process: Process | Runner) -> Iterator[Watched]:
    """A worker at work in its thread, stopped at the end."""
    runner = Scripted(process) if callable(process) else process
    worker = Watched(store, runner)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
        worker.thread.join(PATIENCE)
        assert not worker.alive


def notes(store: Store) -> list[str]:
    """The effects there are."""
    with store.read() as connection:
        found = select(schema.step.c.what).where(schema.step.c.message_id == "<note>")
        return [what for (what,) in connection.execute(found.order_by(schema.step.c.id))]
