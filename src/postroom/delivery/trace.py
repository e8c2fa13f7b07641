"""Where is my message? All that is known of one, for those who ask.

For: `postroom trace`. Guarantees: it only reads; recipients come in pages, each a short look of
its own, so that neither memory nor a view of the database is held for all of them; of the mail
that waits, no more than the `NEWEST` entries of each queue, and `MOST_OCTETS` of their messages,
are looked at. Fails with the database's errors.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from sqlalchemy import Connection, LargeBinary, Row, Select, Text, case, cast, func, select

from postroom.delivery.ledger import SENT, STATES
from postroom.mail.message import message_id
from postroom.spool import ids
from postroom.spool.messages import RAW, SENDER
from postroom.spool.metadata import QUEUES, Metadata, decode
from postroom.spool.steps import Step, steps_of
from postroom.store.engine import Store
from postroom.store.schema import delivery, entry, mailing_list, message, post, transmission

NEWEST = 1000  # entries of a queue
MOST_OCTETS = 67_108_864  # of the messages of a queue
HEAD = 32_768  # octets of a message that are read for its Message-ID
LONGEST = 250  # characters of a Message-ID; the rest of a longer one is not kept
PAGE = 1000  # recipients


class Waiting(NamedTuple):
    """An entry that waits. `list` is the posting address, "" for the site owner; `peer`, `lhlo`
    and `sender` say where its message came from; `kind` is that of its order, `reason` why it
    is held, both "" if it has none. Size in octets, times in seconds since the epoch."""

    id: int
    queue: str
    list: str
    peer: str
    lhlo: str
    sender: str
    size: int
    received_at: float
    attempts: int
    available_at: float
    lease_until: float | None
    last_error: str
    kind: str
    reason: str


class Post(NamedTuple):
    """A message on its way out, or that was; the id is that of its entry in `out`. `kind` is that
    of its order, "" if it is not known; `states` counts its recipients."""

    id: int
    list: str
    kind: str
    created_at: float
    done_at: float | None
    recipients: int
    states: dict[str, int]


class Recipient(NamedTuple):
    """One recipient of a post, and the last that the mail server said of it: the `reply`, when,
    and which server. `next_at` is when a pending one is tried next."""

    n: int
    email: str
    state: str
    attempts: int
    next_at: float | None
    reply: str
    at: float | None
    server: str


class Trace(NamedTuple):
    """What is known. `complete` is False if there is waiting mail that was not looked at."""

    steps: list[Step]
    waiting: list[Waiting]
    posts: list[Post]
    complete: bool

    def __bool__(self) -> bool:
        return bool(self.steps or self.waiting or self.posts)


def trace(connection: Connection, text: str) -> Trace:
    """What is known of a message; `text` is its Message-ID, with or without angle brackets."""
    names = spellings(text)
    steps = [each for name in names for each in steps_of(connection, name)]
    # Where a list gave a post an id of its own, what became of it then is known by that.
    given = {str(new) for each in steps if (new := each.facts.get("message_id"))} - {*names}
    known = {(each.at, each.list, each.what) for each in steps}
    later = (each for name in given for each in steps_of(connection, name))
    steps += [each for each in later if (each.at, each.list, each.what) not in known]
    names += tuple(given)
    steps.sort(key=lambda step: step.at)
    waiting, complete = [], True
    for queue in QUEUES:
        seen = 0
        for row in connection.execute(_newest(queue).execution_options(yield_per=100)):
            seen += 1
            found = _waiting(row, names)
            if found is not None:
                waiting.append(found)
        complete = complete and seen == _depth(connection, queue)
    kinds = {str(step.facts.get("entry")): str(step.facts.get("kind", "")) for step in steps}
    return Trace(steps, waiting, list(_posts(connection, names, kinds)), complete)


def spellings(text: str) -> tuple[str, ...]:
    """How the spool may have kept a Message-ID that a person wrote."""
    bare = text.strip().removeprefix("<").removesuffix(">")
    return f"<{bare}>"[:LONGEST], bare[:LONGEST]


def _newest(queue: str) -> Select[Any]:
    """The newest entries of a queue that are looked at, with the beginnings of their messages."""
    order = (entry.c.available_at.desc(), entry.c.id.desc())
    first = select(entry).where(entry.c.queue == queue).order_by(*order).limit(NEWEST).subquery()
    size = func.coalesce(message.c.size, 0)
    before = func.sum(size).over(order_by=(first.c.available_at.desc(), first.c.id.desc())) - size
    ranked = (
        select(first, before.label("before"))
        .join_from(first, message, message.c.id == first.c.message, isouter=True)
        .subquery("ranked")
    )
    return (
        select(
            ranked.c.id,
            ranked.c.queue,
            func.coalesce(cast(mailing_list.c.posting_address, Text), "").label("list"),
            func.coalesce(message.c.peer, "").label("peer"),
            func.coalesce(message.c.lhlo, "").label("lhlo"),
            func.coalesce(SENDER, "").label("sender"),
            size.label("size"),
            func.coalesce(message.c.received_at, ranked.c.available_at).label("received_at"),
            ranked.c.attempts,
            ranked.c.available_at,
            ranked.c.lease_until,
            func.coalesce(cast(ranked.c.last_error, Text), "").label("last_error"),
            cast(ranked.c.metadata, Text).label("metadata"),
            func.substr(RAW, 1, HEAD, type_=LargeBinary).label("head"),
        )
        .join_from(ranked, message, message.c.id == ranked.c.message, isouter=True)
        .join(mailing_list, mailing_list.c.id == ranked.c.list, isouter=True)
        .where(ranked.c.before < MOST_OCTETS)
        .order_by(ranked.c.available_at, ranked.c.id)
    )


def _depth(connection: Connection, queue: str) -> int:
    """How many entries a queue has; no more are counted than decide."""
    some = select(entry.c.id).where(entry.c.queue == queue).limit(NEWEST + 1).subquery()
    return int(connection.execute(select(func.count()).select_from(some)).scalar_one())


def _waiting(row: Row[Any], names: tuple[str, ...]) -> Waiting | None:
    """The entry, if it is of that message: as its message says, or what made it."""
    facts = _facts(row.metadata)
    order = facts.get("order")
    order = order if isinstance(order, dict) else {}
    known_as = (
        message_id(bytes(row.head or b"")),
        order.get("message_id"),
        facts.get("message_id"),
    )
    if not any(each in names for each in known_as):
        return None
    return Waiting(
        row.id,
        row.queue,
        row.list,
        row.peer,
        row.lhlo,
        row.sender,
        row.size,
        row.received_at,
        row.attempts,
        row.available_at,
        row.lease_until,
        row.last_error,
        str(order.get("kind", "")),
        str(facts.get("sentence", "")),
    )


def _facts(text: str) -> Metadata:
    try:
        return decode(text)
    except ValueError:
        return {}


def _posts(connection: Connection, names: tuple[str, ...], kinds: dict[str, str]) -> Iterator[Post]:
    address = func.coalesce(cast(mailing_list.c.posting_address, Text), "")
    columns = (post.c.id, address, post.c.created_at, post.c.done_at, post.c.recipients)
    found = (
        select(*columns)
        .join_from(post, mailing_list, mailing_list.c.id == post.c.list, isouter=True)
        .where(post.c.message_id.in_(names))
        .order_by(post.c.id)
    )
    for number, name, created_at, done_at, recipients in connection.execute(found).all():
        kind = kinds.get(ids.show(number), "")
        states = _states(connection, number)
        yield Post(number, name, kind, created_at, done_at, recipients, states)


def _states(connection: Connection, number: int) -> dict[str, int]:
    counted = select(delivery.c.state, func.count().label("number"))
    counted = counted.where(delivery.c.post == number).group_by(delivery.c.state)
    rows = {row.state: int(row.number) for row in connection.execute(counted)}
    return {name: rows.get(state, 0) for state, name in enumerate(STATES)}


def recipients(store: Store, number: int, state: str | None = None) -> Iterator[Recipient]:
    """The recipients of a post, all or those in one state, in the order of domains; read as
    they are consumed."""
    after = 0
    while True:
        with store.read() as connection:
            page = _page(connection, number, after, state)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].n


def _page(connection: Connection, number: int, after: int, state: str | None) -> list[Recipient]:
    # One that was reached in the end may still have what it was told before.
    own = case((delivery.c.state == SENT, None), else_=delivery.c.reply)
    some = (
        select(
            delivery.c.n,
            delivery.c.email,
            delivery.c.state,
            delivery.c.attempts,
            delivery.c.next_at,
            func.coalesce(own, transmission.c.reply, ""),
            transmission.c.at,
            func.coalesce(transmission.c.server, ""),
        )
        .join_from(
            delivery, transmission, transmission.c.id == delivery.c.transmission, isouter=True
        )
        .where(delivery.c.post == number, delivery.c.n > after)
        .order_by(delivery.c.n)
        .limit(PAGE)
    )
    if state is not None:
        some = some.where(delivery.c.state == STATES.index(state))
    return [
        Recipient(n, email, STATES[number], *rest)
        for n, email, number, *rest in connection.execute(some)
    ]
