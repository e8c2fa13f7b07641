"""Patterns that owners of lists may write, and what they may look like.

For: settings that hold regular expressions. Guarantees: what passes is short, compiles, and
cannot keep a runner busy: a bound on the steps in which a text of `MAX_TEXT` characters is tried
is computed from its form, and must be small; what has no such bound (a repeat of what itself
repeats or has alternatives, references to groups, look-around) is refused. Whoever matches keeps
to `MAX_TEXT`, and to texts of one line. Pure. Fails with `PatternError`, a reason to put after
the name of the pattern.
"""

import re
import warnings
from functools import lru_cache
from itertools import zip_longest
from math import factorial
from typing import Final, NamedTuple, cast, get_args

from postroom.lists.settings import Action

MAX_PATTERN: Final = 200  # characters
MAX_TEXT: Final = 400  # characters of a text that patterns are matched with
MAX_STEPS: Final = 3_000_000  # some 25 ms, if pattern and text were made for it
ENDLESS: Final = 2**32
LETTERS: Final = 8  # of a class of characters that cost as much as any other step

_SUSPICION = re.compile(r"([a-z]+) +([!-9;-~]{1,80}): *(.+)")
# Where it is searched for in one line, these change nothing, and cost most.
_IDLE = re.compile(r"\A\.\*(?![?+])|(?<!\\)\.\*\$?\Z")
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
    needed = _IDLE.sub("", pattern)
    if not steps(needed) <= MAX_STEPS:  # it may be no number
        raise PatternError('could take too long: begin it with "^", or use fewer *, + and {}')
    return made if needed == pattern else re.compile(needed, re.IGNORECASE)


Ways = tuple[int, ...]  # in how many a place is reached: the sum of [k] * MAX_TEXT**k / k!


class _Group(NamedTuple):
    """What is open: in how many ways it was reached, after how many steps; the ways through the
    alternatives that have ended; whether it may repeat what is in it."""

    entry: Ways
    before: float
    done: Ways
    varied: bool


def steps(pattern: str) -> float:
    """In how many steps a pattern that compiles is tried on a text of `MAX_TEXT` characters, at
    most, and roughly. Raises `PatternError` where that is not known."""
    groups = [_Group(_start(pattern), 0.0, (), False)]
    ways, total = groups[0].entry, float(MAX_TEXT)
    entry, before, varied = ways, total, False  # of what can be repeated, and whether it varies
    opened = False
    for token in _TOKEN.finditer(pattern):
        if token["open"]:
            groups.append(_Group(ways, total, (), False))
        elif token["close"]:
            group = groups.pop()
            entry, before, varied = group.entry, group.before, group.varied or bool(group.done)
            ways = _sum(group.done, ways)
            groups[-1] = groups[-1]._replace(varied=groups[-1].varied or varied)
        elif token["or"]:
            group = groups[-1]
            groups[-1] = group._replace(done=_sum(group.done, ways))
            ways = group.entry if len(groups) > 1 else _start(pattern[token.end() :])
        elif token["repeat"] and token["repeat"] != "{}":
            if opened:
                raise PatternError('has a "(?": only (?:...) is allowed')
            least, most = _repeats(token)
            if varied and most > 1:
                raise PatternError("repeats what itself repeats or has alternatives")
            once = total - before
            if most - least < MAX_TEXT:
                total += once * max(most - 1, 0)
                ways = tuple(each * (most - least + 1) for each in ways)
            else:
                ways = (0, *entry)
                total += once * least + once / _number(entry) * _number(ways)
            groups[-1] = groups[-1]._replace(varied=True)
            varied = True
        else:
            if token["atom"] and token["atom"][1] in "123456789":
                raise PatternError("refers back to a group")
            entry, before, varied = ways, total, False
            total += _number(ways) * (1 + len(token[0]) / LETTERS)
        opened = bool(token["open"])
    return total


def _start(pattern: str) -> Ways:
    """It is tried at each place, unless it says that it is not."""
    return (1,) if pattern.startswith("^") else (0, 1)


def _sum(some: Ways, others: Ways) -> Ways:
    return tuple(one + other for one, other in zip_longest(some, others, fillvalue=0))


def _number(ways: Ways) -> float:
    return sum((each * MAX_TEXT**k / factorial(k) for k, each in enumerate(ways)), 0.0)


def _repeats(token: re.Match[str]) -> tuple[int, int]:
    """How often at least, and at most."""
    if token["least"] is None:
        return {"?": (0, 1), "*": (0, ENDLESS), "+": (1, ENDLESS)}[token["repeat"][0]]
    least = int(token["least"] or 0)
    return least, int(token["most"] or ENDLESS) if token["to"] else least
