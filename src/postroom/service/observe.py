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
import structlog

from postroom.service.settings import LogSettings

Facts = dict[str, Any]
_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


class Log:
    """The log of this process."""

    def __init__(self, settings: LogSettings, target: TextIO = sys.stderr) -> None:
        self._target = target
        self._least = _LEVELS[settings.level]
        terminal = target.isatty()
        human = settings.format == "human" or (settings.format == "auto" and terminal)
        self._render: Any = (
            structlog.dev.ConsoleRenderer(
                colors=terminal, exception_formatter=structlog.dev.plain_traceback
            )
            if human
            else None
        )

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
        render = self._json if self._render is None else self._human
        lines = [render(level, now, event, facts) for event, facts in events]
        try:
            self._target.write("".join(lines))
            self._target.flush()
        except (OSError, ValueError):
            pass  # a log that is full or gone is not the mail's concern

    def _json(self, level: str, now: datetime, event: str, facts: Facts) -> str:
        error = facts.pop("exc_info", None)
        if error is not None:
            facts["exception"] = "".join(traceback.format_exception(error))
        return _ENCODER.encode(
            {"timestamp": now, "level": level, "event": event} | facts
        ).decode() + "\n"

    def _human(self, level: str, now: datetime, event: str, facts: Facts) -> str:
        """A terminal must not be steered by what a stranger sent."""
        shown = {
            key: ascii(value)[1:-1] if isinstance(value, str) and not value.isprintable() else value
            for key, value in facts.items()
        }
        local = now.astimezone().strftime("%Y-%m-%d %H:%M:%S")
        fields = {"timestamp": local, "level": level, "event": event} | shown
        return str(self._render(None, level, fields)) + "\n"


_ENCODER = msgspec.json.Encoder(enc_hook=str)
