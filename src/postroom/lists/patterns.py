"""Patterns that owners of lists may write, and what they may look like.

For: settings that hold regular expressions. Guarantees: what passes is short, compiles, and
cannot keep a runner busy: a bound on the ways in which it can be tried on a text of `MAX_TEXT`
characters is computed from its form, and must be small; what has no such bound (a repeat of
what itself repeats or has alternatives, references to groups, look-around) is refused. Whoever
matches keeps to `MAX_TEXT`. Pure. Fails with `PatternError`, a reason to put after the name of
the pattern.
"""

import math
import re
import warnings
from functools import lru_cache
from typing import Final, NamedTuple, cast, get_args

from postroom.lists.settings import Action

MAX_PATTERN: Final = 200  # characters
MAX_TEXT: Final = 1000  # characters of a text that patterns are matched with
MAX_WAYS: Final = 10**9  # some seconds, if pattern and text were made for it

_SUSPICION = re.compile(r"([a-z]+) +([!-9;-~]{1,80}): *(.+)")
_TOKEN = re.compile(
    r"""
      (?P<atom> \\. | \[\^?\]?(?:\\.|[^\]\\])*\] )
    | (?P<open> \((?:\?:)? )
    | (?P<close> \) )
    | (?P<repeat> (?:[*+?]|\{(?P<least>\d*)(?P<to>,?)(?P<most>\d*)\})[?+]? )
    | (?P<or> \| )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)


class PatternError(ValueError):
    """The pattern cannot be used; `str()` says why."""


class Suspicion(NamedTuple):
    """What happens to posts with such a field; the name is as it was written."""

    action: Action
    field: str
    pattern: re.Pattern[str]


def suspicion(line: str) -> Suspicion:
    """Read a line `ACTION Field: PATTERN`. Raises `PatternError`."""
    match = _SUSPICION.fullmatch(line)
    if match is None or match[1] not in get_args(Action):
        actions = ", ".join(get_args(Action))
        raise PatternError(f'is not "ACTION Field: PATTERN", where ACTION is one of {actions}')
    return Suspicion(cast(Action, match[1]), match[2], compiled(match[3]))


@lru_cache(maxsize=1024)
def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression, upper and lower case alike. Raises `PatternError`."""
    if len(pattern) > MAX_PATTERN:
        raise PatternError(f"is longer than {MAX_PATTERN} characters")
    if not pattern.isprintable():
        raise PatternError("holds what cannot be printed")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)  # of what will mean something else
            made = re.compile(pattern, re.IGNORECASE)
    except (re.error, OverflowError, RecursionError, FutureWarning) as error:
        raise PatternError(f"is no regular expression ({error})") from None
    if ways(pattern) > MAX_WAYS:
        raise PatternError("could take too long: use fewer *, +, ? and alternatives")
    return made


def ways(pattern: str) -> int:
    """In how many ways a pattern that compiles can be tried on a text of `MAX_TEXT`
    characters, at most. Raises `PatternError` where that is not known."""
    bars = [0]  # of each open group
    varied = [False]  # whether it holds repeats or alternatives
    last = False  # the same of what ended just now
    opened = False
    endless, finite = 0, 1
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            bars.append(0)
            varied.append(False)
        elif token["close"]:
            choices = bars.pop() + 1
            finite *= choices
            last = varied.pop() or choices > 1
            varied[-1] |= last
            continue
        elif token["or"]:
            bars[-1] += 1
        elif token["repeat"] and token["repeat"] != "{}":
            if opened:
                raise PatternError('has a "(?": only (?:...) is allowed')
            span, most = _repeats(token)
            if last and most > 1:
                raise PatternError("repeats what itself repeats or has alternatives")
            endless += span >= MAX_TEXT
            finite *= span if span < MAX_TEXT else 1
            varied[-1] = True
        elif token["atom"] and token["atom"][1] in "123456789":
            raise PatternError("refers back to a group")
        last = False
        opened = bool(token["open"])
    if not pattern.startswith("^") or bars[0]:
        endless += 1  # it is tried at each place
    return int(MAX_TEXT**endless) * finite * (bars[0] + 1) // math.factorial(endless)


def _repeats(token: re.Match[str]) -> tuple[int, int]:
    """Between how many numbers of times there is a choice, and the largest of them."""
    if token["least"] is None:
        return (2, 1) if token["repeat"][0] == "?" else (MAX_TEXT, MAX_TEXT)
    least = int(token["least"] or 0)
    most = int(token["most"] or MAX_TEXT) if token["to"] else least
    return max(most - least + 1, 1), most
