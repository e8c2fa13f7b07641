"""Header fields as they stand: taken apart, read, replaced, without touching the others.

For: reading and changing the header of a message whose bytes are sacred. Guarantees: joining
what was taken apart gives the same bytes; a field that is added is folded, ASCII, and holds no
line end that could make another one; reading never raises, whatever the bytes. Linear time.
"""

import re
from collections.abc import Iterable, Sequence
from email.errors import HeaderParseError
from email.header import Header, decode_header
from typing import NamedTuple

from postroom.mail.message import header_end

_FIELD = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r|\Z)(?:[ \t][^\r\n]*+(?:\r\n|\n|\r|\Z))*+")
_LINE_END = re.compile(r"[\r\n]+")
MOST = 65_536  # octets of one field that are read; what is longer is not meant for people
WIDTH = 76  # of a line that we write


class Field(NamedTuple):
    """One header field: its name in lower case ("" for a line that is none), and its bytes with
    continuation lines and line ends."""

    name: str
    raw: bytes

    @property
    def value(self) -> bytes:
        """What stands after the colon, unfolded."""
        _, _, value = self.raw[:MOST].partition(b":")
        return b" ".join(value.split())

    @property
    def text(self) -> str:
        """What stands after the colon as people read it: encoded words (RFC 2047) decoded, on
        one line."""
        return decoded(self.value)


class Parts(NamedTuple):
    """A message: its header fields, and the rest, which begins with the blank line if there is
    one."""

    fields: tuple[Field, ...]
    rest: bytes

    def first(self, name: str) -> Field | None:
        """The first field with this name (lower case)."""
        return next((each for each in self.fields if each.name == name), None)

    def all(self, name: str) -> list[Field]:
        """All fields with this name (lower case)."""
        return [each for each in self.fields if each.name == name]

    def joined(self) -> bytes:
        """The message."""
        head = b"".join(each.raw for each in self.fields)
        if head and not head.endswith((b"\r", b"\n")):
            head += b"\r\n"
        blank = b"" if self.rest.startswith((b"\r", b"\n")) else b"\r\n"
        return head + blank + self.rest

    def without(self, names: Iterable[str]) -> "Parts":
        """Without the fields that have one of these names (lower case)."""
        gone = frozenset(names)
        return self._replace(fields=tuple(each for each in self.fields if each.name not in gone))

    def on_top(self, added: Sequence[Field]) -> "Parts":
        """With these fields before all others, as trace fields stand (RFC 5321 4.4)."""
        return self._replace(fields=(*added, *self.fields))

    def with_last(self, added: Sequence[Field]) -> "Parts":
        """With these fields after all others."""
        fields = self.fields
        if fields and not fields[-1].raw.endswith((b"\r", b"\n")):
            fields = (*fields[:-1], fields[-1]._replace(raw=fields[-1].raw + b"\r\n"))
        return self._replace(fields=(*fields, *added))


def take_apart(raw: bytes) -> Parts:
    """The header fields of a message, and the rest. Any bytes will do."""
    end = header_end(raw)
    fields = []
    for match in _FIELD.finditer(raw, 0, end):
        if match[0]:
            name, colon, _ = match[0].partition(b":")
            word = name.decode("ascii", "replace").rstrip().lower() if colon else ""
            fields.append(Field(word, match[0]))
    return Parts(tuple(fields), raw[end:])


def field(name: str, value: str) -> Field:
    """A field of ours. `value` is text; what is not ASCII is encoded (RFC 2047). Whatever line
    ends stand in it become spaces. For structured fields give addresses already spelled."""
    text = " ".join(_LINE_END.sub(" ", value).split())
    if text.isascii():
        folded = _folded(name, text)
    else:
        folded = Header(text, "utf-8", maxlinelen=WIDTH, header_name=name).encode(linesep="\r\n")
    return Field(name.lower(), f"{name}: {folded}\r\n".encode("ascii", "backslashreplace"))


def _folded(name: str, text: str) -> str:
    """Broken at spaces where a line would be too long; a word is never broken."""
    lines, room = [[""]], WIDTH - len(name) - 1
    for word in text.split(" "):
        if len(word) + 1 > room and lines[-1] != [""]:
            lines.append([])
            room = WIDTH
        lines[-1].append(word)
        room -= len(word) + 1
    return "\r\n ".join(" ".join(each).strip() for each in lines)


def decoded(value: bytes) -> str:
    """A header value for people. Never raises; what cannot be read is shown as "\\ufffd"."""
    text = value.decode("utf-8", "replace")
    if "=?" not in text:
        return text
    try:
        parts = decode_header(text)
    except (HeaderParseError, ValueError, IndexError):
        return text
    shown = "".join(_decoded(part, charset) for part, charset in parts)
    return " ".join(_LINE_END.sub(" ", shown).split())


def _decoded(part: bytes | str, charset: str | None) -> str:
    if isinstance(part, str):
        return part
    try:
        return part.decode(charset or "utf-8", "replace")
    except (LookupError, ValueError):  # a charset that nobody knows, or whose name holds a NUL
        return part.decode("utf-8", "replace")
