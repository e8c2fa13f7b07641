"""Incoming: posts, and mail for owners.

For: the queue `in`. Guarantees: what the rules decide is done in one transaction with the
removal of the entry: a post that is accepted is in `out` as it will be sent, one that is held is
in `held` with its reason, one that is rejected or discarded leaves a step and a log line, and a
notice where somebody should know. DNS and the making of the message come before that
transaction, not in it. What has no list or no reader any more goes to `shunt`, never nowhere.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace
from sqlalchemy import Connection

from postroom.base.observe import Facts
from postroom.base.settings import DEFAULT_OWNER
from postroom.lists.keys import site_secret, verp_key
from postroom.lists.registry import MailingList, list_of_key
from postroom.mail.address import fold
from postroom.mail.message import message_id
from postroom.notices.letters import Stopped
from postroom.notices.requests import acknowledged
from postroom.notices.sheet import House
from postroom.notices.telling import pass_to_owners, tell_held, tell_rejected
from postroom.posting.cook import cook
from postroom.posting.decision import Decision, ListFacts, SenderFacts
from postroom.posting.dns import Resolver
from postroom.posting.facts import facts_for
from postroom.posting.order import last_look, order_for, policy_for
from postroom.posting.rules import decide
from postroom.reading.post import Post, read
from postroom.runners.arrival import NO_LIST, Arrival, arrival_of, received, shunted
from postroom.runners.base import Outcome
from postroom.spool import steps
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.held import hold, post_of
from postroom.spool.ids import IdMaker, show
from postroom.spool.metadata import IN
from postroom.spool.orders import OUT, Order
from postroom.spool.queue import Claim
from postroom.spool.steps import Step
from postroom.store.engine import Store

MOST_NAMED = 500  # addresses in To and Cc that are looked for among the members
NO_OWNER = (
    f"site.owner is {DEFAULT_OWNER}, who is nobody: set it in the settings, then "
    "`postroom queue retry` this entry"
)
Seal = Callable[[bytes], bytes]


class Site(NamedTuple):
    """What the runner knows of its site. `seal` puts an ARC seal on a message, None where there
    is no key."""

    house: House
    resolver: Resolver
    seal: Seal | None = None


class Case(NamedTuple):
    """A post with all that is known of it."""

    held: Claim
    of: MailingList
    this: ListFacts
    senders: SenderFacts
    post: Post
    decision: Decision
    arrival: Arrival


class Incoming:
    """Serves `in`."""

    queue = IN

    def __init__(self, site: Site) -> None:
        self._site = site
        self._ids = IdMaker()

    def process(self, held: Claim, store: Store) -> Outcome:
        """Decide what an entry asks for."""
        if held.metadata.get("to_owner"):
            return self._for_owners(held, store)
        post = read(held.raw, held.sender)
        with store.read() as connection:
            of = None if held.list_key is None else list_of_key(connection, held.list_key)
            if of is None:
                return shunted(held, IN, NO_LIST)
            this, senders = facts_for(connection, of, post)
            arrival = arrival_of(connection, held)
        if held.metadata.get("approved"):
            senders = senders._replace(accepted=True)
        case = Case(held, of, this, senders, post, decide(this, post, senders), arrival)
        if case.decision.action == "accept":
            return self._accept(case)
        if case.decision.action == "hold":
            return self._hold(case)
        if case.decision.action == "reject":
            return self._reject(case)
        return self._ended(case, "discarded", lambda connection: {})

    def _accept(self, case: Case) -> Outcome:
        site, arrival = self._site, case.arrival
        policy = policy_for(site.resolver, case.this.settings, case.post.authors)
        asked = order_for(case.this, case.post, site.house.hostname, policy, time.time())
        asked = asked._replace(**arrival._asdict(), entry_id=show(case.held.id))
        cooked = cook(case.held.raw, asked)
        decision = last_look(case.decision, cooked.raw, case.senders.tokens)
        if decision.action != "accept":
            return self._hold(case._replace(decision=decision))
        raw = site.seal(cooked.raw) if site.seal else cooked.raw
        sending, post = case.this.settings.sending, case.post
        order = Order(
            kind="post",
            sender=case.this.endpoint("bounces"),
            message_id=message_id(cooked.raw),
            authors=post.authors,
            named=(*post.to, *post.cc)[:MOST_NAMED],
            verp=sending.verp,
            personal=sending.personal,
        )

        def act(connection: Connection) -> Facts:
            keyed = _keyed(connection, case.of, order).metadata(case.of.posting_address, len(raw))
            handed = Handed(OUT, case.held.list_key, keyed, Letter(raw, order.sender))
            number, *_ = hand_on(connection, self._ids, [handed, *self._acknowledged(case)])
            facts: Facts = {"handed_on": show(number), "changed": cooked.notes}
            if order.message_id == post.message_id:
                return facts
            return facts | {"message_id": order.message_id}

        return self._ended(case, "accepted", act)

    def _acknowledged(self, case: Case) -> list[Handed]:
        """To a member who wants to know that their post goes out."""
        post, language = case.post, case.this.settings.notices.language
        wanting = [each.email for each in case.senders.memberships if each.ack]
        if post.automatic or not wanting:
            return []
        house, now = self._site.house, time.time()
        told = acknowledged(
            house, case.of, wanting[0], post.subject, post.message_id, language, now
        )
        return [told]

    def _hold(self, case: Case) -> Outcome:
        held, decision, post = case.held, case.decision, case.post
        author = post.authors[0] if post.authors else post.sender
        found = post_of(
            held, case.of.posting_address, decision.reason, decision.sentence, author
        ).post

        def act(connection: Connection) -> Facts:
            hold(connection, held, decision.reason, decision.sentence, author)
            told = tell_held(
                connection,
                self._site.house,
                case.of,
                case.this.settings.notices,
                found,
                post.first_lines,
                post.automatic,
                time.time(),
            )
            hand_on(connection, self._ids, told)
            return {"told": len(told)}

        return self._ended(case, "held", act, moves=True)

    def _reject(self, case: Case) -> Outcome:
        held, decision, post = case.held, case.decision, case.post
        found = post_of(
            held, case.of.posting_address, decision.reason, decision.sentence, post.sender
        )

        def act(connection: Connection) -> Facts:
            told = tell_rejected(
                connection,
                self._site.house,
                case.of,
                found.post,
                found.head,
                decision.sentence,
                post.automatic,
                time.time(),
                language=case.this.settings.notices.language,
            )
            if isinstance(told, str):
                return {"told": told}
            hand_on(connection, self._ids, [told])
            return {"told": "the author"}

        return self._ended(case, "rejected", act)

    def _ended(
        self, case: Case, what: str, act: Callable[[Connection], Facts], moves: bool = False
    ) -> Outcome:
        """What happens, with its steps and its log line."""
        decision, name = case.decision, case.of.posting_address
        facts: Facts = {"reason": decision.reason, "sentence": decision.sentence}

        def whole(connection: Connection) -> None:
            told = facts | act(connection)
            now, ids = time.time(), [case.post.message_id]
            if new_id := told.get("message_id"):  # the one that members will ask for
                ids.append(new_id)
            written = [Step(each, now, name, what, told) for each in ids]
            if not case.held.metadata.get("approved"):
                written.insert(0, received(case.held, IN, case.arrival, case.post.message_id, name))
            steps.write(connection, self._ids, written)

        said = {"list": name, "message_id": case.post.message_id, **facts}
        return Outcome(whole, f"post {what}", said, moves)

    def _for_owners(self, held: Claim, store: Store) -> Outcome:
        """Mail to -owner or postmaster, on its way to people."""
        owner = self._site.house.owner
        with store.read() as connection:
            handed = pass_to_owners(
                connection, owner, held.raw, held.sender, held.metadata, held.list_key
            )
            arrival = arrival_of(connection, held)
        known_as, name = message_id(held.raw), str(held.metadata.get("listname", ""))
        said: Facts = {"list": name, "message_id": known_as}
        began = received(held, IN, arrival, known_as, name)
        if isinstance(handed, Stopped):
            facts: Facts = {"reason": handed.reason, "sentence": handed.sentence}
            stopped = Step(known_as, time.time(), name, "discarded", facts)
            return Outcome(
                lambda connection: steps.write(connection, self._ids, [began, stopped]),
                "owners' mail discarded",
                said | facts,
            )
        people = handed.metadata["order"]["recipients"]
        if [fold(each) for each in people] == [DEFAULT_OWNER]:
            return shunted(held, IN, NO_OWNER)

        def act(connection: Connection) -> None:
            (number,) = hand_on(connection, self._ids, [handed])
            facts = {"recipients": len(people), "handed_on": show(number)}
            passed = Step(known_as, time.time(), name, "passed to the owners", facts)
            steps.write(connection, self._ids, [began, passed])

        return Outcome(act, "passed to the owners", said | {"recipients": len(people)})


def _keyed(connection: Connection, of: MailingList, order: Order) -> Order:
    """With what the order's VERP tags are made with. The first one makes the site's secret, so
    that is not read where facts are."""
    if not order.verp:
        return order
    return replace(order, verp_key=verp_key(site_secret(connection), of.list_id))
