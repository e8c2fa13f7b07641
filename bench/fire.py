"""The parts `idle` and `hostile`: honest clients beside very many idle ones, and under attack.

For: what the door does under fire. Guarantees: every run beside others has runs without them
near it in time; after each the server has let go of all who were there. Raises `Skip` and
`LoadError`: an honest client that is refused is an error, not a slow run.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.crowd import Crowd, Told, crowd, deaf, tidied
from bench.figures import Attack, Hostile, Idle, Ledger, Rate, ratio, summarise
from bench.load import LIST, Load, Run
from bench.measure import Measurements, Plan, Tell, Trial
from bench.process import peak_memory
from bench.servers import Postroom

HONEST = 10  # sessions
SAMPLED = 0.5  # seconds between two looks at memory: to look costs time that is measured
ROOM = 2000  # connections that the server allows beyond those that there will be
ALONE, BESIDE = "alone", "beside idle clients"
ATTACKED, CONTROL = "under attack", "attack on another"


def idle(plan: Plan, place: Path, tell: Tell) -> Idle:
    """Honest clients beside very many that do nothing."""
    work = Measurements(plan, tell)
    allowed = str(plan.idle + ROOM)
    ours = Postroom(
        place / "postroom",
        settings={
            "LMTP__MAX_CONNECTIONS": allowed,
            "LMTP__MAX_CONNECTIONS_PER_CLIENT": allowed,
        },
    )
    ours.create_lists([LIST])
    rates: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    memory: dict[str, list[float]] = {ALONE: [], BESIDE: []}
    answering = []
    with ours.serve() as server:
        trial = Trial(server, Load(HONEST))
        messages = work.size(trial)
        for number in range(plan.rounds):
            for name in _order(rates, number):
                with ExitStack() as stack:
                    stack.enter_context(tidied(server.pid))
                    held = None
                    if name == BESIDE:
                        tell(f"{plan.idle:,} idle clients are coming in")
                        log = place / "clients.log"
                        held = stack.enter_context(crowd("idle", server.port, plan.idle, log))
                    with peak_memory(server.pid, SAMPLED) as peak:
                        done = work.run(trial, messages)
                    if held is not None:
                        answering.append(held.told().answering)
                rates[name].append(done.rate)
                memory[name].append(peak[0].pss)
                _progress(tell, plan, number, name, done)
        ledger = Ledger(work.sent[server.name], ours.queued())
    medians = {name: summarise(each) for name, each in rates.items()}
    return Idle(
        plan.idle,
        [Rate(name, HONEST, messages, each) for name, each in medians.items()],
        [summarise(each) for each in memory.values()],
        ratio(medians[BESIDE].median, medians[ALONE].median),
        min(answering),
        ledger,
    )


def hostile(plan: Plan, place: Path, tell: Tell) -> Hostile:
    """Honest clients beside attackers; and beside the same attackers of somebody else."""
    work = Measurements(plan, tell)
    ours = Postroom(place / "postroom")
    ours.create_lists([LIST])
    rates: dict[str, list[float]] = {ALONE: [], ATTACKED: [], CONTROL: []}
    did: dict[str, list[Attack]] = {ATTACKED: [], CONTROL: []}
    with ExitStack() as stack:
        server = stack.enter_context(ours.serve())
        other = stack.enter_context(deaf(place / "deaf.log", place))
        targets = {ATTACKED: server.port, CONTROL: other}
        trial = Trial(server, Load(HONEST))
        messages = work.size(trial)
        for number in range(plan.rounds):
            for name in _order(rates, number):
                with ExitStack() as block:
                    block.enter_context(tidied(server.pid))
                    crowds = []
                    if name in targets:
                        crowds = block.enter_context(_attackers(plan, targets[name], place))
                    before = [each.told() for each in crowds]
                    done = work.run(trial, messages)
                    after = [each.told() for each in crowds]
                if name in targets:
                    did[name].append(_attack(before, after, done.seconds))
                rates[name].append(done.rate)
                _progress(tell, plan, number, name, done)
        ledger = Ledger(work.sent[server.name], ours.queued())
    medians = {name: summarise(each) for name, each in rates.items()}
    return Hostile(
        plan.hostile,
        [Rate(name, HONEST, messages, each) for name, each in medians.items()],
        {name: Attack.median(each) for name, each in did.items()},
        ratio(medians[ATTACKED].median, medians[ALONE].median),
        ratio(medians[CONTROL].median, medians[ALONE].median),
        ledger,
    )


def _order(names: dict[str, list[float]], number: int) -> list[str]:
    """There and back: each has all others before it as often as after it."""
    return list(names)[:: -1 if number % 2 else 1]


def _progress(tell: Tell, plan: Plan, number: int, name: str, done: Run) -> None:
    tell(f"round {number + 1} of {plan.rounds}: {name}: {done.rate:,.0f} messages/s")


@contextmanager
def _attackers(plan: Plan, port: int, place: Path) -> Iterator[list[Crowd]]:
    """Slow ones and flooding ones, each kind in a process of its own."""
    log = place / "clients.log"
    with (
        crowd("slow", port, plan.hostile, log) as slow,
        crowd("flood", port, plan.hostile, log) as flood,
    ):
        yield [slow, flood]


def _attack(before: list[Told], after: list[Told], seconds: float) -> Attack:
    did = [now.since(then) for now, then in zip(after, before, strict=True)]
    return Attack(
        sum(each.connections for each in did) / seconds,
        sum(each.octets for each in did) / seconds,
        sum(each.processor for each in did) / seconds,
    )
