"""The text of a message, and what of it the author wrote himself.

For: commands and answers that come by mail. Guarantees: any bytes can be read and nothing is
ever raised; the work is linear and bounded: the first MiB of the header, the first 64 KiB of the
body, ten multiparts within each other, and no recursion; what comes out can be printed. What is
attached, or is a message itself, is not looked into.

What is quoted is found by what mail programs write around it, so by words of many languages. It
errs on the safe side: rather than to take for a command what somebody else said, it misses what
was written below.
"""

import binascii
import re
import string
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from postroom.mail.fields import Parts, in_charset, take_apart
from postroom.reading.markup import lines_of
from postroom.reading.mime import Kind, kind_of

HEADER = 1_048_576  # octets of the header that are read
BODY = 65_536  # octets of the body that are looked at
DEPTH = 10  # parts within parts that are followed
LONGEST = 1_000  # characters of a line
UNREADABLE = ("(text that cannot be read)",)  # encrypted, say; which is not the same as none
WRAPPED = 3  # lines that who said it, and when, may be spread over

_NOT_BASE64 = bytes(
    set(range(256)) - set(string.ascii_letters.encode() + string.digits.encode() + b"+/")
)
# All that is a blank to the eye is one. What has no width and is in use (soft hyphen, zero width
# space, marks of direction, word joiner, byte order mark) is nothing.
_SHOWN: Final = {
    **dict.fromkeys((0x09, 0xA0, 0x1680, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000), " "),
    **dict.fromkeys((0xAD, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF)),
}

_SIGNATURE = re.compile(
    r"-- ?|[—–]|_{5,}"
    r"|(?:sent (?:from|via|with|using)|get outlook for|gesendet (?:von|mit|aus|über)"
    r"|envoyé (?:de|depuis|avec|via|à partir)|enviado (?:desde|con|do|de|a partir|via)"
    r"|inviato (?:da|dal|con)|verzonden (?:vanaf|met|via)|verstuurd vanaf|skickat från"
    r"|sendt fra|wysłan[eo] z|отправлено (?:с|из))\b.*"
    r"|von meinem .*gesendet\.?"
    r"|diese nachricht wurde .*gesendet\.?",
    re.IGNORECASE,
)
_GREETINGS = frozenset(
    """regards;best regards;kind regards;best wishes;best;thanks;thank you;many thanks;cheers
    sincerely;yours;mit freundlichen grüßen;freundliche grüße;viele grüße;beste grüße;grüße;gruß
    mfg;lg;vg;danke;cordialement;bien cordialement;merci;saludos;un saludo;gracias;cordiali saluti
    saluti;grazie;met vriendelijke groet;groeten;hälsningar;vänliga hälsningar;hilsen""".replace(
        "\n    ", ";"
    ).split(";")
)
_FORWARDED = re.compile(
    r"begin forwarded message:|anfang der weitergeleiteten nachricht:"
    r"|début du message (?:réexpédié|transféré) ?:|inicio del mensaje reenviado:",
    re.IGNORECASE,
)
# The header that Outlook writes above what it quotes: From, and next to it Sent, To or Subject.
_FROM = re.compile(r"\*?(?:from|von|de|da|van|från|fra|od|от) ?:\*? .*", re.IGNORECASE)
_NEXT = re.compile(
    r"\*?(?:sent|date|to|subject|gesendet|datum|an|betreff|envoyé|date d'envoi|à|objet|enviado"
    r"|enviado el|enviada em|fecha|para|asunto|assunto|data|inviato|a|oggetto|verzonden|aan"
    r"|onderwerp|skickat|till|ämne|sendt|til|emne|wysłano|do|temat|отправлено|кому|тема) ?:\*?"
    r"(?: .*)?",
    re.IGNORECASE,
)
# "On Monday Anne wrote:": it ends with a colon, and somebody writes there, or the end is an
# address and a date stands before it.
_SAYS = re.compile(
    r"\b(?:wrote|writes|schrieb|schreibt|écrit|escribió|ha scritto|schreef|escreveu|skrev"
    r"|skriver|kirjoitti|napsal|napisał(?:\(a\)|a)?|pisze|написала?|пишет|писала?)(?!\w)|写道",
    re.IGNORECASE,
)
_ADDRESS = re.compile(r"@[^\s<>@():：]++>?\)? ?[:：]\Z")
_DIGIT = re.compile(r"\d")
# How such a line begins if its end stands on a later one: with a date.
_DATED = re.compile(r"(?:on|am|le|el|il|op|em|den|w dniu|dne)\b.*\d", re.IGNORECASE)
_BEGINS = re.compile(rf"{_DATED.pattern}|\d|\w{{2,10}}[.,]{{1,2}} .*\d", re.IGNORECASE)


def opened(raw: bytes) -> tuple[Parts, bool]:
    """The header and the beginning of the body, and whether the header is longer than what is
    read; then there is no body."""
    head = take_apart(raw[:HEADER])
    if not head.rest and len(raw) > HEADER:
        return head, True
    start = sum(len(each.raw) for each in head.fields)
    return head._replace(rest=raw[start : start + BODY]), False


def part_of(message: Parts, wanted: str) -> tuple[Kind, bytes] | None:
    """The first part of this type that is shown and no attachment, and its bytes as they came.
    The body may be cut off."""
    waiting = [(message, 0)]
    while waiting:
        part, depth = waiting.pop()
        kind = kind_of(part)
        if kind is None or (depth and kind.attached):
            continue
        if kind.type == wanted:
            return kind, part.rest
        if depth + 1 < DEPTH:
            within = [(take_apart(each), depth + 1) for each in _parts(kind, part.rest)]
            waiting += reversed(within)
    return None


def _parts(kind: Kind, body: bytes) -> list[bytes]:
    """What stands between the boundaries, without what follows the closing one; the last part
    may be cut off (RFC 2046 5.1.1)."""
    if not kind.type.startswith("multipart/") or not kind.boundary:
        return []
    line = rb"(?:\A|(?<=[\r\n]))--%b(--)?[ \t]*+(?:\r\n|\r|\n|\Z)" % re.escape(kind.boundary)
    found = re.split(line, body)
    parts = takewhile(lambda each: not each[0], zip(found[1::2], found[2::2], strict=True))
    return [part for _, part in parts]


def text_of(kind: Kind, body: bytes, most: int) -> str:
    """The beginning of a text part, so many octets, decoded as far as it can be."""
    if kind.encoding == "base64":
        letters = body.translate(None, _NOT_BASE64)[: most // 3 * 4]
        # One letter too many says nothing.
        even = letters[:-1] if len(letters) % 4 == 1 else letters
        body = binascii.a2b_base64(even + b"=" * (-len(even) % 4))
    elif kind.encoding == "quoted-printable":
        body = binascii.a2b_qp(body[: most * 3])
    return in_charset(body[:most], "utf-8" if kind.charset == "us-ascii" else kind.charset)


def printable(text: str) -> str:
    """The text with a "?" for each character that cannot be shown."""
    return text if text.isprintable() else "".join(c if c.isprintable() else "?" for c in text)


def own_lines(raw: bytes, most: int = 200) -> tuple[str, ...]:
    """The first lines of a message as people read them: of the first text/plain part, or if
    there is none that holds anything, of the first text/html part, without what that quotes.
    Blank lines are "", but for those before the first and after the last one that is not.
    `UNREADABLE` if there is something else."""
    message, cut = opened(raw)
    unreadable = cut or bool(message.rest.strip())
    for wanted in ("text/plain", "text/html"):
        found = part_of(message, wanted)
        if found is not None:
            unreadable = cut
            kind, body = found
            text = text_of(kind, body, BODY)
            rows = lines_of(text) if wanted == "text/html" else text.splitlines()
            lines = _trimmed([_clean(each) for each in rows])
            if lines:
                return lines[:most]
    return UNREADABLE if unreadable else ()


def _clean(line: str) -> str:
    return printable(line.translate(_SHOWN).strip(" "))[:LONGEST].rstrip(" ")


def _trimmed(lines: Sequence[str]) -> tuple[str, ...]:
    """Without the blank lines at both ends."""
    said = [at for at, line in enumerate(lines) if line]
    return tuple(lines[said[0] : said[-1] + 1]) if said else ()


def without_quotes(lines: Sequence[str]) -> tuple[str, ...]:
    """What the author wrote himself: neither lines that begin with ">", nor anything from a
    signature, a quoted message or the line that says whose words follow on. Who wrote nothing
    above such a line wrote below the last quoted one. No blank lines at the ends."""
    own, below = _above(lines)
    if not own and below:
        own, _ = _above(below)
    return own


def _above(lines: Sequence[str]) -> tuple[tuple[str, ...], Sequence[str]]:
    """What stands above the end, and if lines with ">" follow at once, what stands below all of
    them. Where a message is quoted without ">", nobody can tell where it ends."""
    own: list[str] = []
    for at, line in enumerate(lines):
        if line.startswith(">"):
            continue
        if _SIGNATURE.fullmatch(line) or _is_original(lines, at):
            break
        if attribution := _attribution(lines, at):
            after = at + attribution
            follows = next((each for each in lines[after : after + WRAPPED] if each), "")
            if not follows.startswith(">"):
                break
            last = max(n for n, each in enumerate(lines) if each.startswith(">"))
            return _trimmed(own), lines[last + 1 :]
        own.append(line)
    return _trimmed(own), ()


def _is_original(lines: Sequence[str], at: int) -> bool:
    """Whether a message that is quoted as it stands begins here: "-----Original Message-----" in
    any language, or its header."""
    line = lines[at]
    if line.startswith("----") and line.endswith("----") and line.strip("-"):
        return True
    if _FORWARDED.fullmatch(line):
        return True
    following = lines[at + 1 : at + 1 + WRAPPED]
    return _FROM.fullmatch(line) is not None and any(map(_NEXT.fullmatch, following))


def _attribution(lines: Sequence[str], at: int) -> int:
    """How many lines from this one on say whose words follow; mostly 0."""
    if _says(lines[at]):
        return 1
    if not _BEGINS.match(lines[at]):
        return 0
    for count in range(2, WRAPPED + 1):
        among = lines[at : at + count]
        if not among[-1] or among[-1].startswith(">") or _DATED.match(among[-1]):
            return 0
        if _says(" ".join(among)):
            return count
    return 0


def _says(line: str) -> bool:
    if not line.endswith((":", "：")):
        return False
    dated = _ADDRESS.search(line) is not None and _DIGIT.search(line) is not None
    return dated or _SAYS.search(line) is not None


def without_name(lines: Sequence[str], name: str) -> tuple[str, ...]:
    """The lines without a signature that is not marked as one: from the author's name on, by
    which it is known, with a greeting above it."""
    names = {each.lower() for each in (name, name.partition(" ")[0]) if each}
    own = list(takewhile(lambda line: line.strip(" ,.").lower() not in names, lines))
    while own and (not own[-1] or own[-1].strip(" ,.!").lower() in _GREETINGS):
        own.pop()
    return tuple(own)
