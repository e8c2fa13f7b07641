"""What a message or a part says it is: type, charset, boundary, encoding.

For: those who put text into a message without taking it to pieces. Guarantees: only what is
said once and plainly is believed; anything else (two Content-Type fields, a parameter in
sections, an unknown encoding) is None, and the message is better left alone. Pure, linear time,
never raises.
"""

import re
from typing import NamedTuple

from postroom.mail.fields import Parts

_TYPE = re.compile(r"\s*([!#-'*+.0-9A-Z^-~-]+/[!#-'*+.0-9A-Z^-~-]+)\s*(?:;|\Z)", re.IGNORECASE)
_PARAMETER = re.compile(r';\s*([^\s=;"]++)\s*=\s*(?:"((?:[^"\\]|\\.)*+)"|([^\s;"]*+))')
_ENCODINGS = {"7bit", "8bit", "binary", "quoted-printable", "base64"}
LONGEST_BOUNDARY = 200  # RFC 2046 5.1.1 says 70


class Kind(NamedTuple):
    """`type` is "text/plain" and the like, `encoding` the Content-Transfer-Encoding, both in
    lower case; `boundary` is b"" where there is none; `attached` says that the sender wants it
    not shown but kept."""

    type: str
    charset: str
    boundary: bytes
    encoding: str
    attached: bool


def kind_of(parts: Parts) -> Kind | None:
    """What the header says of the body; None if that cannot be relied on."""
    types, encodings = parts.all("content-type"), parts.all("content-transfer-encoding")
    if len(types) > 1 or len(encodings) > 1:
        return None
    encoding = encodings[0].value.decode("latin-1").lower() if encodings else "7bit"
    value = types[0].value.decode("latin-1") if types else "text/plain"
    match = _TYPE.match(value)
    if match is None or encoding not in _ENCODINGS:
        return None
    said = {each[1].lower(): each[2] or each[3] or "" for each in _PARAMETER.finditer(value)}
    boundary = said.get("boundary", "").rstrip().encode("latin-1")
    disposition = parts.first("content-disposition")
    return Kind(
        match[1].lower(),
        said.get("charset", "us-ascii").lower(),
        boundary if len(boundary) <= LONGEST_BOUNDARY else b"",
        encoding,
        disposition is not None and disposition.value.lower().startswith(b"attachment"),
    )


class Span(NamedTuple):
    """Where the first part of a multipart begins, and where the line that closes all stands."""

    first: int
    closing: int


def span_of(body: bytes, boundary: bytes) -> Span | None:
    """Where the parts are; None if the boundary is missing, never opened or never closed."""
    if not boundary:
        return None
    line = rb"(?:\A|(?<=[\r\n]))--" + re.escape(boundary)
    opened = re.compile(line + rb"[ \t]*+(?:\r\n|\n|\r)").search(body)
    if opened is None:
        return None
    closed = re.compile(line + rb"--[ \t]*+(?=[\r\n]|\Z)").search(body, opened.end())
    return Span(opened.end(), closed.start()) if closed else None


def newline_of(body: bytes) -> bytes:
    """The line end that this text uses."""
    return b"\r\n" if b"\r\n" in body or b"\n" not in body else b"\n"
