"""What `bench.post` measured: figures, verdicts and tables. Pure.

For: turning rounds into ratios, and ratios into tables for a terminal and for a page.
Guarantees: medians of interleaved rounds are compared, never single runs; a ratio that cannot
be had is None.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench.cells import ratio_cell, summary_cells, verdict
from bench.figures import Ledger, Summary, ratio, reached
from bench.tables import Table

PEER_TARGET, PEER_GOAL = 15.0, 30.0  # times the peer's rate, at PEER_MEMBERS
PEER_MEMBERS = 5_000
MEMORY_TARGET = 200e6  # octets, at LARGE
LARGE = 100_000
DOOR_TARGET = 0.5  # of the door's rate, while a large post goes out
SHOWN = 60  # characters of a statement
SMALL_TARGET = 10.0  # seconds until a post to a small list is delivered meanwhile: "seconds"


@dataclass(frozen=True)
class Posts:
    """Posts to so many members. `rate` is recipients a second from the beginning of the LMTP
    session to the last recipient, `wire` the same from the first MAIL to the last dot;
    `transactions` are of one post."""

    name: str
    members: int
    rate: Summary
    wire: Summary
    seconds: Summary
    transactions: Summary


@dataclass(frozen=True)
class Memory:
    """The runners process, in octets: before its first post, and the most until that one, to so
    many members, was done. Each time it is a new process: one does not shrink again."""

    members: int
    before: Summary
    peak: Summary


@dataclass(frozen=True)
class Statements:
    """What a post to so many members took in SQL, by shape; `idle` shapes left out."""

    members: int
    transactions: int
    shapes: Mapping[str, int]

    @property
    def total(self) -> int:
        return sum(self.shapes.values())


@dataclass(frozen=True)
class Beside:
    """While a post to `members` goes out: messages a second at the door, and seconds until a
    post to a list of `small` is delivered; each alone and beside it. `door_only` is the door's
    where no runners were started; `ledger` is that of the door beside."""

    members: int
    small: int
    door_only: Summary
    door_alone: Summary
    door: Summary
    small_alone: Summary
    small_beside: Summary
    ledger: Ledger


@dataclass(frozen=True)
class Results:
    """Everything of one run; what was not measured is None."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    posts: list[Posts] | None = None
    memory: list[Memory] | None = None
    statements: list[Statements] | None = None
    beside: Beside | None = None
    configuration: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def times(
    posts: Sequence[Posts], ours: str, peer: str, wire: bool = False
) -> dict[tuple[str, int], float | None]:
    """How many times the peer's rate each of ours is, by name and members: end to end, or on
    the `wire`."""

    def median(each: Posts) -> float:
        return (each.wire if wire else each.rate).median

    theirs = {each.members: median(each) for each in posts if each.name == peer}
    return {
        (each.name, each.members): ratio(median(each), theirs[each.members])
        for each in posts
        if each.name.startswith(ours) and each.members in theirs
    }


def grown(rows: Sequence[Statements]) -> Counter[str]:
    """The shapes of which the largest post took more than the smallest, and how many more."""
    least, most = (pick(rows, key=lambda row: row.members) for pick in (min, max))
    return Counter(
        {
            shape: more
            for shape, number in most.shapes.items()
            if (more := number - least.shapes.get(shape, 0)) > 0
        }
    )


def tables(results: Results, ours: str, peer: str) -> list[Table]:
    """A table for each part that was measured."""
    made = []
    if results.posts:
        made += [posts_table(results.posts, ours, peer), sizes_table(results.posts, ours)]
    if results.memory:
        made.append(memory_table(results.memory))
    if results.statements:
        made.append(statements_table(results.statements))
    if results.beside:
        made.append(beside_table(results.beside))
    return made


def posts_table(posts: Sequence[Posts], ours: str, peer: str) -> Table:
    """postroom beside its peer."""
    found, on_the_wire = (times(posts, ours, peer, wire) for wire in (False, True))
    rows = []
    for each in sorted(posts, key=lambda each: (each.members, each.name)):
        value = found.get((each.name, each.members))
        judged = each.name.startswith(ours) and each.members == PEER_MEMBERS
        rows.append(
            (
                f"{each.members:,}",
                each.name,
                ratio_cell(value, 1),
                _peer_verdict(value) if judged else "",
                ratio_cell(on_the_wire.get((each.name, each.members)), 1),
                *summary_cells(each.rate),
                f"{each.seconds.median:.3f}",
                f"{each.wire.median:,.0f}",
                f"{each.transactions.median:,.0f}",
            )
        )
    return Table(
        "A post to its readers",
        (
            "members",
            "server",
            f"times {peer}",
            "target",
            "on the wire",
            "rate",
            "least",
            "most",
            "seconds",
            "wire rate",
            "transactions",
        ),
        tuple(rows),
        (
            "Rate: recipients/s from the beginning of the LMTP session that hands the post over "
            "until smtp-sink has the last recipient. Wire rate: from the first MAIL to the last "
            "dot, without what a server waits before; the second ratio is that of these.",
            f"Targets for the first ratio: {PEER_TARGET:g}, and {PEER_GOAL:g} as the goal.",
        ),
    )


def _peer_verdict(value: float | None) -> str:
    if value is None:
        return ""
    for least, word in (PEER_GOAL, "goal met"), (PEER_TARGET, "met"):
        if value >= least:
            return f"{least:g} {word}"
    return f"{PEER_TARGET:g} MISSED"


def sizes_table(posts: Sequence[Posts], ours: str) -> Table:
    """postroom by number of members."""
    own = sorted(
        (each for each in posts if each.name.startswith(ours)),
        key=lambda each: (each.name, each.members),
    )
    base = {each.name: each.rate.median for each in own if each.members == PEER_MEMBERS}
    rows = []
    for each in own:
        value = ratio(each.rate.median, base.get(each.name, 0.0))
        rows.append(
            (
                f"{each.members:,}",
                each.name,
                "" if value is None else f"{value:.2f}",
                *summary_cells(each.rate),
            )
        )
    return Table(
        "By number of members",
        ("members", "server", f"to {PEER_MEMBERS:,}", "recipients/s", "least", "most"),
        tuple(rows),
    )


def memory_table(rows: Sequence[Memory]) -> Table:
    """What the runners process takes."""
    return Table(
        "Memory of the runners process, MB",
        ("members", "peak", "least", "most", "at most", "before the post"),
        tuple(
            (
                f"{each.members:,}",
                *(f"{n / 1e6:.0f}" for n in (each.peak.median, each.peak.least, each.peak.most)),
                verdict(f"{MEMORY_TARGET / 1e6:.0f}", each.peak.most <= MEMORY_TARGET)
                if each.members >= LARGE
                else "",
                f"{each.before.median / 1e6:.0f}",
            )
            for each in sorted(rows, key=lambda row: row.members)
        ),
        (
            "The highest resident size (VmHWM) of a process that was started for this one post; "
            "a process does not give back all of what a large post took.",
        ),
    )


def statements_table(rows: Sequence[Statements]) -> Table:
    """What a post takes in SQL."""
    rows = sorted(rows, key=lambda row: row.members)
    more = grown(rows)
    transactions = rows[-1].transactions - rows[0].transactions
    return Table(
        "Statements of a post",
        ("members", "transactions", "statements", "of these, commits", "that do not grow"),
        tuple(
            (
                f"{row.members:,}",
                f"{row.transactions:,}",
                f"{row.total:,}",
                f"{row.shapes.get('COMMIT', 0):,}",
                f"{sum(n for shape, n in row.shapes.items() if shape not in more):,}",
            )
            for row in rows
        ),
        (
            "As SQLite ran them in the runners process, a row of many as a statement each; "
            "without those that it runs while idle, too.",
            *(
                f"{number / transactions:.2f} more for each transaction more: {shape[:SHOWN]}"
                for shape, number in more.most_common()
                if transactions
            ),
        ),
    )


def beside_table(beside: Beside) -> Table:
    """What others notice of a large post."""
    late = reached(SMALL_TARGET, beside.small_beside.most)
    kept = ratio(beside.door.median, beside.door_alone.median)
    met = reached(kept, DOOR_TARGET)
    return Table(
        f"While a post to {beside.members:,} members goes out",
        ("", "ratio", "target", "beside it", "least", "most", "without it", "least", "most"),
        (
            (
                "the door, messages/s",
                ratio_cell(kept, 2),
                "" if met is None else verdict(f"{DOOR_TARGET:g}", met),
                *summary_cells(beside.door),
                *summary_cells(beside.door_alone),
            ),
            (
                "the same, to a door without runners",
                ratio_cell(ratio(beside.door.median, beside.door_only.median), 2),
                "",
                *summary_cells(beside.door),
                *summary_cells(beside.door_only),
            ),
            (
                f"a post to {beside.small:,} members delivered, seconds",
                ratio_cell(ratio(beside.small_beside.median, beside.small_alone.median), 1),
                verdict(f"{SMALL_TARGET:g}", bool(late)),
                *summary_cells(beside.small_beside, 3),
                *summary_cells(beside.small_alone, 3),
            ),
        ),
        (
            "postroom with its default settings. The door: 4,000-octet messages over 10 sessions "
            "to an address whose queue nobody serves: its runner is told to leave it alone. The "
            "first ratio is to a door whose runners have no post to deliver, the second to "
            "`postroom serve --only lmtp`: runners are woken by all that comes in.",
            f"Its queue holds {beside.ledger.queued:,} of the {beside.ledger.sent:,} messages that "
            "were accepted.",
        ),
    )
