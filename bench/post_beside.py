"""The part `beside`: what the door and a small list notice of a very large post.

For: fairness inside of postroom. Guarantees: what is compared was measured in turn, alone and
beside; a measurement during which the large post ended is a fault and not a figure. Raises
`Skip` and `LoadError`.
"""

import math
import os
from pathlib import Path

from bench.figures import Ledger, summarise
from bench.load import Load, LoadError, Run, calibrate, send
from bench.measure import Tell
from bench.post_figures import Beside
from bench.post_ours import UNSERVED, Site
from bench.post_run import (
    DOMAIN,
    LIMIT,
    SMALL,
    Plan,
    address,
    deliver,
    exactly,
    hand_over,
    lists,
    readers,
)
from bench.post_sink import Sink, sink
from bench.servers import Postroom, Server

DOOR = Load(10, to=f"small-{UNSERVED}@{DOMAIN}")
ROOM = 4.0  # times as long as the door's run, alone, the large posts must take


class _Work:
    """One postroom, one sink, and how many large posts cover a run of the door."""

    def __init__(self, plan: Plan, ours: Site, server: Server, into: Sink) -> None:
        self.plan, self.ours, self.server, self.into = plan, ours, server, into
        self.sent = 0
        self.messages = calibrate(self.door, DOOR.sessions, plan.seconds)
        large = deliver(server.port, into, plan.large).seconds
        ours.settle()
        self.posts = max(1, math.ceil(ROOM * plan.seconds / large))

    def door(self, messages: int) -> Run:
        """A run of the door."""
        os.sync()
        done = send(self.server.port, DOOR, messages)
        self.sent += messages
        return done

    def small(self) -> float:
        """Seconds until a post to the small list is delivered."""
        self.into.clear()
        return self._small()

    def _small(self) -> float:
        author = readers(1)[0]
        began = hand_over(self.server.port, SMALL, author)
        found = self.into.wait(self.plan.small, LIMIT, apart=True)
        return found.last - began

    def door_beside(self) -> float:
        """The door's rate while large posts go out."""
        wanted = self._large(self.posts)
        rate = self.door(self.messages).rate
        self._still_going(wanted, "the door's run")
        return rate

    def small_beside(self) -> float:
        """As `small`, while a large post goes out."""
        wanted = self._large(1)
        seconds = self._small()
        self._still_going(wanted, "the small post")
        return seconds

    def _large(self, posts: int) -> int:
        """Have large posts go out; returns how many recipients they have in all."""
        self.into.clear()
        for _ in range(posts):
            hand_over(self.server.port, address(self.plan.large))
        self.into.wait(1, LIMIT)
        return posts * self.plan.large

    def _still_going(self, wanted: int, what: str) -> None:
        """Raises `LoadError` if the large posts had ended; else waits for their end."""
        over = self.into.arrived().recipients >= wanted
        self.into.wait(wanted, LIMIT)
        self.ours.settle()
        exactly(self.into.arrived(), wanted)
        if over:
            raise LoadError(f"the large post was delivered before {what} had ended")


def beside(plan: Plan, place: Path, tell: Tell) -> Beside:
    """The door and a small list, alone and beside a large post."""
    with sink(place / "sink") as into:
        ours = Site(place / "postroom", into.port, verp=True, aside=True)
        tell(f"beside: subscribing {plan.large:,} members")
        ours.create(lists([plan.large]) | {SMALL: readers(plan.small)})
        only = Site(place / "door", into.port, verp=True)
        only.create({SMALL: []})
        with ours.serve() as server, Postroom.serve(only) as door_only:
            tell("beside: warming up")
            work = _Work(plan, ours, server, into)
            send(door_only.port, DOOR, work.messages)
            bare = list[float]()
            alone, with_large = list[float](), list[float]()
            small, small_late = list[float](), list[float]()
            for number in range(plan.rounds):
                os.sync()
                bare.append(send(door_only.port, DOOR, work.messages).rate)
                alone.append(work.door(work.messages).rate)
                small.append(work.small())
                ours.settle()
                with_large.append(work.door_beside())
                small_late.append(work.small_beside())
                tell(
                    f"beside: round {number + 1} of {plan.rounds}: the door {bare[-1]:,.0f} "
                    f"without runners, {alone[-1]:,.0f} with idle ones, {with_large[-1]:,.0f} "
                    "beside a large post; a small post "
                    f"{small[-1]:.3f} s alone, {small_late[-1]:.3f} s beside it"
                )
            ledger = Ledger(work.sent, ours.depths().get(UNSERVED, 0))
    if not ledger.balanced:
        raise LoadError(f"{ledger.sent:,} messages were accepted, {ledger.queued:,} are queued")
    return Beside(
        plan.large,
        plan.small,
        summarise(bare),
        summarise(alone),
        summarise(with_large),
        summarise(small),
        summarise(small_late),
        ledger,
    )
