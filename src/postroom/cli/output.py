"""How commands print: tables for people, JSON for programs.

For: all listings. Guarantees: on a terminal a table that fits it; into a pipe whole lines,
never cut, quickly however many; JSON is pure ASCII, one array for a listing, written as it
is read. All text is made safe for a terminal.
"""

import json
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import click
from rich.cells import cell_len
from rich.console import Console
from rich.table import Table
from rich.text import Text

from postroom.cli.common import safe

SHOWN: Final = 100  # lines, to people who name no limit
ALL: Final = 2**63 - 1  # as many as a database can count

_Command = TypeVar("_Command", bound=Callable[..., Any])

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def limit_option(which: str = "oldest") -> Callable[[_Command], _Command]:
    """The option of a listing that says how much of it is shown; `which` are shown first."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1),
        metavar="N",
        help=f"Show the N {which}; else {SHOWN}, with --json all.",
    )


def at_most(limit: int | None, as_json: bool) -> int:
    """How many to read, from what those options say."""
    return min(limit or (ALL if as_json else SHOWN), ALL)


def say_if_more(shown: int, most: int, which: str = "oldest", besides: str = "") -> None:
    """Tell people who were shown as many as may be that there may be more."""
    if shown == most:
        click.echo(f"The {most} {which}; --limit N shows more{besides}.", err=True)


def print_array(items: Iterable[dict[str, Any]]) -> None:
    """One JSON array, an item a line."""
    before = "["
    for item in items:
        click.echo(f"{before}\n{json.dumps(item)}", nl=False)
        before = ","
    click.echo("[]" if before == "[" else "\n]")


def print_object(item: dict[str, Any]) -> None:
    """One JSON object."""
    click.echo(json.dumps(item, indent=2))


def print_table(
    titles: Sequence[str], rows: Iterable[Sequence[object]], whole: Collection[str] = ()
) -> None:
    """A table; numbers stand to the right. Columns in `whole` are never folded."""
    every = list(rows)
    console = Console()
    numeric = [any(isinstance(row[place], int) for row in every) for place in range(len(titles))]
    texts = [[safe(str(cell)) for cell in row] for row in every]
    if not console.is_terminal:
        _print_plain(titles, texts, numeric)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title, right in zip(titles, numeric, strict=True):
        table.add_column(
            title,
            justify="right" if right else "left",
            overflow="fold",
            no_wrap=right or title in whole,
        )
    for row in texts:
        table.add_row(*map(Text, row))
    console.print(table)


def _print_plain(
    titles: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]
) -> None:
    every = [titles, *rows]
    widths = [max(cell_len(row[place]) for row in every) for place in range(len(titles))]
    for row in every:
        cells = []
        for text, width, right in zip(row, widths, numeric, strict=True):
            blank = " " * (width - cell_len(text))
            cells.append(blank + text if right else text + blank)
        click.echo("  ".join(cells).rstrip())


def print_facts(facts: dict[str, object]) -> None:
    """Names and values, a line each; what is None is left out."""
    shown = {name: value for name, value in facts.items() if value is not None}
    width = max(map(len, shown))
    for name, value in shown.items():
        click.echo(f"{name:<{width}}  {safe(str(value))}")


def utc(seconds: float) -> str:
    """A time for programs: ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def local(seconds: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def duration(seconds: float) -> str:
    """A length of time for people, in its two largest units."""
    days, rest = divmod(round(seconds), 86_400)
    hours, rest = divmod(rest, 3600)
    minutes, rest = divmod(rest, 60)
    parts = [(days, "d"), (hours, "h"), (minutes, "min"), (rest, "s")]
    first = next((place for place, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])
