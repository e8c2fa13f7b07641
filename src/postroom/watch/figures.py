"""What the processes of a server count: the figures behind metrics, health and `top`.

For: values that the intake sends to the door and the door shows. Guarantees: to count costs
an addition; whoever reads a `Status` later, over HTTP too, needs nothing else to judge it.
Values only; nothing here can fail.
"""

from bisect import bisect_left
from collections.abc import Sequence

from msgspec import Struct


class Histogram(Struct, frozen=True):
    """How many values were at most each bound; the last count is of those above them all.
    Counts are not cumulative."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    def since(self, earlier: "Histogram") -> "Histogram":
        """What came after `earlier`; all of it if `earlier` is no past of this one."""
        if earlier.bounds != self.bounds:
            return self
        counts = tuple(now - then for now, then in zip(self.counts, earlier.counts, strict=True))
        if min(counts) < 0:
            return self
        return Histogram(self.bounds, counts, self.total - earlier.total)

    def quantile(self, part: float) -> float | None:
        """The value that `part` of all do not exceed, taken to lie evenly between bounds;
        None if there are none."""
        wanted, seen, low = part * sum(self.counts), 0, 0.0
        if not any(self.counts):
            return None
        for high, count in zip(self.bounds, self.counts[:-1], strict=True):
            if count and seen + count >= wanted:
                return low + (high - low) * max(0.0, wanted - seen) / count
            seen, low = seen + count, high
        return self.bounds[-1]


class Buckets:
    """A histogram that is being filled."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """One more value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def histogram(self) -> Histogram:
        """As of now."""
        return Histogram(self._bounds, tuple(self._counts), self._total)


class Depth(Struct, frozen=True):
    """A queue: its entries, when the oldest came, and since when one is due that no runner has
    taken, None if there is no such entry. Times in seconds since the epoch."""

    entries: int
    oldest: float | None
    due: float | None = None


class Tally(Struct, frozen=True):
    """What the intake knows. `batches` is messages per commit, `commits` the seconds that
    each took; `octets` are of stored messages. `queues` is None until they were counted;
    `failed` says why the last commit failed, "" if it did not."""

    batches: Histogram
    commits: Histogram
    messages: int
    octets: int
    recipients: dict[str, int]
    again: int
    troubles: dict[str, int]
    purged: int
    queues: dict[str, Depth] | None
    failed: str


class Refusal(Struct, frozen=True):
    """A recipient that was refused; `sender` and `peer` are "" where only the recipient was
    asked about."""

    time: float
    peer: str
    sender: str
    recipient: str
    reply: str


class Memory(Struct, frozen=True):
    """Memory for messages in flight, in octets; `waiting` is how many messages wait for it."""

    total: int
    free: int
    waiting: int


class Status(Struct, frozen=True):
    """Everything about a running server. Sizes in octets, times in seconds since the epoch,
    ages in seconds; `replies` by code, `connections` by state, `refused` by reason.

    `ready` is False until the database was found fit; `heard_ago` is how long the intake has
    been silent; `tally` is None if it did not answer in time. `free` and `reserve` are of the
    database's disk, `free` is None where there is no telling. `unbound` names listeners that
    should be there and are not.
    """

    version: str
    hostname: str
    time: float
    started_at: float
    replies: dict[str, int]
    connections: dict[str, int]
    max_connections: int
    open_files: int
    accepted: int
    refused: dict[str, int]
    timed_out: int
    octets_in: int
    memory: Memory
    max_message_size: int
    free: int | None
    reserve: int
    unbound: tuple[str, ...]
    ready: bool
    connected: bool
    heard_ago: float
    tally: Tally | None
    refusals: tuple[Refusal, ...]
