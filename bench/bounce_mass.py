"""The part `mass`: a post to very many that is refused, for some or for all of them.

For: what that costs the post, the door and others. Guarantees: what is compared was measured in
turn, alone and beside; a run counts only if each recipient was answered; a measurement during
which the large post ended is a fault and not a figure. Raises `Skip` and `LoadError`.
"""

import math
import os
import random
import time

from bench.bounce_figures import Mass, Refused
from bench.bounce_parts import Part
from bench.bounce_run import LOOK, Plan, counted, number_of, ours
from bench.bounce_sink import GONE, Refuser, refuser
from bench.command_sites import Ours
from bench.figures import Ledger, summarise
from bench.load import Load, LoadError, Run, calibrate, send
from bench.post_ours import NAME as OURS
from bench.post_ours import Site
from bench.post_run import AUTHOR, DOMAIN, LATE, LIMIT, SMALL, hand_over, members, readers

SHARES = (0.0, 0.5, 1.0)  # of the recipients are refused
# To an address whose mail is worked off at once, as nothing it can be about is found in it.
DOOR = Load(10, to=f"small-bounces@{DOMAIN}")
ROOM = 4.0  # times as long as the door's run, alone, the large posts must take
OWNER = {"SITE__OWNER": "owner@example.org"}  # whom the sink takes letters for
_WAITING = "SELECT count(*) FROM entry"
_WORKED_OFF = f"SELECT count(*) FROM step WHERE list = '{SMALL}' AND what LIKE 'bounce%'"


def of_share(share: float) -> str:
    """The list of which such a share is refused."""
    return f"share-{share:.0%}@{DOMAIN}".replace("%", "")


def people(number: int, share: float) -> list[str]:
    """So many, of whom a share is refused; the first one, who posts, is not."""
    there, gone = members(number), members(number, GONE)
    return [
        gone[n] if n and math.floor(n * share) > math.floor((n - 1) * share) else there[n]
        for n in range(number)
    ]


class Found:
    """What the rounds found of posts of which a share is refused."""

    def __init__(self, share: float) -> None:
        self.share = share
        self.seconds, self.counted = list[float](), list[float]()
        self.letters, self.small, self.door = list[float](), list[float](), list[float]()

    def summed_up(self, recipients: int) -> Refused:
        """All rounds."""
        figures = (self.seconds, self.counted, self.letters, self.small, self.door)
        return Refused(self.share, recipients, *map(summarise, figures))


class _Work:
    """One postroom, one sink, and how many large posts cover a run of the door."""

    def __init__(self, plan: Plan, by: Ours, into: Refuser) -> None:
        self.plan, self.by, self.into = plan, by, into
        self.sent = 0
        self.messages = calibrate(self.door, DOOR.sessions, plan.seconds)
        self.settle()
        warm = Found(0.0)
        self.post(warm)
        self.posts = max(1, math.ceil(ROOM * plan.seconds / warm.seconds[0]))

    def settle(self) -> None:
        """Wait until nothing waits in any queue. Raises `LoadError`."""
        deadline = time.monotonic() + LIMIT
        while left := number_of(self.by.database, _WAITING):
            if time.monotonic() > deadline:
                raise LoadError(f"{left:,} entries wait after {LIMIT:.0f} s")
            time.sleep(LOOK)

    def door(self, messages: int) -> Run:
        """A run of the door."""
        os.sync()
        done = send(self.by.server.port, DOOR, messages)
        self.sent += messages
        return done

    def small(self) -> float:
        """Seconds until a post to the small list is delivered."""
        began = hand_over(self.by.server.port, SMALL, readers(1)[0])
        return self.into.wait(self.plan.small, LIMIT, apart=True).last - began

    def round(self, found: Found) -> str:
        """A post alone, then others beside it; returns what is to be told."""
        found.letters.append(0)
        self.post(found)
        self.small_beside(found)
        self.door_beside(found)
        return (
            f"{found.share:.0%} refused: {found.seconds[-1]:.2f} s, all done after "
            f"{found.counted[-1]:.2f} s, {found.letters[-1]:.0f} letters; beside it a small post "
            f"{found.small[-1]:.3f} s, the door {found.door[-1]:,.0f}/s"
        )

    def post(self, found: Found) -> None:
        """A post alone."""
        os.sync()
        self.into.clear()
        began = hand_over(self.by.server.port, of_share(found.share), AUTHOR)
        found.seconds.append(self.into.wait_answered(self.plan.mass, LIMIT) - began)
        self.settle()
        found.counted.append(time.monotonic() - began)
        self._end(found, self.plan.mass)

    def small_beside(self, found: Found) -> None:
        """As `small`, while a large post goes out."""
        wanted = self._large(found.share, 1)
        found.small.append(self.small())
        self._still_going(found, wanted, "the small post")

    def door_beside(self, found: Found) -> None:
        """The door's rate while large posts go out."""
        wanted = self._large(found.share, self.posts)
        found.door.append(self.door(self.messages).rate)
        self._still_going(found, wanted, "the door's run")

    def _large(self, share: float, posts: int) -> int:
        """Have large posts go out; returns how many recipients they have in all."""
        self.into.clear()
        for _ in range(posts):
            hand_over(self.by.server.port, of_share(share), AUTHOR)
        self.into.wait_answered(1, LIMIT)
        return posts * self.plan.mass

    def _still_going(self, found: Found, wanted: int, what: str) -> None:
        """Raises `LoadError` if the large posts had ended; else waits for their end."""
        over = self.into.answered() >= wanted
        self.into.wait_answered(wanted, LIMIT)
        self.settle()
        self._end(found, wanted)
        if over:
            raise LoadError(f"the large post was delivered before {what} had ended")

    def _end(self, found: Found, wanted: int) -> None:
        """What came besides the posts are letters."""
        time.sleep(LATE)
        if found.letters:
            found.letters[-1] += self.into.answered() - wanted


def mass(part: Part) -> Mass:
    """Posts that are refused, for shares of their recipients."""
    plan = part.plan
    with refuser(part.place / "sink") as into:
        made = {of_share(share): people(plan.mass, share) for share in SHARES}
        made[SMALL] = readers(plan.small)
        part.tell(f"mass: subscribing {sum(map(len, made.values())):,} members")
        with ours(Site(part.place / OURS, into.port, verp=True, more=OWNER), made) as by:
            part.tell("mass: warming up")
            return _measured(part, by, _Work(plan, by, into))


def _measured(part: Part, by: Ours, work: _Work) -> Mass:
    plan = part.plan
    small, door = list[float](), list[float]()
    found = [Found(share) for share in SHARES]
    for number in range(plan.rounds):
        work.into.clear()
        small.append(work.small())
        work.settle()
        door.append(work.door(work.messages).rate)
        work.settle()
        told = f"mass: round {number + 1} of {plan.rounds}"
        part.tell(f"{told}: a small post {small[-1]:.3f} s, the door {door[-1]:,.0f}/s, alone")
        for each in random.Random(number).sample(found, len(found)):
            part.tell(f"{told}: {work.round(each)}")
    return Mass(
        [each.summed_up(plan.mass) for each in found],
        plan.small,
        summarise(small),
        summarise(door),
        number_of(by.database, _WAITING),
        counted(by),
        Ledger(work.sent, number_of(by.database, _WORKED_OFF)),
    )
