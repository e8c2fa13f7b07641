"""Header fields: taken apart, read, written; what is not touched stays as it is."""

import codecs
import email
import email.policy
import re
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.fields import (
    _CODECS,
    MOST,
    Field,
    Parts,
    decoded,
    encoded,
    field,
    in_charset,
    phrase,
    take_apart,
    unstructured,
)
from postroom.mail.message import header_end

_pieces = st.sampled_from(
    [
        b"Subject: hello",
        b"subject:",
        b"X: a\r\n b",
        b"From ann Fri Nov 20",
        b"From : x",
        b": no name",
        b" continued Subject: forged",
        b"no colon",
        b"\xe4: 8-bit",
        b"Name : x",
        b"",
        b"\r\n",
        b"\n",
        b"\r",
    ]
)
messages = st.one_of(
    st.lists(st.builds(bytes.__add__, _pieces, st.sampled_from([b"\r\n", b"\n", b"\r"]))).map(
        b"".join
    ),
    st.binary(max_size=80),
)


@given(messages)
def test_what_is_taken_apart_and_joined_is_the_same(raw: bytes) -> None:
    parts = take_apart(raw)
    assert b"".join(each.raw for each in parts.fields) + parts.rest == raw
    joined = parts.joined()
    blank = raw[header_end(raw) : header_end(raw) + 1] in (b"\r", b"\n")
    assert joined == raw if blank else joined.endswith(b"\r\n" + parts.rest)


@given(messages)
def test_fields_are_those_that_python_reads(raw: bytes) -> None:
    names = [each.name for each in take_apart(raw).fields if each.name]
    assert names == [name.lower() for name, _ in email.message_from_bytes(raw).items()]


@given(messages, st.sampled_from(["subject", "x", "from"]))
def test_leaving_fields_out_and_adding_some_touches_no_other(raw: bytes, name: str) -> None:
    parts = take_apart(raw)
    others = [each.raw.rstrip(b"\r\n") for each in parts.fields if each.name != name]
    top, last = field("Top", "1"), field("Last", "2")
    new = parts.without([name]).on_top([top]).with_last([last])
    joined = new.joined()
    kept = [each.raw.rstrip(b"\r\n") for each in new.fields[1:-1]]
    assert kept == others
    assert joined.startswith(b"Top: 1\r\n")
    assert joined.endswith(parts.rest)


def test_the_blank_line_does_not_melt_into_the_field_before_it() -> None:
    parts = take_apart(b"A: b\rX: c\n\nbody").without(["x"])
    assert parts.joined() == b"A: b\r\n\nbody"
    assert take_apart(parts.joined()).rest == b"\nbody"


def test_a_last_field_without_line_end_gets_one() -> None:
    assert take_apart(b"A: b").joined() == b"A: b\r\n\r\n"
    assert take_apart(b"A: b").with_last([field("C", "d")]).joined() == b"A: b\r\nC: d\r\n\r\n"
    assert Parts((), b"body").joined() == b"\r\nbody"


def test_lines_that_are_no_fields_have_no_name() -> None:
    raw = b"From ann: Fri\n Subject: no\n: x\nSubject : yes\n"
    assert [each.name for each in take_apart(raw).fields] == ["", ""]
    assert take_apart(b" Subject: x\nA: b\n").first("subject") is None


def test_fields_are_found_by_name_in_order() -> None:
    parts = take_apart(b"A: 1\nB: 2\na: 3\n\n")
    assert parts.first("a") == Field("a", b"A: 1\n")
    assert [each.value for each in parts.all("a")] == [b"1", b"3"]
    assert (parts.first("c"), parts.all("c")) == (None, [])


def test_a_value_is_unfolded_and_bounded() -> None:
    assert Field("a", b"A: b\r\n\tc  d \r\n").value == b"b c d"
    assert len(Field("a", b"A: " + b"x" * 2 * MOST).value) < MOST


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (b"plain", "plain"),
        (b"a  b", "a b"),
        (b"=?utf-8?q?Gr=C3=BC=C3=9Fe?=", "Grüße"),
        (b"=?ISO-8859-1?Q?Gr=FC=DFe?=", "Grüße"),
        (b"=?utf-8?b?R3LDvMOfZQ?=", "Grüße"),  # without its "="
        (b"=?utf-8*de?q?a_b?=", "a b"),
        (b"=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),
        (b"=?utf-8?q?a?=  =?iso-8859-1?q?b?=", "ab"),
        (b"=?utf-8?q?=C3=BC?= =?iso-8859-1?q?=FC?=", "üü"),
        (b"=?utf-8?q?a?= c =?utf-8?q?b?=", "a c b"),
        (b"c =?utf-8?q?a?=", "c a"),
        (b"=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),  # one character in two words
        (b"=?utf-8?q?a=0D=0ABcc:_x?=", "a Bcc: x"),
        (b"=?utf-8?q?a=00=1Bb?=", "a b"),
        (b"=?x-unknown?q?=C3=BC?=", "ü"),
        (b"=?idna?q?xn--a?=", "xn--a"),
        (b"=?unicode_escape?q?=5Cd?=", "\\d"),
        (b"=?rot13?q?nop?=", "nop"),
        (b"=?utf-8?b?a?=", "=?utf-8?b?a?="),  # one letter of base64 says nothing
        (b"=?utf-8?x?a?=", "=?utf-8?x?a?="),
        (b"=?utf-8?q?open", "=?utf-8?q?open"),
        (b"Gr\xc3\xbc\xc3\x9fe", "Grüße"),
        (b"\xfc", "\ufffd"),
    ],
)
def test_encoded_words_are_read(value: bytes, text: str) -> None:
    assert decoded(value) == text


@given(st.one_of(st.binary(), st.text("=?utf-8qbQB_ \r\n\xfc").map(str.encode)))
def test_reading_never_raises_and_gives_one_line(value: bytes) -> None:
    text = decoded(value)
    assert len(text.splitlines()) <= 1


@pytest.mark.parametrize("piece", [b"=?a?q?", b"=?utf-8?q?a?= ", b"=?utf-8?b?", b"=?", b"?="])
def test_a_value_full_of_beginnings_is_read(piece: bytes) -> None:
    """In linear time: this took minutes where the work grew with the square."""
    assert decoded(piece * (200_000 // len(piece))) or piece == b"="


@given(st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])))
def test_what_is_encoded_reads_the_same_everywhere(text: str) -> None:
    words = encoded(text)
    assert words.isascii() and all(len(word) <= 75 for word in words.split())
    assert decoded(words.encode()) == " ".join(text.split())
    assert str(make_header(decode_header(words))) == text


_anything = st.text(st.characters(), max_size=200)


@given(st.sampled_from(["Subject", "X-Name"]), _anything, st.booleans())
def test_a_field_of_ours_is_one_field_whatever_the_text(name: str, text: str, utf8: bool) -> None:
    made = field(name, text, utf8)
    parts = take_apart(made.raw + b"\r\nbody")
    assert parts == Parts((made,), b"\r\nbody")
    assert utf8 or made.raw.isascii()
    assert not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", made.raw.replace(b"\r\n", b""))


def test_a_long_field_is_folded_at_blanks() -> None:
    made = field("References", " ".join(f"<{n}@example.org>" for n in range(20)))
    lines = made.raw.split(b"\r\n")
    assert len(lines) > 3 and all(len(line) <= 78 for line in lines)
    assert made.value == b" ".join(b"<%d@example.org>" % n for n in range(20))


@given(_anything)
def test_text_for_people_reads_as_it_was(text: str) -> None:
    made = field("Subject", unstructured(text))
    plain = re.sub(
        "[\x00-\x1f\x7f-\x9f\u2028\u2029]+", " ", text.encode("utf-8", "replace").decode()
    )
    assert made.raw.isascii()
    assert made.text == " ".join(plain.split())
    assert all(len(line) <= 998 for line in made.raw.split(b"\r\n"))


@pytest.mark.parametrize("text", ["=?utf-8?q?x?=", "x =? y", "grüße"])
def test_text_that_would_be_read_as_something_else_is_encoded(text: str) -> None:
    assert unstructured(text).startswith("=?utf-8?")
    assert decoded(unstructured(text).encode()) == text


def test_a_word_that_fits_no_line_is_encoded() -> None:
    assert max(map(len, unstructured("x" * 5000).split())) <= 75


@pytest.mark.parametrize(
    "text", ["Ann Lee", "Lee, Ann", 'Ann "x" Lee', "Ann\\", "Änne", "a@b <c>", "=?utf-8?q?x?="]
)
def test_a_phrase_is_read_as_the_name_it_was(text: str) -> None:
    raw = field("From", f"{phrase(text)} <a@b.example>").raw
    message = email.message_from_bytes(raw, policy=email.policy.default)
    (address,) = message["From"].addresses
    assert (address.display_name, address.addr_spec) == (text, "a@b.example")


@pytest.mark.parametrize(
    ("charset", "octets", "text"),
    [
        ("ISO_8859-1", b"\xfc", "\u00fc"),
        ("Windows-1252", b"\x80", "\u20ac"),
        ("utf8", b"\xc3\xbc", "\u00fc"),
        ("UTF-8*de", b"\xc3\xbc", "\u00fc"),
        ("", b"\xc3\xbc", "\u00fc"),
        ("koi8-r", b"\xc1", "\u0430"),
        ("x-sjis", b"\x82\xa0", "\u3042"),
        ("Shift_JIS", b"\x82\xa0", "\u3042"),
        ("ISO-2022-JP", b'\x1b$B$"\x1b(B', "\u3042"),
        ("gb2312", b"\xb0\xa1", "\u554a"),
        ("ks_c_5601-1987", b"\xb0\xa1", "\uac00"),
        ("big5", b"\xa4\xa4", "\u4e2d"),
        ("ISO-8859-8-I", b"\xe0", "\u05d0"),
        ("nonsense", b"\xc3\xbc", "\u00fc"),
        ("unicode_escape", b"\\x41", "\\x41"),
        ("rot13", b"abc", "abc"),
        ("x" * 10_000_000, b"abc", "abc"),
    ],
)
def test_the_charsets_of_mail_are_read_and_others_are_utf_8(
    charset: str, octets: bytes, text: str
) -> None:
    assert in_charset(octets, charset) == text


def test_no_name_that_a_sender_makes_up_is_looked_up() -> None:
    """Python keeps what it was asked for, found or not."""
    asked: list[str] = []

    def search(name: str) -> None:
        asked.append(name)

    codecs.register(search)
    try:
        assert decoded(b"=?x-made-up-4711?q?a?= =?idna?q?b?=") == "ab"
    finally:
        codecs.unregister(search)
    assert asked == []


@given(st.binary(), st.sampled_from(sorted(_CODECS)))
def test_any_octets_are_text_in_every_charset(octets: bytes, charset: str) -> None:
    assert isinstance(in_charset(octets, charset), str)
