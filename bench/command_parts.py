"""The parts of `bench.command`: queue, latency, statements and flood.

For: each part starts its servers, measures, and returns figures. Guarantees: postroom and its
peer are measured in turn, and a first round warms up; a run counts only if as many letters came
as had to. A peer that is not here is left out, and `skipped` says why. Raises `Skip` and
`LoadError`.
"""

import os
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.command_figures import Cost, Flood, Growth, Latency, Queue, allowed
from bench.command_run import (
    LIMIT,
    Mail,
    Plan,
    Worked,
    address,
    confirms,
    helps,
    joins,
    put_in,
    work_off,
)
from bench.command_sites import UNLIMITED, Contender, Lists, ours, peer
from bench.figures import Ledger, summarise
from bench.load import Load, LoadError, Run, calibrate, send
from bench.mailman_post import NAME as MAILMAN
from bench.measure import Tell
from bench.post_figures import Statements
from bench.post_ours import NAME as OURS
from bench.post_ours import UNSERVED, Site, Trace
from bench.post_run import exactly, lists
from bench.post_sink import Sink, sink
from bench.process import Skip, paused
from postroom.base.settings import Commands

ANT = "ant"
KINDS = ("help", "join", "confirm")
WARM = 50  # commands before any is timed
IDLE = 3.0  # seconds in which the runners are watched doing nothing
SINGLE = 5  # joins of which the one with the fewest statements counts
DOOR = Load(10, to=address(ANT, UNSERVED))
EMPTY: Lists = {address(ANT): []}
Contenders = dict[str, Contender]


class Part:
    """What the parts share. `skipped` says who could not take part."""

    def __init__(self, plan: Plan, place: Path, out: Path, tell: Tell) -> None:
        self.plan, self.place, self.tell = plan, place, tell
        self.venv = out / "mailman-venv"
        self.skipped: list[str] = []

    def peer(self, stack: ExitStack, into: Sink, theirs: Lists) -> Contenders:
        """The peer, as long as the stack lasts; nobody if it is not here."""
        self.tell(f"{MAILMAN}: setting it up")
        try:
            found = stack.enter_context(peer(self.venv, self.place / MAILMAN, into.port, theirs))
        except Skip as error:
            self.skipped = [f"{MAILMAN} is left out: {error}"]
            return {}
        return {MAILMAN: found}

    def both(self, stack: ExitStack, into: Sink, own: Lists, theirs: Lists) -> Contenders:
        """postroom and its peer, each with lists of its own."""
        self.tell(f"{OURS}: setting it up")
        found = stack.enter_context(ours(self.place / OURS, into.port, own))
        return {OURS: found} | self.peer(stack, into, theirs)

    def rounds(self, contenders: Contenders) -> Iterator[tuple[int, str, Contender]]:
        """Round by round each of them, in an order of its own; round -1 warms up."""
        for number in range(-1, self.plan.rounds):
            for name in random.Random(number).sample(list(contenders), len(contenders)):
                yield number, name, contenders[name]

    def told(self, number: int, text: str) -> None:
        """Tell what came of a round."""
        self.tell(f"round {number + 1} of {self.plan.rounds}: {text}")


# The part `queue`


def queue(part: Part) -> list[Queue]:
    """Queues of commands, worked off."""
    plan = part.plan
    runs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        into = stack.enter_context(sink(part.place / "sink", keep=True))
        contenders = part.both(stack, into, EMPTY, EMPTY)
        for number, name, by in part.rounds(contenders):
            letters: list[bytes] = []
            for kind in KINDS:
                entries = WARM if number < 0 else _entries(plan, name, kind)
                rates = _answered(by, into, _mails(kind, f"{kind}{number}", entries, letters))
                letters = into.take()
                if number >= 0:
                    runs.setdefault((kind, name), []).append(rates)
                part.told(number, f"{name}, {kind}: {rates[0]:,.1f}/s, letters {rates[1]:,.1f}/s")
        for name, by in contenders.items():
            joined = WARM + plan.rounds * _entries(plan, name, "join")
            if (found := by.members(address(ANT))) != joined:
                raise LoadError(f"{name}: {found:,} joined instead of {joined:,}")
    return [
        Queue(
            name,
            kind,
            _entries(plan, name, kind),
            summarise([rate for rate, _ in found]),
            summarise([rate for _, rate in found]),
        )
        for (kind, name), found in runs.items()
    ]


def _entries(plan: Plan, name: str, kind: str) -> int:
    return plan.peer_joins if name == MAILMAN and kind != "help" else plan.entries


def _mails(kind: str, prefix: str, number: int, letters: Sequence[bytes]) -> list[Mail]:
    """So many of a kind; who confirms answers `letters`."""
    if kind == "confirm":
        mails = confirms(ANT, letters)
        if len(mails) != number:
            raise LoadError(f"{len(mails):,} were asked to confirm instead of {number:,}")
        return mails
    return (helps if kind == "help" else joins)(ANT, prefix, number)


def _answered(by: Contender, into: Sink, mails: Sequence[Mail]) -> tuple[float, float]:
    """Work these off; returns commands a second, and letters a second, one for each."""
    worked = work_off(by, into, mails)
    last = into.wait(len(mails), LIMIT).last
    by.settle()
    exactly(into.arrived(), len(mails))
    return worked.rate, len(mails) / (last - worked.began)


# The part `latency`


def latency(part: Part) -> list[Latency]:
    """One command at a time, to an idle server."""
    plan = part.plan
    seconds: dict[str, list[float]] = {}
    chance = random.Random(0)
    with ExitStack() as stack:
        into = stack.enter_context(sink(part.place / "sink"))
        contenders = part.both(stack, into, EMPTY, EMPTY)
        for number in range(-1, plan.latencies):
            for name, by in contenders.items():
                by.settle()
                time.sleep(chance.random())  # the peer looks once a second: any moment will do
                into.clear()
                taken = put_in(by.server.port, helps(ANT, f"{number}", 1))
                late = into.wait(1, LIMIT).last - taken
                if number >= 0:
                    seconds.setdefault(name, []).append(late)
                part.tell(f"{number + 1} of {plan.latencies}: {name}: {1e3 * late:,.1f} ms")
    return [Latency(name, summarise(found)) for name, found in seconds.items()]


# The part `statements`


def statements(part: Part) -> Growth:
    """What a join takes, by number of members."""
    plan = part.plan
    runs: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as stack:
        into = stack.enter_context(sink(part.place / "sink"))
        counted = _counted(part, into)
        contenders = part.both(stack, into, lists(plan.members), lists(plan.peer))
        for number, name, by in part.rounds(contenders):
            row, sizes = (plan.row, plan.members) if name == OURS else (plan.peer_row, plan.peer)
            for members in sizes:
                mails = joins(f"list-{members}", f"{number}", row)
                worked = work_off(by, into, mails)
                into.wait(len(mails), LIMIT)
                each = worked.seconds / worked.entries
                if number >= 0:
                    runs.setdefault((name, members), []).append(each)
                part.told(number, f"{name}, {members:,} members: {1e3 * each:.2f} ms")
    costs = [Cost(name, members, summarise(found)) for (name, members), found in runs.items()]
    return Growth(costs, counted)


def _counted(part: Part, into: Sink) -> list[Statements]:
    """The statements of a join to postroom, for each number of members."""
    log = part.place / "statements"
    site = Site(part.place / "traced", into.port, verp=True, trace=log, more=UNLIMITED)
    part.tell(f"statements: subscribing {sum(part.plan.members):,} members")
    site.create(lists(part.plan.members))
    rows = []
    with site.serve() as server:
        trace = Trace(log)
        idle = set(trace.idle(IDLE)) - {"COMMIT"}
        for members in part.plan.members:
            found = []
            for mail in joins(f"list-{members}", "counted", SINGLE):
                trace.since()
                into.clear()
                put_in(server.port, [mail])
                into.wait(1, LIMIT)
                site.settle()
                shapes = {k: n for k, n in trace.since().items() if k not in idle}
                found.append(Statements(members, 1, shapes))
            rows.append(min(found, key=lambda each: each.total))
    return rows


# The part `flood`


class Flooded:
    """Rounds of a flood on one kind of server."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self._seconds = name, seconds
        self.worked: list[Worked] = []
        self.letters: list[int] = []
        self.alone: list[float] = []
        self.beside: list[float] = []
        self.sent = self.queued = 0

    def round(self, by: Contender, into: Sink, mails: Sequence[Mail]) -> str:
        """The door alone, then beside a flood; returns what is to be told."""
        before = by.waiting(UNSERVED)

        def door(messages: int) -> Run:
            self.sent += messages
            return send(by.server.port, DOOR, messages)

        messages = calibrate(door, DOOR.sessions, self._seconds)
        by.settle()
        os.sync()
        self.alone.append(door(messages).rate)
        worked = work_off(by, into, mails, lambda: self.beside.append(door(messages).rate))
        by.settle()
        self.queued += by.waiting(UNSERVED) - before
        self.worked.append(worked)
        self.letters.append(into.arrived().recipients)
        return (
            f"{self.name}: {worked.rate:,.1f}/s, {self.letters[-1]:,} letters; the door "
            f"{self.alone[-1]:,.0f} alone, {self.beside[-1]:,.0f} beside it"
        )

    def summed_up(self, entries: int, per_list: int | None) -> Flood:
        """All rounds; `per_list` is how many letters a list may send an hour."""
        longest = max(each.seconds for each in self.worked)
        return Flood(
            self.name,
            entries,
            summarise([each.rate for each in self.worked]),
            summarise(self.letters),
            per_list or 0,
            None if per_list is None else allowed(per_list, longest),
            summarise(self.alone),
            summarise(self.beside),
            Ledger(self.sent, self.queued),
        )


def flood(part: Part) -> list[Flood]:
    """Requests in the names of others; a new postroom for each round, since limits remember."""
    plan, place = part.plan, part.place
    own, theirs = (Flooded(name, plan.seconds) for name in (OURS, MAILMAN))
    with ExitStack() as stack:
        into = stack.enter_context(sink(place / "sink"))
        others = part.peer(stack, into, EMPTY).values()
        for by in others:
            stack.enter_context(paused(*by.idle))
            work_off(by, into, joins(ANT, "warm", WARM))
        for number in range(plan.rounds):
            for by in others:
                mails = joins(ANT, f"{number}", plan.peer_flood)
                part.told(number, theirs.round(by, into, mails))
            with ours(place / f"{OURS}-{number}", into.port, EMPTY, {}) as by:
                part.told(number, own.round(by, into, joins(ANT, "flood", plan.flood)))
    found = [own.summed_up(plan.flood, Commands().per_list)]
    return found + ([theirs.summed_up(plan.peer_flood, None)] if theirs.worked else [])
