"""Header fields as they stand: taken apart, read, replaced, without touching the others.

For: reading and changing the header of a message whose bytes are sacred. Guarantees: joining
what was taken apart gives the same bytes (and a blank line, if there was none); a field that is
added is folded and holds no line end that could make another one; reading never raises,
whatever the bytes. Linear time.
"""

import binascii
import codecs
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from postroom.mail.message import header_end

_FIELD = re.compile(rb"[^\r\n]*+(?:\r\n|\n|\r|\Z)(?:[ \t][^\r\n]*+(?:\r\n|\n|\r|\Z))*+")
_NAME = re.compile(rb"([!-9;-~]++):")
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_ATOMS = re.compile(r"[\w !#$%&'*+/=?^`{|}~-]+", re.ASCII)
# Possessive, and without "?" inside: a value full of beginnings costs linear time.
_WORD = re.compile(r"=\?([!->@-~]{1,60}+)\?([bBqQ])\?([^?]*+)\?=")
_HEX = re.compile(rb"=([0-9A-Fa-f]{2})")
# Charsets of mail. No other name is looked up: Python keeps each one that it was ever asked for,
# and has codecs that are slow on hostile input, or for programmers.
_CHARSETS = """
    us-ascii ascii utf-8 utf-7 unicode-1-1-utf-7 utf-16 utf-16be utf-16le utf-32 utf-32be utf-32le
    iso-8859-1 iso-8859-2 iso-8859-3 iso-8859-4 iso-8859-5 iso-8859-6 iso-8859-7 iso-8859-8
    iso-8859-9 iso-8859-10 iso-8859-11 iso-8859-13 iso-8859-14 iso-8859-15 iso-8859-16
    latin1 latin2 latin3 latin4 latin5 latin6 latin7 latin8 latin9 latin10
    windows-1250 windows-1251 windows-1252 windows-1253 windows-1254 windows-1255 windows-1256
    windows-1257 windows-1258 cp1250 cp1251 cp1252 cp1253 cp1254 cp1255 cp1256 cp1257 cp1258
    cp437 cp850 cp852 cp855 cp857 cp858 cp862 cp866 cp874 cp932 cp949 cp950 ibm437 ibm850 ibm852
    ibm855 ibm866 koi8-r koi8-u koi8-t kz1048 ptcp154 tis-620 macintosh mac-cyrillic mac-roman
    gb2312 gbk gb18030 hz-gb-2312 hz big5 big5-hkscs euc-cn euc-kr ks_c_5601-1987 ksc5601 johab
    uhc iso-2022-kr euc-jp shift_jis sjis ms932 ms-kanji iso-2022-jp iso-2022-jp-1 iso-2022-jp-2
    iso-2022-jp-3 iso-2022-jp-ext shift_jis-2004 euc-jis-2004
"""
_PLAIN = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!*+-/")
MOST = 65_536  # octets of one field that are read; what is longer is not meant for people
WIDTH = 76  # of a line that we write
LONGEST_CHARSET = 60  # characters of a name
LONGEST_WORD = 900  # octets that we leave unbroken; a line may have 998 (RFC 5322 2.1.1)


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
        if head.endswith(b"\r") and self.rest.startswith(b"\n"):
            head += b"\n"  # else the two would be one line end, and the blank line gone
        elif head and not head.endswith((b"\r", b"\n")):
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
            name = _NAME.match(match[0])
            fields.append(Field(name[1].decode().lower() if name else "", match[0]))
    return Parts(tuple(fields), raw[end:])


def field(name: str, value: str, utf8: bool = False) -> Field:
    """A field of ours. `value` is text; what is not ASCII is encoded (RFC 2047), or with `utf8`
    left as it is (RFC 6532), which only addresses need. Whatever line ends and controls stand in
    it become spaces. For structured fields give addresses already spelled."""
    text = _one_line(value)
    if not (utf8 or text.isascii()):
        text = encoded(text)
    return Field(name.lower(), f"{name}: {_folded(name, text)}\r\n".encode())


def unstructured(text: str) -> str:
    """Text for people as the value of a field: encoded if it is not ASCII, if it would be read
    as encoded, or if a word of it is too long for a line."""
    clean = _one_line(text)
    return clean if _is_plain(clean) else encoded(clean)


def phrase(text: str) -> str:
    """Text as a phrase (RFC 5322 3.2.5), fit to stand before an address in angle brackets."""
    clean = _one_line(text)
    if not _is_plain(clean):
        return encoded(clean)
    if not clean or _ATOMS.fullmatch(clean):
        return clean
    return '"' + re.sub(r'(["\\])', r"\\\1", clean) + '"'


def encoded(text: str) -> str:
    """Text as encoded words of at most 75 characters, with spaces between (RFC 2047 2)."""
    octets = text.encode("utf-8", "replace")
    others = sum(each not in _PLAIN and each != 32 for each in octets)
    kind = "q" if others * 3 <= len(octets) else "b"
    words, word, room = [], b"", 0
    for character in text:
        spelled = character.encode("utf-8", "replace")
        cost = len(spelled) if kind == "b" else len(_quoted(spelled))
        if cost > room:
            words.append(word)
            word, room = b"", 45 if kind == "b" else 63
        word += spelled
        room -= cost
    words.append(word)
    spell = _quoted if kind == "q" else b64encode
    return " ".join(f"=?utf-8?{kind}?{spell(each).decode()}?=" for each in words if each)


def _quoted(octets: bytes) -> bytes:
    """The "Q" encoding as a phrase allows it (RFC 2047 5)."""
    return b"".join(
        b"_" if each == 32 else b"%c" % each if each in _PLAIN else b"=%02X" % each
        for each in octets
    )


def _one_line(text: str) -> str:
    clean = text.encode("utf-8", "replace").decode() if not text.isascii() else text
    return " ".join(_CONTROLS.sub(" ", clean).split())


def _is_plain(text: str) -> bool:
    return (
        text.isascii()
        and "=?" not in text
        and max(map(len, text.split()), default=0) < (LONGEST_WORD)
    )


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
    """A header value for people, on one line. Never raises; what cannot be read is shown as
    "\\ufffd"."""
    text = value.decode("utf-8", "replace")
    shown: list[str] = []
    waiting, charset, end = b"", "", 0
    for match in _WORD.finditer(text):
        between = text[end : match.start()]
        octets = _word_octets(match[2], match[3])
        if octets is None:
            continue
        # White space between two encoded words is not shown; a character may be divided
        # between two of the same charset, though it should not (RFC 2047 6.2, 5).
        if between.strip() or not charset or charset != match[1].lower():
            shown.append(in_charset(waiting, charset))
            shown.append(between if between.strip() or not charset else "")
            waiting = b""
        waiting, charset, end = waiting + octets, match[1].lower(), match.end()
    shown += in_charset(waiting, charset), text[end:]
    return _one_line("".join(shown))


def _word_octets(kind: str, payload: str) -> bytes | None:
    octets = payload.encode()
    if kind in "qQ":
        return _HEX.sub(lambda each: bytes([int(each[1], 16)]), octets.replace(b"_", b" "))
    try:
        return binascii.a2b_base64(octets + b"===")
    except binascii.Error:
        return None


def in_charset(octets: bytes, charset: str) -> str:
    """Octets as text in the charset that a sender names; UTF-8 where that is none. Never raises."""
    name = charset[:LONGEST_CHARSET].partition("*")[0]  # "*": RFC 2231 5
    return octets.decode(_CODECS.get(_plain(name), "utf-8"), "replace")


def _plain(charset: str) -> str:
    """The name of a charset, whatever stands between its letters and digits."""
    return "".join(filter(str.isalnum, charset.lower())).removeprefix("x")


_CODECS = {_plain(each): codecs.lookup(each).name for each in _CHARSETS.split()} | {
    "windows31j": "cp932",
    "iso88598i": "iso8859-8",  # RFC 1556: in which order it is shown is not our concern
    "iso88598e": "iso8859-8",
}
