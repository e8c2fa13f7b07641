"""Bounces: mail to the bounce address, and members whom delivery could not reach.

For: the queue `bounces`. Guarantees: what a bounce says of members is counted in one transaction
with the removal of its entry; nothing is ever answered; what cannot be read is counted where its
address tells who it is about, and ends with a line in the log where it does not. What concerns a
list that was removed ends there.
"""

import re
import time
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, func, select

from postroom.base.observe import Facts
from postroom.bounces import acting
from postroom.bounces.acting import Case
from postroom.bounces.recognise import failure_of_reply, recognise
from postroom.bounces.values import Failure, Proof, Report
from postroom.bounces.verp import read_detail
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

TOKEN: Final = re.compile(r"[a-z2-7]{26}", re.IGNORECASE)
MOST_FAILURES = 100  # of one message; a report on more is a made up one
COUNTED_FOR = 600.0  # seconds that the size of a list is taken to be what it was
NO_LIST = "its list was removed"


class News(NamedTuple):
    """What an entry tells: failures with how each is proved, complaints likewise, the token of
    a probe that came back, and of what kind the message is."""

    failures: tuple[tuple[Failure, Proof], ...] = ()
    complaint: tuple[str, Proof] | None = None
    probe: str = ""
    kind: str = ""
    message_id: str = ""


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
            if news.message_id and news.message_id != known_as:
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


def news_of(facts: dict[str, Any], report: Report, sender: str, key: str) -> News:
    """What an entry tells, by its metadata and what its message says. Pure, never raises; `key`
    is the list's for VERP."""
    if facts.get("event") == "refused":
        return _event(facts)
    detail = str(facts.get("detail", ""))
    if TOKEN.fullmatch(detail):
        return _probe(report, detail.lower())
    email, proof = read_detail(detail, key)
    named = (email, proof) if email else None
    if report.kind == "complaint":
        if named is None or proof == "none":  # what came back may still show whom it went to
            shown = read_detail(report.sender.partition("@")[0].partition("+")[2], key)
            named = shown if shown[0] and shown[1] != "none" else named
            proof = shown[1] if shown[0] else proof
        about = named or next(((each.email, proof) for each in report.failures), None)
        return News(complaint=about, kind=report.kind, message_id=report.message_id)
    if named is not None and _is_bounce(report, sender):
        failure = _about(report, email)
        return News(((failure, proof),), kind="bounce", message_id=report.message_id)
    if report.kind != "bounce":
        return News(kind=report.kind)
    found = tuple((each, proof) for each in report.failures[:MOST_FAILURES])
    return News(found, kind=report.kind, message_id=report.message_id)


def _is_bounce(report: Report, sender: str) -> bool:
    """Whether this is a bounce, be it one that nobody can read: they have no sender (RFC 5321
    4.5.5)."""
    unread = report.kind == "other" and not report.read_as and not sender
    return report.kind == "bounce" or unread


def _about(report: Report, email: str) -> Failure:
    """What a report says of this address: whatever it calls it, since mail is forwarded."""
    said = next((each for each in report.failures if each.email == email), None)
    said = said or next(iter(report.failures), None)
    if said is None:
        return Failure(email, False, "", "the bounce cannot be read")
    return said._replace(email=email)


def _probe(report: Report, token: str) -> News:
    """A probe came back, unless it is only late, or a program answers it."""
    said = next((each for each in report.failures if _is_end(each)), None)
    if report.kind not in ("bounce", "other") or report.read_as == "arf":
        return News(kind=f"probe: {report.kind}")
    if report.failures and said is None:
        return News(kind="probe: it is late, or this is about us")
    failure = said or Failure("", True, "", "the bounce cannot be read")
    return News(((failure, "own"),), probe=token, kind="bounce")


def _is_end(failure: Failure) -> bool:
    """Whether a probe did not get through: a mailbox that is still full is none. A policy (x.7.x)
    is about us."""
    refused = failure.status.startswith("5") and not failure.status.startswith("5.7.")
    return failure.final or refused


def _event(facts: dict[str, Any]) -> News:
    """Delivery was refused for good, or has given up."""
    refused = facts.get("refused")
    token = str(facts.get("token", ""))
    failures: tuple[tuple[Failure, Proof], ...] = tuple(
        (_refusal(each), "own")
        for each in (refused if isinstance(refused, list) else [])
        if isinstance(each, dict) and _is_about_reader(each, bool(token))
    )
    if token and failures:
        return News(failures[:1], probe=token, kind="refused")
    return News(failures, kind="refused", message_id=str(facts.get("message_id", "")))


def _refusal(said: dict[str, Any]) -> Failure:
    return failure_of_reply(str(said.get("email", "")), str(said.get("reply", "")))


def _is_about_reader(said: dict[str, Any], probe: bool) -> bool:
    """Whether a refusal is about the recipient. A probe that was tried for days in vain is."""
    late = not _refusal(said).status.startswith("5")
    return said.get("about") == "recipient" or (probe and late and said.get("about") != "us")
