"""Leases: who holds an entry, for how long, and what those can do who lost it."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from postroom.spool.care import remove
from postroom.spool.queue import (
    LONGEST_LEASE,
    LONGEST_WAIT,
    SKEW,
    Claim,
    Lost,
    claim,
    finish,
    give_back,
    mend,
    retry,
    shunt,
)
from tests.contract.desk import ANNE, NOTHING, Counts, Desk, counts, envelope
from tests.contract.queues import Filler, change, do, everything, seen, take

DAY = 86_400.0

# Claiming


def test_a_claim_holds_what_a_runner_needs(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com", raw=b"Subject: x\r\n\r\nBody"))
    (held,) = take(desk.store)
    (stored,) = desk.stored
    assert (held.id,) == stored.entries
    assert (held.message, held.sender, held.attempts) == (stored.draft.message, ANNE, 1)
    assert held.raw == b"Subject: x\r\n\r\nBody"
    assert held.content() == b"Subject: x\r\nX-MailFrom: anne@example.org\r\n\r\nBody"
    assert held.metadata["listname"] == "ant@example.com"
    with desk.store.read() as connection:
        key = connection.scalar(text("SELECT id FROM mailing_list WHERE list_name = 'ant'"))
    assert held.list_key == key


def test_entries_are_claimed_in_order_of_due_time_then_age(desk: Desk, filled: Filler) -> None:
    one, two, three, four = filled("ant", "bee", "ant-owner", "postmaster")
    now = time.time()
    change(desk.store, three, available_at=now - 100)
    for number in (one, two, four):
        change(desk.store, number, available_at=now - 50)
    assert [held.id for held in take(desk.store, 1)] == [three]
    assert [held.id for held in take(desk.store, 2)] == [one, two]
    assert [held.id for held in take(desk.store)] == [four]
    assert take(desk.store) == []


def test_only_due_entries_of_the_queue_are_claimed(desk: Desk, filled: Filler) -> None:
    post, later, join, bounce = filled("ant", "bee", "ant-join", "ant-bounces")
    change(desk.store, later, available_at=time.time() + 100)
    assert [held.id for held in take(desk.store)] == [post]
    assert [held.id for held in take(desk.store, name="command")] == [join]
    assert [held.id for held in take(desk.store, name="bounces")] == [bounce]
    assert take(desk.store, name="nothing here") == []
    assert [held.id for held in take(desk.store, now=time.time() + 101)] == [later]


def test_a_claim_never_takes_more_than_its_limit(desk: Desk, filled: Filler) -> None:
    """Also when PostgreSQL last counted one entry, and so prefers to look at all of them."""
    first = filled("ant")
    if not desk.store.is_sqlite:
        do(desk.store, Connection.execute, text("ANALYZE"))
    numbers = first + filled(*(f"ant-owner+{number}" for number in range(30)))
    for limit in (1, 2, 5):
        held = take(desk.store, limit)
        assert [each.id for each in held] == numbers[:limit]
        del numbers[:limit]


def test_an_attempt_counts_from_the_claim_and_is_taken_back_with_it(
    desk: Desk, filled: Filler
) -> None:
    (number,) = filled("ant")
    for attempt in (1, 2):
        (held,) = take(desk.store)
        assert held.attempts == seen(desk.store, number).attempts == attempt
        do(desk.store, retry, held, 0.0, "try again")
    (held,) = take(desk.store)
    do(desk.store, give_back, held)
    assert seen(desk.store, number).attempts == 2
    (held,) = take(desk.store)
    assert held.attempts == 3


@pytest.mark.parametrize(("wanted", "given"), [(60.0, 60.0), (1e9, LONGEST_LEASE)])
def test_a_lease_ends_when_it_says_but_never_late(
    desk: Desk, filled: Filler, wanted: float, given: float
) -> None:
    (number,) = filled("ant")
    now = time.time() + 5
    take(desk.store, lease=wanted, now=now)
    assert seen(desk.store, number).lease_until == now + given


@pytest.mark.parametrize(("number", "analyzed"), [(3, False), (2000, False), (2000, True)])
def test_d16_claims_are_by_index(desk: Desk, filled: Filler, number: int, analyzed: bool) -> None:
    if not desk.store.is_sqlite and not analyzed:
        return  # it does so by itself, SQLite does not
    filled(*(f"ant-owner+{number}" for number in range(number)))
    asked: list[tuple[str, Any]] = []
    if analyzed:
        do(desk.store, Connection.execute, text("ANALYZE"))
    desk.store.engine.dispose()  # SQLite: what it found out holds for new connections
    with desk.store.engine.connect() as connection:
        event.listen(
            connection, "before_cursor_execute", lambda *each: asked.append((each[2], each[3]))
        )
        claim(connection, "in", 10, 60.0)
        chosen, read = (each for each in asked if not each[0].startswith("BEGIN"))
        explain = "EXPLAIN QUERY PLAN " if desk.store.is_sqlite else "EXPLAIN "
        plans = [
            "\n".join(str(row[-1]) for row in connection.exec_driver_sql(explain + sql, values))
            for sql, values in (chosen, read)
        ]
        connection.rollback()
    assert "ix_entry_queue_available_at_id" in plans[0]
    assert "ix_entry_leased" in plans[1]
    for plan in plans:
        assert "SCAN entry" not in plan and "Seq Scan on entry" not in plan
    if desk.store.is_sqlite:
        assert "queue=? AND available_at<?" in plans[0]
        assert "TEMP B-TREE" not in plans[0]


# Fencing

ACTIONS: list[Callable[[Connection, Claim], None]] = [
    lambda connection, held: finish(connection, [held]),
    lambda connection, held: retry(connection, held, 5.0, "stalled"),
    lambda connection, held: shunt(connection, held, "Traceback"),
    give_back,
]


@pytest.mark.parametrize("since", ["claimed again", "freed", "shunted", "finished", "deleted"])
def test_a_worker_that_lost_its_lease_changes_nothing(
    desk: Desk, filled: Filler, since: str
) -> None:
    (number,) = filled("ant")
    (stalled,) = take(desk.store, lease=-1.0)
    do(desk.store, mend, "in")
    if since != "freed":
        (other,) = take(desk.store)
        assert other.lease != stalled.lease
    if since == "shunted":
        do(desk.store, shunt, other, "Traceback of the other")
    elif since == "finished":
        do(desk.store, finish, [other])
    elif since == "deleted":
        do(desk.store, give_back, other)
        do(desk.store, remove, number)
    before = everything(desk.store)
    for action in ACTIONS:
        with pytest.raises(Lost, match="1 of 1 entries"):
            do(desk.store, action, stalled)
        assert everything(desk.store) == before
    if since == "claimed again":
        do(desk.store, finish, [other])
        assert counts(desk.store) == Counts(0, 0, 1)


def test_of_a_batch_with_one_lost_lease_nothing_is_finished(desk: Desk, filled: Filler) -> None:
    filled("ant", "bee")
    one, two = take(desk.store)
    do(desk.store, shunt, two, "by another hand")
    with pytest.raises(Lost, match="1 of 2"):
        do(desk.store, finish, [one, two])
    assert counts(desk.store) == Counts(2, 2, 2)


def test_claims_of_several_leases_are_finished_together(desk: Desk, filled: Filler) -> None:
    filled("ant", "bee", "ant-owner")
    held = take(desk.store, 1) + take(desk.store, 2)
    do(desk.store, finish, held)
    assert counts(desk.store) == Counts(0, 0, 3)
    do(desk.store, finish, [])


def test_finishing_frees_a_message_only_when_no_entry_needs_it(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com", "ant-join@example.com", "bee@example.com"))
    assert counts(desk.store) == Counts(3, 1, 3)
    do(desk.store, finish, take(desk.store, 1))
    assert counts(desk.store) == Counts(2, 1, 3)
    do(desk.store, finish, take(desk.store, name="command"))
    assert counts(desk.store) == Counts(1, 1, 3)
    do(desk.store, finish, take(desk.store))
    assert counts(desk.store)[:2] == NOTHING[:2]


# Mending


def test_an_expired_lease_is_freed_and_the_entry_is_due(desk: Desk, filled: Filler) -> None:
    one, two, other = filled("ant", "bee", "ant-join")
    take(desk.store, 1, lease=10.0)
    take(desk.store, 1, lease=100.0)
    take(desk.store, 1, name="command", lease=10.0)
    with desk.store.begin() as connection:
        assert mend(connection, "in", time.time() + 50) == 1
        assert mend(connection, "in", time.time() + 50) == 0
    assert [held.id for held in take(desk.store)] == [one]
    assert seen(desk.store, two).lease_until is not None
    assert seen(desk.store, other).lease_until is not None


def test_fault_35_a_clock_set_back_a_day_holds_up_nothing(desk: Desk, filled: Filler) -> None:
    retried, leased, new, other = filled("ant", "bee", "ant-owner", "postmaster")
    (first,) = take(desk.store, 1)
    do(desk.store, retry, first, 600.0, "later")
    assert [held.id for held in take(desk.store, 1)] == [leased]
    yesterday = time.time() - DAY
    assert take(desk.store, now=yesterday) == []
    with desk.store.begin() as connection:
        assert mend(connection, "in", yesterday) == 4
        assert mend(connection, "in", yesterday) == 0
    held = take(desk.store, now=yesterday)
    assert {each.id for each in held} == {retried, leased, new, other}
    do(desk.store, finish, held)


def test_fault_35_a_clock_set_ahead_a_year_frees_leases_and_loses_nothing(
    desk: Desk, filled: Filler
) -> None:
    retried, leased, new = filled("ant", "bee", "ant-owner")
    (first,) = take(desk.store, 1)
    do(desk.store, retry, first, LONGEST_WAIT, "later")
    take(desk.store, 1)
    next_year = time.time() + 365 * DAY
    with desk.store.begin() as connection:
        assert mend(connection, "in", next_year) == 1
    assert [held.id for held in take(desk.store, now=next_year)] == [leased, new, retried]
    # Set right again, the leases of that year have no hold on them.
    with desk.store.begin() as connection:
        assert mend(connection, "in") == 3
    assert {held.id for held in take(desk.store)} == {retried, leased, new}


def test_a_retry_told_by_a_worker_whose_clock_is_a_little_ahead_waits(
    desk: Desk, filled: Filler
) -> None:
    filled("ant")
    (held,) = take(desk.store)
    do(desk.store, retry, held, 600.0, "later")
    with desk.store.begin() as connection:
        assert mend(connection, "in", time.time() - SKEW + 5) == 0
    assert take(desk.store) == []


def test_what_is_given_back_after_the_clock_was_set_back_is_due(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)
    change(desk.store, number, available_at=time.time() + DAY, attempts=3)
    do(desk.store, give_back, held)
    assert [(again.id, again.attempts) for again in take(desk.store)] == [(number, 3)]


def test_a_retry_that_is_not_due_is_left_alone(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)
    do(desk.store, retry, held, LONGEST_WAIT, "later")
    before = seen(desk.store, number)
    with desk.store.begin() as connection:
        assert mend(connection, "in", time.time() + 1) == 0
        assert seen(desk.store, number) == before
        # Further off than any retry is set: read off another clock.
        assert mend(connection, "in", time.time() - DAY) == 1
    assert [each.id for each in take(desk.store)] == [number]


def test_mending_leaves_a_live_lease_and_a_due_entry_alone(desk: Desk, filled: Filler) -> None:
    filled("ant", "bee")
    take(desk.store, 1)
    before = everything(desk.store)
    with desk.store.begin() as connection:
        assert mend(connection, "in") == 0
    assert everything(desk.store) == before
