"""`python -m bench.post`: posts on their way to members, beside GNU Mailman.

For: `make bench-post`. Guarantees: rounds are interleaved; a run in which a recipient was
missed, or served twice, is a fault and not a figure. `bench.program` says how it ends.
"""

import argparse
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from bench import process, report
from bench.figures import summarise
from bench.load import LoadError
from bench.mailman_post import CONFIGURATION as MAILMAN_IS
from bench.mailman_post import NAME as MAILMAN
from bench.mailman_post import mailman
from bench.measure import Tell
from bench.post_beside import beside
from bench.post_figures import Memory, Posts, Results, Statements, tables
from bench.post_ours import CONFIGURATION as OURS_IS
from bench.post_ours import DEFAULT, Site, Trace, runners_of
from bench.post_ours import NAME as OURS
from bench.post_run import QUICK, Done, Plan, deliver, lists
from bench.post_sink import Sink, sink
from bench.process import Skip
from bench.program import Bench, main, run_parts
from bench.servers import Server, workplace
from bench.tables import Table

IDLE = 3.0  # seconds in which the runners are watched doing nothing


# The part `posts`


class Runner:
    """Who delivers posts, to lists of these numbers of members; `ours` is None for a peer."""

    def __init__(self, server: Server, members: Sequence[int], ours: Site | None = None) -> None:
        self.server, self.members, self.ours = server, members, ours

    def run(self, into: Sink, number: int) -> Done:
        """One post. Raises `LoadError`."""
        done = deliver(self.server.port, into, number)
        if self.ours is not None:
            self.ours.settle()
        return done


def posts(plan: Plan, place: Path, out: Path, tell: Tell) -> tuple[list[Posts], list[str]]:
    """postroom and its peer, round by round; and who could not take part."""
    skipped = []
    with ExitStack() as stack:
        into = stack.enter_context(sink(place / "sink"))
        taking_part = [
            stack.enter_context(_ours(plan, place, into, tell, verp)) for verp in (False, True)
        ]
        tell(f"{MAILMAN}: setting it up; it takes a minute to subscribe 5,000 members")
        peer = mailman(out / "mailman-venv", place / "mailman", into.port, lists(plan.peer))
        try:
            taking_part.append(Runner(stack.enter_context(peer), plan.peer))
        except Skip as error:
            skipped.append(f"{MAILMAN} is left out: {error}")
        trials = [(each, number) for each in taking_part for number in each.members]
        runs: dict[tuple[str, int], list[Done]] = {}
        for number in range(-1, plan.rounds):  # the first one warms up
            for each, members in random.Random(number).sample(trials, len(trials)):
                name = each.server.name
                try:
                    done = each.run(into, members)
                except LoadError as error:
                    raise LoadError(f"{name}, {members:,} members: {error}") from error
                if number >= 0:
                    runs.setdefault((name, members), []).append(done)
                tell(
                    f"round {number + 1} of {plan.rounds}: {name}, {members:,} members: "
                    f"{done.rate:,.0f} recipients/s"
                )
    measured = [_summed_up(name, members, done) for (name, members), done in runs.items()]
    return measured, skipped


@contextmanager
def _ours(plan: Plan, place: Path, into: Sink, tell: Tell, verp: bool) -> Iterator[Runner]:
    name = DEFAULT if verp else OURS
    ours = Site(place / f"postroom-{verp}", into.port, verp)
    tell(f"{name}: subscribing {sum(plan.members):,} members")
    ours.create(lists(plan.members))
    with ours.serve(name) as server:
        yield Runner(server, plan.members, ours)


def _summed_up(name: str, members: int, runs: Sequence[Done]) -> Posts:
    return Posts(
        name,
        members,
        summarise([done.rate for done in runs]),
        summarise([done.recipients / done.wire for done in runs]),
        summarise([done.seconds for done in runs]),
        summarise([done.transactions for done in runs]),
    )


# The part `memory`


def memory(plan: Plan, place: Path, tell: Tell) -> list[Memory]:
    """What a new runners process takes for a post to each number of members."""
    before: dict[int, list[int]] = {number: [] for number in plan.members}
    peak: dict[int, list[int]] = {number: [] for number in plan.members}
    with sink(place / "sink") as into:
        ours = Site(place / "postroom", into.port, verp=True)
        tell(f"memory: subscribing {sum(plan.members):,} members")
        ours.create(lists(plan.members))
        for _ in range(plan.rounds):
            for number in plan.members:
                tell(f"memory: a post to {number:,} members")
                with ours.serve() as server:
                    runners = runners_of(server.pid)
                    before[number].append(process.memory(runners).high)
                    deliver(server.port, into, number)
                    ours.settle()
                    peak[number].append(process.memory(runners).high)
    return [Memory(each, summarise(before[each]), summarise(peak[each])) for each in plan.members]


# The part `statements`


def statements(plan: Plan, place: Path, tell: Tell) -> list[Statements]:
    """What a post to each number of members takes in SQL."""
    rows = []
    with sink(place / "sink") as into:
        log = place / "statements"
        ours = Site(place / "postroom", into.port, verp=False, trace=log)
        tell(f"statements: subscribing {sum(plan.members):,} members")
        ours.create(lists(plan.members))
        with ours.serve() as server:
            trace = Trace(log)
            idle = set(trace.idle(IDLE)) - {"COMMIT"}
            for number in plan.members:
                tell(f"statements: a post to {number:,} members")
                trace.since()
                done = deliver(server.port, into, number)
                ours.settle()
                shapes = {k: n for k, n in trace.since().items() if k not in idle}
                rows.append(Statements(number, done.transactions, shapes))
    return rows


# All of it


def measured(options: argparse.Namespace, out: Path, tell: Tell) -> tuple[Results, list[Table]]:
    """Run the wanted parts; returns what they found, and the tables of it."""
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = plan._replace(rounds=options.rounds)

    def with_posts(results: Results, place: Path) -> Results:
        found, skipped = posts(plan, place, out, tell)
        return replace(results, posts=found, skipped=skipped)

    steps: dict[str, Callable[[Results, Path], Results]] = {
        "posts": with_posts,
        "memory": lambda r, place: replace(r, memory=memory(plan, place, tell)),
        "statements": lambda r, place: replace(r, statements=statements(plan, place, tell)),
        "beside": lambda r, place: replace(r, beside=beside(plan, place, tell)),
    }
    with workplace(out) as place:
        results = Results(
            report.machine(place), plan._asdict(), configuration=[OURS_IS, MAILMAN_IS]
        )
        results, broken = run_parts(results, steps, options.only or (), place)
    results = replace(results, faults=broken)
    return results, tables(results, OURS, MAILMAN)


BENCH = Bench(
    "post",
    "Measure posts on their way to members.",
    ("posts", "memory", "statements", "beside"),
    measured,
)


if __name__ == "__main__":
    sys.exit(main(BENCH))
