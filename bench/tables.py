"""The figures as tables. Pure.

For: what is read on a terminal, and text for people in general. Guarantees: a table says by
itself what was measured, what the target is and what is missing and why.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from bench.figures import (
    AGAINST_TARGET,
    ATTACKED_TARGET,
    FLOOD_ABOVE_BUDGET,
    HELD_MEMORY,
    HELD_TARGET,
    IDLE_TARGET,
    MANY_LISTS_TARGET,
    MEMORY_BUDGET,
    READY_TARGET,
    Against,
    Attack,
    Door,
    Flood,
    Flush,
    Hostile,
    Idle,
    Ledger,
    ListsRow,
    Results,
    Sizes,
    Start,
    Summary,
    reached,
)

DOES = {
    "postroom": "Python, stores durably",
    "smtp-sink": "C, stores nothing",
    "aiosmtpd": "Python, stores nothing",
    "mailman": "Python, stores durably",
    "dovecot": "C, stores durably in one maildir",
}


@dataclass(frozen=True)
class Table:
    """A title, columns, rows of text, and remarks below."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


def tables(results: Results) -> list[Table]:
    """A table for each part that was measured."""
    made: list[Table] = []
    if results.door:
        made.append(door_table(results.door))
    if results.lists:
        made.append(lists_table(results.lists))
    if results.sizes:
        made.append(sizes_table(results.sizes))
    if results.flush:
        made.append(flush_table(results.flush))
    if results.idle:
        made.append(idle_table(results.idle))
    if results.hostile:
        made.append(hostile_table(results.hostile))
    if results.against:
        made.append(against_table(results.against))
    if results.start:
        made.append(start_table(results.start))
    return made


def door_table(door: Door) -> Table:
    """postroom beside its peers."""
    compared = {(each.peer, each.sessions): each for each in door.comparisons}
    measured = {rate.name for rate in door.rates}
    rows = []
    for rate in door.rates:
        found = compared.get((rate.name, rate.sessions))
        rows.append(
            (
                str(rate.sessions),
                rate.name,
                *_rates(rate.rate),
                _ratio(found.ratio) if found else "",
                _verdict(found.target, found.met) if found else "",
            )
        )
    return Table(
        "The door: 4,000-octet messages",
        ("sessions", "server", "messages/s", "least", "most", "ratio", "target"),
        tuple(rows),
        (
            "ratio: the rate of postroom over that of the server.",
            "; ".join(f"{name}: {does}" for name, does in DOES.items() if name in measured) + ".",
            _ledger("postroom's queue", door.ledger),
            *_skipped(door.skipped),
        ),
    )


def lists_table(rows: Iterable[ListsRow]) -> Table:
    """postroom by number of lists."""
    rows = list(rows)
    most = max(row.lists for row in rows)
    return Table(
        f"Lists: {rows[0].rate.sessions} sessions, 4,000-octet messages",
        ("lists", "recipients", "messages/s", "least", "most", "ratio", "target"),
        tuple(
            (
                f"{row.lists:,}",
                "each to another" if row.spread else "one, by lot",
                *_rates(row.rate.rate),
                _ratio(row.ratio),
                _verdict(MANY_LISTS_TARGET, reached(row.ratio, MANY_LISTS_TARGET))
                if row.lists == most > 1
                else "",
            )
            for row in rows
        ),
        (
            "ratio: to the first row.",
            *(_ledger(f"the queue with {row.lists:,} lists", row.ledger) for row in rows),
        ),
    )


def sizes_table(sizes: Sizes) -> Table:
    """postroom by size of message."""
    notes = [
        "Memory in MB. PSS: sampled over the process tree, shared pages counted once. VmHWM: "
        "the highest resident size of each process, added up. Each run has a server of its own."
    ]
    if sizes.flood:
        notes += _flood(sizes.flood)
    return Table(
        f"Sizes: {sizes.rows[0].rate.sessions} sessions",
        ("octets", "messages/s", "least", "most", "MB/s", "peak PSS", "peak VmHWM"),
        tuple(
            (
                f"{row.size:,}",
                *_rates(row.rate.rate),
                f"{row.megabytes:,.1f}",
                f"{row.peak_pss.most / 1e6:.0f}",
                f"{row.peak_high.most / 1e6:.0f}",
            )
            for row in sizes.rows
        ),
        (*notes, *_skipped(sizes.skipped), *(f"FAILED: {each}" for each in sizes.failed)),
    )


def _flood(flood: Flood) -> list[str]:
    kept = _verdict(None, flood.peak_pss <= flood.limit)
    return [
        f"{flood.clients} clients with {flood.size / 1e6:.0f} MB each, at once: all accepted in "
        f"{flood.seconds:.1f} s; peak PSS {flood.peak_pss / 1e6:.0f} MB, VmHWM "
        f"{flood.peak_high / 1e6:.0f} MB; allowed: the budget of {MEMORY_BUDGET / 1e6:.0f} MB "
        f"and {FLOOD_ABOVE_BUDGET / 1e6:.0f} MB: {kept}",
        _ledger("its queue", flood.ledger),
    ]


def flush_table(flush: Flush) -> Table:
    """postroom on slower disks."""
    notes = _skipped(flush.skipped)
    if flush.rows:
        notes.append("ratio: to nothing added.")
        notes.append(f"{flush.flushes:,} flushes were counted on their way to the system.")
    plain = {row.rate.sessions: row.rate.rate.median for row in flush.rows if not row.delay}
    return Table(
        "Slower flushes: 4,000-octet messages",
        ("sessions", "added", "messages/s", "least", "most", "ratio", "messages per flush"),
        tuple(
            (
                str(row.rate.sessions),
                f"{row.delay * 1000:.0f} ms",
                *_rates(row.rate.rate),
                f"{row.rate.rate.median / plain[row.rate.sessions]:.2f}" if plain else "",
                f"{row.messages_per_flush:.1f}",
            )
            for row in flush.rows
        ),
        tuple(notes),
    )


def idle_table(idle: Idle) -> Table:
    """postroom beside idle clients."""
    alone, beside = idle.rates
    without, held = idle.memory
    memory_met = reached(HELD_MEMORY, held.most)
    all_met = reached(idle.answering, idle.clients)
    return Table(
        f"Beside {idle.clients:,} idle clients: {alone.sessions} sessions, 4,000-octet messages",
        ("idle", "messages/s", "least", "most", "ratio", "target", "peak PSS", "at most"),
        (
            ("none", *_rates(alone.rate), "", "", f"{without.least / 1e6:.0f}", ""),
            (
                f"{idle.clients:,}",
                *_rates(beside.rate),
                _ratio(idle.ratio),
                _verdict(HELD_TARGET, reached(idle.ratio, HELD_TARGET)),
                f"{held.most / 1e6:.0f}",
                _verdict(HELD_MEMORY / 1e6, memory_met),
            ),
        ),
        (
            f"{idle.answering:,} of {idle.clients:,} were still there after a run, and got an "
            f"answer: {_verdict(None, all_met)}",
            "ratio: to none. PSS in MB, sampled over the process tree.",
            _ledger("the queue", idle.ledger),
        ),
    )


def hostile_table(hostile: Hostile) -> Table:
    """postroom under attack."""
    alone, attacked, control = hostile.rates
    sessions = alone.sessions
    return Table(
        f"Under attack: {sessions} honest sessions, 4,000-octet messages",
        ("", "messages/s", "least", "most", "ratio", "target"),
        (
            (alone.name, *_rates(alone.rate), "", ""),
            (
                attacked.name,
                *_rates(attacked.rate),
                _ratio(hostile.ratio),
                _verdict(ATTACKED_TARGET, reached(hostile.ratio, ATTACKED_TARGET)),
            ),
            (control.name, *_rates(control.rate), _ratio(hostile.control), ""),
        ),
        (
            f"{hostile.attackers} clients send an octet a second, {hostile.attackers} flood and "
            "come again when they are thrown out.",
            "ratio: to alone. Attackers share the processors with those who are measured, with "
            "the least priority; the last row is what they cost when they attack a listener "
            "that throws all of them out and does nothing else.",
            *(_attack(name, each) for name, each in hostile.attacks.items()),
            _ledger("the queue", hostile.ledger),
        ),
    )


def _attack(name: str, attack: Attack) -> str:
    return (
        f"{name}: {attack.connections:,.0f} connections/s, {attack.octets / 1e6:,.1f} MB/s "
        f"offered; the attackers used {attack.processor:.2f} of a processor."
    )


def against_table(against: Against) -> Table:
    """postroom beside another checkout."""
    return Table(
        "This checkout beside another: 4,000-octet messages",
        ("sessions", "checkout", "messages/s", "least", "most", "ratio", "target"),
        tuple(
            row
            for each in against.rows
            for row in (
                (
                    str(each.ours.sessions),
                    each.ours.name,
                    *_rates(each.ours.rate),
                    _ratio(each.ratio, 3),
                    _verdict(AGAINST_TARGET, reached(each.ratio, AGAINST_TARGET)),
                ),
                (str(each.other.sessions), each.other.name, *_rates(each.other.rate), "", ""),
            )
        ),
        (
            f"ratio: of the medians, this checkout to the other, {against.other}.",
            *(_ledger(f"the queue of {name}", each) for name, each in against.ledgers.items()),
        ),
    )


def start_table(start: Start) -> Table:
    """From nothing to service."""

    def row(name: str, times: Summary, unit: float, target: float | None) -> tuple[str, ...]:
        numbers = (times.median, times.least, times.most)
        met = None if target is None else times.median <= target
        shown = "" if target is None else f"{target * unit:,.0f} {_verdict(None, met)}"
        return name, *(f"{each * unit:,.1f}" for each in numbers), shown

    return Table(
        "Start",
        ("", "median", "least", "most", "at most"),
        (
            row("exec to ready, new database, ms", start.ready_new, 1e3, READY_TARGET),
            row("exec to ready, ms", start.ready, 1e3, READY_TARGET),
            row("ready to first 250, of LHLO, ms", start.greeted, 1e3, None),
            row("ready to first 250 of a message, ms", start.accepted, 1e3, None),
            row("idle process tree, PSS, MB", start.idle_pss, 1e-6, IDLE_TARGET),
        ),
        ("PSS counts what is shared with other programs of this machine, this one too, in part.",),
    )


def _rates(rate: Summary) -> tuple[str, str, str]:
    return f"{rate.median:,.0f}", f"{rate.least:,.0f}", f"{rate.most:,.0f}"


def _ratio(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _verdict(target: float | None, met: bool | None) -> str:
    word = "" if met is None else "met" if met else "MISSED"
    return word if target is None else f"{target:g} {word}".strip()


def _ledger(name: str, ledger: Ledger) -> str:
    if ledger.balanced:
        return f"{name} holds exactly the {ledger.sent:,} messages that were accepted."
    return f"{name} holds {ledger.queued:,} entries, but {ledger.sent:,} messages were accepted!"


def _skipped(skipped: Mapping[str, str]) -> list[str]:
    return [f"{name} is left out: {reason}" for name, reason in skipped.items()]
