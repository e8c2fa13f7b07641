"""Logs: what operators see.

For: one way to say what happened. Guarantees: one line per event on stderr, human on a
terminal and JSON otherwise; nothing that came from outside can break a line; a log that
cannot be written never stops the mail. One message is followed by its `message` id.
"""

import sys
import traceback
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TextIO

import msgspec

from postroom.base.settings import LogSettings

Facts = dict[str, Any]
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """The log of this process."""

    def __init__(self, settings: LogSettings, target: TextIO = sys.stderr) -> None:
        self._target = target
        self._least = _LEVELS[settings.level]
        human = settings.format == "human" or (settings.format == "auto" and target.isatty())
        self.human = human
        self._line = _human if human else _json

    def info(self, event: str, **facts: Any) -> None:
        """What an operator may want to know."""
        self.write("info", [(event, facts)])

    def warning(self, event: str, **facts: Any) -> None:
        """What an operator should know."""
        self.write("warning", [(event, facts)])

    def error(self, event: str, **facts: Any) -> None:
        """What an operator must know."""
        self.write("error", [(event, facts)])

    def write(self, level: str, events: Iterable[tuple[str, Facts]]) -> None:
        """Several events at once, in one write: the log of a busy door is a hot path."""
        if _LEVELS[level] < self._least:
            return
        now = datetime.now(UTC)
        lines = [self._line(level, now, event, facts) for event, facts in events]
        try:
            self._target.write("".join(lines))
            self._target.flush()
        except (OSError, ValueError):
            pass  # a log that is full or gone is not the mail's concern


_encode = msgspec.json.Encoder(enc_hook=str).encode


def _json(level: str, now: datetime, event: str, facts: Facts) -> str:
    line: Facts = {"timestamp": now, "level": level, "event": event} | facts
    if "exc_info" in line:
        line["exception"] = _traceback(line.pop("exc_info"))
    try:
        return _encode(line).decode() + "\n"
    except UnicodeEncodeError:  # the name of a file need not be text
        told = {name: value if value is now else _text(value) for name, value in line.items()}
        return _encode(told).decode() + "\n"


def _human(level: str, now: datetime, event: str, facts: Facts) -> str:
    """A terminal must not be steered by what a stranger sent."""
    fields = dict(facts)
    error = fields.pop("exc_info", None)
    shown = " ".join(f"{name}={_plain(value)}" for name, value in fields.items())
    when = now.astimezone().strftime("%H:%M:%S")
    line = f"{when} {level:7} {event:12} {shown}".rstrip() + "\n"
    if error is None:
        return line
    told = _traceback(error).split("\n")[:-1]
    return line + "".join(f"  {each if each.isprintable() else _escaped(each)}\n" for each in told)


def _plain(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    if not text.isprintable():
        text = _escaped(text)
    return f'"{text}"' if not text or " " in text else text


def _escaped(text: str) -> str:
    return ascii(text)[1:-1]


def _text(value: object) -> str:
    return str(value).encode(errors="backslashreplace").decode()


def _traceback(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))
