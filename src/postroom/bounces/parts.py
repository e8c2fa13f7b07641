"""The parts of a report, as far as they can be told from each other.

For: reading reports that somebody's server made badly or that were cut on the way. Guarantees: any
bytes can be read and nothing is raised; one pass over the lines, without recursion, whatever is
nested; the message that came back is never taken for a part of the report, as anybody may have
written it, be it one that looks like a report.

A part begins below a boundary that was declared; where those are lost, below any line that begins
with "--" and has a Content- field next, or at a Content-Type field. The header of a part ends with
a blank line, or where that is missing, with the first field that is none of a part.
"""

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from postroom.mail.fields import Parts, in_charset
from postroom.mail.message import message_id
from postroom.reading.mime import Kind
from postroom.reading.text import text_of

PARTS: Final = 200  # that are told from each other
BOUNDARIES: Final = 20  # that are looked for at a time
LONGEST_FIELD: Final = 2_000  # octets of a header field of a part

_TYPE = re.compile(rb"[ \t]*([!#-'*+.0-9A-Z^-~-]{1,60}/[!#-'*+.0-9A-Z^-~-]{1,60})", re.IGNORECASE)
_BOUNDARY = re.compile(rb';\s*boundary\s*=\s*(?:"([^"]{1,200})"?|([^\s;"]{1,200}))', re.IGNORECASE)
_REPORT = re.compile(rb';\s*report-type\s*=\s*"?([A-Z-]{1,40})', re.IGNORECASE)
_ID = re.compile(rb"(?:\A|(?<=[\r\n]))message-id:", re.IGNORECASE)
_NAME = re.compile(rb"([!-9;-~]+)[ \t]*:")
_OF_PART = (b"content-", b"mime-version", b"x-")
# Fields that a message has and a report has not; what follows is what came back.
_OF_MESSAGE = (b"received:", b"return-path:", b"message-id:", b"dkim-signature:")
_RETURNED = ("message/rfc822", "text/rfc822", "message/global", "message/partial", "message/news")
_REPORTS = ("delivery-status", "feedback-report", "disposition-notification")


class Part(NamedTuple):
    """`type` is in lower case, "" if it is not told; `text` is decoded as far as it can be."""

    type: str
    text: str


class Taken(NamedTuple):
    """A report: the type that its header says ("" if it says none), what it is a report of
    ("delivery-status" and the like), its parts without what came back, the octets before that,
    and its Message-ID ("" if that is not told)."""

    type: str
    report: str
    parts: tuple[Part, ...]
    ours: bytes
    message_id: str

    def of(self, *kinds: str) -> list[str]:
        """The texts of parts whose type ends so."""
        return [each.text for each in self.parts if each.type.endswith(kinds)]


class _Open:
    """A part that is being read."""

    def __init__(self, kind: str) -> None:
        self.head: list[bytes] = []
        self.lines: list[bytes] = []
        self.type = kind
        self.encoding = ""

    def done(self) -> Part:
        body = b"".join(self.lines)
        if self.encoding in ("base64", "quoted-printable"):
            kind = Kind(self.type, "utf-8", b"", self.encoding, False)
            return Part(self.type, text_of(kind, body, len(body)))
        return Part(self.type, in_charset(body, "utf-8"))


class _Reader:
    """The pass over the lines. `wrapped` if this may be a report that somebody put into another
    message, as some filters do."""

    def __init__(self, kind: str, boundary: bytes, wrapped: bool) -> None:
        self._boundaries = [boundary] if boundary else []
        self._plain = bool(kind) and not kind.startswith("multipart/")
        self._loose = not kind  # nobody says where what came back begins
        self._part = _Open("" if kind.startswith("multipart/") else kind)
        self._wrapped = wrapped and not self._plain
        self._of_head: tuple[bytes, ...] = _OF_PART
        self._in_head = False
        self._returned = False
        self.parts: list[Part] = []
        self.returned_at = -1  # offset

    def read(self, lines: Sequence[bytes]) -> None:
        """Take all lines."""
        at = 0
        for number, line in enumerate(lines):
            following = lines[number + 1] if number + 1 < len(lines) else b""
            self._take(line, following, at)
            at += len(line)
        self.close(at)

    def close(self, at: int) -> None:
        """What was read of a part is all there is of it."""
        if self._in_head:
            self._end_head(at)
        if not self._returned:
            self.parts.append(self._part.done())

    def _take(self, line: bytes, following: bytes, at: int) -> None:
        if line.startswith(b"--") and self._divides(line, following):
            self._begin(at)
        elif self._in_head:
            self._take_head(line, at)
        elif self._returned:
            return
        elif line[:13].lower() == b"content-type:" and not self._plain:
            self._begin(at)
            self._part.head.append(line)
        elif self._loose and line.lower().startswith(_OF_MESSAGE):
            self._come_back(at)
        else:
            self._part.lines.append(line)

    def _divides(self, line: bytes, following: bytes) -> bool:
        if self._plain or len(self.parts) >= PARTS:
            return False
        inside = line.rstrip()[2:]
        if inside in self._boundaries or inside.removesuffix(b"--") in self._boundaries:
            return True
        return not self._returned and following[:8].lower() == b"content-"

    def _begin(self, at: int) -> None:
        self.close(at)
        self._part, self._in_head, self._returned = _Open(""), True, False
        self._of_head = _OF_PART

    def _take_head(self, line: bytes, at: int) -> None:
        if not line.strip():
            self._end_head(at + len(line))
        elif line[:1] in b" \t" or line.lower().startswith(self._of_head):
            self._part.head.append(line)
        else:
            self._end_head(at)
            if not self._returned:
                self._part.lines.append(line)

    def _end_head(self, at: int) -> None:
        self._in_head = False
        part, said = self._part, _said(self._part.head)
        part.type = type_of(said.get(b"content-type", b""))
        part.encoding = said.get(b"content-transfer-encoding", b"").strip().lower().decode("latin1")
        if part.type.startswith(_RETURNED) and not part.type.endswith(_REPORTS):
            if self._wrapped and not any(each.type for each in self.parts):
                self._begin(at)
                self._of_head, self._wrapped = (b"",), False  # any field
                return
            self._returned = True
            self.returned_at = at if self.returned_at < 0 else self.returned_at
        elif part.type.startswith("multipart/") and len(self._boundaries) < BOUNDARIES:
            boundary = boundary_of(said[b"content-type"])
            self._boundaries += [boundary] if boundary else []

    def _come_back(self, at: int) -> None:
        self.close(at)
        self._returned, self.returned_at = True, at


def take_parts(message: Parts) -> Taken:
    """The parts of a message, of which `rest` is as much as shall be looked at."""
    field = message.first("content-type")
    value = field.raw[:LONGEST_FIELD].partition(b":")[2] if field else b""
    kind = type_of(value)
    match = _REPORT.search(value)
    report = match[1].decode().lower() if match else ""
    reader = _Reader(kind, boundary_of(value), report == "delivery-status")
    reader.read(message.rest.splitlines(keepends=True))
    at = reader.returned_at
    return Taken(
        kind,
        report,
        tuple(reader.parts),
        message.rest if at < 0 else message.rest[:at],
        _id_of(message.rest, max(at, 0)),
    )


def type_of(value: bytes) -> str:
    """The type that a Content-Type field says, "" if it says none."""
    match = _TYPE.match(b" ".join(value[:LONGEST_FIELD].split()))
    return match[1].decode().lower() if match else ""


def boundary_of(value: bytes) -> bytes:
    """The boundary that a Content-Type field says, b"" if it says none."""
    match = _BOUNDARY.search(value[:LONGEST_FIELD])
    return (match[1] or match[2]).rstrip() if match else b""


def _said(head: Sequence[bytes]) -> dict[bytes, bytes]:
    """The first fields of each name (lower case)."""
    found: dict[bytes, bytes] = {}
    name = b""
    for line in head:
        if match := _NAME.match(line):
            name = match[1].lower()
            name = b"" if name in found else name
            found[name] = line[match.end() :]
        elif name and len(found[name]) < LONGEST_FIELD:
            found[name] += line
    return found


def _id_of(body: bytes, start: int) -> str:
    """The Message-ID of what came back."""
    found = _ID.search(body, start)
    named = message_id(body[found.start() : found.start() + LONGEST_FIELD]) if found else ""
    return named if named.startswith("<") else ""
