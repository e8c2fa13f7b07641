"""Retries, the shunt queue, and what operators see of entries and do to them."""

import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, select, text

from postroom.lists.registry import create_list
from postroom.spool.care import entries, headers_of, raw_of, remove, requeue
from postroom.spool.depth import depths
from postroom.spool.queue import LONGEST_WAIT, QueueError, finish, give_back, mend, retry, shunt
from postroom.store import schema
from tests.contract.desk import ANNE, Counts, Desk, counts, envelope
from tests.contract.queues import Filler, change, do, everything, seen, take

# Effects, retry, shunt, quarantine


def test_d1_what_a_worker_does_and_the_end_of_its_entry_are_one_transaction(
    desk: Desk, filled: Filler
) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)

    def work(connection: Connection, fails: bool) -> None:
        finish(connection, [held])
        create_list(connection, "effect@example.com")
        if fails:
            raise RuntimeError("the power went")

    before = everything(desk.store)
    with pytest.raises(RuntimeError):
        do(desk.store, work, True)
    assert everything(desk.store) == before
    assert desk.deliver(envelope("effect@example.com")) == [[550]]
    do(desk.store, work, False)
    assert number not in [row[0] for row in everything(desk.store)]
    assert desk.deliver(envelope("effect@example.com")) == [[250]]


def test_a_retry_waits_its_delay_and_no_longer(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)
    before = time.time()
    do(desk.store, retry, held, 300.0, "451 busy")
    found = seen(desk.store, number)
    assert before + 300 <= found.available_at <= time.time() + 300
    assert (found.lease_until, found.last_error, found.attempts) == (None, "451 busy", 1)
    assert take(desk.store, now=before + 299.9) == []
    (held,) = take(desk.store, now=found.available_at)
    do(desk.store, retry, held, 1e12, "for ever")
    assert seen(desk.store, number).available_at <= time.time() + LONGEST_WAIT


def test_d16_a_shunted_entry_keeps_its_traceback_and_where_it_was(
    desk: Desk, filled: Filler
) -> None:
    (number,) = filled("ant-confirm+token")
    (held,) = take(desk.store, name="command")
    do(desk.store, shunt, held, "Traceback:\n  boom")
    found = seen(desk.store, number)
    assert (found.queue, found.last_error, found.lease_until) == (
        "shunt",
        "Traceback:\n  boom",
        None,
    )
    (again,) = take(desk.store, name="shunt")
    assert again.metadata == held.metadata | {"shunted_from": "command"}
    do(desk.store, shunt, again, "once more")
    do(desk.store, requeue, number)
    (back,) = take(desk.store, name="command")
    assert (back.metadata, back.attempts) == (held.metadata, 1)
    assert seen(desk.store, number).last_error is None


@pytest.mark.parametrize("broken", ["", "{", "[]", "null", "\x80\x04.", '"text"', "{}{}"])
def test_d17_unreadable_metadata_is_quarantined_and_the_rest_flows(
    desk: Desk, filled: Filler, broken: str
) -> None:
    one, two, three = filled("ant", "bee", "ant-owner")
    change(desk.store, two, metadata=broken)
    assert [held.id for held in take(desk.store)] == [one, three]
    found = seen(desk.store, two)
    assert (found.queue, found.lease_until) == ("shunt", None)
    assert "unreadable metadata" in str(found.last_error)
    (held,) = take(desk.store, name="shunt")
    assert held.metadata == {"unreadable": broken, "shunted_from": "in"}
    do(desk.store, give_back, held)
    with pytest.raises(QueueError, match="cannot be read: save it with `show --raw`, then delete"):
        do(desk.store, requeue, two)
    do(desk.store, remove, two)
    assert two not in [entry[0] for entry in everything(desk.store)]


# What operators do


def test_requeue_makes_an_entry_due_now_with_no_attempts(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)
    do(desk.store, retry, held, 1000.0, "later")
    do(desk.store, requeue, number)
    found = seen(desk.store, number)
    assert (found.queue, found.attempts, found.last_error) == ("in", 0, None)
    assert [each.id for each in take(desk.store)] == [number]


def test_d18_delete_deletes_the_entry_and_the_message_that_nobody_needs(
    desk: Desk, filled: Filler
) -> None:
    desk.deliver(envelope("ant@example.com", "bee@example.com", raw=b"shared"))
    one, two = desk.stored[0].entries
    do(desk.store, remove, one)
    assert [entry[0] for entry in everything(desk.store)] == [two]
    assert counts(desk.store) == Counts(1, 1, 2)
    assert [held.raw for held in take(desk.store, lease=-1.0)] == [b"shared"]
    do(desk.store, mend, "in")
    do(desk.store, remove, two)
    assert counts(desk.store) == Counts(0, 0, 2)


@pytest.mark.parametrize("action", [requeue, remove])
def test_what_cannot_be_done_to_an_entry_is_said(
    desk: Desk, filled: Filler, action: Callable[[Connection, int], None]
) -> None:
    (number,) = filled("ant")
    with pytest.raises(QueueError, match="there is no such entry: `postroom queue ls` shows"):
        do(desk.store, action, number + 1)
    take(desk.store)
    before = everything(desk.store)
    with pytest.raises(QueueError, match="a runner is working on it: try again in a moment"):
        do(desk.store, action, number)
    assert everything(desk.store) == before


def test_metadata_that_broke_in_the_shunt_queue_is_said_too(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)
    do(desk.store, shunt, held, "Traceback")
    change(desk.store, number, metadata="{")
    with pytest.raises(QueueError, match="cannot be read"):
        do(desk.store, requeue, number)


# What operators ask


def test_listings_show_entries_oldest_first(desk: Desk, filled: Filler) -> None:
    numbers = filled("ant", "ant-join", "bee", "postmaster", "ant-bounces")
    change(desk.store, numbers[0], available_at=time.time() + 1000)
    with desk.store.read() as connection:
        assert [each.id for each, _ in entries(connection)] == numbers
        assert [each.id for each, _ in entries(connection, limit=2)] == numbers[:2]
        in_queue = [each for each, _ in entries(connection, "in", 2)]
        assert [each.id for each in in_queue] == [numbers[0], numbers[2]]
        assert [each.list for each, _ in entries(connection, "in")] == [
            "ant@example.com",
            "bee@example.com",
            None,
        ]
        assert list(entries(connection, "out")) == []
        [(shown, _)] = entries(connection, "command")
    assert (shown.sender, shown.size, shown.attempts, shown.last_error) == (ANNE, 1, 0, None)


def test_statistics_tell_depth_and_oldest_of_each_queue(desk: Desk, filled: Filler) -> None:
    with desk.store.read() as connection:
        assert depths(connection) == {}
    filled("ant", "bee", "ant-join")
    with desk.store.begin() as connection:
        connection.execute(text("UPDATE message SET received_at = 100 WHERE size = 1"))
        oldest = connection.scalar(select(schema.message.c.id).order_by("id").limit(1))
        connection.execute(text(f"UPDATE message SET received_at = 50 WHERE id = {oldest}"))
    with desk.store.read() as connection:
        assert depths(connection) == {"in": (2, 50.0), "command": (1, 100.0)}


def test_the_message_of_an_entry_is_read_whole_or_only_its_beginning(desk: Desk) -> None:
    raw = bytes(range(256)) * 300
    desk.deliver(envelope("ant@example.com", raw=raw))
    (number,) = desk.stored[0].entries
    with desk.store.read() as connection:
        assert raw_of(connection, number) == raw
        assert headers_of(connection, number) == raw[:65_536]
        assert headers_of(connection, number, 300) == raw[:300]
