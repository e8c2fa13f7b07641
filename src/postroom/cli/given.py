"""What commands are given in bulk: words and lines, KEY=VALUE, and how far they have got.

For: commands that take addresses from the command line or, for "-", from standard input.
Guarantees: each comes with the number of its line, for messages; blank lines do not count.
Fails with `Failed` on what is not UTF-8, before anything is done.
"""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import Progress

from postroom.cli.common import Failed

MANY = 5000  # from so many things on, somebody who watches is shown progress
Advance = Callable[[int], None]


def given_words(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Each word, or line of standard input, and where it stands ("line 3: ")."""
    for each in words:
        if each == "-":
            yield from _lines()
        else:
            yield each, ""


def _lines() -> Iterator[tuple[str, str]]:
    if sys.stdin.isatty():
        click.echo("Addresses, one a line; Ctrl-D ends.", err=True)
    for number, line in enumerate(sys.stdin.buffer, 1):
        where = f"line {number}: "
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
        except UnicodeDecodeError:
            raise Failed(f"{where}{line.strip()[:100]!r} is not UTF-8; nothing was done") from None
        if text:
            yield text, where


def pairs(words: Iterable[str]) -> list[tuple[str, str]]:
    """KEY=VALUE as key and value."""
    found = []
    for each in words:
        key, mark, value = each.partition("=")
        if not mark:
            raise Failed(f"{each[:100]!r} has no =: use KEY=VALUE")
        found.append((key.strip(), value))
    return found


@contextmanager
def progress(what: str, total: int) -> Iterator[Advance]:
    """A progress bar, for work that takes a while and somebody who watches."""
    console = Console(stderr=True)
    if total < MANY or not console.is_terminal:
        yield lambda number: None
        return
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda number: bar.advance(task, number)
