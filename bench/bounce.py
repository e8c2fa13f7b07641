"""`python -m bench.bounce`: mail that comes back, beside GNU Mailman.

For: `make bench-bounce`. Guarantees: rounds are interleaved; a run in which somebody was not
counted, or a recipient not served, is a fault and not a figure. `bench.program` says how it ends.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench import report
from bench.bounce_figures import Results, tables
from bench.bounce_mass import mass
from bench.bounce_parts import Part, queue, statements
from bench.bounce_run import QUICK, Plan
from bench.mailman_post import CONFIGURATION as MAILMAN_IS
from bench.mailman_post import NAME as MAILMAN
from bench.measure import Tell
from bench.post_ours import NAME as OURS
from bench.program import Bench, main, run_parts
from bench.servers import workplace
from bench.tables import Table

OURS_IS = (
    f"{OURS}: `postroom serve` with SQLite and its defaults, a twentieth of a post's recipients in "
    "transactions of their own. With either, reports come to VERP addresses, of its own kind, and "
    "the runner that reads them is held (SIGSTOP) while they are put in."
)
MAILMAN_LOOKS = f"{MAILMAN}: its bounce runner looks into its queue once in two minutes."
PARTS: dict[str, Callable[[Results, Part], Results]] = {
    "queue": lambda r, part: replace(r, queue=queue(part)),
    "statements": lambda r, part: replace(r, statements=statements(part)),
    "mass": lambda r, part: replace(r, mass=mass(part)),
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
            report.machine(place),
            plan._asdict(),
            configuration=[OURS_IS, MAILMAN_IS, MAILMAN_LOOKS],
        )
        steps = {name: step(name) for name in PARTS}
        results, broken = run_parts(results, steps, options.only or (), place)
    results = replace(results, faults=broken)
    return results, tables(results, MAILMAN)


BENCH = Bench("bounce", "Measure mail that comes back.", tuple(PARTS), measured)


if __name__ == "__main__":
    sys.exit(main(BENCH))
