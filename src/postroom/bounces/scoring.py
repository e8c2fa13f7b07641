"""Scoring: what bounces, time and people do to a member. Pure.

For: the bounce runner, and upkeep. Guarantees: a member's score grows at most once a day, by at
most one; nobody's delivery is turned off unless a probe with a token of its own came back, so that
nobody can do that to somebody else; whatever the numbers, a member who hears nothing bad for a
while is as good as new. The table `MOVES` is all there is; the diagram in the documentation is
drawn from it.
"""

from enum import StrEnum
from typing import Final, NamedTuple

from postroom.lists.settings import Bounces

DAY: Final = 86_400.0


class State(StrEnum):
    """Where a member is."""

    FINE = "fine"  # nothing is known against them: there is no row
    COUNTING = "counting"  # some mail came back
    PROBING = "probing"  # a probe is out, to see whether the address works
    OFF = "off"  # delivery is turned off, and they are warned
    GONE = "gone"  # taken off the list


class Event(StrEnum):
    """What moves a member."""

    BOUNCE = "bounce"  # mail came back
    THRESHOLD = "threshold"  # it did so too often
    QUIET = "quiet"  # nothing came back for a while
    PROBE_BOUNCED = "probe bounced"
    PROBE_PASSED = "probe passed"  # its time is over, and it did not come back
    WARN = "warn"  # it is time for the next warning
    LAST = "last"  # nobody answered the last one
    BACK = "back"  # the member, or an owner, turned delivery on; or the row was reset


class Move(NamedTuple):
    """One move that there is."""

    before: State
    event: Event
    after: State


MOVES: Final = (
    Move(State.FINE, Event.BOUNCE, State.COUNTING),
    Move(State.COUNTING, Event.BOUNCE, State.COUNTING),
    Move(State.COUNTING, Event.THRESHOLD, State.PROBING),
    Move(State.COUNTING, Event.QUIET, State.FINE),
    Move(State.COUNTING, Event.BACK, State.FINE),
    Move(State.PROBING, Event.BOUNCE, State.PROBING),
    Move(State.PROBING, Event.PROBE_BOUNCED, State.OFF),
    Move(State.PROBING, Event.PROBE_PASSED, State.FINE),
    Move(State.PROBING, Event.BACK, State.FINE),
    Move(State.OFF, Event.BOUNCE, State.OFF),
    Move(State.OFF, Event.WARN, State.OFF),
    Move(State.OFF, Event.LAST, State.GONE),
    Move(State.OFF, Event.BACK, State.FINE),
)
_AFTER: Final = {(move.before, move.event): move.after for move in MOVES}


class Standing(NamedTuple):
    """What is known of a member. `counted_on` is the last day that counted (days since 1970, UTC);
    times are seconds since the epoch; `next_at` is when time moves it on; `warned` how often they
    were told that delivery is off."""

    state: State
    score: float
    counted_on: int
    bounced_at: float
    status: str
    reason: str
    since: float
    warned: int
    next_at: float


def after(state: State, event: Event) -> State | None:
    """What a member becomes; None if this cannot happen to them."""
    return _AFTER.get((state, event))


def moved(before: Standing, event: Event, now: float, next_at: float) -> Standing:
    """A member to whom this happened; raises KeyError if the table has no such move."""
    state = _AFTER[before.state, event]
    since = before.since if state is before.state else now
    return before._replace(state=state, since=since, next_at=next_at)


def weight(settings: Bounces, final: bool, proved: bool) -> float:
    """What a bounce counts."""
    return (1.0 if final else settings.temporary) * (1.0 if proved else settings.unsigned)


def bounced(
    before: Standing | None,
    settings: Bounces,
    counts: float,
    status: str,
    reason: str,
    now: float,
) -> Standing:
    """A member of whom mail came back, which `counts` so much. The score grows once a day; who is
    at the threshold is due at once (`next_at`)."""
    day = int(now // DAY)
    if before is None:
        first = Standing(State.COUNTING, 0.0, -1, now, status, reason, now, 0, now)
        return _counted(first, settings, counts, day, now)
    known = before._replace(bounced_at=now, status=status or before.status, reason=reason)
    if before.state is State.OFF:
        return before._replace(bounced_at=now)  # why is what the probe said
    if before.state is not State.COUNTING:
        return known
    if now - before.bounced_at > settings.forget_after * DAY:
        known = known._replace(score=0.0, counted_on=-1, since=now)
    return _counted(known, settings, counts, day, now)


def _counted(
    standing: Standing, settings: Bounces, counts: float, day: int, now: float
) -> Standing:
    score = standing.score
    if day > standing.counted_on or day < standing.counted_on - 1:  # a clock was set back
        score += counts
        standing = standing._replace(counted_on=day if counts else standing.counted_on)
    due = now if score >= settings.threshold else now + settings.forget_after * DAY
    return standing._replace(score=score, next_at=due)
