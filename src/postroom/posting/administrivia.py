"""Administrivia: mail that was meant for the server, not for the readers.

For: the rule of that name. Guarantees: pure, bounded, any text will do. It is made to leave
real posts alone: only a line that is a command and nothing else counts, in a short text; words
that people also use otherwise ("help", "leave") count only where nothing else is said.
"""

import re
from collections.abc import Sequence
from typing import Final

MOST_LINES: Final = 5  # of the author's own text; who writes more has something to say
MOST_CHARACTERS: Final = 100  # of a line

_CLEAR: Final = "subscribe|unsubscribe|un-subscribe|unsuscribe|signoff|sign off|opt out"
_VAGUE: Final = "help|info|join|leave|stop|end|who|remove|quit|set|confirm"
_ADDRESS: Final = r"[^\s@]{1,64}@[^\s@]{1,64}"
_AFTER: Final = rf"(?: me)?(?: (?:to|from)(?: (?:this|the|your))?(?: mailing)? list| {_ADDRESS})?"
_CLEAR_LINE: Final = re.compile(rf"(?:please )?(?P<word>{_CLEAR}){_AFTER}(?: please)?[ .!]*")
_VAGUE_LINE: Final = re.compile(
    rf"(?:(?:please )?(?P<word>{_VAGUE})|(?P<me>(?:please )?remove me){_AFTER})(?: please)?[ .!]*"
)


def command_in(subject: str, lines: Sequence[str], is_reply: bool) -> str:
    """The command that a post consists of, "" if it is a post. `lines` are its first ones,
    without blank ones."""
    own = _own(lines)
    if len(own) > MOST_LINES:
        return ""
    first = own[0] if own else ""
    found = _word(_CLEAR_LINE, first) or ("" if is_reply else _word(_CLEAR_LINE, subject))
    if found or is_reply or len(own) > 1:
        return found
    # A single word as subject, or as all there is to read, and nothing beside it.
    if not own:
        return _word(_VAGUE_LINE, subject)
    if not subject.strip() or _word(_VAGUE_LINE, subject):
        return _word(_VAGUE_LINE, first)
    return ""


def _own(lines: Sequence[str]) -> list[str]:
    """Without what is quoted, and up to the signature."""
    own = []
    for line in lines:
        if line == "--":
            break
        if not line.startswith(">"):
            own.append(line)
    return own


def _word(pattern: re.Pattern[str], line: str) -> str:
    if len(line) > MOST_CHARACTERS:
        return ""
    match = pattern.fullmatch(" ".join(line.lower().split()))
    if match is None:
        return ""
    return match["word"] or match["me"]
