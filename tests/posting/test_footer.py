"""Footers: where they can be added, how, and what is left alone."""

import email
import email.policy
from base64 import b64decode, encodebytes
from email.message import EmailMessage

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.fields import take_apart
from postroom.posting.footer import spelled, with_footer

TEXT = "Ants: leave here"
GREEK = "Μυρμήγκια"


def added(raw: bytes, text: str = TEXT) -> tuple[bytes, str]:
    parts, said = with_footer(take_apart(raw), text)
    return parts.joined(), said


def read(raw: bytes) -> EmailMessage:
    return email.message_from_bytes(raw, policy=email.policy.default)


def texts(raw: bytes) -> list[str]:
    """The contents of all text parts."""
    parts = [each for each in read(raw).walk() if each.get_content_maintype() == "text"]
    return [str(each.get_content()).replace("\r\n", "\n") for each in parts]


def part(head: str, body: bytes, newline: bytes = b"\r\n") -> bytes:
    return head.encode().replace(b"\n", newline) + newline * 2 + body


@pytest.mark.parametrize("newline", [b"\r\n", b"\n"])
@pytest.mark.parametrize("head", ["Subject: x", "Content-Type: text/plain; charset=us-ascii"])
def test_plain_text_gets_the_footer_after_a_separator(head: str, newline: bytes) -> None:
    raw = part(head, b"Hello." + newline, newline)
    expected = raw + b"%b-- %bAnts: leave here%b" % (newline, newline, newline)
    assert added(raw) == (expected, "footer added to the text")


def test_a_text_without_line_end_gets_one_first() -> None:
    raw = part("Subject: x", b"Hello.")
    assert added(raw)[0] == raw + b"\r\n\r\n-- \r\nAnts: leave here\r\n"


@pytest.mark.parametrize("charset", ["utf-8", "iso-8859-7", "windows-1253"])
def test_the_footer_is_spelled_in_the_charset_of_the_text(charset: str) -> None:
    head = f'Content-Type: text/plain; charset="{charset}"\nContent-Transfer-Encoding: 8bit'
    raw = part(head, GREEK.encode(charset) + b"\r\n")
    assert texts(added(raw, GREEK)[0]) == [f"{GREEK}\n\n-- \n{GREEK}\n"]


@pytest.mark.parametrize("end", [b"", b"\r\n", b"=\r\n", b"="])
def test_quoted_printable_stays_quoted_printable(end: bytes) -> None:
    head = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable"
    raw = part(head, b"Gr=C3=BC=C3=9Fe" + end)
    new, _ = added(raw, GREEK)
    assert new.startswith(raw) and new.isascii()
    (text,) = texts(new)
    assert text.startswith("Grüße\n") and text.endswith(f"\n-- \n{GREEK}\n")


@given(st.binary(max_size=200), st.sampled_from([b"\r\n", b"\n"]))
def test_base64_keeps_its_octets_but_for_the_last_group(text: bytes, newline: bytes) -> None:
    head = "Content-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: base64"
    body = encodebytes(text).replace(b"\n", newline)
    raw = part(head, body, newline)
    new, said = added(raw, GREEK)
    assert said == "footer added to the text"
    groups = b"".join(body.split())
    kept = groups[: max(len(groups) - 4, 0)]
    assert b"".join(take_apart(new).rest.split()).startswith(kept)
    between = b"" if text.endswith(b"\n") or not text else b"\r\n"
    expected = text + between + f"\r\n-- \r\n{GREEK}\r\n".encode()
    assert b64decode(take_apart(new).rest) == expected


def test_what_is_no_base64_is_left_alone() -> None:
    raw = part("Content-Transfer-Encoding: base64", b"abc!\r\n")
    assert added(raw) == (raw, "no footer: the text of the message is no base64")


@pytest.mark.parametrize("close", [b"--B--\r\n", b"--B--", b"--B-- \r\nepilogue\r\n"])
def test_a_mixed_message_gets_a_part_before_its_closing_boundary(close: bytes) -> None:
    inner = b"preamble\r\n--B\r\n\r\nHello.\r\n--B\r\nContent-Type: image/png\r\n\r\nx\r\n"
    raw = part('Content-Type: multipart/mixed; boundary="B"', inner + close)
    new, said = added(raw)
    assert said == "footer added as a part of its own"
    assert new.startswith(raw[: -len(close)]) and new.endswith(b"\r\n" + close)
    kinds = [each.get_content_type() for each in read(new).iter_parts()]
    assert kinds == ["text/plain", "image/png", "text/plain"]
    assert texts(new) == ["Hello.", TEXT]
    assert not read(new).defects


def test_a_line_that_only_begins_like_the_boundary_closes_nothing() -> None:
    inner = b"--B\r\n\r\nHello.\r\n--B--not\r\n--B--\r\n"
    new, _ = added(part("Content-Type: multipart/mixed; boundary=B", inner))
    assert texts(new) == ["Hello.\n--B--not", TEXT]


def test_the_boundary_of_an_inner_part_is_not_taken_for_the_outer_one() -> None:
    inner = (
        b"--B\r\nContent-Type: multipart/alternative; boundary=B2\r\n\r\n"
        b"--B2\r\n\r\nHello.\r\n--B2--\r\n--B--\r\n"
    )
    new, _ = added(part("Content-Type: multipart/mixed; boundary=B", inner))
    kinds = [each.get_content_type() for each in read(new).iter_parts()]
    assert kinds == ["multipart/alternative", "text/plain"]


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: text/html; charset=utf-8",
        'Content-Type: multipart/alternative; boundary="B"',
        'Content-Type: multipart/related; boundary="B"; type="text/html"',
        "Content-Type: application/pdf\nContent-Transfer-Encoding: base64",
        "Content-Type: text/plain\nContent-Disposition: attachment; filename=x.txt",
        "Content-Type: text/plain; charset=utf-16\nContent-Transfer-Encoding: 8bit",
        "Content-Type: message/rfc822",
    ],
)
def test_other_content_becomes_the_first_part_octet_for_octet(head: str) -> None:
    body = b"--B\r\n\r\n<p>Hello.\r\n--B--\r\n"
    raw = part(f"Subject: x\n{head}", body)
    new, said = added(raw)
    assert said == "footer added, as a part beside the message's content"
    assert part(head, body) in new
    message = read(new)
    assert message.get_content_type() == "multipart/mixed"
    first, second = message.iter_parts()
    assert first.get_content_type() == read(raw).get_content_type()
    assert second.get_content() == TEXT
    assert message["MIME-Version"] == "1.0" and message["Subject"] == "x"
    outer = [each.name for each in take_apart(new).fields]
    assert len(outer) == len(set(outer))


@pytest.mark.parametrize(
    ("head", "body", "footer"),
    [
        ("Subject: x", b"Hello.\r\n", GREEK),
        ("Content-Type: text/plain; charset=iso-8859-1", b"Hello.\r\n", GREEK),
        ("Content-Type: text/plain; charset=utf-8", b"Hello.\r\n", GREEK),  # 7bit
    ],
)
def test_a_text_that_cannot_carry_the_footer_stands_beside_it(
    head: str, body: bytes, footer: str
) -> None:
    raw = part(head, body)
    new, _ = added(raw, footer)
    assert texts(new) == ["Hello.\n", footer]
    assert new.isascii()


def test_the_outer_encoding_says_what_is_inside() -> None:
    for encoding, body, outer in [
        ("7bit", b"x", "7bit"),
        ("8bit", b"\xff", "8bit"),
        ("binary", b"x", "binary"),
    ]:
        raw = part(f"Content-Type: text/html\nContent-Transfer-Encoding: {encoding}", body)
        assert read(added(raw)[0])["Content-Transfer-Encoding"] == outer


@pytest.mark.parametrize(
    "kind",
    [
        'multipart/signed; boundary="B"; protocol="application/pgp-signature"',
        'multipart/encrypted; boundary="B"',
        'multipart/report; boundary="B"',
        "application/pkcs7-mime; smime-type=signed-data",
        "application/x-pkcs7-mime",
        "Application/PKCS7-Mime",
    ],
)
def test_what_a_footer_would_break_is_left_alone(kind: str) -> None:
    raw = part(f"Content-Type: {kind}", b"--B\r\n\r\nx\r\n--B--\r\n")
    new, said = added(raw)
    assert new == raw
    assert said.startswith("no footer: the message is ")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("Content-Type: multipart/mixed", b"--B\r\n\r\nx\r\n--B--\r\n"),
        ("Content-Type: multipart/mixed; boundary=", b"--\r\n\r\nx\r\n----\r\n"),
        ("Content-Type: multipart/mixed; boundary=B", b"x\r\n--B--\r\n"),
        ("Content-Type: multipart/mixed; boundary=B", b"--B\r\n\r\nnever closed\r\n"),
        ("Content-Type: multipart/alternative; boundary=B", b"--B\r\n\r\nnever closed\r\n"),
        ("Content-Type: multipart/mixed; boundary*0=B", b"--B\r\n\r\nx\r\n--B--\r\n"),
        (f"Content-Type: multipart/mixed; boundary={'B' * 300}", b"--B\r\n\r\nx\r\n--B--\r\n"),
    ],
)
def test_parts_that_are_not_whole_are_left_alone(head: str, body: bytes) -> None:
    raw = part(head, body)
    assert added(raw) == (raw, "no footer: the parts of the message are not whole")


@pytest.mark.parametrize(
    "head",
    [
        "Content-Type: text/plain\nContent-Type: text/html",
        "Content-Transfer-Encoding: 7bit\nContent-Transfer-Encoding: base64",
        "Content-Transfer-Encoding: x-uuencode",
        "Content-Type: nonsense",
        "Content-Type: ",
        "Content-Type: text/plain charset=utf-8",
    ],
)
def test_a_header_that_cannot_be_relied_on_is_left_alone(head: str) -> None:
    raw = part(head, b"Hello.\r\n")
    assert added(raw) == (
        raw,
        "no footer: what the message says of its content cannot be relied on",
    )


def test_a_footer_that_holds_the_boundary_does_not_close_the_message() -> None:
    raw = part("Content-Type: multipart/mixed; boundary=Ants", b"--Ants\r\n\r\nx\r\n--Ants--\r\n")
    new, _ = added(raw)
    first, second = read(new).iter_parts()
    assert first.get_content_type() == "multipart/mixed"
    assert second.get_content() == TEXT


kinds = st.sampled_from(["", "multipart/mixed; boundary=B", "multipart/alternative; boundary=B"])


@given(st.one_of(st.text(), kinds), st.binary(), st.text(min_size=1))
def test_nothing_raises_and_the_content_is_still_there(
    value: str, body: bytes, footer: str
) -> None:
    raw = b"Content-Type: " + value.encode("utf-8", "replace") + b"\r\n\r\n" + body
    before = take_apart(raw)
    after, said = with_footer(before, footer)
    assert before.rest in after.joined() or b"--B--" in body
    assert (after == before) == said.startswith("no footer")


def test_names_are_filled_in_and_unknown_ones_stay() -> None:
    values = {"list": "Ants", "address": "ants@example.com"}
    text = spelled("$list <${address}> $5 $what $\n", values)
    assert text == "Ants <ants@example.com> $5 $what $"
