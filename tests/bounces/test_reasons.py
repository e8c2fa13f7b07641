"""Enhanced status codes in words, and what is final."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.bounces.reasons import WORDS, in_words, is_final
from postroom.notices.language import say


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("5.2.2", "The mailbox is full."),
        ("4.2.2", "The mailbox is full."),
        ("5.1.99", "The address does not work."),  # the subject alone
        ("5.01.001", "There is no such mailbox."),
        ("4.0.0", "The mail could not be delivered for the time being."),
        ("5.9.9", "The mail could not be delivered."),
        ("", "The mail could not be delivered."),
        ("550", "The mail could not be delivered."),
    ],
)
def test_the_most_exact_words_are_said(status: str, words: str) -> None:
    assert say(in_words(status)) == words


def test_all_words_are_sentences() -> None:
    assert all(each.text.endswith(".") and not each.values for each in WORDS.values())


@pytest.mark.parametrize(
    "status", ["5.0.0", "5.1.1", "5.1.10", "5.2.1", "5.4.4", "5.7.17", "5.7.18"]
)
def test_what_is_about_the_recipient_is_final(status: str) -> None:
    assert is_final(status)


@pytest.mark.parametrize(
    "status",
    [
        *("5.2.2", "5.2.3", "5.3.1", "5.3.2", "5.3.4", "5.1.7", "5.1.8", "5.5.3", "5.6.0"),
        *("5.7.1", "5.7.26", "4.1.1", "2.0.0", "550", "x"),
    ],
)
def test_what_may_pass_or_is_about_us_is_not(status: str) -> None:
    assert not is_final(status)


@given(st.text())
def test_any_text_will_do(text: str) -> None:
    assert say(in_words(text))
    assert not is_final(text) or text.startswith("5")
