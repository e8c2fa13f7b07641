"""Patterns that owners of lists may write."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.patterns import MAX_TEXT, PatternError, compiled, steps, suspicion


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"^.*@(.*\.)?spam\.example$", "Bo@mail.SPAM.example"),
        (r"casino.*bonus|lottery", "the Lottery"),
        (r"^(?:ann|bo)[0-9]{2,4}@", "bo123@example.org"),
        (r"\(?[(?*+|)]{3}", "x((("),
        (r"a{b}", "a{b}"),
        (r"x{}", "x{}"),
        (r"^a+?b*+", "aab"),
        ("^.*@.*\\.(ru|cn|top|xyz)$", "a@b.xyz"),
        (r"^.*@spam\.example$", "bo@spam.example"),
        (r"^[a-z]+[0-9]{4,}@", "Bo12345@example.org"),
        ("^[^@]+@[^@]+\\.(com|net)$", "bo@example.net"),
        ("casino.*bonus|lott.*win|free.*money", "Free beer, no money"),
        (".*money.*back.*", "your money is back, again"),
        ("^.*money.*back.*$", "your money is back, again"),
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
        ("a*a*b", "too long"),
        ("^a*a*a*b", "too long"),
        ("a*a{150}b", "too long"),
        ("^a{2,}a{3,}a+b", "too long"),
        ("[0-9a-f]{40}" * 5 + ".*.*x", "too long"),
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


def test_the_steps_are_a_bound_that_grows_with_what_can_vary() -> None:
    def extra(pattern: str, shorter: str) -> float:
        return steps(pattern) - steps(shorter)

    assert extra("^ants", "^ant") == pytest.approx(1, abs=0.2)
    assert extra("^a?b?s", "^a?b?") == pytest.approx(4, abs=0.6)
    assert extra("^(a|b|c)s", "^(a|b|c)") == pytest.approx(3, abs=0.5)
    assert extra("^a{2,5}s", "^a{2,5}") == pytest.approx(4, abs=0.6)
    assert extra("as", "a") == pytest.approx(MAX_TEXT, rel=0.2)
    assert extra("^a*s", "^a*") == pytest.approx(MAX_TEXT, rel=0.2)
    assert extra("^a*b*s", "^a*b*") == pytest.approx(MAX_TEXT**2 / 2, rel=0.2)
    assert extra("^a*|b*s", "^a*|b*") == pytest.approx(MAX_TEXT**2 / 2, rel=0.2)
    assert extra("^a*|^b*s", "^a*|^b*") == pytest.approx(MAX_TEXT, rel=0.2)
    assert extra("^(?:abc){5}", "^") > 15
    assert extra("^(?:abc)*s", "^(?:abc)*") == pytest.approx(MAX_TEXT, rel=0.2)


def test_what_is_left_out_because_it_changes_nothing_changes_nothing() -> None:
    for pattern, text in (
        (".*a", "ba"),
        (".*?a", "ba"),
        ("a.*", "xab"),
        ("a.*$", "xab"),
        (r"a\\.*", r"xa\b"),
        (".*a|b", "b"),
        ("c|.*", "b"),
    ):
        assert compiled(pattern).search(text)
    assert not compiled(r"a\.*$").search("ab")
    assert not compiled(".*+a").search("ba")


ATOMS = [
    "a",
    "[ab]",
    ".",
    r"\b",
    "a?",
    "a*",
    "a*?",
    "a+",
    "a{2,}",
    "a{1,9}",
    "(a|a)",
    "(?:ab)*",
    "(a)*",
]


@given(st.lists(st.sampled_from(ATOMS), max_size=7), st.sampled_from(["", "^"]))
def test_a_pattern_is_refused_or_done_soon_even_if_the_text_was_made_for_it(
    atoms: list[str], start: str
) -> None:
    """That this test ends is what it holds."""
    try:
        usable = compiled(start + "".join(atoms) + "x")
    except PatternError as error:
        assert str(error)
        return
    assert not usable.search("a" * MAX_TEXT)


@given(st.text("ab(|)*+?{}12,[]^$.\\:", max_size=30), st.text("ab", max_size=MAX_TEXT))
def test_any_pattern_is_refused_or_done_soon(pattern: str, text: str) -> None:
    """That this test ends is what it holds."""
    try:
        usable = compiled(pattern)
    except PatternError as error:
        assert str(error)
        return
    usable.search(text)


def test_a_suspicion_is_read() -> None:
    found = suspicion("hold  X-Spam-Level: \\*{5}")
    assert (found.action, found.field, found.pattern.pattern) == ("hold", "X-Spam-Level", "\\*{5}")
    for line in ("", "hold", "hold Subject x", "Hold Subject: x", "hold S\u00fcbject: x"):
        with pytest.raises(PatternError, match="is not"):
            suspicion(line)
