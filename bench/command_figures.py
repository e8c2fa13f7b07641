"""What `bench.command` measured: figures and tables. Pure.

For: turning rounds into ratios, and ratios into tables for a terminal and for a page.
Guarantees: medians of interleaved rounds are compared, never single runs; a ratio that cannot
be had is None.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.cells import ratio_cell, summary_cells, verdict
from bench.figures import Ledger, Summary, ratio
from bench.post_figures import SHOWN, Statements, grown
from bench.tables import Table

HOUR = 3600.0  # seconds


@dataclass(frozen=True)
class Queue:
    """A queue of commands of one kind, worked off: `rate` is commands a second until it was
    empty, `letters` is answers a second until the last one was at the mail server."""

    name: str
    kind: str
    entries: int
    rate: Summary
    letters: Summary


@dataclass(frozen=True)
class Latency:
    """Seconds from the 250 to a command until its answer was at the mail server."""

    name: str
    seconds: Summary


@dataclass(frozen=True)
class Cost:
    """What a command takes on a list with so many members: seconds, of many in a row."""

    name: str
    members: int
    seconds: Summary


@dataclass(frozen=True)
class Growth:
    """What a command takes by the members of its list; SQL of postroom alone."""

    costs: list[Cost]
    statements: list[Statements]


@dataclass(frozen=True)
class Flood:
    """A flood of requests in the names of so many. `letters` is what was sent to them, of one
    round each; `most` is what the limits allow in the longest, None where there are none. The
    door's rates are without and with it; `ledger` is that of the door."""

    name: str
    entries: int
    rate: Summary
    letters: Summary
    least: int
    most: float | None
    door_alone: Summary
    door: Summary
    ledger: Ledger


@dataclass(frozen=True)
class Results:
    """Everything of one run; what was not measured is None."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    queue: list[Queue] | None = None
    latency: list[Latency] | None = None
    statements: Growth | None = None
    flood: list[Flood] | None = None
    configuration: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def allowed(per_list: int, seconds: float) -> float:
    """How many letters a list may send in this time, of what comes an hour at most: as many at
    once, and what leaks meanwhile."""
    return per_list + seconds * per_list / HOUR


def tables(results: Results, peer: str) -> list[Table]:
    """A table for each part that was measured."""
    made = []
    if results.queue:
        made.append(queue_table(results.queue, peer))
    if results.latency:
        made.append(latency_table(results.latency, peer))
    if results.statements:
        made.append(cost_table(results.statements))
        made.append(statements_table(results.statements.statements))
    if results.flood:
        made.append(flood_table(results.flood, peer))
    return made


def queue_table(measured: Sequence[Queue], peer: str) -> Table:
    """A queue worked off."""
    theirs = {each.kind: each for each in measured if each.name == peer}
    kinds = list(dict.fromkeys(each.kind for each in measured))
    rows = []
    for each in sorted(measured, key=lambda each: (kinds.index(each.kind), each.name == peer)):
        other = theirs.get(each.kind) if each.name != peer else None
        rows.append(
            (
                each.kind,
                each.name,
                f"{each.entries:,}",
                ratio_cell(ratio(each.rate.median, other.rate.median) if other else None, 1),
                *summary_cells(each.rate),
                ratio_cell(ratio(each.letters.median, other.letters.median) if other else None, 1),
                *summary_cells(each.letters),
            )
        )
    return Table(
        "A queue of commands, worked off",
        (
            "command",
            "server",
            "entries",
            f"times {peer}",
            "commands/s",
            "least",
            "most",
            f"times {peer}",
            "letters/s",
            "least",
            "most",
        ),
        tuple(rows),
        (
            "From the moment at which the runner of commands may begin, with all of them in its "
            "queue, until nothing is in it; letters: until smtp-sink has the last answer. join: "
            "each is asked to confirm; confirm: each joins, and is welcomed. "
            f"{peer} gets fewer joins, since it takes the longer for each the more there are.",
        ),
    )


def latency_table(measured: Sequence[Latency], peer: str) -> Table:
    """One command."""
    theirs = next((each.seconds.median for each in measured if each.name == peer), 0.0)
    rows = tuple(
        (
            each.name,
            ratio_cell(ratio(theirs, each.seconds.median) if each.name != peer else None, 1),
            *(f"{1e3 * n:,.1f}" for n in (each.seconds.median, each.seconds.least)),
            f"{1e3 * each.seconds.most:,.1f}",
        )
        for each in measured
    )
    return Table(
        "One command to an idle server: until its answer is there, ms",
        ("server", f"faster than {peer}, times", "median", "least", "worst"),
        rows,
        (
            f"help, {len(measured[0].seconds.rounds)} times: from the 250 of LMTP until "
            "smtp-sink has the answer.",
        ),
    )


def cost_table(growth: Growth) -> Table:
    """What a command takes by members."""
    base: dict[str, float] = {}
    rows = []
    for each in sorted(growth.costs, key=lambda each: (each.name, each.members)):
        first = base.setdefault(each.name, each.seconds.median)
        rows.append(
            (
                f"{each.members:,}",
                each.name,
                ratio_cell(ratio(each.seconds.median, first), 2),
                *(f"{1e3 * n:.2f}" for n in (each.seconds.median, each.seconds.least)),
                f"{1e3 * each.seconds.most:.2f}",
            )
        )
    return Table(
        "A join, by number of members",
        ("members", "server", "to the first", "ms", "least", "most"),
        tuple(rows),
        ("Of many in a row, as in a queue that is worked off; the ratio is of the medians.",),
    )


def statements_table(rows: Sequence[Statements]) -> Table:
    """What a command takes in SQL."""
    rows = sorted(rows, key=lambda row: row.members)
    same = len({row.total for row in rows}) == 1
    more = grown(rows)
    return Table(
        "Statements of a join",
        ("members", "statements", "of these, commits", "the same"),
        tuple(
            (
                f"{row.members:,}",
                f"{row.total:,}",
                f"{row.shapes.get('COMMIT', 0):,}",
                ("yes" if same else "NO") if row is rows[-1] else "",
            )
            for row in rows
        ),
        (
            "postroom's: as SQLite ran them in the runners process for one join, the delivery of "
            "its letter too; without those that it runs while idle. The fewest of several.",
            *(f"{number} more: {shape[:SHOWN]}" for shape, number in more.most_common()),
        ),
    )


def flood_table(measured: Sequence[Flood], peer: str) -> Table:
    """Forged requests in number."""
    rows = []
    theirs = next((each.rate.median for each in measured if each.name == peer), 0.0)
    for each in measured:
        few = each.most is not None and each.letters.most <= each.most
        judged = each.most is not None
        rows.append(
            (
                f"{each.entries:,}",
                each.name,
                f"{each.letters.most:,.0f}",
                verdict(f"{each.most:,.0f}", few and each.letters.least >= each.least)
                if judged
                else "",
                ratio_cell(ratio(each.rate.median, theirs) if each.name != peer else None, 1),
                *summary_cells(each.rate),
                ratio_cell(ratio(each.door.median, each.door_alone.median), 2),
                f"{each.door.median:,.0f}",
                f"{each.door_alone.median:,.0f}",
            )
        )
    return Table(
        "A flood of joins in the names of others",
        (
            "joins",
            "server",
            "letters",
            "at most",
            f"times {peer}",
            "joins/s",
            "least",
            "most",
            "door, ratio",
            "beside it",
            "alone",
        ),
        tuple(rows),
        (
            "Each from another address and another network. The door: 4,000-octet messages/s over "
            "10 sessions to an address whose queue is kept from being served, while the flood is "
            f"worked off. {peer} has no limits: one letter to each; it gets fewer, since it takes "
            "the longer for each the more there are.",
            *(_ledger(each) for each in measured if not each.ledger.balanced),
        ),
    )


def _ledger(each: Flood) -> str:
    ledger = each.ledger
    return (
        f"{each.name}: {ledger.sent:,} messages were accepted, {ledger.queued:,} are in the queue!"
    )
