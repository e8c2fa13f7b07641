"""Scoring: what bounces and time do to a member, whatever comes and in which order."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.bounces.scoring import (
    DAY,
    MOVES,
    Event,
    Standing,
    State,
    after,
    bounced,
    weight,
)
from postroom.lists.settings import Bounces

OURS = Bounces()
TODAY = 20_454
NOON = (TODAY + 0.5) * DAY
WEIGHTS = st.floats(0, 1)
TIMES = st.floats(0, 4e9)
STATES = st.sampled_from((State.COUNTING, State.PROBING, State.OFF))
STANDINGS = st.builds(
    Standing,
    state=STATES,
    score=st.floats(0, 1000),
    counted_on=st.integers(-1, 50_000),
    bounced_at=TIMES,
    status=st.sampled_from(("", "5.1.1", "4.2.2")),
    reason=st.just("before"),
    since=TIMES,
    warned=st.integers(0, 100),
    next_at=TIMES,
)
SETTINGS = st.builds(
    Bounces,
    threshold=st.floats(1, 1000),
    forget_after=st.floats(0.01, 365),
    temporary=WEIGHTS,
    unsigned=WEIGHTS,
)


def after_these(*comes: tuple[float, float], settings: Bounces = OURS) -> Standing:
    """What is known after bounces at these days from noon today on, which count so much."""
    known = None
    for days, counts in comes:
        known = bounced(known, settings, counts, "5.1.1", "no such user", NOON + days * DAY)
    assert known is not None
    return known


# The table


def test_a_move_is_there_once_and_is_what_is_obeyed() -> None:
    assert len({(before, event) for before, event, _ in MOVES}) == len(MOVES)
    there = {(before, event): to for before, event, to in MOVES}
    for state in State:
        for event in Event:
            assert after(state, event) is there.get((state, event))


def test_only_a_probe_that_came_back_turns_delivery_off() -> None:
    into = [(move.before, move.event) for move in MOVES if move.after is State.OFF]
    others = [(before, event) for before, event in into if before is not State.OFF]
    assert others == [(State.PROBING, Event.PROBE_BOUNCED)]


def test_only_who_is_off_and_answered_no_warning_is_taken_off_the_list() -> None:
    into = [(move.before, move.event) for move in MOVES if move.after is State.GONE]
    assert into == [(State.OFF, Event.LAST)]


def test_only_whose_score_is_at_the_threshold_is_sent_a_probe() -> None:
    into = [(each.before, each.event) for each in MOVES if each.after is State.PROBING]
    assert into == [(State.COUNTING, Event.THRESHOLD), (State.PROBING, Event.BOUNCE)]


@pytest.mark.parametrize("state", [State.COUNTING, State.PROBING, State.OFF])
def test_every_state_has_a_way_back_by_itself_or_by_people(state: State) -> None:
    assert after(state, Event.BACK) is State.FINE


@pytest.mark.parametrize(
    ("state", "event"), [(State.COUNTING, Event.QUIET), (State.PROBING, Event.PROBE_PASSED)]
)
def test_time_alone_leads_back_from_where_posts_still_come(state: State, event: Event) -> None:
    assert after(state, event) is State.FINE


def test_every_state_can_be_come_to_and_who_is_gone_stays_so() -> None:
    reached = {State.FINE}
    for _ in State:
        reached |= {move.after for move in MOVES if move.before in reached}
    assert reached == set(State)
    assert all(after(State.GONE, event) is None for event in Event)


@pytest.mark.parametrize("state", [state for state in State if state is not State.GONE])
def test_a_bounce_is_possible_everywhere_and_never_turns_anything_off(state: State) -> None:
    to = after(state, Event.BOUNCE)
    assert to is (State.COUNTING if state is State.FINE else state)


# What a bounce counts


@pytest.mark.parametrize(
    ("final", "proved", "counts"),
    [(True, True, 1.0), (False, True, 0.5), (True, False, 0.25), (False, False, 0.125)],
)
def test_what_may_pass_or_is_not_proved_counts_less(
    final: bool, proved: bool, counts: float
) -> None:
    assert weight(Bounces(temporary=0.5, unsigned=0.25), final, proved) == counts


@given(SETTINGS, st.booleans(), st.booleans())
def test_no_bounce_counts_more_than_one(settings: Bounces, final: bool, proved: bool) -> None:
    assert 0 <= weight(settings, final, proved) <= 1


# Counting


def test_the_first_bounce_counts_and_is_forgotten_after_a_while() -> None:
    assert after_these((0, 1.0)) == Standing(
        State.COUNTING, 1.0, TODAY, NOON, "5.1.1", "no such user", NOON, 0, NOON + 7 * DAY
    )


def test_a_second_bounce_on_one_day_does_not_count_but_is_remembered() -> None:
    known = after_these((0, 0.5), (0.2, 1.0))
    assert (known.score, known.counted_on) == (0.5, TODAY)
    assert known.bounced_at == NOON + 0.2 * DAY
    assert known.next_at == NOON + 7.2 * DAY
    assert known.since == NOON


def test_each_day_counts() -> None:
    assert after_these((0, 1.0), (1, 0.5), (2, 1.0), (5, 1.0)).score == 3.5


def test_who_reaches_the_threshold_is_due_at_once_and_still_counts() -> None:
    below = after_these((0, 1.0), (1, 0.5), settings=Bounces(threshold=2.0))
    assert below.next_at == below.bounced_at + 7 * DAY
    at = after_these((0, 1.0), (1, 1.0), settings=Bounces(threshold=2.0))
    assert (at.state, at.next_at) == (State.COUNTING, at.bounced_at)
    # Not moved on yet: one more the same day leaves them due.
    again = after_these((0, 1.0), (1, 1.0), (1.1, 1.0), settings=Bounces(threshold=2.0))
    assert (again.score, again.next_at) == (2.0, again.bounced_at)


def test_the_first_bounce_may_be_enough() -> None:
    known = after_these((0, 1.0), settings=Bounces(threshold=1.0))
    assert known.next_at == known.bounced_at


def test_who_hears_nothing_bad_for_a_while_begins_anew() -> None:
    assert after_these((0, 1.0), (1, 1.0), (8, 1.0)).score == 3
    known = after_these((0, 1.0), (1, 1.0), (8.1, 1.0))
    assert (known.score, known.counted_on) == (1.0, TODAY + 8)
    assert known.since == NOON + 8.1 * DAY


def test_what_counts_nothing_leaves_the_day_to_what_does() -> None:
    known = after_these((0, 0.0))
    assert (known.score, known.counted_on) == (0.0, -1)
    assert after_these((0, 0.0), (0.1, 1.0)).score == 1.0


def test_who_is_being_probed_has_new_facts_and_the_same_times() -> None:
    before = after_these((0, 1.0))._replace(state=State.PROBING, since=NOON - 5, next_at=NOON + 9)
    now = NOON + 30 * DAY
    assert bounced(before, OURS, 1.0, "5.7.1", "spam", now) == before._replace(
        bounced_at=now, status="5.7.1", reason="spam"
    )


def test_of_who_is_off_the_reason_is_what_the_probe_said() -> None:
    before = after_these((0, 1.0))._replace(state=State.OFF, warned=2, since=NOON - 5)
    now = NOON + 30 * DAY
    assert bounced(before, OURS, 1.0, "5.7.1", "spam", now) == before._replace(bounced_at=now)


def test_a_bounce_without_a_status_keeps_the_one_before() -> None:
    assert bounced(after_these((0, 1.0)), OURS, 1.0, "", "gone", NOON + 1).status == "5.1.1"
    assert bounced(None, OURS, 1.0, "", "gone", NOON).status == ""


# Clocks


def test_a_clock_that_is_set_back_over_midnight_counts_no_day_twice() -> None:
    known = after_these((0, 1.0), (1, 1.0), (0.4, 1.0), (1.1, 1.0))
    assert known.score == 2.0


def test_a_clock_that_was_far_ahead_leaves_nobody_uncounted_or_known_for_ever() -> None:
    known = after_these((365, 1.0), (0, 1.0), (1, 1.0))
    assert (known.score, known.counted_on) == (3.0, TODAY + 1)
    assert known.next_at == NOON + 8 * DAY


def test_a_clock_that_jumps_ahead_forgets() -> None:
    assert after_these((0, 1.0), (365, 1.0)).score == 1.0


# Whatever comes

BOUNCES = st.lists(st.tuples(st.floats(0, 40), WEIGHTS), min_size=1, max_size=40)


@given(BOUNCES, SETTINGS)
def test_whatever_comes_the_score_grows_at_most_by_one_a_day(
    comes: list[tuple[float, float]], settings: Bounces
) -> None:
    days = {int(TODAY + 0.5 + each) for each, _ in comes}
    known = after_these(*sorted(comes), settings=settings)
    assert 0 <= known.score <= len(days)
    assert known.score <= sum(counts for _, counts in comes) + 1e-9


@given(BOUNCES, SETTINGS)
def test_however_the_clock_jumps_a_bounce_counts_at_most_what_it_counts(
    comes: list[tuple[float, float]], settings: Bounces
) -> None:
    known = None
    for days, counts in comes:
        before = known.score if known else 0.0
        known = bounced(known, settings, counts, "", "", NOON + days * DAY)
        assert known.score in (before, before + counts, counts)
        assert known.score <= before + 1


@given(st.none() | STANDINGS, SETTINGS, WEIGHTS, TIMES)
def test_whatever_is_known_a_bounce_moves_as_the_table_says(
    before: Standing | None, settings: Bounces, counts: float, now: float
) -> None:
    known = bounced(before, settings, counts, "5.1.1", "now", now)
    was = before.state if before else State.FINE
    assert known.state is after(was, Event.BOUNCE)
    assert known.bounced_at == now
    assert known.state is State.OFF or (known.status, known.reason) == ("5.1.1", "now")
    assert known.warned == (before.warned if before else 0)
    if known.state is State.COUNTING:
        # Never later: whoever hears nothing bad from now on is as good as new.
        at_threshold = known.score >= settings.threshold
        assert known.next_at == (now if at_threshold else now + settings.forget_after * DAY)
    else:
        assert before is not None
        assert known.score == before.score
        assert (known.since, known.next_at) == (before.since, before.next_at)


@given(STANDINGS, SETTINGS, WEIGHTS, WEIGHTS, TIMES, st.floats(0, DAY - 1))
def test_of_two_bounces_on_one_day_one_counts(
    before: Standing, settings: Bounces, first: float, second: float, now: float, later: float
) -> None:
    now = now // DAY * DAY
    one = bounced(before, settings, first, "", "", now)
    two = bounced(one, settings, second, "", "", now + later)
    if first > 0 and later <= settings.forget_after * DAY:
        assert two.score == one.score


@given(STANDINGS, SETTINGS, WEIGHTS, st.floats(1, 4e9))
def test_after_a_quiet_while_the_past_does_not_matter(
    before: Standing, settings: Bounces, counts: float, later: float
) -> None:
    before = before._replace(state=State.COUNTING, warned=0)  # as all who are counted
    now = before.bounced_at + settings.forget_after * DAY + later
    fresh = bounced(None, settings, counts, before.status, "now", now)
    assert bounced(before, settings, counts, "", "now", now) == fresh
