"""The arguments of MAIL, RCPT and BDAT.

For: turning an argument into values. Guarantees: linear time on lines that the session
bounds; no control character passes. Fails with `Refused`, which carries the reply.
"""

import re
from typing import NamedTuple

from postroom.mail import reply
from postroom.mail.address import AddressError, Mailbox, parse_mailbox
from postroom.mail.reply import Reply

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# The address of nearly every line; all else takes the long way through parse_mailbox.
_COMMON = re.compile(r"(?i:FROM|TO):<([\w!#$%&'*+/=?^`{|}~.-]{1,255})@([\w.-]{1,255})>", re.ASCII)
_PATH = re.compile(r'<((?:[^"<>\\]|"(?:[^"\\]|\\.)*"|\\.)*)>(.*)')
_PARAMETER = re.compile(r"([A-Za-z0-9][A-Za-z0-9-]*)(?:=([^\x00-\x20=\x7f]+))?")
_CHUNK = re.compile(rb"(\d{1,20})(?:[ \t]+(.*))?", re.DOTALL)
MAX_SIZE_DIGITS = 20  # RFC 1870 3


class Refused(Exception):
    """The command is refused with `.reply`; nothing has changed."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.text)
        self.reply = reply


class Mail(NamedTuple):
    """MAIL as parsed: sender ("" is the null sender), declared size in octets, SMTPUTF8,
    BODY=BINARYMIME."""

    sender: str
    size: int | None = None
    smtputf8: bool = False
    binary: bool = False


class Chunk(NamedTuple):
    """BDAT as parsed: how many octets follow, whether they are the last of the message;
    `sound` is False if the command was wrong but for its number."""

    octets: int
    last: bool = False
    sound: bool = True


def parse_mail(argument: bytes) -> Mail:
    """Parse what follows the verb MAIL. RFC 5321 4.1.1.2, RFC 1870, 3030, 6152, 6531."""
    text = _decode(argument)
    if text[:1] in "Ff" and _COMMON.fullmatch(text):
        return Mail(text[6:-1])
    _refuse_controls(text, reply.BAD_SENDER)
    inside, parameters = _split_path(text, "FROM:", reply.BAD_SENDER)
    size, smtputf8, binary, seen = None, False, False, set()
    for word in parameters.split():
        match = _PARAMETER.fullmatch(word)
        keyword = match[1].upper() if match else ""
        if match is None or keyword in seen:
            raise Refused(reply.BAD_PARAMETER)
        seen.add(keyword)
        value = match[2]
        if keyword == "SIZE":
            size = _size(value)
        elif keyword == "BODY":
            kind = (value or "").upper()
            if kind not in ("7BIT", "8BITMIME", "BINARYMIME"):
                raise Refused(reply.UNKNOWN_PARAMETER)
            binary = kind == "BINARYMIME"
        elif keyword == "SMTPUTF8":
            if value is not None:
                raise Refused(reply.BAD_PARAMETER)
            smtputf8 = True
        else:
            raise Refused(reply.UNKNOWN_PARAMETER)
    if not inside.isascii() and not smtputf8:
        raise Refused(reply.NEED_SMTPUTF8)  # RFC 6531 3.5
    if not inside:
        return Mail("", size, smtputf8, binary)  # RFC 5321 4.5.5: the null sender
    try:
        _, sender = parse_mailbox(inside)
    except AddressError:
        raise Refused(reply.BAD_SENDER) from None
    return Mail(sender, size, smtputf8, binary)


def parse_recipient(argument: bytes, smtputf8: bool) -> Mailbox:
    """Parse what follows the verb RCPT. RFC 5321 4.1.1.3, 4.5.1 for a bare postmaster."""
    text = _decode(argument)
    if (common := _COMMON.fullmatch(text)) and text[:1] in "Tt":
        return Mailbox(common[1], common[2])
    _refuse_controls(text, reply.BAD_RECIPIENT)
    inside, parameters = _split_path(text, "TO:", reply.BAD_RECIPIENT)
    try:
        mailbox, _ = parse_mailbox(inside)
    except AddressError:
        raise Refused(reply.BAD_RECIPIENT) from None
    if not mailbox.domain and mailbox.local.lower() != "postmaster":
        raise Refused(reply.BAD_RECIPIENT)
    if parameters:
        raise Refused(reply.UNKNOWN_PARAMETER)  # DSN (RFC 3461) is not offered
    if not inside.isascii() and not smtputf8:
        raise Refused(reply.NEED_SMTPUTF8)
    return mailbox


def parse_chunk(argument: bytes) -> Chunk:
    """Parse what follows the verb BDAT (RFC 3030 2). Raises `Refused` if it cannot be told
    how many octets follow."""
    match = _CHUNK.fullmatch(argument)
    if match is None:
        raise Refused(reply.BAD_CHUNK)
    word = (match[2] or b"").strip(b" \t").upper()
    return Chunk(int(match[1]), word == b"LAST", word in (b"", b"LAST"))


def _decode(argument: bytes) -> str:
    try:
        return argument.decode()
    except UnicodeDecodeError:
        raise Refused(reply.NOT_UTF8) from None


def _refuse_controls(text: str, malformed: Reply) -> None:
    if _CONTROL.search(text):
        raise Refused(malformed)


def _split_path(text: str, keyword: str, malformed: Reply) -> tuple[str, str]:
    """Split `FROM:<path> parameters`; a space after the colon is tolerated."""
    if text[: len(keyword)].upper() != keyword:
        raise Refused(reply.BAD_SYNTAX)
    match = _PATH.fullmatch(text[len(keyword) :].strip(" "))
    if match is None or (match[2] and not match[2].startswith(" ")):
        raise Refused(malformed)
    return match[1], match[2].strip(" ")


def _size(value: str | None) -> int:
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > MAX_SIZE_DIGITS:
        raise Refused(reply.BAD_PARAMETER)
    return int(value)
