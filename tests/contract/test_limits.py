"""Limits, on both databases: what is taken, what leaks, and several who take at once."""

from collections.abc import Callable, Iterator
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, event, select, text

from postroom.lists.limits import Limit, purge_limits, take
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.threads import at_once, overlap

NOW = 1_767_225_600.0
HOUR = 3600.0
LIST, SITE = Limit("list", "ants.example.com", 3, HOUR), Limit("site", "", 5, HOUR)


def taken(store: Store, *limits: Limit, now: float = NOW) -> Limit | None:
    """Take in a transaction."""
    with store.begin() as connection:
        return take(connection, limits, now)


def levels(store: Store) -> dict[tuple[str, str], float]:
    """What is in the buckets."""
    with store.read() as connection:
        columns = (schema.tally.c.kind, schema.tally.c.name, schema.tally.c.level)
        return {(kind, name): level for kind, name, level in connection.execute(select(*columns))}


def test_so_many_can_be_taken_and_no_more(store: Store) -> None:
    assert [taken(store, LIST) for _ in range(5)] == [None, None, None, LIST, LIST]
    assert levels(store) == {LIST[:2]: 3.0}


def test_several_are_taken_together_or_none_of_them(store: Store) -> None:
    with store.begin() as connection:
        assert take(connection, [LIST], NOW, 2) is None
        assert take(connection, [LIST], NOW, 2) is LIST
        assert take(connection, [LIST], NOW, 1) is None
        assert take(connection, [SITE], NOW, 6) is SITE
    assert levels(store) == {LIST[:2]: 3.0}


def test_what_was_taken_leaks_away_one_after_the_other(store: Store) -> None:
    for _ in range(3):
        taken(store, LIST)
    assert taken(store, LIST, now=NOW + HOUR / 3 - 1) is LIST
    assert taken(store, LIST, now=NOW + HOUR / 3 + 1) is None
    assert taken(store, LIST, now=NOW + HOUR / 3 + 2) is LIST
    assert [taken(store, LIST, now=NOW + 9 * HOUR) for _ in range(4)] == [None, None, None, LIST]


def test_other_names_and_kinds_are_other_buckets(store: Store) -> None:
    for _ in range(4):
        taken(store, LIST)
    assert taken(store, LIST._replace(name="bees.example.com")) is None
    assert taken(store, LIST._replace(kind="source")) is None


def test_of_several_limits_all_are_taken_from_or_none(store: Store) -> None:
    address = Limit("address", "anne@example.org", 1, HOUR)
    assert taken(store, SITE, LIST, address) is None
    before = levels(store)
    assert before == {LIST[:2]: 1.0, SITE[:2]: 1.0, address[:2]: 1.0}
    assert taken(store, SITE, LIST, address) == address
    assert levels(store) == before
    assert taken(store, LIST, SITE._replace(most=1)) == SITE._replace(most=1)
    assert levels(store) == before


def test_the_first_that_is_used_up_is_told(store: Store) -> None:
    none = [each._replace(most=0) for each in (SITE, LIST)]
    assert taken(store, *none) == none[1]  # "list" comes before "site"


def test_nothing_is_limited_by_no_limit(store: Store) -> None:
    assert taken(store) is None


@pytest.mark.parametrize("most", [0, 0.5, -1])
def test_of_less_than_one_nothing_can_be_taken(store: Store, most: float) -> None:
    assert taken(store, LIST._replace(most=most)) == LIST._replace(most=most)
    assert levels(store) == {}


def test_what_was_done_before_is_not_undone_by_a_limit(store: Store) -> None:
    with store.begin() as connection:
        assert take(connection, [LIST], NOW) is None
        assert take(connection, [LIST._replace(most=1)], NOW) is not None
        assert take(connection, [SITE], NOW) is None
    assert levels(store) == {LIST[:2]: 1.0, SITE[:2]: 1.0}


def test_a_limit_that_was_lowered_holds_at_once(store: Store) -> None:
    for _ in range(3):
        taken(store, LIST)
    lower = LIST._replace(most=2)
    assert taken(store, lower) == lower
    assert taken(store, lower, now=NOW + HOUR) is None
    assert taken(store, LIST._replace(most=4)) is None


# Clocks


def test_a_clock_that_was_set_back_a_little_makes_nothing_leak(store: Store) -> None:
    for _ in range(3):
        taken(store, LIST)
    for back in (1.0, 60.0, HOUR):
        assert taken(store, LIST, now=NOW - back) is LIST
    assert taken(store, LIST, now=NOW + HOUR / 3 + 1) is None


def test_a_bucket_does_not_leak_twice_for_those_who_come_with_an_earlier_time(
    store: Store,
) -> None:
    long = LIST._replace(most=4)
    for now in (NOW, NOW + 100, NOW, NOW + 100):
        assert taken(store, long, now=now) is None
    assert levels(store)[LIST[:2]] == pytest.approx(4 - 4 * 100 / HOUR)


def test_a_clock_that_was_set_back_by_years_blocks_nobody(store: Store) -> None:
    for _ in range(3):
        taken(store, LIST, now=NOW + 1e9)
    assert [taken(store, LIST) for _ in range(4)] == [None, None, None, LIST]
    assert taken(store, LIST, now=NOW + HOUR / 3 + 1) is None


def test_a_clock_that_goes_ahead_forgives_at_once(store: Store) -> None:
    for _ in range(3):
        taken(store, LIST)
    assert taken(store, LIST, now=NOW + 1e9) is None
    assert levels(store) == {LIST[:2]: 1.0}


TIMES = st.lists(st.integers(0, 20_000), max_size=40)


@pytest.fixture
def begun(store: Store) -> Iterator[Connection]:
    """A transaction that comes to nothing."""
    with store.engine.connect() as connection, connection.begin():
        yield connection


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.integers(1, 5), st.integers(1, 5000), TIMES)
@example(1, 60, [0, 59, 60, 61, 120])
def test_a_bucket_is_what_a_bucket_is(
    begun: Connection, most: int, every: int, times: list[int]
) -> None:
    """Compared with one whose sums are exact."""
    limit = Limit("property", "x", most, every)
    level, at = Fraction(0), Fraction(0)
    with begun.begin_nested() as attempt:
        for now in sorted(times):
            level = max(Fraction(0), level - Fraction(now - at) * most / every)
            at = Fraction(now)
            if abs(level + 1 - most) < Fraction(1, 1_000_000):
                level = Fraction(most - 1)  # where rounding decides either will do
                settle(begun, limit, now)
            fits = level + 1 <= most
            assert (take(begun, [limit], float(now)) is None) == fits
            level += fits
        attempt.rollback()


def settle(connection: Connection, limit: Limit, now: float) -> None:
    """Make the level a whole number, the last one that fits."""
    row = {"level": limit.most - 1, "at": now}
    connection.execute(schema.tally.update().values(row))


# Several at once


def test_those_who_take_at_once_never_take_too_much(store: Store) -> None:
    other = LIST._replace(name="bees.example.com")

    def work(*limits: Limit) -> Callable[[], int]:
        return lambda: sum(taken(store, *limits) is None for _ in range(5))

    # In every order, so that two that locked them as they come would wait in a ring.
    works = [work(LIST, SITE, other), work(other, SITE, LIST), work(SITE, other, LIST)]
    assert sum(at_once(works)) == 3
    assert levels(store) == {LIST[:2]: 3.0, SITE[:2]: 3.0, other[:2]: 3.0}


def test_the_last_one_is_taken_once(store: Store) -> None:
    one = LIST._replace(most=1)

    def first(connection: Connection) -> None:
        assert take(connection, [one], NOW) is None

    def second(connection: Connection) -> Limit | None:
        return take(connection, [one], NOW)

    assert overlap(store, first, second).result() == one


def test_what_was_not_committed_was_not_taken(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as connection:
        take(connection, [LIST], NOW)
        raise ZeroDivisionError
    assert levels(store) == {}


# Forgetting


def test_buckets_are_forgotten_when_they_are_empty(store: Store) -> None:
    for _ in range(3):
        taken(store, LIST)
    taken(store, SITE)

    def purged(now: float, limit: int = 10) -> int:
        with store.begin() as connection:
            return purge_limits(connection, now, limit)

    assert purged(NOW + HOUR / 5 - 1) == 0
    assert purged(NOW + HOUR / 5 + 1) == 1
    assert levels(store) == {LIST[:2]: 3.0}
    assert purged(NOW + HOUR - 1) == 0
    taken(store, SITE)
    assert [purged(NOW + HOUR + 1, 1) for _ in range(3)] == [1, 1, 0]
    assert levels(store) == {}


def test_a_bucket_that_leaked_in_between_is_not_forgotten_too_early(store: Store) -> None:
    for now in (NOW, NOW + HOUR / 2):
        taken(store, LIST, now=now)
    with store.begin() as connection:
        assert purge_limits(connection, NOW + HOUR / 2 + HOUR / 3 - 1) == 0
        assert purge_limits(connection, NOW + HOUR / 2 + HOUR / 3 + 1) == 1


def test_to_forget_waits_for_nobody_and_so_nobody_waits_for_it_in_a_ring(store: Store) -> None:
    taken(store, LIST)
    taken(store, SITE)
    later = NOW + 9 * HOUR
    if store.is_sqlite:
        return  # there is one writer
    with store.begin() as busy:
        assert take(busy, [LIST], later) is None
        with store.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            assert purge_limits(connection, later) == 1
    assert levels(store) == {LIST[:2]: 1.0}


def test_who_takes_from_what_is_being_forgotten_starts_anew(store: Store) -> None:
    taken(store, LIST)
    later = NOW + 9 * HOUR

    def first(connection: Connection) -> None:
        assert purge_limits(connection, later) == 1

    def second(connection: Connection) -> Limit | None:
        return take(connection, [LIST], later)

    assert overlap(store, first, second).result() is None
    assert levels(store) == {LIST[:2]: 1.0}


def test_each_limit_is_one_statement(store: Store) -> None:
    statements: list[str] = []
    taken(store, LIST, SITE)
    with store.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        take(connection, [LIST, SITE], NOW)
    assert [each.split()[0] for each in statements] == ["SAVEPOINT", "INSERT", "INSERT", "RELEASE"]
