"""Message bytes: where the header ends, what is spliced in, what identifies a message."""

import re
from hashlib import blake2b

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.mail.message import header_end, identify, message_id, parse, with_mail_from

_EOLS = [b"\r\n", b"\n", b"\r"]
_TRACE = {b"return-path", b"envelope-to", b"delivery-date", b"delivered-to", b"x-original-to"}
# What messages, and those who forge them, are made of.
_pieces = st.sampled_from(
    [
        b"X-MailFrom: forged@example.net",
        b"x-MAILFROM:",
        b"X-MailFrom : with a space",
        b"Subject: hello",
        b"Message-ID: <badger>",
        b"Return-Path: <>",
        b"Delivered-To: x",
        b"Envelope-to: y",
        b": no name",
        b"no colon",
        b" continued",
        b"\tcontinued X-MailFrom: forged",
        b"From anne Thu Nov 19",
        b"From:x",
        b"\xe4\xff: 8-bit",
        b"Subject: \xe4\x80",
        b"\x00",
        b"",
        *_EOLS,
    ]
)
_lines = st.lists(
    st.tuples(_pieces, st.sampled_from([*_EOLS, *_EOLS, b""])).map(b"".join), max_size=12
).map(b"".join)
messages = st.one_of(_lines, st.binary(max_size=60), st.builds(bytes.__add__, _lines, st.binary()))
_atoms = st.text("abcdefgXYZ.+=-_09", min_size=1)
senders = st.one_of(st.just(""), st.builds("{}@{}".format, _atoms, _atoms))


def _split(raw: bytes) -> list[bytes]:
    """Lines with their ends."""
    return re.findall(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z", raw)


def _without_trace(raw: bytes) -> bytes:
    """What `identify` is to look at, in the simplest way."""
    end = header_end(raw)
    kept, dropping = [], False
    for line in _split(raw[:end]):
        if line[:1] not in b" \t":
            dropping = line.partition(b":")[0].lower() in _TRACE
        if not dropping:
            kept.append(line)
    return b"".join(kept) + raw[end:]


@given(messages)
@example(b"From x")
@example(b"A: 1\r\nFrom x\r\nB: 2\r\n\r\nbody")
@example(b"A: 1\r\nFrom x\r\n\r\nbody")
@example(b"A: 1\r\nFrom x\r\nFrom y\r\nbody")
def test_header_end_agrees_with_the_parser_of_the_consumer(raw: bytes) -> None:
    end = header_end(raw)
    whole, head = parse(raw), parse(raw[:end])
    assert head.items() == whole.items()
    assert head.get_unixfrom() == whole.get_unixfrom()
    # The parser takes the blank line away, even one that follows a "From " in the body.
    body = whole.get_payload(decode=True)
    assert isinstance(body, bytes)
    assert body.translate(None, b"\r\n") == raw[end:].translate(None, b"\r\n")


@given(messages, senders)
@example(b"A: 1\r\nFrom x\r\nX-MailFrom: forged\r\n\r\nbody", "anne@example.org")
def test_d15_x_mailfrom_is_the_last_header_and_the_only_one_of_its_name(
    raw: bytes, sender: str
) -> None:
    parsed = parse(with_mail_from(raw, sender))
    assert parsed.items()[-1] == ("X-MailFrom", sender)
    assert parsed.get_all("X-MailFrom") == [sender]
    others = [item for item in parse(raw).items() if item[0].lower() != "x-mailfrom"]
    assert parsed.items()[:-1] == others


@given(messages, senders)
def test_the_body_is_not_touched(raw: bytes, sender: str) -> None:
    seen = with_mail_from(raw, sender)
    assert seen.endswith(raw[header_end(raw) :])
    # Seen twice it is the same: what we put there is what we take out.
    assert with_mail_from(seen, sender) == seen


@pytest.mark.parametrize("eol", _EOLS)
@pytest.mark.parametrize("name", [b"X-MailFrom", b"x-mailfrom", b"X-MAILFROM"])
def test_d15_the_senders_own_x_mailfrom_is_removed_with_its_continuation(
    name: bytes, eol: bytes
) -> None:
    forged = name + b": forged" + eol + b" and" + eol + b"\tcontinued" + eol
    head = b"Subject: one" + eol
    raw = forged + head + forged + b"To: two" + eol + forged + eol + forged
    expected = head + b"To: two" + eol + b"X-MailFrom: anne@example.org\r\n" + eol + forged
    assert with_mail_from(raw, "anne@example.org") == expected


def test_a_message_without_header_or_body_gets_one() -> None:
    assert with_mail_from(b"", "a@b") == b"X-MailFrom: a@b\r\n\r\n"
    assert with_mail_from(b"\r\nbody", "a@b") == b"X-MailFrom: a@b\r\n\r\nbody"
    assert with_mail_from(b"no header", "a@b") == b"X-MailFrom: a@b\r\n\r\nno header"
    assert with_mail_from(b"A: 1", "a@b") == b"A: 1\r\nX-MailFrom: a@b\r\n\r\n"
    assert with_mail_from(b"A: 1\r\n\r\nbody", "") == b"A: 1\r\nX-MailFrom:\r\n\r\nbody"


def test_a_sender_in_utf8_is_written_as_utf8() -> None:
    seen = with_mail_from(b"A: 1\r\n\r\n", "änne@exämple.org")
    assert "X-MailFrom: änne@exämple.org\r\n\r\n".encode() in seen


@given(messages, messages)
def test_messages_are_the_same_if_they_differ_in_trace_headers_only(
    one: bytes, other: bytes
) -> None:
    same = _without_trace(one) == _without_trace(other)
    assert (identify(one).digest == identify(other).digest) == same


@given(messages)
def test_the_digest_is_that_of_the_message_without_trace_headers(raw: bytes) -> None:
    for body in (b"", b"x" * 100_000):
        expected = blake2b(_without_trace(raw + body), digest_size=32).digest()
        assert identify(raw + body).digest == expected


@pytest.mark.parametrize(
    "added",
    [
        b"Return-Path: <anne@example.org>\r\n",
        b"Envelope-to: a@example.com\r\n\tb@example.com\r\n",
        b"Delivery-date: Thu, 19 Nov 2026 10:00:00 +0000\r\n",
        b"DELIVERED-TO: a@example.com\r\n",
        b"x-original-to: a@example.com\r\nReturn-path: <>\r\n",
    ],
)
def test_what_a_delivering_agent_adds_does_not_make_another_message(added: bytes) -> None:
    first, second = b"Received: x\r\nSubject: hello\r\n", b"\r\nReturn-Path: in the body\r\n"
    digest = identify(first + second).digest
    assert identify(added + first + second).digest == digest
    assert identify(first + added + second).digest == digest
    assert identify(first + second + added).digest != digest


def test_what_an_lmtp_proxy_adds_on_top_does_not_make_another_message() -> None:
    first = b"Received: from a by b with LMTP\r\n\tid x; Fri, 20 Nov 2026 10:00:00 +0000\r\n"
    again = first.replace(b"10:00:00", b"10:00:07").replace(b"LMTP", b"UTF8LMTPS")
    rest = b"Received: from c by a with ESMTP; Fri\r\nSubject: hello\r\n\r\nbody"
    assert identify(first + rest).digest == identify(again + rest).digest
    proxied = b"Return-Path: <anne@example.org>\r\n" + again + rest
    assert identify(first + rest).digest == identify(proxied).digest
    # Only the uppermost one, and only LMTP's, is the attempt's own.
    assert identify(rest).digest != identify(b"Received: with SMTP\r\n" + rest).digest
    assert (
        identify(b"Received: x\r\n" + first + rest).digest
        != identify(b"Received: x\r\n" + again + rest).digest
    )


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"Message-ID: <badger>\r\n\r\n", "<badger>"),
        (b"Subject: x\r\nmessage-id:<badger>\r\n\r\n", "<badger>"),
        (b"Message-ID:\r\n <badger>\r\n\r\n", "<badger>"),
        (b"Message-ID:\r\nSubject: x\r\n\r\n", ""),
        (b"Message-ID:\r\n\r\n<body>", ""),
        (b"Message-ID:", ""),
        (b"Message-ID: \r\n", ""),
        (b"X-Message-ID: <other>\r\n\r\n", ""),
        (b"Subject: Message-ID: <other>\r\n\r\n", ""),
        (b"\r\nMessage-ID: <in the body>\r\n", ""),
        (b"Message-ID: <a\x1b[31m\x00b>\r\n\r\n", "<a?[31m?b>"),
        (b"Message-ID: <one>\r\nMessage-ID: <two>\r\n\r\n", "<one>"),
        (b"", ""),
    ],
)
def test_the_message_id_is_found_in_the_header_alone(raw: bytes, expected: str) -> None:
    assert message_id(raw) == identify(raw).message_id == expected


def test_d10_an_8bit_message_id_is_no_trouble() -> None:
    raw = b"Message-ID: <\xe4\xff@example.org>\r\n\r\nbody"
    assert message_id(raw) == "<\ufffd\ufffd@example.org>"
    assert parse(with_mail_from(raw, "a@b"))["X-MailFrom"] == "a@b"


@given(messages)
def test_any_message_has_an_identity_that_a_log_can_show(raw: bytes) -> None:
    found = identify(raw)
    assert len(found.digest) == 32
    assert found.message_id == message_id(raw)
    assert found.message_id.isprintable() and len(found.message_id) <= 250


def test_d9_a_truncated_notice_is_parsed_and_kept() -> None:
    raw = (
        b"From: mail-daemon@example.com\r\n"
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="cut'
    )
    seen = parse(with_mail_from(raw, ""))
    assert seen["From"] == "mail-daemon@example.com"
    assert seen["X-MailFrom"] == ""
