"""The writer's own connection: as durable as the others, and replaced when it is broken."""

from collections.abc import Iterator
from typing import Any

import pysqlite3.dbapi2 as sqlite
import pytest

from postroom.spool.trouble import diagnose
from postroom.store import direct as direct_module
from postroom.store import schema
from postroom.store.direct import MOST_ROWS, Direct
from postroom.store.engine import Store

Receipt = tuple[int, bytes, float]


@pytest.fixture
def direct(store: Store) -> Iterator[Direct]:
    """A connection of the driver's own."""
    made = Direct(store)
    yield made
    made.close()


def receipts(*numbers: int) -> list[Receipt]:
    return [(number, b"key %d" % number, float(number)) for number in numbers]


def stored(store: Store) -> list[Receipt]:
    """What another connection sees."""
    with store.read() as connection:
        rows = connection.execute(schema.receipt.select().order_by(schema.receipt.c.entry))
        return [(number, bytes(key), at) for number, key, at in rows]


def begin(direct: Direct) -> None:
    direct.begin(lock_wait=0.05, limit=60.0)


def test_a_commit_is_flushed_to_disk_as_on_every_other_connection(direct: Direct) -> None:
    begin(direct)
    if direct.is_sqlite:
        full = 2
        assert direct.execute("PRAGMA synchronous") == [(full,)]
        assert direct.execute("PRAGMA journal_mode") == [("wal",)]
        assert direct.execute("PRAGMA foreign_keys") == [(1,)]
    else:
        assert direct.execute("SHOW synchronous_commit") == [("on",)]


def test_what_is_committed_is_seen_and_what_is_not_is_not(store: Store, direct: Direct) -> None:
    begin(direct)
    assert direct.insert(schema.receipt, receipts(1, 2)) == 2
    assert stored(store) == []
    direct.commit()
    assert stored(store) == receipts(1, 2)
    begin(direct)
    direct.insert(schema.receipt, receipts(3))
    direct.discard()
    begin(direct)
    direct.insert(schema.receipt, receipts(4))
    direct.close()
    assert stored(store) == receipts(1, 2)


@pytest.mark.parametrize("number", [1, MOST_ROWS - 1, MOST_ROWS, MOST_ROWS + 1, 3 * MOST_ROWS + 7])
def test_any_number_of_rows_is_inserted(store: Store, direct: Direct, number: int) -> None:
    begin(direct)
    assert direct.insert(schema.receipt, receipts(*range(number))) == number
    direct.commit()
    assert stored(store) == receipts(*range(number))


def test_rows_that_are_there_are_left_out_and_not_counted(store: Store, direct: Direct) -> None:
    begin(direct)
    direct.insert(schema.receipt, receipts(*range(0, 200, 2)))
    changed = [(number, key, -1.0) for number, key, _ in receipts(*range(200))]
    assert direct.insert(schema.receipt, changed, unless_there=True) == 100
    assert direct.insert(schema.receipt, [(999, b"key 7", 0.0)], unless_there=True) == 0
    direct.commit()
    assert stored(store) == [
        (number, key, at if number % 2 == 0 else -1.0) for number, key, at in receipts(*range(200))
    ]


def test_a_row_that_is_there_is_an_error_unless_it_is_left_out(
    store: Store, direct: Direct
) -> None:
    begin(direct)
    direct.insert(schema.receipt, receipts(1))
    with pytest.raises(Exception, match=r"(?i)unique") as refused:
        direct.insert(schema.receipt, receipts(1))
    assert diagnose(refused.value, committing=False).one_envelope
    direct.discard()
    assert stored(store) == []


def test_all_columns_are_written_in_the_order_of_the_table(store: Store, direct: Direct) -> None:
    message = (1, b"digest", "a@b", 3, 1.5, "192.0.2.1", "mx", b"\0\xff\n")
    entry = (2, "in", None, 1, "{}", 2.5, 3, "lease", 4.5, "error", 5.5)
    begin(direct)
    direct.insert(schema.message, [message])
    direct.insert(schema.entry, [entry])
    direct.commit()
    with store.read() as connection:
        found: list[tuple[Any, ...]] = [
            tuple(connection.execute(table.select()).one())
            for table in (schema.message, schema.entry)
        ]
    assert [
        tuple(bytes(value) if isinstance(value, memoryview) else value for value in row)
        for row in found
    ] == [message, entry]


def test_columns_without_a_value_get_their_defaults(store: Store, direct: Direct) -> None:
    begin(direct)
    direct.insert(schema.message, [(1, b"", "", 0, 0.0, "", "", b"")])
    direct.insert(schema.entry, [(number, "in", None, 1, "{}", 2.5) for number in (1, 2)])
    direct.insert(schema.entry, [(3, "in", None, 1, "{}", 2.5, 4)])
    direct.commit()
    with store.read() as connection:
        found = connection.execute(schema.entry.select().order_by(schema.entry.c.id)).all()
    assert [row.attempts for row in found] == [0, 0, 4]
    assert {tuple(row[7:]) for row in found} == {(None, None, None, None)}


def test_a_broken_connection_is_replaced_when_it_is_discarded(store: Store, direct: Direct) -> None:
    begin(direct)
    direct.insert(schema.receipt, receipts(1))
    direct._driver.close()
    with pytest.raises(Exception, match="closed"):
        direct.commit()
    direct.discard()
    begin(direct)
    direct.insert(schema.receipt, receipts(2))
    direct.commit()
    assert stored(store) == receipts(2)


def test_discarding_and_closing_before_use_or_twice_is_harmless(
    store: Store, direct: Direct
) -> None:
    direct.discard()
    direct.close()
    begin(direct)
    direct.discard()
    direct.discard()
    direct.close()
    direct.close()
    begin(direct)
    direct.insert(schema.receipt, receipts(1))
    direct.commit()
    assert stored(store) == receipts(1)


def test_the_wait_for_a_lock_is_bounded(store: Store, direct: Direct) -> None:
    other = Direct(store)
    try:
        begin(other)
        if not store.is_sqlite:
            assert other.execute("SHOW lock_timeout") == [("50ms",)]
        other.insert(schema.receipt, receipts(1))
        with pytest.raises(Exception, match="lock") as refused:
            begin(direct)  # on SQLite it waits here
            direct.insert(schema.receipt, receipts(1))
        assert diagnose(refused.value, committing=False).retry
        direct.discard()
        other.commit()
    finally:
        other.close()
    begin(direct)
    assert direct.insert(schema.receipt, receipts(1), unless_there=True) == 0


def test_each_transaction_has_its_own_bound_and_none_waits_for_ever(direct: Direct) -> None:
    if direct.is_sqlite:
        pytest.skip("the next test is SQLite's")
    for lock_wait, milliseconds in {0.05: 50, 0.2: 200, 0.0: 1}.items():
        direct.begin(lock_wait, limit=60.0)
        assert direct.execute("SHOW lock_timeout") == [(f"{milliseconds}ms",)]
        direct.discard()


def test_it_looks_for_the_write_lock_until_its_time_is_up(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, looks = [0.0], [0]

    def sleep(seconds: float) -> None:
        clock[0] += seconds
        looks[0] += 1

    monkeypatch.setattr(direct_module, "monotonic", lambda: clock[0])
    monkeypatch.setattr(direct_module, "sleep", sleep)
    writer, waiter = Direct(sqlite_store), Direct(sqlite_store)
    try:
        writer.begin(1.0, limit=60.0)
        for lock_wait in (0.0, 0.05, 0.2):
            looks[0] = 0
            with pytest.raises(sqlite.OperationalError, match="locked"):
                waiter.begin(lock_wait, limit=60.0)
            assert looks[0] == pytest.approx(lock_wait / direct_module.LOOK, abs=2)
            waiter.discard()
        writer.commit()
        waiter.begin(0.0, limit=60.0)
        waiter.discard()
    finally:
        writer.close()
        waiter.close()
