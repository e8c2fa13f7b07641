"""How deep the queues are, on both databases."""

import pysqlite3.dbapi2 as sqlite
from sqlalchemy.dialects.sqlite import dialect

from postroom.spool import depth
from postroom.spool.depth import depths
from postroom.store.engine import Store
from tests.contract.queues import Filler, change


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
