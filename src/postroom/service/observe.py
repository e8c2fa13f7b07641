"""Logs: what operators see.

For: one way to say what happened. Guarantees: one line per event on stderr, human on a
terminal and JSON otherwise; nothing that came from outside can break a line; a log that
cannot be written never stops the mail. One message is followed by its `message` id.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import msgspec
import structlog

from postroom.service.settings import Log

Logger = structlog.typing.FilteringBoundLogger


class _Lines:
    """Writes lines; an error of the target is not the mail's concern."""

    def __init__(self, target: TextIO) -> None:
        self._target = target

    def msg(self, line: str) -> None:
        try:
            self._target.write(line + "\n")
            self._target.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = critical = msg


def make_logger(settings: Log, target: TextIO = sys.stderr) -> Logger:
    """The logger of this process."""
    human = settings.format == "human" or (settings.format == "auto" and target.isatty())
    renderer: Any = (
        structlog.dev.ConsoleRenderer(
            colors=target.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
        if human
        else structlog.processors.JSONRenderer(serializer=_json)
    )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=not human),
    ]
    if human:
        processors.append(_printable)
    else:
        processors.append(structlog.processors.format_exc_info)
    level = getattr(logging, settings.level.upper())
    logger: Logger = structlog.wrap_logger(
        _Lines(target),
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
    )
    return logger


def _json(value: Any, **_: Any) -> str:
    return msgspec.json.encode(value, enc_hook=str).decode()


def _printable(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A terminal must not be steered by what a stranger sent."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable() and key != "exception":
            event[key] = ascii(value)[1:-1]
    return event
