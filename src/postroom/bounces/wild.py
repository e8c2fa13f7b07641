"""Bounces in the formats of single mail servers, which flufl.bounce knows.

For: what is no report as RFC 3464 has it. Guarantees: nothing is raised, whatever the package does;
it sees no message that came back with the bounce, and no more than it reads in a short time; what
comes out can be shown on one line, and is bounded. Pure.

The package tells addresses alone. Why one failed is looked for where its address stands in the
text, and believed where it says that the failure may pass.
"""

import logging
import re
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

from flufl.bounce import all_failures

from postroom.bounces.answers import author_of
from postroom.bounces.dsn import exact, reason_of, status_of
from postroom.bounces.parts import Taken
from postroom.bounces.reasons import is_final
from postroom.bounces.values import Failure
from postroom.mail.address import fold
from postroom.mail.fields import Field, Parts
from postroom.mail.message import parse
from postroom.reading.post import folded, mailboxes, shown

# Its patterns are tried on each line, one after the other, and some take the square of a line.
BODY: Final = 65_536  # octets that it sees
LINES: Final = 1_000
LINE: Final = 300  # octets
FIELD: Final = 4_000  # octets of a header field
MOST: Final = 100  # addresses
REASON: Final = 1_000  # characters of a line in which it is looked for
NEAR: Final = 8  # lines from the address on in which the reason may stand

_LOG = logging.getLogger("flufl.bounce")
_LOG.setLevel(logging.CRITICAL + 1)  # it would tell each failure of its own, at any length
_READ = frozenset(("x-mailer", "content-type", "content-transfer-encoding"))
_PLAIN = re.compile(r"[a-z0-9._+-]+@[a-z0-9.-]+")
_BLANKS = re.compile(rb"[ \t]{9,}")
_NAMED = re.compile(r"\s*<[^<>\s]+>:\s")  # as most write it


def failures(message: Parts, taken: Taken) -> tuple[Failure, ...]:
    """Who could not be reached, as far as it can be found out."""
    known = _exim(message) or _known(message, taken)
    lines = [line[:REASON] for part in taken.parts for line in part.text[:BODY].splitlines()][
        :LINES
    ]
    found = (_failure(each, known[each], lines) for each in sorted(known)[:MOST])
    return tuple(each for each in found if each.email)


def _exim(message: Parts) -> dict[str, bool]:
    """What Exim says in a field, which the package reads, too, but not as safely."""
    field = message.first("x-failed-recipients")
    found, _ = mailboxes(shown(field)) if field else ([], 0)
    return {each.address: True for each in found}


def _known(message: Parts, taken: Taken) -> dict[str, bool]:
    """The addresses that the package finds, and whether it takes that for final."""
    try:
        temporary, permanent = all_failures(parse(_bounded(message, taken).joined()))
    except Exception:  # of its formats and of Python's parser, which promise nothing
        return {}
    named = ((each.decode("latin-1"), each in permanent) for each in temporary | permanent)
    return dict(named)


def _failure(address: str, permanent: bool, lines: Sequence[str]) -> Failure:
    status, reason = _why(fold(address), lines)
    final = permanent and (is_final(status) or not status)
    return Failure(folded(address), final, status, reason)


def _why(address: str, lines: Sequence[str]) -> tuple[str, str]:
    """The status and the words that stand with an address (folded); "" for what does not."""
    at = next((at for at, line in enumerate(lines) if address in fold(line)), len(lines))
    near = lines[at : at + NEAR]
    block = "\n".join(takewhile(str.strip, near))
    named = _NAMED.match(block)
    words = block[named.end() :] if named else block
    if named or status_of(words):
        return _status(words), reason_of(words)
    said = next((each for each in near if status_of(each)), "")
    return _status(said), reason_of(said)


def _status(words: str) -> str:
    """The most exact code of a failure; "" if the words say none."""
    said = status_of(words)
    status = exact(said or "5.0.0", words)
    return status if said or status != "5.0.0" else ""


def _bounded(message: Parts, taken: Taken) -> Parts:
    """What the package sees."""
    author = author_of(message)
    sender = author if _PLAIN.fullmatch(author) else "nobody"  # without one the package fails
    fields = [
        Field("from", b"From: %b\r\n" % sender.encode()),
        *(
            each._replace(raw=each.raw[:FIELD].rstrip() + b"\r\n")
            for each in message.fields
            if each.name in _READ
        ),
    ]
    lines = taken.ours[:BODY].splitlines()[:LINES]
    return Parts(
        tuple(fields), b"\r\n".join(_BLANKS.sub(b"        ", line)[:LINE] for line in lines)
    )
