"""Footers: a text after the author's, where that breaks nothing.

For: cooking. Guarantees: what is signed or encrypted is left alone, and so is MIME that is not
whole; the author's octets stay as they are (base64: all but the last group). Plain text gets
the footer after a line "-- ", which clients know not to quote; multipart/mixed gets a part
before its closing boundary; anything else becomes the first part of a new multipart/mixed.
Pure, linear time, never raises.
"""

import quopri
import re
from base64 import b64decode, encodebytes
from collections.abc import Mapping
from hashlib import blake2b
from string import Template
from typing import Final

from postroom.mail.fields import LONGEST_WORD, Field, Parts, field
from postroom.reading.mime import Kind, kind_of, newline_of, span_of

SEPARATOR: Final = "\n-- \n"  # its first line end also ends a soft line break (RFC 2045 6.7)
_UNTOUCHABLE: Final = {
    "multipart/signed",
    "multipart/encrypted",
    "multipart/report",
    "application/pkcs7-mime",
    "application/x-pkcs7-mime",
    "application/pgp-encrypted",
}
_BASE64: Final = re.compile(rb"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")


def spelled(footer: str, values: Mapping[str, str]) -> str:
    """The footer with its $names filled in; a name that is unknown stays as it is."""
    return Template(footer).safe_substitute(values).strip("\r\n")


def with_footer(parts: Parts, text: str) -> tuple[Parts, str]:
    """The message with the footer, and a sentence on what was done."""
    kind = kind_of(parts)
    if kind is None:
        return parts, "no footer: what the message says of its content cannot be relied on"
    if kind.type in _UNTOUCHABLE:
        return parts, f"no footer: the message is {kind.type}, which it would break"
    if kind.type.startswith("multipart/") and span_of(parts.rest, kind.boundary) is None:
        return parts, "no footer: the parts of the message are not whole"
    if kind.type == "multipart/mixed" and kind.boundary not in text.encode():
        return _with_part(parts, kind, text), "footer added as a part of its own"
    if kind.type == "text/plain" and not kind.attached:
        rest = _appended(parts.rest, kind, text)
        if rest is not None:
            return parts._replace(rest=rest), "footer added to the text"
        if kind.encoding == "base64" and _groups(parts.rest) is None:
            return parts, "no footer: the text of the message is no base64"
    return _wrapped(parts, kind, text), "footer added, as a part beside the message's content"


def _appended(body: bytes, kind: Kind, text: str) -> bytes | None:
    """Plain text with the footer after it; None if it cannot carry it."""
    newline = newline_of(body)
    ours = _octets(SEPARATOR + text, kind.charset)
    if ours is None:
        return None
    if kind.encoding == "base64":
        return _base64(body, ours.replace(b"\n", b"\r\n") + b"\r\n", newline)
    ours += b"\n"
    if kind.encoding == "quoted-printable":
        ours = quopri.encodestring(ours)
    elif kind.encoding == "7bit" and not ours.isascii():
        return None
    if not body.endswith((b"\r", b"\n")):
        body += newline
    return body + ours.replace(b"\n", newline)


def _octets(text: str, charset: str) -> bytes | None:
    try:
        # Where ASCII is not ASCII the octets cannot simply be joined.
        if SEPARATOR.encode(charset) != SEPARATOR.encode():
            return None
        return text.encode(charset)
    except (LookupError, ValueError):  # an unknown charset, or one that cannot say this
        return text.encode() if text.isascii() else None


def _groups(body: bytes) -> bytes | None:
    """The base64 without white space; None if it is none."""
    plain = b"".join(body.split())
    return plain if _BASE64.fullmatch(plain) else None


def _base64(body: bytes, ours: bytes, newline: bytes) -> bytes | None:
    """The last group is spelled anew with the footer, those before stay."""
    groups = _groups(body)
    if groups is None:
        return None
    end = b64decode(groups[-4:])
    if b64decode(groups[-8:])[-1:] not in (b"", b"\n"):
        ours = b"\r\n" + ours
    kept = body.rstrip()
    for octet in reversed(groups[-4:]):
        kept = kept[: kept.rindex(b"%c" % octet)]
    kept = kept.rstrip() + newline if kept.strip() else _blank(body)
    return kept + encodebytes(end + ours).replace(b"\n", newline)


def _blank(body: bytes) -> bytes:
    """The blank line with which the rest of a message begins."""
    match = re.match(rb"\r\n|\n|\r", body)
    return match[0] if match else b""


def _part(text: str, newline: bytes) -> bytes:
    """The footer as a part: header, blank line, text, without a line end after it."""
    octets, encoding = text.encode(), "7bit"
    if not text.isascii() or max(map(len, text.split("\n"))) > LONGEST_WORD:
        octets, encoding = quopri.encodestring(octets), "quoted-printable"
    head = (
        'Content-Type: text/plain; charset="utf-8"\n'
        f"Content-Transfer-Encoding: {encoding}\nContent-Disposition: inline\n\n"
    )
    return (head.encode() + octets).replace(b"\n", newline)


def _with_part(parts: Parts, kind: Kind, text: str) -> Parts:
    body, newline = parts.rest, newline_of(parts.rest)
    span = span_of(body, kind.boundary)
    assert span is not None  # the caller has looked
    ours = b"--" + kind.boundary + newline + _part(text, newline) + newline
    return parts._replace(rest=body[: span.closing] + ours + body[span.closing :])


def _wrapped(parts: Parts, kind: Kind, text: str) -> Parts:
    """The content as it is, with the fields that describe it, as the first of two parts."""
    body, newline = parts.rest, newline_of(parts.rest)
    inner = tuple(each for each in parts.fields if each.name.startswith("content-"))
    outer = tuple(each for each in parts.fields if not each.name.startswith("content-"))
    first = Parts(inner, body).joined() if inner else newline * (not _blank(body)) + body
    boundary = b"=_" + blake2b(first, digest_size=15).hexdigest().encode()
    marker = b"--" + boundary
    lines = [marker, first, marker, _part(text, newline), marker + b"--", b""]
    rest = newline + newline.join(lines)
    encoding = "binary" if kind.encoding == "binary" else "7bit" if first.isascii() else "8bit"
    ours: tuple[Field, ...] = (
        field("Content-Type", f'multipart/mixed; boundary="{boundary.decode()}"'),
        field("Content-Transfer-Encoding", encoding),
    )
    if parts.first("mime-version") is None:
        ours = (field("MIME-Version", "1.0"), *ours)
    return Parts(outer, rest).with_last(ours)
