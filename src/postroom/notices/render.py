"""Templates: from what a notice has to say to its subject and text.

For: the notices. Guarantees: a site's or a list's own template can do nothing but put words
together: it calls nothing, reads no file, and grows no larger than `MOST`; one that is broken
is replaced by the packaged one, and the log says so once. What strangers wrote reaches a
template as one line that steers no terminal and hides nothing. Lines have at most `WIDTH`
columns where they have a blank to be broken at.
"""

import errno
import textwrap
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import StrictUndefined, Template
from jinja2.exceptions import SecurityError
from jinja2.sandbox import SandboxedEnvironment

from postroom.base.observe import Log
from postroom.notices.language import ENGLISH, LANGUAGES

NAMES: Final = (
    "rejected",
    "held_author",
    "held_owner",
    "held_summary",
    "undeliverable",
    "confirm_join",
    "confirm_leave",
    "confirm_change",
    "invitation",
    "welcome",
    "goodbye",
    "refused",
    "request_owner",
    "request_summary",
    "member_change",
    "reply",
    "acknowledged",
    "probe",
    "turned_off",
    "bounce_summary",
    "mass_bounce",
)
WIDTH: Final = 78
MOST: Final = 65_536  # characters of a template, and of what one makes
LONGEST: Final = 500  # characters of one value
_Row = Mapping[str, str | int | Sequence[str]]
Value = str | int | Sequence[str] | Sequence[_Row]

_NOT_THERE = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG)
_FILTERS = ("default", "first", "join", "last", "length", "lower", "trim", "truncate", "upper")
_JOINERS = "\u200c\u200d"  # invisible, but Persian and Indic scripts are wrong without them


class Text(NamedTuple):
    """A notice in words."""

    subject: str
    body: str


class Broken(Exception):
    """The template cannot be used; `str()` says why."""


class Templates:
    """The texts of a site. Safe to share between threads."""

    def __init__(self, directory: str, log: Log) -> None:
        self._directory = Path(directory) if directory else None
        self._log = log
        self._told: dict[Path, str] = {}  # what was said of the broken ones
        if self._directory is not None and not self._directory.is_dir():
            self._complain(self._directory, "there is no such directory (notices.templates)")

    def write(
        self,
        name: str,
        values: Mapping[str, Value],
        list_id: str = "",
        language: str = ENGLISH,
    ) -> Text:
        """The notice `name` (one of `NAMES`) in a language (one of `LANGUAGES`), in the words of
        the list, the site or ours."""
        language = language if language in LANGUAGES else ENGLISH
        values = {key: _plain(value) for key, value in values.items()}
        for path in self._own(name, list_id, language):
            try:
                if (source := _read(path)) is None:
                    continue
                text = _render(source, values)
            # Whatever it is, the mail must go out.
            except Exception as error:
                self._complain(path, " ".join(f"{error}".split()) or type(error).__name__)
            else:
                self._told.pop(path, None)
                return text
        return _render(_packaged(name, language), values)

    def _own(self, name: str, list_id: str, language: str) -> Iterator[Path]:
        """Where templates of the list and of the site may be."""
        if self._directory is None:
            return
        # A list-id is data: only one that is a plain name leads anywhere.
        plain = list_id.isprintable() and not list_id.startswith(".")
        if list_id and plain and Path(list_id).name == list_id:
            yield self._directory / list_id / f"{name}.txt"
        yield self._directory / language / f"{name}.txt"
        yield self._directory / f"{name}.txt"

    def _complain(self, path: Path, reason: str) -> None:
        if self._told.get(path) != reason:
            self._told[path] = reason
            self._log.warning("template not used", path=str(path), reason=reason)


class _Environment(SandboxedEnvironment):
    """Words, conditions and loops over what there is; no calls, no arithmetic."""

    intercepted_binops = frozenset(("+", "-", "*", "/", "//", "%", "**"))

    def is_safe_callable(self, obj: Any) -> bool:
        return False

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        raise SecurityError(f"a template cannot calculate ({operator})")


def _environment() -> _Environment:
    made = _Environment(
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True
    )
    made.globals = {}
    made.filters = {name: made.filters[name] for name in _FILTERS}
    return made


_ENVIRONMENT: Final = _environment()


@lru_cache(maxsize=128)
def _compiled(source: str) -> Template:
    return _ENVIRONMENT.from_string(source)


@lru_cache(maxsize=len(NAMES) * len(LANGUAGES))
def _packaged(name: str, language: str) -> str:
    ours = files("postroom.notices").joinpath("templates")
    found = ours.joinpath(language, f"{name}.txt")
    if not found.is_file():
        found = ours.joinpath(f"{name}.txt")
    return found.read_text(encoding="utf-8")


def _read(path: Path) -> str | None:
    """The source of a template; None if there is none."""
    try:
        if path.exists() and not path.is_file():
            raise Broken("this is no file")
        with path.open(encoding="utf-8") as file:
            source = file.read(MOST + 1)
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise Broken(error.strerror or str(error)) from error
    if len(source) > MOST:
        raise Broken(f"it has more than {MOST} characters")
    return source


def _render(source: str, values: Mapping[str, Value]) -> Text:
    pieces, size = [], 0
    for piece in _compiled(source).generate(values):
        size += len(piece)
        if size > MOST:
            raise Broken(f"it makes more than {MOST} characters")
        pieces.append(piece)
    first, _, rest = "".join(pieces).partition("\n")
    mark, _, subject = first.partition(":")
    if mark != "Subject" or not (subject := one_line(subject)):
        raise Broken('its first line must be "Subject: ..."')
    blank, _, body = rest.partition("\n")
    if blank.strip() or not body.strip():
        raise Broken("after the subject it must have a blank line, then the text")
    lines = [each for line in body.rstrip().split("\n") for each in _wrapped(line.rstrip())]
    return Text(subject, "\n".join(lines) + "\n")


def _wrapped(line: str) -> list[str]:
    if len(line) <= WIDTH:
        return [line]
    text = line.lstrip()
    indent = line[: len(line) - len(text)][: WIDTH // 2]
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def _plain(value: Any) -> Any:
    """A value of which every text is one line."""
    if isinstance(value, str):
        return one_line(value)
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, Sequence):
        return [_plain(each) for each in value]
    return value


def one_line(text: str, most: int = LONGEST) -> str:
    """`text` without line ends, control characters and what changes the direction of writing;
    cut if it is very long."""
    text = text[: 4 * most]
    if not text.isprintable():
        text = "".join(map(_shown, text))
    text = " ".join(text.split())
    return text if len(text) <= most else f"{text[: most - 3]}..."


def _shown(char: str) -> str:
    if char.isprintable() or char in _JOINERS:
        return char
    return " " if char.isspace() or unicodedata.category(char)[0] == "Z" else "\ufffd"
