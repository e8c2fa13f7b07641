"""A bench with parts, as a program: its command line, its parts one by one, what it leaves.

For: `bench.post`, `bench.command` and `bench.bounce`. Guarantees: a part that fails is a fault,
and the others go on; whatever happens, Ctrl-C and SIGTERM too, servers are ended and temporary
data removed. Exits 0 if everything could be measured, whether or not the targets are met; 1 if
not, 2 on wrong usage.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar

import msgspec
from rich.console import Console
from rich.status import Status

from bench import report
from bench.load import LoadError, program
from bench.measure import Tell
from bench.process import Skip
from bench.tables import Table

WIDTH = 120  # columns of a file
R = TypeVar("R")


class Results(Protocol):
    """What every bench finds, whatever else it does."""

    @property
    def machine(self) -> Mapping[str, object]: ...
    @property
    def configuration(self) -> Sequence[str]: ...
    @property
    def skipped(self) -> Sequence[str]: ...
    @property
    def faults(self) -> Sequence[str]: ...


class Bench(NamedTuple):
    """A bench: its name, what it is about, its parts, and what measures (the command line, the
    directory of the results, and whom to tell how it goes)."""

    name: str
    about: str
    parts: Sequence[str]
    measured: Callable[[argparse.Namespace, Path, Tell], tuple[Results, list[Table]]]


def arguments(bench: Bench, words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.{bench.name}", description=bench.about)
    parser.add_argument("--quick", action="store_true", help="less of it, for a first look")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="measure everything N times")
    parser.add_argument(
        "--only", action="append", choices=bench.parts, help="measure this part; may be repeated"
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "out",
        metavar="DIR",
        help="where results and temporary data go (default: bench/out)",
    )
    return parser.parse_args(words)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def run_parts(
    results: R, steps: Mapping[str, Callable[[R, Path], R]], only: Sequence[str], place: Path
) -> tuple[R, list[str]]:
    """Run the wanted parts (none named: all), each in a directory of its own; returns the
    results with what they found, and what could not be measured."""
    broken = []
    for name in (each for each in steps if not only or each in only):
        (place / name).mkdir()
        try:
            results = steps[name](results, place / name)
        except (Skip, LoadError) as error:
            broken.append(f"{name} could not be measured: {error}")
        shutil.rmtree(place / name, ignore_errors=True)
    return results, broken


def main(bench: Bench, words: Sequence[str] | None = None) -> int:
    """Run a bench; returns the exit status."""
    options = arguments(bench, words)
    if sys.platform != "linux" or program("smtp-sink") is None:
        print("bench: needs Linux and Postfix (Debian: apt install postfix)", file=sys.stderr)
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    out: Path = options.out.resolve()
    try:
        with Status("starting", console=console) as status:
            results, tables = bench.measured(options, out, _teller(console, status))
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return _report(bench, results, tables, out, console)


def _teller(console: Console, status: Status) -> Tell:
    if console.is_terminal:
        return status.update
    return lambda text: print(text, flush=True)


def _report(
    bench: Bench, results: Results, tables: Sequence[Table], out: Path, console: Console
) -> int:
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    print(machine, end="\n\n")
    for table in tables:
        report.show(table, console)
    for note in (*results.configuration, *results.skipped):
        print(note)
    page = "\n".join([machine, "", *map(report.markdown, tables), *results.configuration])
    (out / f"{bench.name}.md").write_text(page + "\n")
    encoded = msgspec.json.format(msgspec.json.encode(results), indent=2)
    (out / f"{bench.name}.json").write_bytes(encoded + b"\n")
    print("written:", out / f"{bench.name}.json", out / f"{bench.name}.md")
    for fault in results.faults:
        print(f"bench: {fault}", file=sys.stderr)
    return 1 if results.faults else 0
