"""Bounces: mail to the bounce address, and members whom delivery could not reach.

For: the queue `bounces`. Guarantees: what a bounce says of members is counted in one transaction
with the removal of its entry; nothing is ever answered; what cannot be read is counted where its
address tells who it is about, and ends with a line in the log where it does not. What concerns a
list that was removed ends there.
"""

import time

from sqlalchemy import Connection, func, select

from postroom.base.observe import Facts
from postroom.bounces import acting
from postroom.bounces.acting import Case
from postroom.bounces.news import MOST_FAILURES, News, news_of
from postroom.bounces.recognise import recognise
from postroom.bounces.values import Report
from postroom.lists.keys import site_secret, verp_key
from postroom.lists.preferences import preferences
from postroom.lists.registry import MailingList, list_of_key
from postroom.mail.message import message_id
from postroom.notices.sheet import House
from postroom.runners.arrival import arrival_of, received
from postroom.runners.base import Outcome
from postroom.spool import steps
from postroom.spool.handing import hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import BOUNCES
from postroom.spool.queue import Claim
from postroom.spool.steps import Step
from postroom.store.engine import Store
from postroom.store.schema import member

COUNTED_FOR = 600.0  # seconds that the size of a list is taken to be what it was
NO_LIST = "its list was removed"


class Bounced:
    """Serves `bounces`."""

    queue = BOUNCES

    def __init__(self, house: House) -> None:
        self._house = house
        self._ids = IdMaker()
        self._readers: dict[int, tuple[float, int]] = {}  # how many, and until when that holds

    def process(self, held: Claim, store: Store) -> Outcome:
        """Decide what an entry tells."""
        with store.read() as connection:
            of = None if held.list_key is None else list_of_key(connection, held.list_key)
            arrival = arrival_of(connection, held)
        known_as = message_id(held.raw)
        name = of.posting_address if of else str(held.metadata.get("listname", ""))
        said: Facts = {"list": name, "message_id": known_as}
        came = (
            [] if "event" in held.metadata else [received(held, BOUNCES, arrival, known_as, name)]
        )
        if of is None:
            ended = Step(known_as, time.time(), name, "ignored", {"reason": NO_LIST})
            return Outcome(
                lambda connection: steps.write(connection, self._ids, [*came, ended]),
                "bounce ignored",
                said | {"reason": NO_LIST},
            )
        there, event = of, held.metadata.get("event") == "refused"
        report = Report("other") if event else recognise(held.raw, held.sender)

        def act(connection: Connection) -> None:
            key = verp_key(site_secret(connection), there.list_id)
            news = news_of(held.metadata, report, held.sender, key)
            facts = self._act(connection, there, news)
            said.update(facts)  # for the log
            done = [Step(known_as, time.time(), name, f"bounce: {news.kind}", dict(facts))]
            proved = any(proof != "none" for _, proof in news.failures)
            if proved and news.message_id and news.message_id != known_as:
                back = {"from": [each.email for each, _ in news.failures][:MOST_FAILURES]}
                done.append(Step(news.message_id, time.time(), name, "came back", back))
            steps.write(connection, self._ids, [*came, *done])

        return Outcome(act, "bounce", said)

    def _act(self, connection: Connection, of: MailingList, news: News) -> Facts:
        """Do what follows from it; returns what that was."""
        now, settings = time.time(), preferences(connection, of.key)
        case = Case(
            self._house, connection, of, settings, lambda: self._count(connection, of.key), now
        )
        facts: Facts = {"kind": news.kind}
        if not settings.bounces.count:
            return facts | {"reason": "the list does not count bounces"}
        if news.probe:
            failure = news.failures[0][0]
            return facts | {"probe": acting.probe_came_back(case, news.probe, failure)}
        if news.complaint is not None:
            email, proof = news.complaint
            what, handed = acting.complained(case, email, proof)
            hand_on(connection, self._ids, handed)
            return facts | {"about": email, "then": what}
        if not news.failures:
            return facts
        counted = acting.count(case, news.failures)
        hand_on(connection, self._ids, counted.handed)
        facts |= {"counted": counted.members}
        if counted.unknown:
            facts["unknown"] = counted.unknown
        return facts | {"too_many": True} if counted.mass else facts

    def _count(self, connection: Connection, key: int) -> int:
        """How many members a list has, as of a while ago: it is not worth a count each time."""
        until, number = self._readers.get(key, (0.0, 0))
        if time.monotonic() < until:
            return number
        readers = (member.c.list == key) & (member.c.role == "member")
        number = connection.scalar(select(func.count()).where(readers)) or 0
        self._readers[key] = time.monotonic() + COUNTED_FOR, number
        return number
