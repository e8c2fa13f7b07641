"""Ids: rising, of 63 bits, and shown in hexadecimal."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.spool.ids import IdMaker, read, show

MILLISECOND = 1_000_000  # nanoseconds


def test_ids_rise_however_fast_they_are_made() -> None:
    make = IdMaker()
    made = [make() for _ in range(20_000)]
    assert made == sorted(set(made))
    assert all(0 < number < 1 << 63 for number in made)


def test_ids_rise_by_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    one, other = IdMaker(), IdMaker()
    earlier = [one() for _ in range(100)]
    now[0] += MILLISECOND
    assert max(earlier) < other()


def test_ids_rise_even_if_the_clock_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.time_ns()]
    monkeypatch.setattr(time, "time_ns", lambda: now[0])
    make = IdMaker()
    made = []
    for step in (0, MILLISECOND, -86_400_000 * MILLISECOND, 0, 5 * MILLISECOND):
        now[0] += step
        made += [make() for _ in range(5000)]  # more than fit in one millisecond
    assert made == sorted(set(made))


def test_threads_may_share_a_maker() -> None:
    make = IdMaker()
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: [make() for _ in range(2000)], range(4)))
    assert all(each == sorted(each) for each in made)
    assert len({number for each in made for number in each}) == 8000


def test_ids_reach_to_2089(monkeypatch: pytest.MonkeyPatch) -> None:
    year_2089 = 3_755_000_000 * 1000 * MILLISECOND
    monkeypatch.setattr(time, "time_ns", lambda: year_2089)
    assert IdMaker()() < 1 << 63


@given(st.integers(0, (1 << 63) - 1))
def test_what_is_shown_is_read_back(number: int) -> None:
    assert len(show(number)) == 16
    assert read(show(number)) == number
    assert read(show(number).upper()) == number


@pytest.mark.parametrize("text", ["", "xyz", "-1", "8000000000000000", "1" * 40, "0.5"])
def test_what_is_no_id_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        read(text)
