"""Claims with a measure, and what else a worker does with a lease, on both databases."""

import time

import pytest
from sqlalchemy import event

from postroom.spool import queue
from postroom.spool.queue import (
    LONGEST_LEASE,
    LONGEST_WAIT,
    Claim,
    Lost,
    claim,
    finish,
    give_back,
    is_due,
    mend,
    put_off,
    release,
    renew,
    retry,
    shunt,
)
from postroom.store.engine import Store
from tests.contract.desk import Desk, envelope, rows
from tests.contract.queues import Filler, change, do, everything, seen, take


def sized(desk: Desk, *sizes: int) -> list[int]:
    """Posts with so many octets; their ids."""
    for number, size in enumerate(sizes):
        desk.deliver(envelope("ant@example.com", raw=b"%d" % number + b"x" * (size - 1)))
    return [row.id for row in rows(desk.store)]


def batch(store: Store, octets: int, limit: int = 100, now: float | None = None) -> list[int]:
    """Claim with a measure; the ids."""
    with store.begin() as connection:
        return [each.id for each in claim(connection, "in", limit, 60.0, now, octets=octets)]


def due(store: Store, name: str = "in") -> bool:
    with store.read() as connection:
        return is_due(connection, name)


# How much is claimed


def test_a_batch_has_no_more_octets_than_asked_for(desk: Desk) -> None:
    numbers = sized(desk, 100, 100, 100, 100, 100)
    assert batch(desk.store, 250) == numbers[:2]
    assert batch(desk.store, 300) == numbers[2:5]
    assert batch(desk.store, 300) == []


def test_a_message_that_is_larger_than_a_batch_comes_alone(desk: Desk) -> None:
    numbers = sized(desk, 900, 10, 10, 900, 10)
    assert batch(desk.store, 100) == numbers[:1]
    assert batch(desk.store, 100) == numbers[1:3]
    assert batch(desk.store, 100) == numbers[3:4]
    assert batch(desk.store, 100) == numbers[4:]


@pytest.mark.parametrize("octets", [0, 1])
def test_there_is_always_one(desk: Desk, octets: int) -> None:
    numbers = sized(desk, 50, 50)
    assert batch(desk.store, octets) == numbers[:1]


def test_a_batch_is_in_the_order_of_due_time_and_within_its_limit(desk: Desk) -> None:
    numbers = sized(desk, 10, 10, 10, 10)
    change(desk.store, numbers[3], available_at=time.time() - 1000)
    assert batch(desk.store, 1000, limit=3) == [numbers[3], *numbers[:2]]


def test_what_was_tried_before_comes_alone(desk: Desk) -> None:
    numbers = sized(desk, 10, 10, 10, 10)
    change(desk.store, numbers[1], attempts=1)
    assert batch(desk.store, 1000) == numbers[:1], "nor is it passed"
    assert batch(desk.store, 1000) == numbers[1:2]
    assert batch(desk.store, 1000) == numbers[2:]


def test_an_entry_that_kills_its_worker_has_company_but_once(desk: Desk) -> None:
    numbers = sized(desk, 10, 10, 10)
    seen_together = []
    for attempt in range(1, 4):
        later = time.time() + attempt * 1000
        seen_together.append(batch(desk.store, 1000, now=later))
        do(desk.store, mend, "in", later + 500)  # the worker died
    assert seen_together[0] == numbers
    assert seen_together[1:] == [numbers[:1], numbers[:1]]


def test_an_entry_without_its_message_is_put_aside_and_the_others_come(desk: Desk) -> None:
    numbers = sized(desk, 10, 10)
    change(desk.store, numbers[0], metadata="{never JSON")
    assert batch(desk.store, 1000) == numbers[1:]
    assert seen(desk.store, numbers[0]).queue == "shunt"


def test_a_measured_claim_is_two_statements_however_much_it_takes(desk: Desk) -> None:
    sized(desk, *[10] * 30)
    statements: list[str] = []
    with desk.store.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        assert len(claim(connection, "in", 100, 60.0, octets=1000)) == 30
    assert len(statements) == 2


# Whether there is anything


def test_a_look_sees_what_a_claim_would_take(desk: Desk, filled: Filler) -> None:
    assert not due(desk.store)
    filled("ant", "ant-join")
    assert due(desk.store) and due(desk.store, "command") and not due(desk.store, "bounces")
    [held] = take(desk.store)
    assert not due(desk.store)
    do(desk.store, retry, held, 1000.0, "later")
    assert not due(desk.store)
    change(desk.store, held.id, available_at=0.0)
    assert due(desk.store)


def test_a_look_is_by_index_and_locks_nothing(sqlite_store: Store) -> None:
    plans: list[str] = []

    @event.listens_for(sqlite_store.engine, "before_cursor_execute")
    def explain(
        connection: object, cursor: object, statement: str, given: object, *_: object
    ) -> None:
        if statement.startswith("SELECT"):
            look = f"EXPLAIN QUERY PLAN {statement}"
            plans.extend(row[3] for row in cursor.execute(look, given))  # type: ignore[attr-defined]

    with sqlite_store.begin(), sqlite_store.read() as connection:
        assert not is_due(connection, "in")
    assert len(plans) == 1
    assert plans[0].startswith("SEARCH entry USING INDEX")


# Giving back


def test_what_is_put_off_waits_and_the_attempt_does_not_count(desk: Desk, filled: Filler) -> None:
    [number] = filled("ant")
    [held] = take(desk.store)
    do(desk.store, put_off, held, 500.0, "the rest is due later")
    entry = seen(desk.store, number)
    assert (entry.queue, entry.attempts, entry.lease_until) == ("in", 0, None)
    assert 400 < entry.available_at - time.time() <= 500
    assert entry.last_error == "the rest is due later"
    do(desk.store, mend, "in")
    assert take(desk.store) == []
    assert [each.id for each in take(desk.store, now=time.time() + 501)] == [number]


def test_nothing_is_put_off_for_ever(desk: Desk, filled: Filler) -> None:
    [number] = filled("ant")
    [held] = take(desk.store)
    do(desk.store, put_off, held, 1e12, None)
    assert seen(desk.store, number).available_at <= time.time() + LONGEST_WAIT


def test_all_that_a_dead_worker_had_is_freed_and_its_attempts_count(
    desk: Desk, filled: Filler
) -> None:
    one, two, other, join = filled("ant", "bee", "ant-owner", "ant-join")
    take(desk.store, 2, lease=1000.0)
    take(desk.store, name="command")
    with desk.store.begin() as connection:
        assert release(connection, "in") == 2
    assert [each.id for each in take(desk.store)] == [one, two, other]
    assert [seen(desk.store, number).attempts for number in (one, two, other)] == [2, 2, 1]
    assert seen(desk.store, join).lease_until is not None


def test_what_is_freed_after_the_clock_was_set_back_is_due(desk: Desk, filled: Filler) -> None:
    [number] = filled("ant")
    take(desk.store, now=time.time() + 1000)
    change(desk.store, number, available_at=time.time() + 1000)
    do(desk.store, release, "in")
    assert due(desk.store)


# Holding on


def test_a_lease_is_renewed_from_now_on(desk: Desk, filled: Filler) -> None:
    numbers = filled("ant", "bee", "ant-owner")
    claims = [*take(desk.store, 2, lease=5.0), *take(desk.store, 1, lease=5.0)]
    with desk.store.begin() as connection:
        kept = renew(connection, claims, 1000.0)
    assert sorted(each.id for each in kept) == numbers
    for number in numbers:
        until = seen(desk.store, number).lease_until
        assert until is not None and 900 < until - time.time() <= 1000


def test_no_lease_is_renewed_for_ever(desk: Desk, filled: Filler) -> None:
    [number] = filled("ant")
    claims = take(desk.store)
    do(desk.store, renew, claims, 1e12)
    until = seen(desk.store, number).lease_until
    assert until is not None and until <= time.time() + LONGEST_LEASE


def test_who_renews_is_told_what_is_still_theirs(desk: Desk, filled: Filler) -> None:
    numbers = filled("ant", "bee", "ant-owner", "bee-owner")
    claims = take(desk.store)
    do(desk.store, finish, [claims[0]])
    change(desk.store, numbers[1], lease="another's", lease_until=7.0)
    change(desk.store, numbers[2], lease=None, lease_until=None)
    with desk.store.begin() as connection:
        assert renew(connection, claims, 1000.0) == [claims[3]]
        assert renew(connection, [], 1000.0) == []
    assert seen(desk.store, numbers[1]).lease_until == 7.0
    assert seen(desk.store, numbers[2]).lease_until is None


@pytest.mark.parametrize("end", [put_off, retry, give_back, shunt])
def test_who_lost_the_lease_ends_nothing(desk: Desk, filled: Filler, end: object) -> None:
    [number] = filled("ant")
    [held] = take(desk.store)
    change(desk.store, number, lease="another's")
    before = everything(desk.store)
    given: tuple[object, ...] = {put_off: (5.0, "x"), retry: (5.0, "x"), shunt: ("x",)}.get(end, ())  # type: ignore[call-overload]
    with pytest.raises(Lost):
        do(desk.store, end, held, *given)  # type: ignore[arg-type]
    assert everything(desk.store) == before


@pytest.mark.parametrize("end", ["retry", "shunt"])
def test_a_reason_that_is_no_text_is_kept_as_far_as_it_goes(
    desk: Desk, filled: Filler, end: str
) -> None:
    [number] = filled("ant")
    [held] = take(desk.store)
    reason = "quoted: \0 \udcff ü"
    if end == "retry":
        do(desk.store, retry, held, 5.0, reason)
    else:
        do(desk.store, shunt, held, reason)
    assert seen(desk.store, number).last_error == "quoted: \\0 \\udcff ü"


def test_claims_of_the_queue_out_are_like_any_other(desk: Desk, filled: Filler) -> None:
    [number] = filled("ant")
    change(desk.store, number, queue="out")
    with desk.store.begin() as connection:
        [held] = queue.claim(connection, "out", 20, 120.0, octets=67_108_864)
    assert isinstance(held, Claim) and held.id == number
