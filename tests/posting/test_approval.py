"""A moderator's token does not go out, wherever a post holds it."""

from base64 import b64decode, b64encode, encodebytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.keys import plain_token
from postroom.mail.fields import take_apart
from postroom.posting.approval import without_approval
from postroom.reading.post import read

TOKEN = "ABCD-EFGH-IJKL-MNOP"
HEAD = b"From: ann@example.org\r\n"


def cleaned(raw: bytes, token: str = TOKEN) -> bytes:
    return without_approval(take_apart(raw), token).joined()


@pytest.mark.parametrize("name", ["Approved", "approve", "X-Approved", "X-APPROVE"])
def test_the_fields_go_whatever_they_hold(name: str) -> None:
    raw = HEAD + f"{name}: wrong\r\n {TOKEN}\r\n\r\nHello.\r\n".encode()
    assert cleaned(raw, "") == HEAD + b"\r\nHello.\r\n"


@pytest.mark.parametrize("line", ["Approved: {}", "approve:{}", "  APPROVED :\t{}  "])
@pytest.mark.parametrize("newline", ["\r\n", "\n"])
def test_the_first_line_goes(line: str, newline: str) -> None:
    body = f"{newline}{line.format(TOKEN)}{newline}Hello.{newline}".encode()
    assert cleaned(HEAD + b"\r\n" + body) == HEAD + f"\r\n{newline}Hello.{newline}".encode()


def test_a_post_without_token_keeps_such_a_line() -> None:
    raw = HEAD + b"\r\nApproved: the budget, and that is all.\r\n"
    assert read(raw, "").approval == ""
    assert cleaned(raw, read(raw, "").approval) == raw


@pytest.mark.parametrize(
    "typed", ["abcd-efgh-ijkl-mnop", "ABCD EFGH IJKL MNOP", "abcdefghIJKLmnop"]
)
def test_the_token_goes_however_it_is_typed(typed: str) -> None:
    raw = HEAD + b"\r\nApproved: " + typed.encode() + b"\r\nHello.\r\n" + TOKEN.encode()
    assert cleaned(raw, typed) == HEAD + b"\r\nHello.\r\n" + b"*" * len(TOKEN)


@pytest.mark.parametrize("broken", [True, False])
def test_base64_hides_no_token(broken: bool) -> None:
    head = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n"
    text = f"Approved: {TOKEN}\r\n".encode() + b"Hello, all.\r\n" * 20
    body = encodebytes(text) if broken else b64encode(text)
    assert read(head + body, "").approval == TOKEN
    new = cleaned(head + body)
    assert b64decode(take_apart(new).rest) == b"Hello, all.\r\n" * 20


def test_the_token_in_the_other_parts_is_blacked_out() -> None:
    """Mail programs write an HTML part that says the same."""
    html = encodebytes(f"<p>Approved: {TOKEN}</p>".encode())
    raw = (
        HEAD
        + b"Content-Type: multipart/alternative; boundary=B\r\n\r\n--B\r\n\r\nApproved: "
        + TOKEN.encode()
        + b"\r\nHello.\r\n--B\r\nContent-Type: text/html\r\n\r\n<p>Approved: <b>"
        + TOKEN.encode()
        + b"</b></p>\r\n--B\r\nContent-Transfer-Encoding: base64\r\n\r\n"
        + html
        + b"\r\n--B--\r\n"
    )
    assert read(raw, "").approval == TOKEN
    new = cleaned(raw)
    assert TOKEN.encode() not in new
    assert b"--B\r\n\r\nHello.\r\n--B\r\n" in new
    assert b"<b>" + b"*" * len(TOKEN) + b"</b>" in new
    assert b64encode(b"<p>Approved: " + b"*" * len(TOKEN))[:32] in new


def test_only_the_first_such_line_goes_and_the_others_are_blacked_out() -> None:
    line = f"Approved: {TOKEN}\r\n".encode()
    black = b"Approved: " + b"*" * len(TOKEN) + b"\r\n"
    assert cleaned(HEAD + b"\r\n" + line + b"Hello.\r\n" + line) == (
        HEAD + b"\r\nHello.\r\n" + black
    )


@pytest.mark.parametrize("text", ["yes", "unanimously", "ABCD-EFGH-IJKL-MNO1"])
def test_what_has_not_the_form_of_a_token_does_not_black_out_words(text: str) -> None:
    raw = HEAD + f"\r\nApproved: {text}\r\n{text}, {text}.\r\n".encode()
    assert read(raw, "").approval == ""
    assert cleaned(raw, text) == raw


@given(st.binary())
def test_without_a_token_no_octet_of_the_body_changes(body: bytes) -> None:
    raw = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + body
    assert cleaned(raw, "") == raw


@given(st.binary(), st.from_regex(r"\A[A-Za-z2-7]{16}\Z") | st.text(min_size=1))
def test_any_bytes_and_any_token_will_do(body: bytes, token: str) -> None:
    raw = HEAD + b"Content-Transfer-Encoding: base64\r\n\r\n" + body + token.encode() + b"\r\n"
    if plain_token(token):
        assert token.encode() not in without_approval(take_apart(raw), token).rest
    else:
        assert cleaned(raw, token) == raw
