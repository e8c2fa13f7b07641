"""The parts `queue` and `statements` of `bench.bounce`.

For: what reports cost, many in a row and one by one. Guarantees: postroom and its peer are
measured in turn, and a first round warms up; a run counts only if as many members were counted as
had to. A peer that is not here is left out, and `skipped` says why. Raises `Skip` and `LoadError`.
"""

import random
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from bench.bounce_figures import Queue
from bench.bounce_run import Plan, await_none, counted, key_of, ours, reports, work_off
from bench.command_parts import IDLE, SINGLE
from bench.command_run import Worked, address, put_in
from bench.command_sites import Lists, peer
from bench.figures import summarise
from bench.load import LoadError
from bench.mailman_post import NAME as MAILMAN
from bench.measure import Tell
from bench.post_figures import Statements
from bench.post_ours import NAME as OURS
from bench.post_ours import Site, Trace
from bench.post_run import lists, members
from bench.post_sink import Sink, sink
from bench.process import Skip
from postroom.bounces.acting import MASS_LEAST, MASS_SHARE
from postroom.bounces.scoring import DAY

WARM = 50  # reports before any is timed
PEER_LIST = "ant"


class Part:
    """What the parts share. `skipped` says who could not take part."""

    def __init__(self, plan: Plan, place: Path, out: Path, tell: Tell) -> None:
        self.plan, self.place, self.tell = plan, place, tell
        self.venv = out / "mailman-venv"
        self.skipped: list[str] = []


# The part `queue`


class Trial(NamedTuple):
    """Reports to one server: on lists of how many members, how many, and what works off those of
    a round (-1 warms up), which returns of how many members more something is known."""

    name: str
    members: int
    entries: int
    run: Callable[[int], tuple[Worked, int]]


def queue(part: Part) -> list[Queue]:
    """Reports, worked off."""
    runs: dict[tuple[str, int], list[tuple[Worked, int]]] = {}
    with ExitStack() as stack:
        into = stack.enter_context(sink(part.place / "sink"))
        trials = [*_our_trials(part, stack, into), *_peer_trials(part, stack, into)]
        for number in range(-1, part.plan.rounds):
            for each in random.Random(number).sample(trials, len(trials)):
                worked, known = each.run(number)
                if number >= 0:
                    runs.setdefault((each.name, each.members), []).append((worked, known))
                part.tell(
                    f"round {number + 1} of {part.plan.rounds}: {each.name}, {each.members:,} "
                    f"members: {worked.rate:,.1f}/s, {known:,} counted"
                )
    return [
        Queue(
            each.name,
            each.members,
            each.entries,
            summarise([known for _, known in found]),
            summarise([worked.rate for worked, _ in found]),
        )
        for each in trials
        if (found := runs.get((each.name, each.members)))
    ]


def _our_trials(part: Part, stack: ExitStack, into: Sink) -> list[Trial]:
    """All are counted on a list of which they are few; of one of which they are all, few are. A
    list of its own for each round, since who bounced already today is not counted again."""
    plan = part.plan
    sizes = (plan.listed, plan.entries)
    made = {
        address(_name(size, number)): members(size)
        for size in sizes
        for number in range(-1, plan.rounds)
    }
    part.tell(f"{OURS}: subscribing {sum(map(len, made.values())):,} members")
    site = Site(part.place / OURS, into.port, verp=True)
    by = stack.enter_context(ours(site, made))

    def run(number: int, size: int) -> tuple[Worked, int]:
        name = _name(size, number)
        entries = WARM if number < 0 else plan.entries
        key = key_of(site.directory, name)
        before = counted(by)
        worked = work_off(by, reports(name, members(size)[:entries], key))
        known = counted(by) - before
        most = max(MASS_LEAST, round(MASS_SHARE * size))
        _expect(known, min(entries, most), entries, most * worked.seconds / DAY)
        return worked, known

    def on(size: int) -> Trial:
        return Trial(OURS, size, plan.entries, lambda number: run(number, size))

    return [on(size) for size in sizes]


def _name(size: int, number: int) -> str:
    return f"of-{size}-{number + 1}"


def _peer_trials(part: Part, stack: ExitStack, into: Sink) -> list[Trial]:
    """Mailman's; in each round it is other members."""
    plan, entries = part.plan, part.plan.peer_entries
    everybody = members(WARM + plan.rounds * entries)
    theirs: Lists = {address(PEER_LIST): everybody}
    part.tell(f"{MAILMAN}: setting it up")
    try:
        by = stack.enter_context(peer(part.venv, part.place / MAILMAN, into.port, theirs))
    except Skip as error:
        part.skipped = [f"{MAILMAN} is left out: {error}"]
        return []

    def run(number: int) -> tuple[Worked, int]:
        first = 0 if number < 0 else WARM + number * entries
        some = everybody[first : first + (WARM if number < 0 else entries)]
        before = counted(by)
        worked = work_off(by, reports(PEER_LIST, some))
        known = counted(by) - before
        _expect(known, len(some) - 1, len(some), 0.0)  # it may be about the last one still
        return worked, known

    return [Trial(MAILMAN, len(everybody), entries, run)]


def _expect(known: int, least: int, entries: int, more: float) -> None:
    """Raises `LoadError` unless at least so many were counted, and not many more."""
    if not least <= known <= min(entries, least + 1 + more):
        raise LoadError(f"{known:,} members were counted instead of {least:,}")


# The part `statements`


def statements(part: Part) -> list[Statements]:
    """The statements of a report, for each number of members."""
    log, sizes = part.place / "statements", part.plan.members
    rows = []
    with ExitStack() as stack:
        into = stack.enter_context(sink(part.place / "sink"))
        part.tell(f"statements: subscribing {sum(sizes):,} members")
        site = Site(part.place / "traced", into.port, verp=True, trace=log)
        by = stack.enter_context(ours(site, lists(sizes)))
        trace = Trace(log)
        idle = set(trace.idle(IDLE)) - {"COMMIT"}
        for size in sizes:
            name = f"list-{size}"
            key = key_of(site.directory, name)
            found = []
            for report in reports(name, members(size)[:SINGLE], key):
                before = counted(by)
                trace.since()
                put_in(by.server.port, [report])
                await_none(by)
                _expect(counted(by) - before, 1, 1, 0.0)
                shapes = {k: n for k, n in trace.since().items() if k not in idle}
                found.append(Statements(size, 1, shapes))
            rows.append(min(found, key=lambda each: each.total))
    return rows
