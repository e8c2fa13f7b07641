"""`python -m bench`: run the bench, show it, write it down.

For: `make bench`. Guarantees: whatever happens, Ctrl-C and SIGTERM too, servers are ended
and temporary data removed. Exits 0 if everything could be measured and every ledger is
balanced, whether or not the targets are met; 1 if not, 2 on wrong usage.
"""

import argparse
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.status import Status

from bench import chart, parts, report
from bench.against import against
from bench.figures import Results, faults
from bench.fire import hostile, idle
from bench.load import LoadError, program
from bench.measure import QUICK, Plan, Tell
from bench.process import Skip
from bench.servers import workplace
from bench.tables import tables

PARTS = ("start", "door", "lists", "sizes", "flush", "idle", "hostile")
AGAINST = "against"


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure postroom and its peers, side by side."
    )
    parser.add_argument("--quick", action="store_true", help="a minute's worth, for a first look")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="measure everything N times")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--only", action="append", choices=PARTS, help="measure this part; may be repeated"
    )
    which.add_argument(
        "--against",
        type=_checkout,
        metavar="DIR",
        help="measure the door of this checkout beside that of another one in DIR",
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


def _checkout(text: str) -> Path:
    path = Path(text).resolve()
    if not (path / "src/postroom").is_dir():
        raise argparse.ArgumentTypeError(f"{text} is no checkout of postroom (it has no src)")
    return path


def measured(
    only: Sequence[str], plan: Plan, out: Path, tell: Tell, other: Path | None = None
) -> Results:
    """Run the wanted parts, or measure against another checkout; what postroom fails in is a
    fault, and the others go on."""
    with workplace(out) as place:
        results = Results(report.machine(place), plan._asdict())
        steps: dict[str, Callable[[Results], Results]] = {
            "start": lambda r: replace(r, start=parts.start(plan, place / "start", tell)),
            "door": lambda r: replace(r, door=parts.door(plan, place / "door", out, tell)),
            "lists": lambda r: replace(r, lists=parts.lists(plan, place / "lists", tell)),
            "sizes": lambda r: replace(r, sizes=parts.sizes(plan, place / "sizes", tell)),
            "flush": lambda r: replace(r, flush=parts.flush(plan, place / "flush", tell)),
            "idle": lambda r: replace(r, idle=idle(plan, place / "idle", tell)),
            "hostile": lambda r: replace(r, hostile=hostile(plan, place / "hostile", tell)),
        }
        wanted = [name for name in PARTS if name in only]
        if other is not None:
            steps[AGAINST] = lambda r: replace(
                r, against=against(plan, place / AGAINST, other, tell)
            )
            wanted = [AGAINST]
        broken = []
        for name in wanted:
            try:
                results = steps[name](results)
            except (Skip, LoadError) as error:
                broken.append(f"{name} could not be measured: {error}")
            shutil.rmtree(place / name, ignore_errors=True)
    return replace(results, faults=broken + faults(results))


def main(words: Sequence[str] | None = None) -> int:
    """Run the bench; returns the exit status."""
    options = arguments(words)
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = plan._replace(rounds=options.rounds)
    if sys.platform != "linux" or program("smtp-source") is None:
        print(
            "bench: needs Linux and Postfix's smtp-source (Debian: apt install postfix)",
            file=sys.stderr,
        )
        return 1
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    console = Console()
    out: Path = options.out.resolve()
    try:
        with Status("starting", console=console) as status:
            tell = _teller(console, status)
            results = measured(options.only or PARTS, plan, out, tell, options.against)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return _report(results, out, console)


def _teller(console: Console, status: Status) -> Tell:
    """How progress is told: in place on a terminal, else line by line."""
    if console.is_terminal:
        return status.update
    return lambda text: print(text, flush=True)


def _report(results: Results, out: Path, console: Console) -> int:
    print(", ".join(f"{name} {value}" for name, value in results.machine.items()))
    console.print()
    for table in tables(results):
        report.show(table, console)
    report.write_json(results, out / "bench.json")
    written = [out / "bench.json", *chart.draw(results, out)]
    print("written:", ", ".join(map(str, written)))
    if not chart.AVAILABLE:
        print("no chart: matplotlib is not installed (it is in the dev dependencies)")
    for fault in results.faults:
        print(f"bench: {fault}", file=sys.stderr)
    return 1 if results.faults else 0


if __name__ == "__main__":
    sys.exit(main())
