"""The figures: what was measured, compared and judged. Pure.

For: turning rates into medians, ratios and verdicts. Guarantees: a ratio that cannot be had
is None, never a number; a verdict is only given where there is a target.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from postroom.base.settings import Lmtp


@dataclass(frozen=True)
class Summary:
    """Repeated measurements of one thing."""

    median: float
    least: float
    most: float
    rounds: tuple[float, ...]


def summarise(values: Sequence[float]) -> Summary:
    """Median and range. Raises ValueError if there is nothing."""
    if not values:
        raise ValueError("nothing was measured")
    return Summary(statistics.median(values), min(values), max(values), tuple(values))


def ratio(ours: float, theirs: float) -> float | None:
    """How many times theirs ours is."""
    return ours / theirs if theirs > 0 else None


@dataclass(frozen=True)
class Rate:
    """Messages a second; each run was of `messages`."""

    name: str
    sessions: int
    messages: int
    rate: Summary


@dataclass(frozen=True)
class Target:
    """What a ratio must reach at least, with these numbers of sessions."""

    peer: str
    sessions: tuple[int, ...]
    least: float


TARGETS = (
    Target("smtp-sink", (10,), 0.4),
    Target("smtp-sink", (50,), 0.6),
    Target("aiosmtpd", (10, 50), 3.0),
    Target("mailman", (10, 50), 25.0),
)
MANY_LISTS_TARGET = 0.9
READY_TARGET = 1.5  # seconds
IDLE_TARGET = 100e6  # octets
FLOOD_ABOVE_BUDGET = 100e6  # octets
HELD_TARGET = 0.9  # of the rate, beside idle clients
HELD_MEMORY = 300e6  # octets, with them
ATTACKED_TARGET = 0.7  # of the rate, under attack
AGAINST_TARGET = 0.97  # of the rate of another checkout
MEMORY_BUDGET = Lmtp().memory_budget  # octets


@dataclass(frozen=True)
class Comparison:
    """Our rate over a peer's. `met` is None where there is no target or no ratio."""

    peer: str
    sessions: int
    ratio: float | None
    target: float | None
    met: bool | None


def compare(
    rates: Sequence[Rate], ours: str, targets: Sequence[Target] = TARGETS
) -> list[Comparison]:
    """Our rate over each peer's, at each number of sessions that both were measured with."""
    own = {each.sessions: each.rate.median for each in rates if each.name == ours}
    return [
        _judged(each, ratio(own[each.sessions], each.rate.median), targets)
        for each in rates
        if each.name != ours and each.sessions in own
    ]


def _judged(rate: Rate, found: float | None, targets: Sequence[Target]) -> Comparison:
    least = next(
        (t.least for t in targets if t.peer == rate.name and rate.sessions in t.sessions), None
    )
    return Comparison(rate.name, rate.sessions, found, least, reached(found, least))


def reached(value: float | None, least: float | None) -> bool | None:
    """Whether a value reaches what it must."""
    return None if value is None or least is None else value >= least


@dataclass(frozen=True)
class Ledger:
    """Messages that a postroom said 250 to, and the entries in its queues."""

    sent: int
    queued: int

    @property
    def balanced(self) -> bool:
        return self.sent == self.queued


@dataclass(frozen=True)
class Door:
    """postroom beside its peers."""

    rates: list[Rate]
    comparisons: list[Comparison]
    skipped: dict[str, str]
    ledger: Ledger


@dataclass(frozen=True)
class ListsRow:
    """postroom with so many lists; `ratio` is to the first row."""

    lists: int
    spread: bool  # every message to another list
    rate: Rate
    ratio: float | None
    ledger: Ledger


@dataclass(frozen=True)
class SizesRow:
    """postroom with messages of `size` octets, its peak memory in octets."""

    size: int
    rate: Rate
    megabytes: float  # a second, at the median
    peak_pss: Summary
    peak_high: Summary


@dataclass(frozen=True)
class Flood:
    """Many large messages at once; memory in octets."""

    clients: int
    size: int
    seconds: float
    peak_pss: int
    peak_high: int
    limit: float
    ledger: Ledger


@dataclass(frozen=True)
class Sizes:
    """postroom by size of message. `failed` says why the flood did not get through."""

    rows: list[SizesRow]
    flood: Flood | None
    skipped: dict[str, str]
    failed: list[str]


@dataclass(frozen=True)
class FlushRow:
    """postroom with each flush slowed by `delay` seconds."""

    delay: float
    rate: Rate
    messages_per_flush: float


@dataclass(frozen=True)
class Flush:
    """postroom on slower disks. `flushes` that were seen prove that the delay took effect."""

    rows: list[FlushRow]
    flushes: int
    skipped: dict[str, str]


@dataclass(frozen=True)
class Idle:
    """Beside so many idle clients. `rates` and `memory`, in octets, are without and with them;
    `answering` is how many at least still got an answer after a run."""

    clients: int
    rates: list[Rate]
    memory: list[Summary]
    ratio: float | None
    answering: int
    ledger: Ledger


@dataclass(frozen=True)
class Attack:
    """What attackers did, each a second; `processor` is the share of one that they used."""

    connections: float
    octets: float
    processor: float

    @classmethod
    def median(cls, attacks: Sequence["Attack"]) -> "Attack":
        """The median of each figure."""
        return cls(
            statistics.median(each.connections for each in attacks),
            statistics.median(each.octets for each in attacks),
            statistics.median(each.processor for each in attacks),
        )


@dataclass(frozen=True)
class Hostile:
    """Under attack by so many of each kind. `rates` are alone, attacked, and while somebody
    else is attacked; `attacks` says by name what the attackers did."""

    attackers: int
    rates: list[Rate]
    attacks: dict[str, Attack]
    ratio: float | None
    control: float | None
    ledger: Ledger


@dataclass(frozen=True)
class AgainstRow:
    """This checkout and another."""

    ours: Rate
    other: Rate
    ratio: float | None


@dataclass(frozen=True)
class Against:
    """This checkout beside `other`, its path; ledgers by name."""

    other: str
    rows: list[AgainstRow]
    ledgers: dict[str, Ledger]


@dataclass(frozen=True)
class Start:
    """From nothing to service; seconds and octets."""

    ready_new: Summary  # from exec to the line `ready`, on a new database
    ready: Summary  # the same, on a database that is there
    greeted: Summary  # from `ready` to the 250 of LHLO
    accepted: Summary  # from `ready` to the 250 of a first message
    idle_pss: Summary


@dataclass(frozen=True)
class Results:
    """Everything of one run; what was not measured is None."""

    machine: Mapping[str, object]
    plan: Mapping[str, object]
    start: Start | None = None
    door: Door | None = None
    lists: list[ListsRow] | None = None
    sizes: Sizes | None = None
    flush: Flush | None = None
    idle: Idle | None = None
    hostile: Hostile | None = None
    against: Against | None = None
    faults: list[str] = field(default_factory=list)


def faults(results: Results) -> list[str]:
    """What must never be: a sentence for each refusal and each ledger that does not balance."""
    refused = results.sizes.failed if results.sizes else []
    ledgers = [(f"{row.lists:,} lists", row.ledger) for row in results.lists or []]
    if results.door:
        ledgers.append(("door", results.door.ledger))
    if results.sizes and results.sizes.flood:
        ledgers.append(("large messages at once", results.sizes.flood.ledger))
    if results.idle:
        ledgers.append(("beside idle clients", results.idle.ledger))
    if results.hostile:
        ledgers.append(("under attack", results.hostile.ledger))
    if results.against:
        ledgers += results.against.ledgers.items()
    return refused + [
        f"{name}: {ledger.sent:,} messages were accepted, {ledger.queued:,} are in the queue"
        for name, ledger in ledgers
        if not ledger.balanced
    ]
