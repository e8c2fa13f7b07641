"""`python -m bench.command`: commands by mail, beside GNU Mailman.

For: `make bench-command`. Guarantees: rounds are interleaved; a run in which an answer was missed,
or sent twice, is a fault and not a figure. `bench.program` says how it ends.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import report
from bench.command_figures import Results, tables
from bench.command_parts import Part, flood, latency, queue, statements
from bench.command_run import QUICK, Plan
from bench.command_sites import CONFIGURATION as OURS_IS
from bench.mailman_post import CONFIGURATION as MAILMAN_IS
from bench.mailman_post import NAME as MAILMAN
from bench.measure import Tell
from bench.program import Bench, main, run_parts
from bench.servers import workplace
from bench.tables import Table

PARTS: dict[str, Callable[[Results, Part], Results]] = {
    "queue": lambda r, part: replace(r, queue=queue(part)),
    "latency": lambda r, part: replace(r, latency=latency(part)),
    "statements": lambda r, part: replace(r, statements=statements(part)),
    "flood": lambda r, part: replace(r, flood=flood(part)),
}


def measured(options: argparse.Namespace, out: Path, tell: Tell) -> tuple[Results, list[Table]]:
    """Run the wanted parts; returns what they found, and the tables of it."""
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = plan._replace(rounds=options.rounds)

    def step(name: str) -> Callable[[Results, Path], Results]:
        def run(results: Results, place: Path) -> Results:
            part = Part(plan, place, out, tell)
            results = PARTS[name](results, part)
            return replace(results, skipped=[*{*results.skipped, *part.skipped}])

        return run

    with workplace(out) as place:
        results = Results(
            report.machine(place), plan._asdict(), configuration=[OURS_IS, MAILMAN_IS]
        )
        steps = {name: step(name) for name in PARTS}
        results, broken = run_parts(results, steps, options.only or (), place)
    results = replace(results, faults=broken)
    return results, tables(results, MAILMAN)


BENCH = Bench("command", "Measure commands that come by mail.", tuple(PARTS), measured)


if __name__ == "__main__":
    sys.exit(main(BENCH))
