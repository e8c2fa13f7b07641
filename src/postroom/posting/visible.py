"""Whether a message shows a moderator's token.

For: the last look before a post goes out; what `approval` takes out is gone by then. Guarantees:
a token is found however it is divided (blanks, line ends, punctuation, HTML tags), in the values
of header fields, encoded or not, and in bodies, as they stand and decoded. The work is bounded:
of each part the first and last 256 KiB are looked at, of encoded header fields 256 KiB; what is
nested too deep or divided too often counts as text. Pure, never raises, whatever the bytes.
"""

import binascii
import html
import re
import string
from collections.abc import Collection, Iterator
from typing import Final

from postroom.mail.fields import decoded, take_apart
from postroom.reading.mime import Kind, kind_of

WINDOW: Final = 262_144  # octets; a multiple of 4, so that base64 can be cut there
MOST_PARTS: Final = 500
DEPTH: Final = 10  # parts within parts that are followed

_KEPT: Final = (string.ascii_letters + "234567").encode()
_OTHERS: Final = bytes(set(range(256)) - set(_KEPT))
_UPPER: Final = bytes(range(256)).upper()
_NOT_BASE64: Final = bytes(
    set(range(256)) - set((string.ascii_letters + string.digits + "+/=").encode())
)
_END_OF_LINE: Final = re.compile(rb"(?:--)?[ \t]*+(?:\r\n|\r|\n|\Z)")
_TAG: Final = re.compile(rb"<[^<>]*+>")


def shows(raw: bytes, tokens: Collection[str]) -> bool:
    """Whether a reader of this message could find one of these tokens (plain, as
    `lists.keys.plain_token` gives them)."""
    wanted = [each.encode() for each in tokens]
    return bool(wanted) and any(each in text for text in _squeezed(raw) for each in wanted)


def _squeezed(raw: bytes) -> Iterator[bytes]:
    """All that can be read in a message, letters and digits of tokens alone."""
    for text in _texts(raw):
        yield text.translate(_UPPER, _OTHERS)
        if b"<" in text or b"&" in text:
            plain = html.unescape(_TAG.sub(b"", text).decode("latin-1"))
            yield plain.encode("utf-8", "replace").translate(_UPPER, _OTHERS)


def _texts(raw: bytes) -> Iterator[bytes]:
    waiting, seen, fields = [(raw, 0)], 0, WINDOW
    while waiting:
        message, depth = waiting.pop()
        seen += 1
        parts = take_apart(message)
        yield b"".join(each.raw for each in parts.fields)
        for each in parts.fields:
            if b"=?" in each.raw and fields > 0:
                yield decoded(each.raw[:fields]).encode("utf-8", "replace")
                fields -= len(each.raw)
        kind = kind_of(parts)
        room = MOST_PARTS - seen - len(waiting)
        within = _within(kind, parts.rest, room) if kind and depth < DEPTH else []
        if within:
            waiting += [(each, depth + 1) for each in within]
        else:
            yield from _readings(kind, parts.rest)


def _within(kind: Kind, body: bytes, room: int) -> list[bytes]:
    """The parts of a body, with what stands before and after them; the last may hold several."""
    if room < 1 or kind.encoding in ("base64", "quoted-printable"):
        return []
    if kind.type == "message/rfc822":
        return [body.lstrip(b"\r\n")]
    if not kind.type.startswith("multipart/") or not kind.boundary:
        return []
    # Wherever it stands: not to ask for the beginning of a line is much faster, and such a line
    # stands nowhere else.
    before, *found = body.split(b"--" + kind.boundary, room)
    return [before, *map(_after_line_end, found)] if found else []


def _after_line_end(text: bytes) -> bytes:
    """Without what ends the line of a boundary."""
    end = _END_OF_LINE.match(text)
    return text[end.end() :] if end else text


def _readings(kind: Kind | None, body: bytes) -> Iterator[bytes]:
    """A body as it stands, and decoded as it says; both ways where that cannot be relied on."""
    encoding = kind.encoding if kind else ""
    for window in _windows(body):
        yield window
        if encoding in ("quoted-printable", ""):
            yield binascii.a2b_qp(window)
    if encoding in ("base64", ""):
        for window in _windows(body.translate(None, _NOT_BASE64)):
            yield b"".join(_base64(run) for run in window.split(b"="))


def _windows(body: bytes) -> list[bytes]:
    if len(body) <= 2 * WINDOW:
        return [body]
    return [body[:WINDOW], body[-WINDOW - len(body) % 4 :]]


def _base64(run: bytes) -> bytes:
    """Letters as octets; one too many says nothing."""
    even = run[:-1] if len(run) % 4 == 1 else run
    return binascii.a2b_base64(even + b"=" * (-len(even) % 4))
