"""Replies are checked when they are built."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail import reply
from postroom.mail.reply import Reply

CATALOGUE = {name: each for name, each in vars(reply).items() if isinstance(each, Reply)}
_LINE = re.compile(rb"\d{3}[ -][\x20-\x7e]*")


@pytest.mark.parametrize(
    ("code", "enhanced"),
    [
        (250, "5.1.1"),
        (550, "2.1.1"),
        (451, "5.3.0"),
        (550, "5.1"),
        (550, "5.1.1.1"),
        (354, "3.0.0"),
    ],
)
def test_an_enhanced_code_must_fit_its_code(code: int, enhanced: str) -> None:
    with pytest.raises(ValueError, match="does not fit"):
        Reply(code, enhanced, "text")


@pytest.mark.parametrize("text", ["a\r\nb", "a\rb", "\0", "tab\there", "ä", "\x7f", "x" * 507])
def test_a_text_that_would_break_the_line_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a reply line"):
        Reply(250, "", text)


def test_a_line_of_512_octets_is_the_longest() -> None:
    assert len(Reply(250, "", "x" * 506).wire) == 512
    assert len(Reply(250, "2.0.0", "x" * 500).wire) == 512
    with pytest.raises(ValueError, match="not a reply line"):
        Reply(250, "2.0.0", "x" * 501)


def test_every_line_has_code_and_enhanced_code() -> None:
    """RFC 2034 4: the enhanced code stands on every line."""
    assert Reply(550, "5.1.1", "one\ntwo\nthree").wire == (
        b"550-5.1.1 one\r\n550-5.1.1 two\r\n550 5.1.1 three\r\n"
    )


@given(st.integers(200, 599), st.sampled_from(["", "2.0.0", "4.3.1", "5.1.1"]), st.text())
def test_what_is_built_is_lines_that_a_client_can_read(code: int, enhanced: str, text: str) -> None:
    try:
        wire = Reply(code, enhanced, text).wire
    except ValueError:
        return
    *lines, rest = wire.split(b"\r\n")
    assert rest == b""
    assert len(lines) == text.count("\n") + 1
    for number, line in enumerate(lines, 1):
        assert _LINE.fullmatch(line) and len(line) <= 510
        assert line[3:4] == (b" " if number == len(lines) else b"-")


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_reply_of_the_catalogue_has_an_enhanced_code(name: str) -> None:
    """Item 52; only 354 has none: there is no class 3."""
    each = CATALOGUE[name]
    assert each.enhanced[:1] == ("" if each.code == 354 else str(each.code)[0])
    assert each.accepted == (each.code // 100 == 2)


@pytest.mark.parametrize(
    "name",
    ["NO_ROOM", "LOCAL_ERROR", "OVERLOADED", "SHUTTING_DOWN", "TOO_MANY_RECIPIENTS"],
)
def test_our_own_trouble_is_never_permanent(name: str) -> None:
    assert CATALOGUE[name].code // 100 == 4
