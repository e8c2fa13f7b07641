"""What is well, what is not, and what is said of it."""

from typing import Any

import pytest

from postroom.watch.figures import Depth, Memory
from postroom.watch.health import DEGRADED, FAILING, OK, judge
from tests.watch.statuses import NOW, status, tally

LARGEST = 26_214_400
RESERVE = 67_108_864
LEAST = RESERVE + 2 * LARGEST  # that leaves room for the largest message


def waiting(queue: str, seconds: float | None) -> dict[str, Any]:
    """An entry that came long ago is due for so long."""
    due = None if seconds is None else NOW - seconds
    return {"tally": tally(queues={queue: Depth(1, NOW - 1e6, due)})}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"ready": False, "tally": None}, "not found fit yet"),
        ({"connected": False, "tally": None}, "the intake process is gone"),
        ({"tally": None, "heard_ago": 7.0}, "did not answer within 2 s, silent for 7 s"),
        ({"tally": tally(failed="database is locked")}, "failed: database is locked"),
        ({"free": RESERVE - 1}, "the disk is full"),
    ],
)
def test_failing_is_what_keeps_mail_from_being_stored(changes: Any, reason: str) -> None:
    found = judge(status(**changes))
    assert found.status == FAILING
    assert len(found.reasons) == 1 and reason in found.reasons[0]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"free": LEAST - 1}, "the disk is nearly full"),
        ({"connections": {"ready": 800, "data": 100}}, "900 of 1000 connections"),
        ({"memory": Memory(100, 0, 3)}, "3 messages wait for memory"),
        ({"unbound": ("maps.listen",)}, "nobody listens on maps.listen"),
        (waiting("in", 301.0), "mail in queue in is due for 5 minutes and no runner takes it"),
        (waiting("command", 301.0), "`postroom queue ls command`"),
        (waiting("bounces", 301.0), "`postroom queue ls bounces`"),
        (waiting("out", 7200.0), "`postroom queue ls out`"),
    ],
)
def test_degraded_is_what_puts_some_of_it_off(changes: Any, reason: str) -> None:
    found = judge(status(**changes))
    assert found.status == DEGRADED
    assert len(found.reasons) == 1 and reason in found.reasons[0]


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"free": None},  # PostgreSQL: there is no telling
        {"free": LEAST},
        {"connections": {"ready": 899}},
        {"memory": Memory(100, 0, 0)},
        {"heard_ago": 1000.0},  # it answered now
        {"tally": tally(queues=None)},
        {"tally": tally(queues={})},
        waiting("in", 300.0),
        waiting("out", None),
        waiting("in", -1000.0),  # the clock was set back
        waiting("archive", 1e6),  # nobody serves it yet
        waiting("shunt", 1e6),
    ],
)
def test_what_is_well_needs_no_reason(changes: Any) -> None:
    assert judge(status(**changes)) == (OK, [])


def test_every_reason_is_told_the_worst_first() -> None:
    ill = status(tally=tally(failed="disk full"), free=0, unbound=("maps.listen", "metrics.listen"))
    found = judge(ill)
    assert found.status == FAILING
    assert [reason.split(":")[0] for reason in found.reasons] == [
        "the last commit failed",
        "nobody listens on maps.listen",
        "nobody listens on metrics.listen",
    ]
