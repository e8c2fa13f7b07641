"""The policy: what every kind of answer means at every stage."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.base.settings import Delivery, Settings
from postroom.delivery.policy import (
    DAY,
    About,
    Bounce,
    Later,
    Limits,
    Sent,
    backoff,
    judge,
    limits_of,
)
from postroom.delivery.transaction import Fate, Stage, Verdict
from postroom.lmtp.codec import Answer, ReplyReader

LIMITS = Limits()
FATES = {"2": Fate.ACCEPTED, "4": Fate.DEFERRED, "5": Fate.REFUSED}


def verdict(stage: Stage, line: str, fate: Fate | None = None) -> Verdict:
    """What a transaction makes of this reply."""
    (answer,) = ReplyReader().feed(f"{line}\r\n".encode())
    return Verdict(fate or FATES[line[0]], stage, answer)


@pytest.mark.parametrize("age", [0.0, 100 * DAY])
def test_what_was_taken_is_sent_however_late(age: float) -> None:
    assert judge(verdict(Stage.END, "250 ok"), 3, age, LIMITS, 0.5) == Sent()


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("550 5.1.1 No such user", "recipient"),
        ("550 5.2.1 Disabled", "recipient"),
        ("552 5.2.2 Full", "recipient"),
        ("553 5.1.3 Bad address", "recipient"),
        ("501 5.1.3 Bad address", "recipient"),
        ("550 No such user here", "recipient"),
        ("501 Bad address", "recipient"),
        ("550 5.6.7 Needs SMTPUTF8", "recipient"),
    ],
)
def test_a_recipient_who_is_refused_bounces(line: str, about: About) -> None:
    found = judge(verdict(Stage.RCPT, line), 0, 0.0, LIMITS, 0.5)
    assert found == Bounce(line, about)


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        (Stage.MAIL, "552 5.3.4 Too large"),
        (Stage.MAIL, "552 Too large"),
        (Stage.DATA, "554 Transaction failed"),
        (Stage.END, "554 5.7.1 Spam"),
        (Stage.END, "554 5.4.6 Too many hops"),
        (Stage.END, "550 Rejected"),
        (Stage.END, "552 5.3.4 Too large"),
    ],
)
def test_a_message_that_is_refused_bounces_and_is_not_held_against_anybody(
    stage: Stage, line: str
) -> None:
    assert judge(verdict(stage, line), 0, 0.0, LIMITS, 0.5) == Bounce(line, "message")


@pytest.mark.parametrize(
    ("stage", "line"),
    [
        *((stage, "530 5.7.0 Must issue a STARTTLS command first") for stage in Stage),
        *((stage, "535 5.7.8 Authentication required") for stage in Stage),
        *((stage, "530 Authentication required") for stage in Stage),
        *((stage, "503 5.5.1 Bad sequence") for stage in Stage),
        *((stage, "555 5.5.4 Unsupported option") for stage in Stage),
        *((stage, "500 What?") for stage in Stage),
        (Stage.MAIL, "554 5.7.1 Relay access denied"),
        (Stage.MAIL, "550 5.1.8 Sender domain not found"),
        (Stage.MAIL, "550 Access denied"),
        (Stage.MAIL, "553 5.6.7 Not sent"),
        (Stage.RCPT, "554 5.7.1 <a@b.c>: Relay access denied"),
        (Stage.RCPT, "550 5.7.1 Relaying denied"),
        (Stage.RCPT, "550 relay not permitted"),
        (Stage.DATA, "554 5.7.1 Not you"),
    ],
)
def test_a_refusal_that_is_about_us_costs_no_member_anything(stage: Stage, line: str) -> None:
    """A mail server that does not know us any more must not wipe out a list."""
    found = judge(verdict(stage, line), 0, 0.0, LIMITS, 1.0)
    assert found == Later(300.0, True, "us")
    late = judge(verdict(stage, line), 40, 6 * DAY, LIMITS, 1.0)
    assert late == Bounce(f"Given up after 6.0 days: {line}", "us")


@pytest.mark.parametrize("stage", [Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT])
def test_d2_what_a_421_or_a_lost_connection_left_pending_is_tried_at_once_and_not_counted(
    stage: Stage,
) -> None:
    for line in "421 4.3.2 Bye", "421 4.4.2 Connection lost", "452 4.5.3 Too many recipients":
        found = judge(verdict(stage, line, Fate.PENDING), 7, 0.0, LIMITS, 0.5)
        assert isinstance(found, Later)
        assert (found.delay, found.counted) == (0.0, False)


def test_421_after_the_dot_is_tried_at_once_because_nothing_was_delivered() -> None:
    found = judge(verdict(Stage.END, "421 4.3.2 Bye", Fate.PENDING), 7, 0.0, LIMITS, 0.5)
    assert found == Later(0.0, False, "message")


def test_a_connection_lost_after_the_dot_counts_as_an_attempt() -> None:
    """The message may have been delivered: at once, each time, would be once too often."""
    lost = Verdict(Fate.PENDING, Stage.END, Answer(421, "4.4.2", "lost"))
    assert judge(lost, 2, 0.0, LIMITS, 1.0) == Later(1200.0, True, "message")


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("line", ["450 4.2.0 Greylisted", "451 Later", "452 4.2.2 Full"])
def test_d5_a_refusal_for_now_is_tried_later_and_later(stage: Stage, line: str) -> None:
    found = [judge(verdict(stage, line), attempts, 0.0, LIMITS, 1.0) for attempts in range(8)]
    delays = [each.delay for each in found if isinstance(each, Later) and each.counted]
    assert delays == [300, 600, 1200, 2400, 4800, 9600, 14400, 14400]


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize(
    ("line", "fate"), [("450 4.2.0 Greylisted", Fate.DEFERRED), ("421 4.3.2 Bye", Fate.PENDING)]
)
def test_d5_what_expires_bounces_with_the_last_answer_and_is_never_dropped(
    stage: Stage, line: str, fate: Fate
) -> None:
    tried = verdict(stage, line, fate)
    assert isinstance(judge(tried, 9, LIMITS.expire_after - 1, LIMITS, 0.5), Later)
    found = judge(tried, 9, LIMITS.expire_after, LIMITS, 0.5)
    assert isinstance(found, Bounce)
    assert found.reason == f"Given up after 5.0 days: {line}"
    assert found.about == (
        "recipient" if (stage, fate) == (Stage.RCPT, Fate.DEFERRED) else "message"
    )


@given(
    st.integers(0, 10_000),
    st.floats(0, 1, exclude_max=True),
    st.floats(1, 1e4),
    st.floats(1, 1e5),
)
def test_d5_a_wait_is_spread_and_never_longer_than_the_longest(
    attempts: int, chance: float, first: float, more: float
) -> None:
    limits = Limits(first, first + more)
    wait = backoff(attempts, limits, chance)
    assert first / 2 <= wait <= first + more
    assert wait <= backoff(attempts + 1, limits, chance)
    assert backoff(attempts, limits, 0.0) <= wait <= backoff(attempts, limits, 1.0)
    assert backoff(attempts, limits, 0.0) == backoff(attempts, limits, 1.0) / 2


def test_those_refused_together_with_one_chance_are_tried_together_again() -> None:
    one = judge(verdict(Stage.RCPT, "450 later"), 1, 0.0, LIMITS, 0.25)
    two = judge(verdict(Stage.RCPT, "451 later"), 1, 0.0, LIMITS, 0.25)
    assert one == two == Later(375.0, True, "recipient")


def test_the_limits_are_those_of_the_settings() -> None:
    settings = Settings(delivery=Delivery(expire_after=2.0, retry_first=7.0, retry_most=70.0))
    assert limits_of(settings) == Limits(7.0, 70.0, 2 * DAY)
    assert limits_of(Settings()) == LIMITS
