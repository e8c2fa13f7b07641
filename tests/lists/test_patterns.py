"""Patterns that owners of lists may write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.patterns import MAX_TEXT, MAX_WAYS, PatternError, compiled, suspicion, ways


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^.*@(.*\.)?spam\.example$", "Bo@mail.SPAM.example"),
        (r"casino.*bonus|lottery", "the Lottery"),
        (r"^(?:ann|bo)[0-9]{2,4}@", "bo123@example.org"),
        (r"\(?[(?*+|)]{3}", "x((("),
        (r"a{b}", "a{b}"),
        (r"x{}", "x{}"),
        (r"a+?b*+", "aab"),
        ("^.*@.*\\.(ru|cn|top|xyz)$", "a@b.xyz"),
        ("ä", "Ä"),
    ],
)
def test_what_people_need_can_be_used_whatever_the_case(pattern: str, text: str) -> None:
    assert compiled(pattern).search(text)
    assert not compiled(pattern).search("-")


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("(", "is no regular expression"),
        ("a**", "is no regular expression"),
        ("x{3,2}", "is no regular expression"),
        ("a{99999999999}", "is no regular expression"),
        ("[[a]", "is no regular expression"),
        ("x" * 201, "is longer than 200"),
        ("a\nb", "cannot be printed"),
        ("(a+)+$", "repeats what itself repeats"),
        ("((a)?b)*", "repeats what itself repeats"),
        ("(a|a)*b", "repeats what itself repeats"),
        ("((a*))+", "repeats what itself repeats"),
        ("(a?){30}", "repeats what itself repeats"),
        ("(?:x{1,9}){9}", "repeats what itself repeats"),
        ("a?" * 40 + "a" * 40, "too long"),
        ("(a|a)" * 40, "too long"),
        (".*.*.*.*x", "too long"),
        ("a{1,500}" * 4, "too long"),
        (".*" * 100, "too long"),
        (r"(a*)\1", "refers back"),
        ("(?P<a>x)(?P=a)", 'has a "(?"'),
        ("(?=x)", 'has a "(?"'),
        ("(?i)x", 'has a "(?"'),
        ("x(?#comment)", 'has a "(?"'),
    ],
)
def test_what_could_keep_a_runner_busy_is_refused(pattern: str, reason: str) -> None:
    with pytest.raises(PatternError, match=reason.replace("(", r"\(").replace("?", r"\?")):
        compiled(pattern)


def test_the_ways_are_a_bound_that_grows_with_what_can_vary() -> None:
    assert ways("^ants$") == 1
    assert ways("ants") == MAX_TEXT
    assert ways("^a?b?$") == 4
    assert ways("^a{2,5}$") == 4
    assert ways("^(a|b|c)$") == 3
    assert ways("^.*$") == MAX_TEXT
    assert ways("^a*b*$") == MAX_TEXT**2 // 2
    assert ways("^a|b$") == 2 * MAX_TEXT


@given(st.text("ab(|)*+?{}12,[]^$.\\:", max_size=30), st.text("ab", max_size=MAX_TEXT))
def test_any_pattern_is_refused_or_done_soon(pattern: str, text: str) -> None:
    """That this test ends is what it holds."""
    try:
        usable = compiled(pattern)
    except PatternError as error:
        assert str(error)
        return
    assert ways(pattern) <= MAX_WAYS
    if ways(pattern) <= 10**7:  # what may take seconds is not tried here
        usable.search(text)


def test_a_suspicion_is_read() -> None:
    found = suspicion("hold  X-Spam-Level: \\*{5}")
    assert (found.action, found.field, found.pattern.pattern) == ("hold", "X-Spam-Level", "\\*{5}")
    for line in ("", "hold", "hold Subject x", "Hold Subject: x", "hold S\u00fcbject: x"):
        with pytest.raises(PatternError, match="is not"):
            suspicion(line)
