"""The subject prefix: where it goes, that it comes once, that the author's bytes stay."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.fields import MOST, Field, decoded, encoded, take_apart
from postroom.posting.subject import prefixed


def subject(value: str | bytes) -> Field:
    octets = value if isinstance(value, bytes) else value.encode()
    return Field("subject", b"Subject:" + octets + b"\r\n")


def put(value: str | bytes, prefix: str = "[ants]") -> bytes:
    """The field with the prefix."""
    new = prefixed(subject(value), prefix)
    assert new is not None
    return new.raw


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (" hello", b"Subject: [ants] hello\r\n"),
        ("hello", b"Subject: [ants] hello\r\n"),
        ("  two  blanks ", b"Subject:  [ants] two  blanks \r\n"),
        (" Re: hello", b"Subject: Re: [ants] hello\r\n"),
        (" RE:hello", b"Subject: RE: [ants] hello\r\n"),
        (" Re: AW: Fwd: hello", b"Subject: Re: AW: Fwd: [ants] hello\r\n"),
        (" Re[2]: hello", b"Subject: Re[2]: [ants] hello\r\n"),
        (" sv: hello", b"Subject: sv: [ants] hello\r\n"),
        (" Re:", b"Subject: Re: [ants]\r\n"),
        (" Regarding: hello", b"Subject: [ants] Regarding: hello\r\n"),
        ("\r\n hello\r\n there", b"Subject:\r\n [ants] hello\r\n there\r\n"),
        (" Re:\r\n hello", b"Subject: Re:\r\n [ants] hello\r\n"),
        (" =?utf-8?q?Gr=C3=BC=C3=9Fe?=", b"Subject: [ants] =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\n"),
        (" Re: =?utf-8?b?w7w=?=", b"Subject: Re: [ants] =?utf-8?b?w7w=?=\r\n"),
        (b" \xe4\xff raw", b"Subject: [ants] \xe4\xff raw\r\n"),
        (b" nul\x00 \x1b[2J", b"Subject: [ants] nul\x00 \x1b[2J\r\n"),
    ],
)
def test_the_prefix_is_put_between_the_authors_bytes(before: str | bytes, after: bytes) -> None:
    assert put(before) == after


@pytest.mark.parametrize(
    "value",
    [
        " [ants] hello",
        " Re: [ants] hello",
        " Re: [ANTS] hello",
        " Fwd: Re: [ants]\r\n hello",
        " =?utf-8?q?=5Bants=5D_Gr=C3=BC=C3=9Fe?=",
        " =?iso-8859-1?b?W2FudHNdIEdy/N9l?=",
        " =?utf-8?q?=5Ban?= =?utf-8?q?ts=5D_x?=",
        " was: something (was [ants] else)",
    ],
)
def test_a_prefix_that_is_there_is_not_put_twice(value: str) -> None:
    assert prefixed(subject(value), "[ants] ") is None


def test_a_prefix_beyond_ascii_that_is_there_is_not_put_twice() -> None:
    once = put(" =?iso-8859-1?q?=E4h?=", "[Grüße]")
    assert prefixed(Field("subject", once), "[Grüße]") is None


@pytest.mark.parametrize("prefix", ["", "  "])
def test_without_a_prefix_the_subject_stays(prefix: str) -> None:
    assert prefixed(subject(" hello"), prefix) is None
    assert prefixed(None, prefix) is None


@pytest.mark.parametrize("value", [None, "", "  ", " \r\n "])
def test_no_subject_is_said_so(value: str | None) -> None:
    new = prefixed(None if value is None else subject(value), "[ants]")
    assert new is not None
    assert new.raw == b"Subject: [ants] (no subject)\r\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (" =?utf-8?q?Re=3A_Gr=C3=BC=C3=9Fe?=", "Re: [ants] Grüße"),
        (" =?iso-8859-1?q?AW=3A?= =?utf-8?b?w7w=?=", "AW: [ants] ü"),
        (" =?utf-8?b?5Zue5aSN77ya5L2g5aW9?=", "回复： [ants] 你好"),
    ],
)
def test_after_a_re_inside_an_encoded_word_the_subject_says_the_same(
    value: str, shown: str
) -> None:
    raw = put(value)
    assert raw.isascii()
    assert Field("subject", raw).text == shown


def test_what_cannot_be_read_is_left_as_it_is_and_prefixed_in_front() -> None:
    value = " =?utf-8?q?Re=3A_=FF?="
    assert put(value) == b"Subject: [ants]" + value.encode() + b"\r\n"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (" hello", "[Grüße] hello"),
        (" Re: hello", "Re: [Grüße] hello"),
        (" =?utf-8?q?=C3=BC?=", "[Grüße] ü"),
        (" Re: =?iso-8859-1?q?=FC?=", "Re: [Grüße] ü"),
    ],
)
def test_a_prefix_beyond_ascii_is_encoded_and_keeps_its_blank(value: str, shown: str) -> None:
    raw = put(value, "[Grüße]")
    assert raw.isascii()
    assert Field("subject", raw).text == shown


def test_a_line_that_would_be_too_long_is_folded() -> None:
    long = " " + "x" * 70
    assert put(long) == b"Subject: [ants]\r\n" + long.encode() + b"\r\n"


def test_a_prefix_of_several_words_stays_on_its_line() -> None:
    assert put(" hello", "[my ants] ") == b"Subject: [my ants] hello\r\n"


def test_a_subject_of_a_megabyte_keeps_its_bytes() -> None:
    value = b" Re: " + b"x" * 1_000_000
    assert put(value) == b"Subject: Re: [ants]\r\n " + value[5:] + b"\r\n"
    hidden = b" =?utf-8?q?Re=3A_?= " + b"y " * MOST
    assert put(hidden).endswith(hidden.rstrip() + b" \r\n")


@given(st.text(), st.text(min_size=1))
def test_text_of_any_kind_gives_one_field_that_reads_well(text: str, prefix: str) -> None:
    new = prefixed(subject(" " + encoded(text.encode("utf-8", "replace").decode())), prefix)
    if new is not None:
        parts = take_apart(new.raw + b"\r\nbody")
        assert [each.name for each in parts.fields] == ["subject"]
        assert parts.rest == b"\r\nbody"
        assert new.raw.isascii()
        again = decoded(b" ".join(prefix.encode("utf-8", "replace").split()))
        assert "".join(again.split()) in "".join(new.text.split())


@given(st.binary())
def test_any_bytes_stay_around_the_prefix(value: bytes) -> None:
    value = b" " + value.replace(b"\r", b"").replace(b"\n", b"")
    new = prefixed(subject(value), "[ants]")
    if new is not None and subject(value).value and b"=?" not in value:
        assert new.raw.replace(b"[ants]", b"").split() == subject(value).raw.split()
