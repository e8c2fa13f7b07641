"""Target: the arguments of MAIL, RCPT and BDAT.

For: holding `lmtp.grammar` and `mail.address` to what they promise: a value or a refusal
that is a reply of class 5, nothing else; no value holds what could break a line, a log or a
header; the quick way for common addresses and the long way agree; what is printed is
parsed to the same again. A reference reads mailboxes character by character.
"""

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from fuzz.dialogues import arguments
from fuzz.target import Octets, Target
from postroom.lmtp.grammar import Chunk, Refused, parse_chunk, parse_mail, parse_recipient
from postroom.mail.address import MAX_PATH, AddressError, Mailbox, fold, parse_mailbox

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_CONTROLS = ("", *map(chr, range(0x20)), "\x7f")
_SPECIAL = frozenset('"<>()[]\\,;:@ ').union(_CONTROLS)
_NOT_LITERAL = _SPECIAL - frozenset(",;:")
_Value = TypeVar("_Value")


def check(data: bytes) -> None:
    """One octet chooses SMTPUTF8 at RCPT; the rest is the argument."""
    source = Octets(data)
    smtputf8 = bool(source.number(below=2))
    argument = source.rest()
    _check_mail(argument)
    _check_recipient(argument, smtputf8)
    _check_chunk(argument)
    _check_mailbox(argument.decode("utf-8", "replace"))


def _parsed(parse: Callable[[bytes], _Value], argument: bytes) -> _Value | bytes:
    """What came of it: the value, or the refusal as it is sent."""
    try:
        return parse(argument)
    except Refused as refused:
        assert refused.reply.code >= 500, refused.reply
        return refused.reply.wire


def _check_mail(argument: bytes) -> None:
    mail = _parsed(parse_mail, argument)
    # A space at the end changes nothing, but for the quick way, which does not take it.
    assert _parsed(parse_mail, argument + b" ") == mail
    if isinstance(mail, bytes):
        return
    assert not _UNSAFE.search(mail.sender) and len(mail.sender) <= MAX_PATH
    assert mail.sender.encode() in argument
    assert mail.smtputf8 or mail.sender.isascii()
    assert mail.size is None or 0 <= mail.size < 10**20
    if mail.sender:
        _check_mailbox(mail.sender)


def _check_recipient(argument: bytes, smtputf8: bool) -> None:
    def parse(some: bytes) -> Mailbox:
        return parse_recipient(some, smtputf8)

    box = _parsed(parse, argument)
    assert _parsed(parse, argument + b" ") == box
    if isinstance(box, bytes):
        return
    text = str(box)
    assert box.local and not _UNSAFE.search(text)
    assert smtputf8 or text.isascii()
    assert box.domain or box.local.lower() == "postmaster"
    assert parse(b"TO:<%b>" % text.encode()) == box


def _check_chunk(argument: bytes) -> None:
    digits = argument[: len(argument) - len(argument.lstrip(b"0123456789"))]
    rest = argument[len(digits) :]
    if not 0 < len(digits) <= 20 or rest[:1] not in (b"", b" ", b"\t"):
        assert isinstance(_parsed(parse_chunk, argument), bytes)
        return
    word = rest.strip(b" \t").upper()
    expected = Chunk(int(digits), last=word == b"LAST", sound=word in (b"", b"LAST"))
    assert parse_chunk(argument) == expected


def _check_mailbox(text: str) -> None:
    expected = _read_mailbox(text) if len(text) <= MAX_PATH else None
    try:
        box, exact = parse_mailbox(text)
    except AddressError as error:
        assert expected is None and str(error).isprintable()
        return
    assert (box.local, box.domain, exact) == expected
    assert parse_mailbox(str(box)) == (box, str(box))
    assert parse_mailbox(exact) == (box, exact)
    folded = fold(text)
    assert fold(folded) == folded and len(folded) == len(text)
    assert all(one == other or one.isascii() for one, other in zip(text, folded, strict=True))


def _read_mailbox(text: str) -> tuple[str, str, str] | None:
    """Local part, domain and exact text of a mailbox after its source route, if it is one."""
    start = 0
    while text[start : start + 1] == "@":
        end = _end_of_domain(text, start + 1)
        if text[end : end + 1] not in (",", ":"):
            return None
        start = end + 1
        if text[end] == ":":
            break
        if text[start : start + 1] != "@":
            return None
    if text[start : start + 1] == '"':
        local, end = _read_quoted(text, start + 1)
    else:
        end = _end_of_atom(text, start)
        local = text[start:end]
    if not local or end < 0:
        return None
    domain = text[end + 1 :]
    if end < len(text) and (text[end] != "@" or _end_of_domain(text, end + 1) != len(text)):
        return None
    return (local, domain, text[start:]) if domain or end == len(text) else None


def _read_quoted(text: str, at: int) -> tuple[str, int]:
    """What is quoted, and where it ends; -1 if it does not."""
    local = ""
    while at < len(text) and text[at] != '"':
        at += text[at] == "\\"
        if text[at : at + 1] in _CONTROLS:
            return "", -1
        local += text[at]
        at += 1
    return local, at + 1 if at < len(text) else -1


def _end_of_domain(text: str, start: int) -> int:
    if text[start : start + 1] != "[":
        end = _end_of_atom(text, start)
        return end if end > start else len(text) + 1
    end = text.find("]", start)
    inside = text[start + 1 : end]
    if end < 0 or not inside or any(each in _NOT_LITERAL for each in inside):
        return len(text) + 1
    return end + 1


def _end_of_atom(text: str, at: int) -> int:
    while at < len(text) and text[at] not in _SPECIAL:
        at += 1
    return at


def _seeds() -> Iterator[bytes]:
    for argument in arguments():
        yield b"\0" + argument
        yield b"\1" + argument
        # The mailbox alone, for the reference.
        yield b"\0" + argument.partition(b"<")[2].rpartition(b">")[0]


TARGET = Target(
    check,
    _seeds,
    tokens=(
        b"FROM:<",
        b"TO:<",
        b"<>",
        b"SIZE=",
        b"BODY=8BITMIME",
        b"BODY=BINARYMIME",
        b"SMTPUTF8",
        b"@example.com>",
        b"@[127.0.0.1]",
        b'"a b"@',
        b'\\"',
        b"@relay:",
        b"postmaster",
        b" LAST",
        "é".encode(),
        "\u2028".encode(),
        b"\xc2\x85",
    ),
    longest=1200,
)
