"""Histograms: what is counted where, and what is read out of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.watch.figures import Buckets, Histogram

values = st.lists(st.floats(0, 100), max_size=50)


def filled(*found: float, bounds: tuple[float, ...] = (1, 2, 5, 10)) -> Histogram:
    made = Buckets(bounds)
    for value in found:
        made.add(value)
    return made.histogram()


def test_a_value_belongs_to_the_first_bound_that_it_does_not_exceed() -> None:
    assert filled(0.5, 1.0, 1.5, 5.0, 10.0, 11.0).counts == (2, 1, 1, 1, 1)
    assert filled(0.5, 11.0).total == 11.5


@given(values)
def test_no_value_is_lost(found: list[float]) -> None:
    histogram = filled(*found)
    assert sum(histogram.counts) == len(found)
    assert histogram.total == pytest.approx(sum(found))


@given(values, values)
def test_what_came_since_is_what_was_added(first: list[float], second: list[float]) -> None:
    since = filled(*first, *second).since(filled(*first))
    assert since.counts == filled(*second).counts
    assert since.total == pytest.approx(sum(second))


def test_after_a_new_start_all_is_new() -> None:
    now, earlier = filled(1.0), filled(1.0, 1.0, 7.0)
    assert now.since(earlier) == now
    assert now.since(filled(1.0, bounds=(1, 3))) == now


@pytest.mark.parametrize(
    ("part", "expected"),
    [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.5), (1.0, 5.0)],
)
def test_a_quantile_lies_evenly_between_bounds(part: float, expected: float) -> None:
    assert filled(0.1, 0.9, 3.0, 4.0).quantile(part) == expected


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert filled(50.0, 60.0).quantile(0.5) == 10


def test_nothing_has_no_quantile() -> None:
    assert filled().quantile(0.5) is None
