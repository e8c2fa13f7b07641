"""The look at the queues that the intake does not wait for."""

import io
import json
import time

import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.spool import queue
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import QUEUES
from postroom.store import engine
from postroom.store.engine import Store
from postroom.watch import survey as module
from postroom.watch.counts import Counts
from postroom.watch.figures import Depth
from postroom.watch.survey import Survey


class Looking:
    """A survey, and what it logs."""

    def __init__(self, store: Store) -> None:
        self.counts, self.logged = Counts(), io.StringIO()
        self.survey = Survey(store, self.counts, Log(LogSettings("json"), self.logged))

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.logged.getvalue().splitlines()]


def test_every_queue_is_counted_the_empty_ones_too(store: Store) -> None:
    looking = Looking(store)
    assert looking.survey.queues is None  # nobody has looked
    looking.survey.look()
    assert looking.survey.queues == dict.fromkeys(QUEUES, Depth(0, None))


def test_what_no_runner_takes_is_seen_by_queue(store: Store) -> None:
    now = time.time()
    with store.begin() as connection:
        names = ("in", "in", "out", "held", "shunt")
        body = Letter(b"\r\n", "")
        hand_on(connection, IdMaker(), [Handed(name, None, {}, body) for name in names])
        taken = queue.claim(connection, "in", 1, 60)
    looking = Looking(store)
    looking.survey.look()
    queues = looking.survey.queues
    assert queues is not None and len(taken) == 1
    assert {name: each.entries for name, each in queues.items() if each.entries} == {
        "in": 2,
        "out": 1,
        "held": 1,
        "shunt": 1,
    }
    due = {name: each.due for name, each in queues.items() if each.due is not None}
    assert set(due) == {"in", "out"}  # held and shunt have no runner
    assert all(now <= each <= time.time() for each in due.values())


def test_what_cannot_be_counted_is_not_known_and_told_once(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    looking = Looking(sqlite_store)

    def fail(connection: object) -> None:
        raise OSError("no such\ndisk")

    looking.survey.look()
    with monkeypatch.context() as broken:
        broken.setattr(module, "depths", fail)
        looking.survey.look()
        looking.survey.look()
    assert looking.survey.queues is None
    assert looking.events() == ["queues not counted"]
    assert '"reason":"no such disk"' in looking.logged.getvalue()
    looking.survey.look()
    assert looking.survey.queues is not None


def test_a_database_that_can_be_written_again_is_well_again(store: Store) -> None:
    looking = Looking(store)
    looking.counts.failed = "disk full"
    looking.survey.recover()
    assert looking.counts.failed == ""


def test_a_database_that_cannot_be_written_is_not_well(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "BUSY_TIMEOUT", 0.01)
    other = engine.open_store(sqlite_store.engine.url.render_as_string())
    looking = Looking(other)
    looking.counts.failed = "database is locked"
    with sqlite_store.begin():  # it has the write lock
        looking.survey.recover()
        assert looking.counts.failed == "database is locked"
        looking.survey.look()
        assert looking.survey.queues is not None  # to read is another matter
    looking.survey.recover()
    assert looking.counts.failed == ""
    other.close()


def test_a_database_that_lends_its_lock_and_takes_no_change_is_not_well(
    sqlite_store: Store,
) -> None:
    looking = Looking(sqlite_store)
    looking.counts.failed = "disk full"
    with sqlite_store.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER full BEFORE UPDATE ON alembic_version "
            "BEGIN SELECT raise(FAIL, 'disk full'); END"
        )
    looking.survey.recover()
    assert looking.counts.failed == "disk full"
