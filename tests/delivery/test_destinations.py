"""Destinations: how much may go to a domain that asks for patience."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.delivery.destinations import Destinations, Limit, domain_of

SLOW = "slow.example"


def test_a_domain_without_limits_is_not_limited() -> None:
    assert not Destinations({})
    places = Destinations({"Slow.Example": Limit(1)})
    assert places
    assert places.limited(SLOW)
    assert not places.limited("example.org")
    assert not places.limited("sub.slow.example")


@pytest.mark.parametrize("email", ["ann@slow.example", "ann@SLOW.Example", '"a@b"@slow.example'])
def test_the_domain_of_an_address_is_folded(email: str) -> None:
    assert domain_of(email) == SLOW


@pytest.mark.parametrize("written", ["B\u00fccher.example", "xn--bcher-kva.example"])
@pytest.mark.parametrize("email", ["ann@b\u00fccher.example", "ann@XN--bcher-kva.example"])
def test_a_domain_is_the_same_in_unicode_and_in_a_labels(written: str, email: str) -> None:
    assert Destinations({written: Limit(1)}).limited(domain_of(email))


def test_no_more_transactions_are_open_than_allowed() -> None:
    places = Destinations({SLOW: Limit(connections=2)})
    for _ in range(2):
        assert places.room(SLOW, 0.0) > 1000
        places.begin(SLOW, 5)
    assert places.room(SLOW, 1e9) == 0
    places.end(SLOW)
    assert places.room(SLOW, 1e9) > 1000


def test_no_more_recipients_go_in_a_minute_than_allowed() -> None:
    places = Destinations({SLOW: Limit(per_minute=60)})
    assert places.room(SLOW, 1000.0) == 60
    places.begin(SLOW, 60)
    places.end(SLOW)
    assert places.room(SLOW, 1000.0) == 0
    assert places.room(SLOW, 1003.0) == 0, "not one by one"
    assert places.room(SLOW, 1006.0) == 6
    assert places.room(SLOW, 1030.0) == 30
    assert places.room(SLOW, 9e9) == 60


@pytest.mark.parametrize("per_minute", [1, 2, 5, 9, 11, 100, 6000])
def test_who_waits_long_enough_may_go_whatever_the_limit(per_minute: int) -> None:
    places = Destinations({SLOW: Limit(per_minute=per_minute)})
    places.begin(SLOW, places.room(SLOW, 0.0) or per_minute)
    assert places.room(SLOW, 60.0) == per_minute


def test_both_limits_hold_together() -> None:
    places = Destinations({SLOW: Limit(connections=1, per_minute=10)})
    assert places.room(SLOW, 60.0) == 10
    places.begin(SLOW, 4)
    assert places.room(SLOW, 60.0) == 0
    places.end(SLOW)
    assert places.room(SLOW, 60.0) == 6


def test_one_domain_has_nothing_to_do_with_another() -> None:
    places = Destinations({SLOW: Limit(1), "other.example": Limit(1)})
    places.begin(SLOW, 1)
    assert places.room(SLOW, 0.0) == 0
    assert places.room("other.example", 0.0) > 0


@given(
    st.integers(1, 300),
    st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(1, 500)), max_size=60),
)
def test_whatever_the_pace_no_minute_has_more_than_twice_the_limit_and_no_hour_more_than_its_share(
    per_minute: int, asked: list[tuple[float, int]]
) -> None:
    places = Destinations({SLOW: Limit(per_minute=per_minute)})
    now, gone = 0.0, 0
    for wait, wanted in asked:
        now += wait
        many = min(wanted, places.room(SLOW, now))
        if many:
            places.begin(SLOW, many)
            places.end(SLOW)
            gone += many
        assert gone <= per_minute + now * per_minute / 60.0 + 1e-6
