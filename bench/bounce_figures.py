"""What `bench.bounce` measured: figures and tables. Pure.

For: turning rounds into ratios, and ratios into tables for a terminal and for a page.
Guarantees: medians of interleaved rounds are compared, never single runs; a ratio that cannot
be had is an empty cell.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from bench.cells import ratio_cell, summary_cells, verdict
from bench.command_figures import statements_table
from bench.figures import Ledger, Summary, ratio
from bench.post_figures import Statements
from bench.tables import Table

HANDFUL = 5  # letters because of one post, at most


@dataclass(frozen=True)
class Queue:
    """Reports on so many of the members of a list, worked off, each second; `counted` is of how
    many of them something was known afterwards."""

    name: str
    members: int
    entries: int
    counted: Summary
    rate: Summary


@dataclass(frozen=True)
class Refused:
    """A post of which `share` (0 to 1) of the recipients are refused. Seconds from the beginning
    of the LMTP session until the last recipient was answered, and until nothing waits in any
    queue; letters because of it; seconds that a post to a small list takes meanwhile; and what the
    door takes in meanwhile, messages a second."""

    share: float
    recipients: int
    seconds: Summary
    counted: Summary
    letters: Summary
    small: Summary
    door: Summary


@dataclass(frozen=True)
class Mass:
    """Posts that are refused. `small` (seconds) and `door` (messages a second) are alone; `left`
    is what waits in all queues at the end, `known` of how many members something is known then;
    the `ledger` is that of the door."""

    posts: list[Refused]
    readers: int
    small: Summary
    door: Summary
    left: int
    known: int
    ledger: Ledger


@dataclass(frozen=True)
class Results:
    """Everything of one run; what was not measured is None."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    queue: list[Queue] | None = None
    statements: list[Statements] | None = None
    mass: Mass | None = None
    configuration: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def tables(results: Results, peer: str) -> list[Table]:
    """A table for each part that was measured."""
    made = []
    if results.queue:
        made.append(queue_table(results.queue, peer))
    if results.statements:
        made.append(bounce_statements_table(results.statements))
    if results.mass:
        made += [mass_table(results.mass), beside_table(results.mass)]
    return made


def queue_table(measured: Sequence[Queue], peer: str) -> Table:
    """Reports, worked off."""
    theirs = next((each.rate.median for each in measured if each.name == peer), 0.0)
    rows = tuple(
        (
            each.name,
            f"{each.members:,}",
            f"{each.entries:,}",
            f"{each.counted.median:,.0f}",
            ratio_cell(ratio(each.rate.median, theirs) if each.name != peer else None, 1),
            *summary_cells(each.rate),
        )
        for each in sorted(measured, key=lambda each: (each.name == peer, -each.members))
    )
    return Table(
        "Reports to VERP addresses, worked off",
        (
            "server",
            "members",
            "reports",
            "counted",
            f"times {peer}",
            "reports/s",
            "least",
            "most",
        ),
        rows,
        (
            "Each on another member, as Postfix writes it, with all of them in the queue; from the "
            "first one that is gone until nothing is in it. Counted: of how many members something "
            "is known then; where a fifth of a list bounces in a day, postroom counts no more. "
            f"{peer} gets fewer.",
        ),
    )


def bounce_statements_table(rows: Sequence[Statements]) -> Table:
    """What a report takes in SQL."""
    table = statements_table(rows)
    note = (
        "postroom's: as SQLite ran them in the runners process for one report to a VERP address; "
        "without those that it runs while idle. The fewest of several."
    )
    return replace(table, title="Statements of a report", notes=(note, *table.notes[1:]))


def mass_table(mass: Mass) -> Table:
    """What refusals cost the post itself."""
    rows = _rows(mass)
    base = rows[0]
    return Table(
        "A post that is refused (RCPT, 550 5.1.1)",
        (
            "recipients",
            "refused",
            "to the first",
            "seconds",
            "least",
            "most",
            "until all is done, s",
            "letters",
            "at most",
        ),
        tuple(
            (
                f"{each.recipients:,}",
                f"{each.share:.0%}",
                ratio_cell(ratio(each.seconds.median, base.seconds.median), 2),
                *summary_cells(each.seconds, 2),
                f"{each.counted.median:,.2f}",
                f"{each.letters.most:,.0f}",
                verdict(f"{HANDFUL}", each.letters.most <= HANDFUL),
            )
            for each in rows
        ),
        (
            "Until the last recipient was answered, and until nothing waits in any queue. Letters: "
            "recipients of what else came to the sink because of it, in the worst round.",
            f"At the end: {mass.left:,} entries in all queues; something is known of "
            f"{mass.known:,} members.",
        ),
    )


def beside_table(mass: Mass) -> Table:
    """What others notice of refusals."""
    notes = [
        f"A post to {mass.readers:,} on another list, and 4,000-octet messages/s over 10 sessions "
        "to its bounce address, where they are worked off; alone, and beside such a post."
    ]
    if not mass.ledger.balanced:
        notes.append(
            f"{mass.ledger.sent:,} messages were accepted, {mass.ledger.queued:,} were worked off!"
        )
    rows = [
        (
            f"{each.share:.0%} refused",
            ratio_cell(ratio(each.small.median, mass.small.median), 1),
            *summary_cells(each.small, 3),
            ratio_cell(ratio(each.door.median, mass.door.median), 2),
            *summary_cells(each.door),
        )
        for each in _rows(mass)
    ]
    alone = ("nothing", "", *summary_cells(mass.small, 3), "", *summary_cells(mass.door))
    return Table(
        "Beside a post that is refused",
        (
            "beside",
            "to alone",
            "small post, s",
            "least",
            "most",
            "to alone",
            "door/s",
            "least",
            "most",
        ),
        (alone, *rows),
        tuple(notes),
    )


def _rows(mass: Mass) -> list[Refused]:
    return sorted(mass.posts, key=lambda each: each.share)
