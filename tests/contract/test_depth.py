"""How deep the queues are, on both databases."""

import time

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import event
from sqlalchemy.dialects.sqlite import dialect

from postroom.spool import depth
from postroom.spool.depth import depths, due_since
from postroom.spool.metadata import QUEUES
from postroom.spool.queue import retry
from postroom.store.engine import Store
from tests.contract.queues import Filler, change, do, take

NOW = 1_800_000_000.0


def found(store: Store) -> dict[str, tuple[int, float]]:
    with store.read() as connection:
        return depths(connection)


def test_empty_queues_are_left_out(spool: Store) -> None:
    assert found(spool) == {}


def test_each_queue_is_counted(spool: Store, filled: Filler) -> None:
    filled("ant", "ant-join", "bee", "bee-bounces", "ant")
    assert {name: entries for name, (entries, _) in found(spool).items()} == {
        "in": 3,
        "command": 1,
        "bounces": 1,
    }


def test_the_age_is_of_the_entry_that_came_first_whenever_it_is_due(
    spool: Store, filled: Filler
) -> None:
    first, _, _ = filled("ant", "ant", "bee")
    oldest = found(spool)["in"]
    change(spool, first, available_at=4e9)
    assert found(spool)["in"] == oldest


def test_an_entry_whose_message_is_lost_counts_too(sqlite_store: Store) -> None:
    path = sqlite_store.path
    behind = sqlite.connect(str(path))  # foreign keys are not looked at
    behind.execute(
        "INSERT INTO entry (id, queue, message, metadata, available_at) "
        "VALUES (5, 'in', 99, '{}', 1234.5)"
    )
    behind.commit()
    behind.close()
    assert found(sqlite_store) == {"in": (1, 1234.5)}


def test_one_index_is_read_and_nothing_is_sorted(sqlite_store: Store) -> None:
    statement = str(depth._DEPTHS.compile(dialect=dialect()))
    with sqlite_store.read() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
    plan = [row[3] for row in rows]
    scans = [step for step in plan if step.startswith("SCAN") and "entry" in step]
    assert scans == ["SCAN entry USING COVERING INDEX ix_entry_queue_available_at_id"]
    assert not [step for step in plan if "TEMP" in step]


def due(store: Store, now: float = NOW) -> dict[str, float]:
    with store.read() as connection:
        return due_since(connection, QUEUES, now)


def test_what_is_due_is_told_by_queue_and_since_when(spool: Store, filled: Filler) -> None:
    assert due(spool) == {}
    numbers = filled("ant", "ant", "bee-join", "ant-bounces")
    for number, when in zip(numbers, (NOW - 5, NOW - 9, NOW, NOW + 1), strict=True):
        change(spool, number, available_at=when)
    assert due(spool) == {"in": NOW - 9, "command": NOW}
    with spool.read() as connection:
        assert due_since(connection, ["in", "out"], NOW) == {"in": NOW - 9}


def test_what_a_runner_holds_is_not_due_until_its_lease_runs_out(
    spool: Store, filled: Filler
) -> None:
    first, second = filled("ant", "ant")
    change(spool, first, available_at=NOW - 900)
    change(spool, second, available_at=NOW - 100)
    [claim] = take(spool, limit=1, lease=60.0, now=NOW)
    assert claim.id == first
    assert due(spool, NOW + 60) == {"in": NOW - 100}
    assert due(spool, NOW + 61) == {"in": NOW - 100}
    change(spool, second, available_at=NOW + 70)
    assert due(spool, NOW + 60) == {}
    assert due(spool, NOW + 61) == due(spool, NOW + 71) == {"in": NOW + 60}
    with spool.read() as connection:
        assert due_since(connection, ["out"], NOW + 71) == {}


def test_what_is_to_be_tried_again_later_is_due_then(spool: Store, filled: Filler) -> None:
    filled("ant")
    [claim] = take(spool)
    do(spool, retry, claim, 1000.0, "no DNS")
    now = time.time()
    assert due(spool, now) == {}
    assert now < due(spool, now + 1000)["in"] <= now + 1000


def test_to_see_what_is_due_no_queue_is_read_to_its_end(sqlite_store: Store) -> None:
    asked: list[tuple[str, tuple[object, ...]]] = []
    with sqlite_store.read() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda *about: asked.append((about[2], about[3]))
        )
        due_since(connection, QUEUES)
        statement, values = asked[-1]
        plan = [
            row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    reads = [step for step in plan if "entry" in step]
    assert len(reads) == 1 + len(QUEUES)
    assert "USING INDEX ix_entry_leased" in reads[0]
    bounded = "SEARCH entry USING INDEX ix_entry_queue_available_at_id (queue=? AND available_at<?"
    assert all(step.startswith(bounded) for step in reads[1:])
