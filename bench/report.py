"""The figures written: tables on the terminal, JSON, a chart, and facts of the machine.

For: what remains of a run. Guarantees: the JSON holds every round of every measurement.
"""

import os
import platform
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pysqlite3.dbapi2 as sqlite
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from bench.figures import Results
from bench.tables import Table
from postroom import __version__

PROBES = 100  # flushes to tell the disk's speed


def machine(directory: Path) -> dict[str, object]:
    """Facts without which the figures mean little."""
    return {
        "taken_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "postroom": __version__,
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "kernel": platform.release(),
        "load_average": round(os.getloadavg()[0], 2),
        "flush_ms": round(_flush_time(directory) * 1000, 3),
        "python": platform.python_version(),
        "sqlite": sqlite.sqlite_version,
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _flush_time(directory: Path) -> float:
    """The median time, in seconds, to append 4 KiB to a file and flush it."""
    path = directory / "flush-probe"
    times = []
    with path.open("wb", buffering=0) as probe:
        for _ in range(PROBES):
            began = time.perf_counter()
            probe.write(bytes(4096))
            os.fdatasync(probe.fileno())
            times.append(time.perf_counter() - began)
    path.unlink()
    return statistics.median(times)


def write_json(results: Results, path: Path) -> None:
    """Everything as JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")


def show(table: Table, console: Console) -> None:
    """One table on the terminal."""
    shown = RichTable(title=table.title, title_justify="left", title_style="bold", box=box.SIMPLE)
    for number, column in enumerate(table.columns):
        numeric = all(_is_number(row[number]) for row in table.rows)
        shown.add_column(column, justify="right" if numeric else "left")
    for row in table.rows:
        style = "bold" if "postroom" in row else None
        shown.add_row(*row, style=style)
    console.print(shown)
    for note in table.notes:
        console.print(note, markup=False, highlight=False)
    console.print()


def _is_number(text: str) -> bool:
    return not text or text.replace(",", "").replace(".", "").isdigit()


def markdown(table: Table) -> str:
    """A table for a page."""
    lines = [f"### {table.title}", ""]
    lines += [_line(table.columns), _line(["---"] * len(table.columns))]
    lines += [_line(row) for row in table.rows]
    return "\n".join([*lines, "", *(f"{note}\n" for note in table.notes)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"
