"""Letters about mail that came back: where it would come back to, what is said, how it is
answered, and that what strangers said stays small and harmless."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.notices import bounces
from postroom.notices.bounces import SAID, Outcome
from postroom.spool.handing import Handed
from postroom.spool.orders import order_of
from tests.notices.every import (
    HOSTILE,
    LOST,
    STAFF,
    TOKEN,
    TURN_ON,
    WORDS,
    assert_harmless,
    raw_of,
    read,
    text_of,
)
from tests.notices.house import ANNE, ANTS, NOW, house

HUGE = "word " * 20_000


def probe(words: str = WORDS, reason: str = "", name: str = "ants") -> Handed:
    of = ANTS._replace(posting_address=f"{name}@example.com")
    return bounces.probe(house(), of, ANNE, TOKEN, words, reason, "en", NOW)


def turned_off(
    left: int = 2,
    removes: bool = False,
    words: str = WORDS,
    reason: str = "",
    name: str = "ants",
    since: float | None = None,
) -> Handed:
    of = ANTS._replace(posting_address=f"{name}@example.com")
    return bounces.turned_off(
        house(), of, TURN_ON, words, reason, left, removes, "en", NOW, since=since
    )


def summary(*rows: Outcome, more: int = 0) -> Handed:
    return bounces.bounce_summary(house(), ANTS, rows, more, STAFF, "en", NOW)


def shown(handed: Handed) -> str:
    """Its text, on one line."""
    return " ".join(text_of(handed).split())


# A probe


@pytest.mark.parametrize("name", ["ants", "a" * 29, "a" * 64])
def test_a_probe_comes_back_with_its_token_however_long_the_lists_name_is(name: str) -> None:
    order = order_of(probe(name=name).metadata)
    assert (order.kind, order.recipients) == ("probe", (ANNE,))
    assert order.sender == f"{name}-bounces+{TOKEN}@example.com"
    assert (len(order.sender.partition("@")[0]) <= 64) == (len(name) <= 29)


def test_the_token_of_a_probe_is_nowhere_in_what_its_reader_passes_on() -> None:
    assert TOKEN.encode() not in raw_of(probe(reason="550 No"))


def test_what_came_back_is_said_as_far_as_it_is_known() -> None:
    assert "The mailbox is full. A mail server said: 552 Over" in shown(probe(reason="552 Over"))
    assert "A mail server said" not in shown(probe())
    assert shown(probe(words="")).count("came back. This is a test") == 1
    assert "there is nothing to do. A mail server said: 552" in shown(probe("", "552"))
    assert "there is nothing to do. If this comes back" in shown(probe("", ""))


# Who gets no posts any more


def test_a_plain_reply_turns_posts_on_unless_the_lists_name_is_too_long() -> None:
    made = turned_off()
    assert read(made)["From"] == f"ants-confirm+{TOKEN}@example.com"
    assert "you need not write anything" in shown(made)
    assert f"    confirm {TOKEN}" in text_of(made)
    made = turned_off(name="a" * 30)
    assert read(made)["From"] == f"{'a' * 30}-request@example.com"
    assert "you need not write anything" not in shown(made)
    assert f"    confirm {TOKEN}" in text_of(made)


def test_who_gets_no_posts_is_told_since_when() -> None:
    assert "since 2026-01-01 00:00 UTC none are sent" in shown(turned_off())
    assert "since 2025-12-31 23:00 UTC none are sent" in shown(turned_off(since=NOW - 3600))


@pytest.mark.parametrize(
    ("left", "said"),
    [
        (2, "You get 2 more mails like this one. If nobody answers,"),
        (1, "You get one more mail like this one. If nobody answers,"),
        (0, "This is the last mail about it. If nobody answers,"),
    ],
)
def test_who_gets_no_posts_is_told_how_many_such_mails_come(left: int, said: str) -> None:
    assert said in shown(turned_off(left))


def test_who_gets_no_posts_is_told_what_happens_in_the_end() -> None:
    stays, goes = "you stay on the list, without its posts", "you are taken off the list"
    until = "can be answered until 2026-01-08 00:00 UTC"
    kept, removed = shown(turned_off()), shown(turned_off(removes=True))
    assert [each in kept for each in (stays, until, goes)] == [True, True, False]
    assert [each in removed for each in (stays, until, goes)] == [False, False, True]


# What owners are told


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("stopped", "gets no posts, and is asked"),
        ("removed", "was taken off the list"),
        ("complained", "reported a post as spam"),
    ],
)
@pytest.mark.parametrize("reason", ["", "550 No such user"])
def test_owners_are_told_what_became_of_whom_and_why(what: str, said: str, reason: str) -> None:
    made = summary(Outcome(NOW, ANNE, what, reason))
    lines = text_of(made).replace("\r\n", "\n").split("\n")
    at = lines.index(f"2026-01-01 00:00 UTC  {ANNE}")
    assert said in lines[at + 1]
    assert lines[at + 2].strip() == reason
    assert order_of(made.metadata).recipients == STAFF


def test_one_member_is_no_members() -> None:
    made = summary(LOST[0])
    assert read(made)["Subject"] == "ants@example.com: 1 member gets no posts any more"
    assert "Mail to this member of" in shown(made)
    assert "And " not in shown(made)
    assert "Mail to these members of" in shown(summary(*LOST))


def test_a_summary_says_how_many_more_there_are() -> None:
    made = summary(*[LOST[0]] * 30, more=4)
    assert "34 members get no posts" in read(made)["Subject"]
    assert text_of(made).count("550 5.1.1") == 25
    assert "And 9 more." in text_of(made)


def test_that_too_many_came_back_is_said_to_be_about_the_server() -> None:
    made = bounces.mass(house(), ANTS, 50, 20, STAFF, "en", NOW)
    assert "more than 50 members of ants@example.com came back: more than 20 in" in shown(made)
    assert "no member loses their posts" in shown(made)


# Whatever was said


def letters_of(text: str, language: str) -> list[Handed]:
    """Every letter, with this text wherever mail servers write one."""
    rows = [Outcome(NOW, text, text, text)] * 3
    made = [bounces.probe(house(), ANTS, ANNE, TOKEN, text, text, language, NOW)]
    for left, removes in ((0, True), (9, False)):
        off = bounces.turned_off(house(), ANTS, TURN_ON, text, text, left, removes, language, NOW)
        made.append(off)
    return [*made, bounces.bounce_summary(house(), ANTS, rows, 3, STAFF, language, NOW)]


@settings(max_examples=30, deadline=None)
@given(
    st.text(st.characters(), max_size=300) | st.sampled_from((HOSTILE, HUGE)),
    st.sampled_from(("en", "de")),
)
def test_a_hostile_reason_adds_no_field_and_no_control(text: str, language: str) -> None:
    for handed in letters_of(text, language):
        assert_harmless(handed)


def test_a_huge_reason_makes_small_letters() -> None:
    assert max(len(raw_of(each)) for each in letters_of(HUGE, "en")) < 10_000
    assert shown(probe("", HUGE)).count("word") <= SAID // len("word ")
