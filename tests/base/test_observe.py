"""The log: one line an event, whatever is in it and wherever it goes."""

import io
import json
import os
import sys
from datetime import datetime
from typing import Any, TextIO

import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings

HOSTILE = [
    'x" level=error event="fake',
    "line\nbroken",
    "line\r\nbroken",
    "\x1b[2J\x07\x00\x7f",
    "\u0085\u2028\u2029",
    "\u202eright to left\u200b",
    "\udcff\ud800",
    "",
    "x" * 10_000,
]


def logged(level: str = "info", form: str = "json", target: TextIO | None = None) -> Log:
    return Log(LogSettings(form, level), target or io.StringIO())  # type: ignore[arg-type]


def lines(form: str, event: str = "event", **facts: Any) -> list[str]:
    """What one event makes of these facts."""
    target = io.StringIO()
    logged(form=form, target=target).error(event, **facts)
    assert target.getvalue().endswith("\n")
    return target.getvalue()[:-1].split("\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_json_is_one_line_that_gives_back_what_was_said(text: str) -> None:
    [line] = lines("json", "stored", sender=text, refused=[text], size=5)
    found = json.loads(line)
    assert (found["level"], found["event"]) == ("error", "stored")
    assert datetime.fromisoformat(found["timestamp"]).tzinfo is not None
    if text.isascii() or text.isprintable() or "\u2028" in text:
        assert (found["sender"], found["refused"], found["size"]) == (text, [text], 5)
    else:
        line.encode()


@pytest.mark.parametrize("text", HOSTILE)
def test_the_human_format_is_one_line_that_steers_no_terminal(text: str) -> None:
    [line] = lines("human", sender=text, refused=[text])
    assert line.isprintable()
    assert " error   event        sender=" in line


def test_the_human_format_quotes_what_holds_spaces_or_nothing() -> None:
    [line] = lines("human", one="a b", two="", three=["a", "b"], four=7)
    assert line.endswith('one="a b" two="" three=a,b four=7')


def test_an_exception_is_told_with_its_traceback_in_json() -> None:
    [line] = lines("json", exc_info=raised("it was \x1b[2J\nme"))
    found = json.loads(line)
    assert "exc_info" not in found
    assert found["exception"].startswith("Traceback (most recent call last):\n")
    assert found["exception"].endswith("ValueError: it was \x1b[2J\nme\n")


def test_an_exception_cannot_fake_an_event_or_steer_a_terminal() -> None:
    first, *others = lines("human", exc_info=raised("\x1b[2J\n10:00:00 info fake"))
    assert first.endswith(" error   event")
    assert all(line.isprintable() and line.startswith("  ") for line in others)
    assert others[-2:] == [r"  ValueError: \x1b[2J", "  10:00:00 info fake"]


def raised(text: str) -> ValueError:
    try:
        raise ValueError(text)
    except ValueError as error:
        return error


def test_what_json_does_not_know_is_told_as_text() -> None:
    [line] = lines("json", path=sys, number=2**70)
    found = json.loads(line)
    assert "module 'sys'" in found["path"]
    assert found["number"] == 2**70


@pytest.mark.parametrize(
    ("level", "told"),
    [
        ("debug", ["info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_what_is_below_the_level_is_not_told(level: str, told: list[str]) -> None:
    target = io.StringIO()
    log = logged(level, target=target)
    log.info("one")
    log.warning("two")
    log.error("three")
    assert [json.loads(line)["level"] for line in target.getvalue().splitlines()] == told


def test_auto_is_human_on_a_terminal_and_json_elsewhere() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for target, human in (Terminal(), True), (io.StringIO(), False):
        log = logged(form="auto", target=target)
        log.info("event")
        assert target.getvalue().startswith("{") is not human
        assert log.human is human


def test_several_events_are_one_write() -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    target = Counting()
    logged(target=target).write("info", [("one", {"a": 1}), ("two", {})])
    assert target.writes == 1
    assert [json.loads(line)["event"] for line in target.getvalue().splitlines()] == ["one", "two"]


def test_a_log_that_cannot_be_written_is_no_reason_to_fail() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    target = io.TextIOWrapper(io.FileIO(writing, "w"), write_through=True)
    log = logged(target=target)
    log.error("nobody reads this")
    target.close()
    log.error("nor this")
    assert target.closed
