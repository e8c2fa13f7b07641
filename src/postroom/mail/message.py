"""Message bytes: where the headers end, how headers are spliced in and left out.

For: reading and adding headers without parsing or regenerating the rest. Guarantees: the
body is never touched; any bytes are a message (a broken bounce is still a bounce).
A line ends with CRLF, LF or CR, as in Python's email parser, so that what we take for a
header and what a consumer takes for one are the same.
"""

import email
import email.policy
import re
from email.message import Message
from hashlib import blake2b
from typing import NamedTuple

_EOL = rb"(?:\r\n|\n|\r)"
# What Python's parser takes for a header line or its continuation; a "From " line belongs
# to the header if it is the first or another such line follows. Possessive, so that a
# header of any size costs linear time and no backtracking memory.
_HEADERS = re.compile(
    rb"(?:From [^\r\n]*+(?:%b|\Z))?+"
    rb"(?:(?:[!-9;-~]*+:|[ \t])[^\r\n]*+(?:%b|\Z)"
    rb"|From [^\r\n]*+%b(?=[!-9;-~]*+:|[ \t]|From ))*+" % (_EOL, _EOL, _EOL)
)


def _field(names: bytes) -> re.Pattern[bytes]:
    """A pattern for whole header fields with these names, continuation lines included."""
    return re.compile(
        rb"(?:\A|(?<=[\r\n]))(?:%b):[^\r\n]*+(?:%b|\Z)(?:[ \t][^\r\n]*+(?:%b|\Z))*+"
        % (names, _EOL, _EOL),
        re.IGNORECASE,
    )


_MAIL_FROM = _field(rb"X-MailFrom")
# What a delivering agent adds anew at each attempt.
_TRACE_NAMES = (b"return-path", b"envelope-to", b"delivery-date", b"delivered-to", b"x-original-to")
_TRACE = _field(b"|".join(_TRACE_NAMES))
# An LMTP proxy writes one at each attempt, with the time (RFC 5321 4.4, RFC 3848).
_RECEIVED = _field(b"Received")
_BY_LMTP = re.compile(rb"\swith\s+(?:UTF8)?LMTPS?A?\b", re.IGNORECASE)


def header_end(raw: bytes) -> int:
    """Offset of the first octet that is no longer header: the blank line, or the body."""
    match = _HEADERS.match(raw)
    return match.end() if match else 0


def with_mail_from(raw: bytes, sender: str) -> bytes:
    """The message as a consumer sees it: `X-MailFrom:` with `sender` as its last header.

    One that the sender of the message put there is removed. The body stays as it is.
    """
    end = header_end(raw)
    head, rest = _MAIL_FROM.sub(b"", raw[:end]), raw[end:]
    if head and not head.endswith((b"\r", b"\n")):
        head += b"\r\n"
    field = b"X-MailFrom: " + sender.encode() if sender else b"X-MailFrom:"
    blank = b"" if rest.startswith((b"\r", b"\n")) else b"\r\n"
    return b"%b%b\r\n%b%b" % (head, field, blank, rest)


class Identity(NamedTuple):
    """`digest`: 32 octets over the message without what each delivery attempt adds;
    `message_id`: as text fit for a log line or a listing, "" if there is none."""

    digest: bytes
    message_id: str


def identify(raw: bytes) -> Identity:
    """What tells this message from others.

    Postfix resends identical bytes; Exim may add Delivery-date or Envelope-to; Dovecot's
    proxy puts a Received field of its own on top.
    """
    end = header_end(raw)
    head = raw[:end]
    folded = head.lower()
    lasting = head
    if b"lmtp" in folded and (top := _RECEIVED.search(head)) and _BY_LMTP.search(top[0]):
        lasting = head[: top.start()] + head[top.end() :]
    if any(name in folded for name in _TRACE_NAMES):
        lasting = _TRACE.sub(b"", lasting)
    if lasting is head:
        state = blake2b(raw, digest_size=32)
    else:
        state = blake2b(lasting, digest_size=32)
        state.update(memoryview(raw)[end:])
    return Identity(state.digest(), _message_id(head, folded))


def message_id(raw: bytes) -> str:
    """The Message-ID alone; the first octets of a message will do."""
    head = raw[: header_end(raw)]
    return _message_id(head, head.lower())


def _message_id(head: bytes, folded: bytes) -> str:
    name = b"message-id:"
    start = 0 if folded.startswith(name) else folded.find(b"\n" + name) + 1
    if not start and not folded.startswith(name):
        return ""
    line, _, rest = head[start + len(name) :].partition(b"\n")
    # Long ones are often folded onto the next line.
    if not line.strip() and rest[:1] in (b" ", b"\t"):
        line = rest.partition(b"\n")[0]
    text = line.strip().decode("utf-8", "replace")[:250]
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def parse(raw: bytes) -> Message:
    """Parse for reading. Any bytes give a message; defects are on its `.defects`."""
    return email.message_from_bytes(raw, policy=email.policy.compat32)
