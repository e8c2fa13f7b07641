"""`python -m bench.post`: posts on their way to members, beside GNU Mailman.

For: `make bench-post`. Guarantees: rounds are interleaved; a run in which a recipient was
missed, or served twice, is a fault and not a figure; whatever happens, Ctrl-C and SIGTERM too,
servers are ended and temporary data removed. Exits 0 if everything could be measured, whether
or not the targets are met; 1 if not, 2 on wrong usage.
"""

import argparse
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
from rich.console import Console
from rich.status import Status

from bench import process, report
from bench.figures import summarise
from bench.load import LoadError, program
from bench.mailman_post import CONFIGURATION as MAILMAN_IS
from bench.mailman_post import NAME as MAILMAN
from bench.mailman_post import mailman
from bench.measure import Tell
from bench.post_beside import beside
from bench.post_figures import Memory, Posts, Results, Statements, markdown, tables
from bench.post_ours import CONFIGURATION as OURS_IS
from bench.post_ours import DEFAULT, Site, Trace, runners_of
from bench.post_ours import NAME as OURS
from bench.post_run import QUICK, Done, Plan, deliver, lists
from bench.post_sink import Sink, sink
from bench.process import Skip
from bench.servers import Server, workplace

PARTS = ("posts", "memory", "statements", "beside")
WIDTH = 120  # columns of a file
IDLE = 3.0  # seconds in which the runners are watched doing nothing


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.post", description="Measure posts on their way to members."
    )
    parser.add_argument("--quick", action="store_true", help="less of it, for a first look")
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


def measured(only: Sequence[str], plan: Plan, out: Path, tell: Tell) -> Results:
    """Run the wanted parts; one that fails is a fault, and the others go on."""
    with workplace(out) as place:
        results = Results(
            report.machine(place), plan._asdict(), configuration=[OURS_IS, MAILMAN_IS]
        )

        def with_posts(results: Results) -> Results:
            found, skipped = posts(plan, place / "posts", out, tell)
            return replace(results, posts=found, skipped=skipped)

        steps: dict[str, Callable[[Results], Results]] = {
            "posts": with_posts,
            "memory": lambda r: replace(r, memory=memory(plan, place / "memory", tell)),
            "statements": lambda r: replace(
                r, statements=statements(plan, place / "statements", tell)
            ),
            "beside": lambda r: replace(r, beside=beside(plan, place / "beside", tell)),
        }
        broken = []
        for name in (each for each in PARTS if each in only):
            (place / name).mkdir()
            try:
                results = steps[name](results)
            except (Skip, LoadError) as error:
                broken.append(f"{name} could not be measured: {error}")
            shutil.rmtree(place / name, ignore_errors=True)
    return replace(results, faults=broken)


def main(words: Sequence[str] | None = None) -> int:
    """Run the bench; returns the exit status."""
    options = arguments(words)
    plan = QUICK if options.quick else Plan()
    if options.rounds:
        plan = plan._replace(rounds=options.rounds)
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
            tell = _teller(console, status)
            results = measured(options.only or PARTS, plan, out, tell)
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return _report(results, out, console)


def _teller(console: Console, status: Status) -> Tell:
    if console.is_terminal:
        return status.update
    return lambda text: print(text, flush=True)


def _report(results: Results, out: Path, console: Console) -> int:
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    print(machine, end="\n\n")
    made = tables(results, OURS, MAILMAN)
    for table in made:
        report.show(table, console)
    for note in (*results.configuration, *results.skipped):
        print(note)
    page = "\n".join([machine, "", *map(markdown, made), *results.configuration])
    (out / "post.md").write_text(page + "\n")
    encoded = msgspec.json.format(msgspec.json.encode(results), indent=2)
    (out / "post.json").write_bytes(encoded + b"\n")
    print("written:", out / "post.json", out / "post.md")
    for fault in results.faults:
        print(f"bench: {fault}", file=sys.stderr)
    return 1 if results.faults else 0


if __name__ == "__main__":
    sys.exit(main())
