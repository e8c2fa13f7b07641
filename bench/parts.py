"""The parts of the bench: door, lists, sizes, flush and start.

For: each part starts its servers, measures, and returns figures. Guarantees: a peer that is
not here or fails is left out with the reason; a postroom that fails is an error. Raises
`Skip` and `LoadError`.
"""

import random
import shutil
import socket
import time
from contextlib import ExitStack
from pathlib import Path

from bench.figures import (
    FLOOD_ABOVE_BUDGET,
    MEMORY_BUDGET,
    Door,
    Flood,
    Flush,
    FlushRow,
    Ledger,
    ListsRow,
    Rate,
    Sizes,
    SizesRow,
    Start,
    compare,
    ratio,
    summarise,
)
from bench.load import LIST, Load, LoadError, send
from bench.measure import Measurements, Plan, Tell, Trial
from bench.peers import peers
from bench.process import Skip, memory, peak_memory
from bench.servers import Flushes, Postroom, Server, slow_flush

US = "postroom"
SESSIONS = 10  # where only one number of sessions is measured
FLOOD_CLIENTS, FLOOD_SIZE = 100, 25_000_000
FLOOD_NEEDS = 8_000_000_000  # octets of disk: twice what is sent, and room
DELAY = 0.002  # seconds added to each flush
IDLE = 1.0  # seconds after which a server that nobody uses counts as idle


def door(plan: Plan, place: Path, out: Path, tell: Tell) -> Door:
    """postroom beside its peers."""
    work = Measurements(plan, tell)
    skipped = {}
    with ExitStack() as stack:
        ours = Postroom(place / US)
        ours.create_lists([LIST])
        servers = [stack.enter_context(ours.serve())]
        for name, start in peers(out).items():
            tell(f"starting {name}")
            try:
                servers.append(stack.enter_context(start(place / name)))
            except Skip as reason:
                skipped[name] = str(reason)
        rates = work.rates(
            [Trial(server, Load(sessions)) for sessions in plan.sessions for server in servers]
        )
        _must_work(work, US)
        ledger = Ledger(work.sent[US], ours.queued())
    return Door(rates, compare(rates, US), skipped | work.failed, ledger)


def lists(plan: Plan, place: Path, tell: Tell) -> list[ListsRow]:
    """postroom by number of lists."""
    work = Measurements(plan, tell)
    postrooms, trials = [], []
    with ExitStack() as stack:
        for count in plan.lists:
            tell(f"creating {count:,} lists")
            ours = Postroom(place / f"lists-{count}")
            names = [f"{number}{LIST}" for number in range(1, count + 1)]
            random.shuffle(names)  # so that neither ids nor pages follow the order of use
            ours.create_lists(names)
            server = stack.enter_context(ours.serve(f"{count} lists"))
            spread = count == max(plan.lists) and count > 1
            to = LIST if spread else random.choice(names)
            postrooms.append(ours)
            most = count if spread else None
            trials.append(Trial(server, Load(SESSIONS, to=to, spread=spread), most))
        rates = work.rates(trials)
        _must_work(work, *(trial.server.name for trial in trials))
        return [
            ListsRow(
                count,
                trial.load.spread,
                rate,
                ratio(rate.rate.median, rates[0].rate.median),
                Ledger(work.sent[rate.name], ours.queued()),
            )
            for count, ours, trial, rate in zip(plan.lists, postrooms, trials, rates, strict=True)
        ]


def sizes(plan: Plan, place: Path, tell: Tell) -> Sizes:
    """postroom by size of message; each run on a new server, so that its peak is its own."""
    counts: dict[int, int] = {}
    rates: dict[int, list[float]] = {size: [] for size in plan.sizes}
    pss: dict[int, list[float]] = {size: [] for size in plan.sizes}
    high: dict[int, list[float]] = {size: [] for size in plan.sizes}
    for number in range(-1, plan.rounds):
        for size in plan.sizes:
            work = Measurements(plan, tell)
            directory = place / f"size-{size}"
            ours = Postroom(directory)
            ours.create_lists([LIST])
            with ours.serve() as server:
                trial = Trial(server, Load(SESSIONS, size))
                if number < 0:
                    counts[size] = work.size(trial)
                else:
                    with peak_memory(server.pid) as peak:
                        done = work.run(trial, counts[size])
                    rates[size].append(done.rate)
                    pss[size].append(peak[0].pss)
                    high[size].append(peak[0].high)
                    tell(
                        f"round {number + 1} of {plan.rounds}: {size:,} octets: "
                        f"{done.rate:,.0f} messages/s"
                    )
            shutil.rmtree(directory)
    rows = [
        SizesRow(
            size,
            Rate(US, SESSIONS, counts[size], summarise(rates[size])),
            summarise(rates[size]).median * size / 1e6,
            summarise(pss[size]),
            summarise(high[size]),
        )
        for size in plan.sizes
    ]
    if not plan.flood:
        return Sizes(rows, None, {}, [])
    try:
        return Sizes(rows, flood(place, tell), {}, [])
    except Skip as reason:
        return Sizes(rows, None, {"large messages at once": str(reason)}, [])
    except LoadError as error:
        return Sizes(rows, None, {}, [f"large messages at once: {error}"])


def flood(place: Path, tell: Tell) -> Flood:
    """Many clients with one large message each, all at once. Raises `Skip`, `LoadError`."""
    if shutil.disk_usage(place).free < FLOOD_NEEDS:
        raise Skip(f"it needs {FLOOD_NEEDS / 1e9:.0f} GB of free disk")
    tell(f"{FLOOD_CLIENTS} clients with {FLOOD_SIZE / 1e6:.0f} MB each, at once")
    directory = place / "flood"
    ours = Postroom(directory)
    ours.create_lists([LIST])
    with ours.serve() as server:
        with peak_memory(server.pid) as peak:
            done = send(server.port, Load(FLOOD_CLIENTS, FLOOD_SIZE), FLOOD_CLIENTS)
        ledger = Ledger(FLOOD_CLIENTS, ours.queued())
    shutil.rmtree(directory)
    return Flood(
        FLOOD_CLIENTS,
        FLOOD_SIZE,
        done.seconds,
        peak[0].pss,
        peak[0].high,
        MEMORY_BUDGET + FLOOD_ABOVE_BUDGET,
        ledger,
    )


def flush(plan: Plan, place: Path, tell: Tell) -> Flush:
    """postroom with each flush slowed."""
    try:
        library = slow_flush(place)
    except Skip as reason:
        return Flush([], 0, {"flush": str(reason)})
    work = Measurements(plan, tell)
    with ExitStack() as stack:
        counters: dict[str, tuple[float, Flushes]] = {}
        servers = []
        for delay in (0.0, DELAY):
            name = f"{delay * 1000:.0f} ms"
            flushes = Flushes(library, place / f"flushes-{name.replace(' ', '-')}", delay)
            ours = Postroom(place / f"flush-{delay}", flushes.environment)
            ours.create_lists([LIST])
            servers.append(stack.enter_context(ours.serve(name)))
            counters[name] = delay, flushes
        rows = []
        # One number of sessions at a time, so that flushes can be told apart.
        for sessions in plan.sessions:
            before = {name: (work.sent[name], c.count()) for name, (_, c) in counters.items()}
            for rate in work.rates([Trial(server, Load(sessions)) for server in servers]):
                delay, flushes = counters[rate.name]
                sent = work.sent[rate.name] - before[rate.name][0]
                made = flushes.count() - before[rate.name][1]
                rows.append(FlushRow(delay, rate, sent / max(made, 1)))
            _must_work(work, *counters)
        seen = sum(flushes.count() for _, flushes in counters.values())
    if not seen:
        return Flush([], 0, {"flush": "the library that slows flushes took no effect"})
    return Flush(rows, seen, {})


def start(plan: Plan, place: Path, tell: Tell) -> Start:
    """From nothing to service."""
    new, there, greeted, accepted, idle = [], [], [], [], []
    for number in range(plan.rounds):
        tell(f"starting postroom, round {number + 1} of {plan.rounds}")
        directory = place / "postroom"
        ours = Postroom(directory)
        began = time.perf_counter()
        with ours.serve():
            new.append(time.perf_counter() - began)
            ours.create_lists([LIST])
        began = time.perf_counter()
        with ours.serve() as server:
            ready = time.perf_counter()
            at_lhlo, at_message = _first_message(server)
            there.append(ready - began)
            greeted.append(at_lhlo - ready)
            accepted.append(at_message - ready)
            time.sleep(IDLE)
            idle.append(float(memory(server.pid).pss))
        shutil.rmtree(directory)
    return Start(*map(summarise, (new, there, greeted, accepted, idle)))


def _first_message(server: Server) -> tuple[float, float]:
    """When the 250 of LHLO came, and that of a message."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as client:
        lines = client.makefile("rb")

        def ask(text: str, expected: bytes) -> float:
            client.sendall(text.encode())
            reply = lines.readline()
            while reply[3:4] == b"-":
                reply = lines.readline()
            if not reply.startswith(expected):
                raise LoadError(f"{text.split()[:1]} was answered {reply!r}")
            return time.perf_counter()

        ask("", b"220")
        at_lhlo = ask("LHLO bench\r\n", b"250")
        ask("MAIL FROM:<sender@example.org>\r\n", b"250")
        ask(f"RCPT TO:<{LIST}>\r\n", b"250")
        ask("DATA\r\n", b"354")
        return at_lhlo, ask("Subject: first\r\n\r\nHello\r\n.\r\n", b"250")


def _must_work(work: Measurements, *names: str) -> None:
    for name, reason in work.failed.items():
        if name in names:
            raise LoadError(f"{name}: {reason}")
