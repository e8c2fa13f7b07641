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
from bench.figures import Results, faults
from bench.load import LoadError, program
from bench.measure import QUICK, Plan, Tell
from bench.process import Skip
from bench.servers import workplace
from bench.tables import tables

PARTS = ("start", "door", "lists", "sizes", "flush")


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Measure postroom and its peers, side by side."
    )
    parser.add_argument("--quick", action="store_true", help="a minute's worth, for a first look")
    parser.add_argument("--rounds", type=_positive, metavar="N", help="measure everything N times")
    parser.add_argument(
        "--only", action="append", choices=PARTS, help="measure this part; may be repeated"
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


def measured(only: Sequence[str], plan: Plan, out: Path, tell: Tell) -> Results:
    """Run the wanted parts; one that postroom fails in is a fault, and the others go on."""
    with workplace(out) as place:
        results = Results(report.machine(place), plan._asdict())
        steps: dict[str, Callable[[Results], Results]] = {
            "start": lambda r: replace(r, start=parts.start(plan, place / "start", tell)),
            "door": lambda r: replace(r, door=parts.door(plan, place / "door", out, tell)),
            "lists": lambda r: replace(r, lists=parts.lists(plan, place / "lists", tell)),
            "sizes": lambda r: replace(r, sizes=parts.sizes(plan, place / "sizes", tell)),
            "flush": lambda r: replace(r, flush=parts.flush(plan, place / "flush", tell)),
        }
        broken = []
        for name in PARTS:
            if name not in only:
                continue
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
            results = measured(options.only or PARTS, plan, out, _teller(console, status))
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
