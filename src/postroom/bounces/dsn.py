"""Delivery status notifications (RFC 3464), also with addresses in UTF-8 (RFC 6533).

For: the reports that nearly all mail servers write. Guarantees: one that is malformed or cut off is
read as far as it goes; nothing is raised; linear; what comes out can be shown on one line, and is
bounded. Pure.

Of the addresses that a report names the original one is taken, since that is the one that we sent
to; mail may have been forwarded since. Only where it is none the final one is. A code in the words
of the server that refused is believed before a Status that only says that something failed.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from postroom.bounces.reasons import is_final
from postroom.bounces.values import Failure
from postroom.mail.fields import decoded
from postroom.reading.post import mailboxes
from postroom.reading.text import printable

MOST: Final = 1_000  # recipients of a report
REASON: Final = 300  # characters
FIELD: Final = 4_000  # characters of a field that are looked at
LONGEST_ADDRESS: Final = 1_100  # characters, with its type

_FIELD = re.compile(
    r"[ \t]?(original-recipient|final-recipient|action|status|diagnostic-code)[ \t]*:",
    re.IGNORECASE,
)
_NAME = re.compile(r"[ \t]?[!-9;-~]+[ \t]*:")
_BREAK = re.compile(r"\r\n|\r|\n")  # str.splitlines knows more, which a field may hold
_STATUS = re.compile(r"(?<![\d.])([245])\.(\d{1,3})\.(\d{1,3})(?![\d.]*\d)")
_REPLY = re.compile(
    r"(?:^|[:;,(<\[\"'>#]|\b(?:said|with|code|error|reply))[ \t]{0,9}([245])([0-5]\d)(?=[\s:-]|\Z)",
    re.MULTILINE | re.IGNORECASE,
)
_FULL = re.compile(
    r"\b(?:over|disk|exceed\w{0,9})[ -]{0,2}quota|\bquota (?:exceeded|violation|is full)"
    r"|\b(?:mail)?(?:box|folder) (?:is )?full\b|\bfull (?:mail)?box\b",
    re.IGNORECASE,
)
_TYPE = re.compile(r"\s*([A-Za-z0-9-]{1,40})\s*;")
_MAIL_TYPE = re.compile(r"\s*(?:smtp|lmtp|x-[a-z0-9-]{1,30}|dns|unix)\s*;", re.IGNORECASE)
_BLOCKED = re.compile(
    r"\bblock(?:ed|ing| ?list)|\bblacklist|\bdnsbl|\brbl\b|spamhaus|spamcop|barracuda|\bspam\b"
    r"|\breputation|\bjunkmail|\bpolicy\b|\bbadmailfrom",
    re.IGNORECASE,
)
_CODES = re.compile(r"(?<!\S)([245]\d\d)[ -]([245]\.\d{1,3}\.\d{1,3})[ -]")
_UNICODE = re.compile(r"\\x\{([0-9A-Fa-f]{2,6})\}")
_XTEXT = re.compile(r"\+(2B|3D)")
_COMMENT = re.compile(r"\(([^()]*)\)")  # linear: each "(" ends the try before it


class Said(NamedTuple):
    """What a report says: who could not be reached, and whether somebody was (or may have been:
    the mail was handed on to where no reports come from)."""

    failures: tuple[Failure, ...]
    success: bool


def read_status(texts: Iterable[str]) -> Said:
    """What the texts of message/delivery-status parts say. A failure whose address nobody can
    read has the address ""."""
    found: dict[str, Failure] = {}
    success = False
    for number, group in enumerate(_groups(texts)):
        if number == MOST:
            break
        failure = _failure(group)
        if failure is None:
            success = success or _arrived(group)
        elif failure.email not in found or (failure.final and not found[failure.email].final):
            found[failure.email] = failure
    return Said(tuple(found.values()), success)


def _groups(texts: Iterable[str]) -> Iterator[dict[str, str]]:
    """The fields of each recipient; there is one at least. A blank line ends them, or where that
    is missing, a field that was there already or that comes first."""
    for text in texts:
        group: dict[str, str] = {}
        name = ""
        for line in _BREAK.split(text):
            match = _FIELD.match(line)
            if match:
                name = match[1].lower()
                if name in group or (name == "original-recipient" and _is_complete(group)):
                    yield group
                    group = {}
                group[name] = line[match.end() : match.end() + FIELD]
            elif not line.strip():
                name = ""
                if _is_complete(group):
                    yield group
                    group = {}
            elif name and (line[:1] in " \t" or not _NAME.match(line)):
                # Words that go on in the first column stand there because somebody broke them.
                if len(group[name]) < FIELD:
                    group[name] += f"\n{line[:FIELD]}"
            else:
                name = ""
        if group:
            yield group


def _is_complete(group: dict[str, str]) -> bool:
    named = "original-recipient" in group or "final-recipient" in group
    return named and ("action" in group or "status" in group)


def _failure(group: dict[str, str]) -> Failure | None:
    """What is said of one recipient; None if that is no failure."""
    words = group.get("diagnostic-code", "")
    status = exact(status_of(group.get("status", "")), words)
    action = group.get("action", "").strip().lower()
    if action.startswith(("fail", "error")):  # OpenSMTPD writes the latter
        status = status or exact("5.0.0", words)
        final = is_final(status)
    elif action.startswith("delay"):
        final = False
    elif not action and status[:1] in ("4", "5") and len(group) > 1:
        final = is_final(status)
    else:
        return None
    email = _address(group)
    reason = reason_of(words) or _comment(group.get("status", ""))
    return Failure(email, final, status, reason, not action.startswith("delay"))


def _arrived(group: dict[str, str]) -> bool:
    action = group.get("action", "").strip().lower()
    return action.startswith(("deliver", "relay", "expand"))


def _address(group: dict[str, str]) -> str:
    original = address_of(_XTEXT.sub(_octet, group.get("original-recipient", "")))
    return original or address_of(group.get("final-recipient", ""))


def _octet(match: re.Match[str]) -> str:
    """What must stand as "+2B" and "+3D" in a command (RFC 3461 4), and some leave so."""
    return chr(int(match[1], 16))


def address_of(value: str) -> str:
    """The address (folded) in a field like "rfc822; ann@example.org", "" if it is none."""
    text = value[:LONGEST_ADDRESS]
    kind = _TYPE.match(text)
    if kind:
        text = text[kind.end() :]
        if kind[1].lower().startswith("utf-8"):
            text = _UNICODE.sub(_character, text)
    found, _ = mailboxes(" ".join(text.split()))
    return found[0].address if found else ""


def _character(match: re.Match[str]) -> str:
    """RFC 6533 3; what is no character stays as it is."""
    number = int(match[1], 16)
    return chr(number) if number <= 0x10FFFF and not 0xD800 <= number <= 0xDFFF else match[0]


def status_of(text: str) -> str:
    """The first enhanced status code in a text, or what follows from a reply code of SMTP, "" if
    there is neither."""
    if match := _STATUS.search(text):
        return f"{match[1]}.{int(match[2])}.{int(match[3])}"
    match = _REPLY.search(text)
    if match is None:
        return ""
    # RFC 5321 4.2.3
    return f"{match[1]}.2.2" if match[2] == "52" and match[1] != "2" else f"{match[1]}.0.0"


def exact(status: str, words: str) -> str:
    """The code that says the most: this one, or that of the words that stand with it."""
    said = status_of(words)
    if not status or (status.endswith(".0.0") and said[:1] == status[:1]):
        status = said or status
    if status.endswith(".0.0") and status[:1] != "2" and _FULL.search(words):
        return f"{status[0]}.2.2"
    if status.endswith(".0.0") and status[:1] != "2" and _BLOCKED.search(words):
        return f"{status[0]}.7.1"  # without a code of its own: it is about us
    return status


def reason_of(value: str) -> str:
    """The words of a Diagnostic-Code field on one line, so many characters, without its type, and
    with the codes that begin each line of a reply only once."""
    kind = _MAIL_TYPE.match(value)
    text = one_line(value[kind.end() if kind else 0 :][:FIELD])
    if code := _CODES.search(text):
        again = re.compile(rf"(?<!\S){code[1]}[ -]{re.escape(code[2])}[ -]?")
        text = f"{text[: code.start()]}{code[1]} {code[2]} {again.sub('', text[code.end() :])}"
    return text[:REASON].rstrip()


def one_line(text: str) -> str:
    """A text as people read it, on one line."""
    return printable(decoded(text.encode("utf-8", "replace")))


def _comment(status: str) -> str:
    """What stands in parentheses after a code."""
    found = _COMMENT.search(status)
    return one_line(found[1])[:REASON].rstrip() if found else ""
