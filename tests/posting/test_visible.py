"""A moderator's token is found wherever a reader could find it."""

import quopri
from base64 import b64encode, encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.posting.visible import MOST_PARTS, WINDOW, shows

PLAIN = "ABCDEFGHIJKL2345"
TOKEN = b"ABCD-EFGH-IJKL-2345"
HEAD = b"From: ann@example.org\r\nSubject: Hello\r\n"


def shown(raw: bytes) -> bool:
    return shows(raw, {"QQQQQQQQQQQQQQQQ", PLAIN})


@pytest.mark.parametrize(
    "typed",
    [
        TOKEN,
        TOKEN.lower(),
        b"ABCD EFGH\r\n> IJKL 2345",
        b"A.B.C.D.E.F.G.H.I.J.K.L.2.3.4.5",
        b"Token:ABCDEFGHIJKL2345!",
        "AB\u00e4CDEFGHIJKL\u2013\u00a02345".encode(),
    ],
)
def test_a_token_is_found_however_it_is_divided(typed: bytes) -> None:
    assert shown(HEAD + b"\r\nHi,\r\n" + typed + b"\r\n")
    assert shown(HEAD + b"X-Note: " + typed.replace(b"\r\n", b"\r\n ") + b"\r\n\r\nHi.\r\n")


@pytest.mark.parametrize("octets", [TOKEN[:-1], TOKEN[1:], TOKEN.replace(b"E", b"EE"), b""])
def test_what_is_no_token_of_these_is_none(octets: bytes) -> None:
    assert not shown(HEAD + b"\r\n" + octets + b"\r\n")
    assert not shows(HEAD + b"\r\n" + TOKEN, ())


@pytest.mark.parametrize(
    "value",
    [
        b"=?utf-8?b?" + b64encode(TOKEN) + b"?=",
        b"=?utf-8?q?ABCD-E=46GH-?= =?utf-8?q?IJKL-2345?=",
        b"=?utf-8?q?ABCD-EFGH?=\r\n =?utf-8?b?" + b64encode(b"-IJKL-2345") + b"?=",
    ],
)
def test_encoded_words_hide_no_token(value: bytes) -> None:
    assert shown(HEAD + b"X-Note: " + value + b"\r\n\r\nHi.\r\n")


@pytest.mark.parametrize(
    "text",
    [b"ABCD-EFGH=\r\n-IJKL-2345\r\n", b"=41BCD-EFGH-IJKL-23=345\r\n", quopri.encodestring(TOKEN)],
)
def test_quoted_printable_hides_no_token(text: bytes) -> None:
    assert shown(HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\nHi.\r\n" + text)


@pytest.mark.parametrize("spell", [encodebytes, b64encode])
@pytest.mark.parametrize("charset", ["utf-8", "utf-16", "utf-32"])
def test_base64_hides_no_token_in_whatever_charset(spell: object, charset: str) -> None:
    text = f"Hi,\r\n{TOKEN.decode()}\r\n".encode(charset)
    assert callable(spell)
    head = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n"
    assert shown(head + spell(text))
    assert shown(head + encodebytes(b"Hello, all!!") + b"=\r\n" + spell(text))


@pytest.mark.parametrize(
    "text",
    [
        b"<p>ABCD<wbr>EFGH<b>IJKL</b>&shy;2345</p>",
        b"<p>ABCD&#45;EFGH&ndash;IJKL&nbsp;2345</p>",
        b"<p title=x>ABCD-EFGH-<a href='//a.example/b'>IJKL</a>-2345</p>",
    ],
)
def test_html_hides_no_token(text: bytes) -> None:
    assert shown(HEAD + b"Content-Type: text/html\r\n\r\n" + text)


def multipart(*parts: bytes, boundary: bytes = b"B") -> bytes:
    within = b"".join(b"--%b\r\n%b\r\n" % (boundary, each) for each in parts)
    return b"Content-Type: multipart/mixed; boundary=%b\r\n\r\n%b--%b--\r\n" % (
        boundary,
        within,
        boundary,
    )


HIDDEN = b"Content-Transfer-Encoding: base64\r\n\r\n" + encodebytes(b"Hi " + TOKEN)


@pytest.mark.parametrize(
    "part",
    [
        HIDDEN,
        multipart(b"\r\nHi", HIDDEN, boundary=b"C"),
        b"Content-Type: message/rfc822\r\n\r\n" + HEAD + HIDDEN,
        b"Content-Type: application/octet-stream\r\n" + HIDDEN,
        b"Content-Disposition: attachment; filename=" + TOKEN + b"\r\n\r\nHi",
        b"Content-Type: text/plain\r\nContent-Type: text/html\r\n" + HIDDEN,
        b"Content-Type: multipart/mixed; boundary=never\r\n" + HIDDEN,
        b"Content-Type: multipart/mixed; boundary=never\r\n\r\n" + TOKEN,
    ],
)
def test_no_part_hides_a_token(part: bytes) -> None:
    assert shown(HEAD + multipart(b"\r\nHello.", part, b"\r\nBye."))
    assert not shown(HEAD + multipart(b"\r\nHello.", part.replace(TOKEN, b"").replace(HIDDEN, b"")))


def test_what_stands_before_and_after_the_parts_is_looked_at() -> None:
    raw = HEAD + multipart(b"\r\nHello.")
    assert shown(raw + TOKEN)
    assert shown(raw.replace(b"\r\n\r\n--B", b"\r\n\r\n" + TOKEN + b"\r\n--B"))


def test_of_a_large_body_beginning_and_end_are_looked_at() -> None:
    filling = b"Leaves.\r\n" * (WINDOW // 3)
    for head in (HEAD + b"\r\n", HEAD + b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"):
        assert shown(head + TOKEN + filling)
        assert shown(head + filling + TOKEN)
        assert not shown(head + filling)
    for text in (TOKEN + filling, filling + TOKEN, filling + b"x" + TOKEN, filling + b"xy" + TOKEN):
        assert shown(HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + encodebytes(text))


def test_more_parts_than_are_followed_are_looked_at_as_they_stand() -> None:
    parts = [b"\r\nHello."] * (MOST_PARTS * 3)
    assert shown(HEAD + multipart(*parts, b"\r\n" + TOKEN))
    nested = HEAD + b"\r\n" + TOKEN
    for n in range(50):
        nested = multipart(nested, boundary=b"B%d" % n)
    assert shown(nested)


@given(st.binary(), st.sampled_from([b"base64", b"quoted-printable", b"x"]))
def test_any_bytes_will_do(body: bytes, encoding: bytes) -> None:
    assert not shown(HEAD + b"Content-Transfer-Encoding: " + encoding + b"\r\n\r\n" + body)
    assert not shown(multipart(body, encoding))
    assert not shown(body)
