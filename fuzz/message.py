"""Target: message bytes, headers spliced in and left out.

For: holding `mail.message` to what it promises, with Python's own header parser as the
judge of what a header is, and a reference for the digest that goes line by line.
"""

import email.policy
import re
from collections.abc import Iterator
from email.message import Message
from email.parser import BytesHeaderParser
from hashlib import blake2b

from fuzz.dialogues import bodies
from fuzz.target import Octets, Target
from postroom.mail.message import header_end, identify, message_id, with_mail_from

SENDERS = ("", "anne@example.org", '"a b"@example.org', "änne@exämple.org", "a\u2028b@c")
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z")
_TRACE = {b"return-path", b"envelope-to", b"delivery-date", b"delivered-to", b"x-original-to"}
_PARSER = BytesHeaderParser(policy=email.policy.compat32)


def check(data: bytes) -> None:
    """One octet chooses the sender; the rest is the message."""
    source = Octets(data)
    sender = SENDERS[source.number(below=len(SENDERS))]
    raw = source.rest()
    end = header_end(raw)
    whole, head = _parse(raw), _parse(raw[:end])
    assert head.items() == whole.items()
    assert head.get_unixfrom() == whole.get_unixfrom()

    seen = with_mail_from(raw, sender)
    assert seen.endswith(raw[end:])
    assert with_mail_from(seen, sender) == seen
    fields = _parse(seen).items()
    assert [name.lower() for name, _ in fields].count("x-mailfrom") == 1
    assert fields[-1][0] == "X-MailFrom"
    if sender.isascii():
        assert fields[-1][1] == sender
    assert fields[:-1] == [field for field in whole.items() if field[0].lower() != "x-mailfrom"]

    found = identify(raw)
    assert found.digest == blake2b(_without_trace(raw, end), digest_size=32).digest()
    assert found.message_id == message_id(raw)
    assert found.message_id.isprintable() and len(found.message_id) <= 250


def _parse(raw: bytes) -> "Message[str, str]":
    return _PARSER.parsebytes(raw)


def _without_trace(raw: bytes, end: int) -> bytes:
    kept, dropping = [], False
    for line in _LINE.findall(raw[:end]):
        if line[:1] not in (b" ", b"\t"):
            dropping = line.partition(b":")[0].lower() in _TRACE
        if not dropping:
            kept.append(line)
    return b"".join(kept) + raw[end:]


def _seeds() -> Iterator[bytes]:
    for raw in (
        b"",
        b"Subject: hello\r\n\r\nbody\r\n",
        b"From anne Thu Nov 19\nMessage-ID:\n <badger>\nSubject: x\n\nbody",
        b"Return-Path: <>\r\nX-MailFrom: forged\r\n and more\r\nDelivered-To: x\r\n\r\nbody",
        b"no header at all\r\n",
        b"A: 1\r\nFrom x\r\nX-MAILFROM:\r\n\r\nbody",
        b"A: 1\rB: 2\n\tmore\r\n: none\r\n\r\n",
        *bodies(),
    ):
        yield b"\0" + raw
        yield b"\1" + raw


TARGET = Target(
    check,
    _seeds,
    tokens=(
        b"From ",
        b"X-MailFrom: ",
        b"x-mailfrom:",
        b"Return-Path: ",
        b"Envelope-To:",
        b"Delivery-Date:",
        b"Delivered-To:",
        b"X-Original-To:",
        b"Message-ID: <",
        b"\r\n ",
        b"\n\t",
        b"\r\r\n",
        b"\r\n\r\n",
        b" :",
    ),
    longest=600,
)
