"""A post on its way out: which recipients come next.

For: the courier, which has several under way and gives each its turn. Guarantees: recipients
come in the order of domains, a window of them in memory; each is in one batch at a time. Those
of a domain that must wait are set aside, a window of them too, and the others go on. Knows no
I/O.
"""

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

from postroom.delivery.destinations import Destinations, domain_of
from postroom.delivery.ledger import Row
from postroom.delivery.transaction import Prepared
from postroom.delivery.verp import is_chosen
from postroom.spool.orders import Order
from postroom.spool.queue import Claim

WINDOW = 2000  # recipients that are read at once
FRESH = 5.0  # seconds for which what was read is taken for true
LOW = 1000  # and when there are fewer, it is time to read more

Single = Callable[[str], bytes]  # makes the message for one recipient


class Batch(NamedTuple):
    """Recipients of one transaction. `single` is True if it is meant for that one alone;
    `domain` is set where it counts towards the limits of one."""

    rows: Sequence[Row]
    single: bool
    domain: str = ""


class Active:
    """One post under way. `created_at` is in seconds since the epoch, `not_before` as of
    time.monotonic()."""

    def __init__(
        self,
        held: Claim,
        order: Order,
        created_at: float,
        content: Prepared,
        single: Single | None,
        share: float,
    ) -> None:
        """`single` is None where all get the same message; `share` is that of the recipients who
        are sent to singly for VERP."""
        self.held, self.order, self.created_at = held, order, created_at
        self.content, self.single = content, single
        self._share = 1.0 if order.personal else share if order.verp else 0.0
        self._together: deque[Row] = deque()
        self._singles: deque[Row] = deque()
        # Those of domains that must wait, by domain and whether each is to be sent to singly.
        self._aside: dict[tuple[str, bool], deque[Row]] = {}
        self.cursor = 0
        self.complete = False  # all that are due in this pass have been read
        self.reading = False
        self.read_at = 0.0  # seconds since the epoch: also those that a process slept
        self.in_hand = 0  # batches
        self.failures = 0  # transactions in a row that came to nothing
        self.not_before = 0.0
        self.rest = 0.0  # seconds to be left alone for, once nothing is in hand
        self.begun_at = time.monotonic()
        self.suspected = held.attempts > 1  # a process ended while it had it; nothing sent since
        self.waiting: set[str] = set()  # domains of which no more are read in this pass

    @property
    def rows(self) -> int:
        """How many recipients are in memory and in nobody's hands."""
        return len(self._together) + len(self._singles)

    def batches(self, limit: int) -> int:
        """About how many transactions of up to `limit` recipients those in memory make."""
        return -(-len(self._together) // limit) + len(self._singles)

    @property
    def wants_rows(self) -> bool:
        """Whether it is time to read more of them."""
        return not self.complete and not self.reading and self.rows < LOW and not self.rest

    @property
    def has_waiting(self) -> bool:
        """Whether there are some who must wait for their domain."""
        return bool(self._aside or self.waiting)

    @property
    def passed(self) -> bool:
        """Whether this pass is over, but for those who must wait for their domain."""
        over = self.rest or (self.complete and not self.rows)
        return bool(over) and not self.reading and not self.in_hand

    def again(self, not_before: float) -> None:
        """Begin another pass, at that time."""
        self.cursor, self.complete, self.not_before, self.rest = 0, False, not_before, 0.0
        self._together.clear()
        self._singles.clear()
        self.waiting.clear()
        self._aside.clear()  # they are read again

    def read(self, rows: Sequence[Row], wanted: int) -> None:
        """Take in recipients who are due; fewer than `wanted` are the last of this pass."""
        share, number = self._share, self.held.id
        for row in rows:
            if not row.there:
                continue
            if share >= 1.0 or is_chosen(row.member, number, share):
                self._singles.append(row)
            else:
                self._together.append(row)
        self.complete, self.read_at = len(rows) < wanted, time.time()
        if rows:
            self.cursor = rows[-1].n

    def trust(self) -> None:
        """It has got on, or lived long enough."""
        self.suspected, self.held = False, self.held._replace(attempts=1)

    def is_ready(self, now: float) -> bool:
        """Whether it need not wait."""
        return self.not_before <= now and not self.rest

    def is_stale(self) -> bool:
        """Whether those in memory may have left the list, or another worker have the post, since
        they were read."""
        return self.rows > 0 and abs(time.time() - self.read_at) > FRESH and not self.rest

    def leave_out(self, gone: Collection[int]) -> None:
        """These have left; the others are there as of now."""
        if gone:
            self._together = deque(row for row in self._together if row.n not in gone)
            self._singles = deque(row for row in self._singles if row.n not in gone)
        self.read_at = time.time()

    @property
    def numbers(self) -> tuple[int, int]:
        """The first and the last of those in memory."""
        every = [row.n for source in (self._together, self._singles) for row in source]
        return min(every), max(every)

    def put_back(self, rows: Sequence[Row] | deque[Row], single: bool) -> None:
        """Recipients who are to be sent to after all: they come first again."""
        (self._singles if single else self._together).extendleft(reversed(rows))

    def resume(self, destinations: Destinations, now: float) -> bool:
        """Bring back those whose domain need not wait any more; whether there were any."""
        free = [key for key in self._aside if destinations.room(key[0], now) > 0]
        for domain, single in free:
            self.put_back(self._aside.pop((domain, single)), single)
        return bool(free)

    def take(self, limit: int, xverp: bool, destinations: Destinations, now: float) -> Batch | None:
        """The recipients of the next transaction, None if nobody is to be sent to now. With
        `xverp` the mail server makes the sender of each, so nobody needs their own."""
        if xverp and not self.order.personal:
            rows = self._from(self._together, limit, destinations, now)
            if len(rows) < limit and not destinations:
                rows += self._from(self._singles, limit - len(rows), destinations, now)
            rows = rows or self._from(self._singles, limit, destinations, now)
            single = False
        else:
            rows = self._from(self._together, limit, destinations, now)
            single = not rows
            rows = rows or self._from(self._singles, 1, destinations, now)
        if not rows:
            return None
        rows.sort()  # by number
        self.in_hand += 1
        domain = domain_of(rows[0].email) if destinations else ""
        return Batch(rows, single, domain if destinations.limited(domain) else "")

    def _from(
        self, source: deque[Row], limit: int, destinations: Destinations, now: float
    ) -> list[Row]:
        if not destinations:
            return [source.popleft() for _ in range(min(limit, len(source)))]
        while source:
            domain = domain_of(source[0].email)
            if not destinations.limited(domain):
                return self._unlimited(source, limit, destinations)
            room = min(limit, destinations.room(domain, now))
            if room > 0:
                batch: list[Row] = []
                while source and len(batch) < room and domain_of(source[0].email) == domain:
                    batch.append(source.popleft())
                return batch
            self._set_aside(source, domain)
        return []

    def _set_aside(self, source: deque[Row], domain: str) -> None:
        """Those of this domain who come next must wait."""
        aside = self._aside.setdefault((domain, source is self._singles), deque())
        room = WINDOW - sum(map(len, self._aside.values()))
        while source and domain_of(source[0].email) == domain:
            row = source.popleft()
            if room > 0:
                aside.append(row)
            else:
                self.waiting.add(domain)  # and it is pending in the ledger still
            room -= 1

    def _unlimited(self, source: deque[Row], limit: int, destinations: Destinations) -> list[Row]:
        batch: list[Row] = []
        while source and len(batch) < limit:
            if destinations.limited(domain_of(source[0].email)):
                break
            batch.append(source.popleft())
        return batch
