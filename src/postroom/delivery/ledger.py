"""The ledger: what became of each recipient of each post.

For: delivery's memory. Guarantees: recipients are expanded by one statement, whatever their
number, in the order of domains, exactly once (the post's row says so); what a transaction
achieved is one row for it and one statement for those it reached; a recipient who was reached
is never pending again. Works in the caller's transaction; fails with the database's errors.
"""

import time
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Connection,
    Update,
    and_,
    bindparam,
    case,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)

from postroom.delivery.numbers import among
from postroom.delivery.policy import About
from postroom.mail.address import ascii_name, fold
from postroom.mail.message import header_end
from postroom.spool import queue
from postroom.spool.handing import Handed, Letter
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import BOUNCES, VERSION
from postroom.spool.orders import Order
from postroom.spool.queue import Claim
from postroom.store.schema import (
    address,
    delivery,
    mailing_list,
    member,
    post,
    transmission,
)

# States of a recipient. Numbers are stored.
PENDING: Final = 0  # to be sent when it is due
SENT: Final = 1  # the mail server took it
REFUSED: Final = 2  # the mail server refused it for good, or its time ran out
GONE: Final = 3  # left the list, or wants no mail, before it was sent
STATES: Final = ("pending", "sent", "refused", "gone")

FURTHEST: Final = 2 * 86_400.0  # seconds; settings allow one day
EXPIRED: Final = "not delivered in time"


class Row(NamedTuple):
    """A recipient whose turn it is. `member` is None for an address the order names; `there`
    says that the member still wants it; `attempts` are those that the mail server answered."""

    n: int
    email: str
    member: int | None
    attempts: int
    there: bool


class Told(NamedTuple):
    """What the mail server said of one recipient. `again_at` is when it is tried again; None if
    it is refused for good, and then `about` says whether that was about the recipient, the
    message or us."""

    n: int
    email: str
    member: int | None
    reply: str
    again_at: float | None
    about: About = "message"


class Record(NamedTuple):
    """One transaction with a mail server ("" for none): those it `reached`, by number, in
    order; what others were `told`. `reply` is the last one to all of them."""

    id: int
    server: str
    at: float
    reply: str
    reached: Sequence[int]
    told: Sequence[Told] = ()


class Expanded(NamedTuple):
    """A post as it begins: when its recipients were expanded (seconds since the epoch), and
    whether that was just now."""

    created_at: float
    recipients: int
    new: bool


def expand(connection: Connection, held: Claim, order: Order) -> Expanded:
    """Make a row for each recipient of a post, unless that was done."""
    known = select(post.c.created_at, post.c.recipients).where(post.c.id == held.id)
    found = connection.execute(known).first()
    if found is not None:
        # Not in the future: the clock was set back.
        return Expanded(min(found.created_at, time.time()), found.recipients, new=False)
    if order.kind == "post":
        number = _expand_members(connection, held, order)
    else:
        number = _expand_named(connection, held, order)
    created_at = time.time()
    row = {
        "id": held.id,
        "list": held.list_key,
        "message_id": order.message_id,
        "created_at": created_at,
        "recipients": number,
    }
    connection.execute(insert(post).values(row))
    return Expanded(created_at, number, new=True)


def _expand_members(connection: Connection, held: Claim, order: Order) -> int:
    chosen = (
        select(
            literal(held.id),
            func.row_number().over(order_by=(address.c.domain, address.c.id)),
            member.c.id,
            address.c.email,
            literal(PENDING),
            literal(0),
            literal(0.0),
        )
        .join_from(member, address, address.c.id == member.c.address)
        .where(member.c.list == held.list_key, member.c.role == "member", _WANTS_MAIL)
    )
    if order.authors:
        own = and_(member.c.own_posts == 0, address.c.folded.in_(order.authors))
        chosen = chosen.where(not_(own))
    if order.named:
        again = and_(member.c.duplicates == 0, address.c.folded.in_(order.named))
        chosen = chosen.where(not_(again))
    columns = ["post", "n", "member", "email", "state", "attempts", "next_at"]
    made = insert(delivery).from_select(columns, chosen)
    return connection.execute(made.execution_options(preserve_rowcount=True)).rowcount


_WANTS_MAIL = member.c.delivery == "on"


def _expand_named(connection: Connection, held: Claim, order: Order) -> int:
    emails = sorted(set(order.recipients), key=lambda each: (fold(each.rpartition("@")[2]), each))
    rows = [
        {
            "post": held.id,
            "n": n,
            "email": email,
            "state": PENDING,
            "attempts": 0,
            "next_at": 0.0,
        }
        for n, email in enumerate(emails, 1)
    ]
    if rows:
        connection.execute(insert(delivery), rows)
    return len(rows)


def _there(list_key: int | None) -> ColumnElement[bool]:
    """A member who still wants mail at that address, or an address that the order names. Row ids
    of members may come again (SQLite), so they alone tell nothing."""
    same = (
        select(member.c.id)
        .join(address, address.c.id == member.c.address)
        .where(
            member.c.id == delivery.c.member,
            member.c.list == list_key,
            member.c.role == "member",
            address.c.email == delivery.c.email,
            _WANTS_MAIL,
        )
    )
    return or_(delivery.c.member.is_(None), same.exists())


def _is_due(now: float) -> ColumnElement[bool]:
    """No wait is as long: later times were read off another clock."""
    return or_(delivery.c.next_at <= now, delivery.c.next_at > now + FURTHEST)


def due(
    connection: Connection,
    held: Claim,
    after: int,
    limit: int,
    without: Collection[str] = (),
) -> list[Row]:
    """Up to `limit` recipients of a post who are due, in order, from beyond `after`; none of the
    domains in `without` (folded, in Unicode), and none at all if the lease is lost."""
    wanted = (
        select(
            delivery.c.n,
            delivery.c.email,
            delivery.c.member,
            delivery.c.attempts,
            case((_there(held.list_key), 1), else_=0).label("there"),
        )
        .where(
            delivery.c.post == held.id,
            delivery.c.n > after,
            queue.is_ours(held),
            delivery.c.state == PENDING,
            _is_due(time.time()),
        )
        .order_by(delivery.c.n)
        .limit(limit)
    )
    for domain in sorted({*without, *map(ascii_name, without)}):
        wanted = wanted.where(
            not_(func.lower(delivery.c.email).endswith(f"@{domain}", autoescape=True))
        )
    return [
        Row(n, email, who, tries, bool(there))
        for n, email, who, tries, there in connection.execute(wanted)
    ]


def gone(connection: Connection, held: Claim, first: int, last: int) -> list[int]:
    """Those between two pending recipients of a post who have left since it was expanded; all,
    if the lease is lost."""
    some = (delivery.c.post == held.id) & delivery.c.n.between(first, last) & _STILL
    stays = _there(held.list_key) & queue.is_ours(held)
    return list(connection.scalars(select(delivery.c.n).where(some, not_(stays))))


_STILL = delivery.c.state == PENDING


def leave_out(connection: Connection, held: Claim, numbers: Sequence[int]) -> None:
    """These members left before their turn came. Does nothing if the lease is lost."""
    if numbers:
        where = (
            (delivery.c.post == held.id) & queue.is_ours(held) & among(connection, numbers) & _STILL
        )
        connection.execute(update(delivery).where(where).values(state=GONE, next_at=None))


def known(connection: Connection, numbers: Collection[int]) -> set[int]:
    """Those of these records that are written already: of a commit it is not always known
    whether it was done."""
    found = select(transmission.c.id).where(transmission.c.id.in_(numbers))
    return set(connection.scalars(found))


def record(connection: Connection, number: int, records: Sequence[Record]) -> None:
    """Write down what transactions of a post achieved."""
    rows = [
        {
            "id": each.id,
            "post": number,
            "at": each.at,
            "server": each.server,
            "recipients": len(each.reached) + len(each.told),
            "reply": each.reply,
        }
        for each in records
    ]
    connection.execute(insert(transmission), rows)
    ones = [{"which": each.reached[0], "by": each.id} for each in records if _is_one(each)]
    if ones:
        connection.execute(_REACHED, [one | {"of": number} for one in ones])
    for each in records:
        if each.reached and not _is_one(each):
            where = (delivery.c.post == number) & among(connection, each.reached) & _STILL
            connection.execute(_reached(where, each.id))
    told = [(each.id, one) for each in records for one in each.told]
    if told:
        _tell(connection, number, told)


def _is_one(each: Record) -> bool:
    return len(each.reached) == 1


def _reached(where: ColumnElement[bool], by: object) -> Update:
    values = {"state": SENT, "transmission": by, "next_at": None, "reply": None}
    return update(delivery).where(where).values(values | {"attempts": delivery.c.attempts + 1})


# Many transactions with one recipient each are one statement, executed many times.
_REACHED = _reached(
    (delivery.c.post == bindparam("of")) & (delivery.c.n == bindparam("which")) & _STILL,
    bindparam("by"),
)


def _tell(connection: Connection, number: int, told: Sequence[tuple[int, Told]]) -> None:
    connection.execute(
        update(delivery)
        .where(delivery.c.post == number, delivery.c.n == bindparam("which"), _STILL)
        .values(
            state=bindparam("becomes"),
            attempts=delivery.c.attempts + 1,
            next_at=bindparam("again"),
            transmission=bindparam("by"),
            reply=bindparam("said"),
        ),
        [
            {
                "which": one.n,
                "becomes": REFUSED if one.again_at is None else PENDING,
                "again": one.again_at,
                "by": by,
                "said": one.reply,
            }
            for by, one in told
        ],
    )


def expire(connection: Connection, ids: IdMaker, held: Claim, limit: int) -> list[Told]:
    """Give up on up to `limit` recipients who are still pending, due or not; returns them: none,
    if the lease is lost."""
    columns = (delivery.c.n, delivery.c.email, delivery.c.member, delivery.c.reply)
    late = select(*columns).where(delivery.c.post == held.id, _STILL, queue.is_ours(held))
    told = [
        Told(row.n, row.email, row.member, f"{EXPIRED}; last: {row.reply or 'no answer'}", None)
        for row in connection.execute(late.limit(limit))
    ]
    if told:
        record(connection, held.id, [Record(ids(), "", time.time(), EXPIRED, (), told)])
    return told


def bounce(held: Claim, order: Order, refused: Sequence[Told]) -> Handed:
    """The entry for the queue `bounces` that tells of members who were refused for good; one
    for all that one commit found. Its message is the header of the post. For a probe it also
    has the `token`, the detail of the sender."""
    header = held.raw[: header_end(held.raw)]
    facts = {
        "event": "refused",
        "listname": held.metadata.get("listname", ""),
        "version": VERSION,
        "message_id": order.message_id,
        "refused": [
            {
                "email": each.email,
                "member": each.member,
                "reply": each.reply,
                "about": each.about,
            }
            for each in refused
        ],
    }
    if order.kind == "probe":
        facts["token"] = order.sender.rpartition("@")[0].rpartition("+")[2]
    return Handed(BOUNCES, held.list_key, facts, Letter(header, order.sender))


def has_list(connection: Connection, key: int | None) -> bool:
    """Whether a list is there, and stays until this transaction ends."""
    there = select(mailing_list.c.id).where(mailing_list.c.id == key).with_for_update(read=True)
    return connection.execute(there).first() is not None


def next_due(connection: Connection, number: int) -> float | None:
    """When the next recipient of a post is due (seconds since the epoch); None if nobody is
    pending."""
    now = time.time()
    when = case((_is_due(now), 0.0), else_=delivery.c.next_at)
    pending = select(func.min(when)).where(delivery.c.post == number, _STILL)
    return connection.execute(pending).scalar()


def counts(connection: Connection, number: int) -> dict[str, int]:
    """How many recipients of a post are in each state that there is."""
    found = select(delivery.c.state, func.count()).where(delivery.c.post == number)
    rows = connection.execute(found.group_by(delivery.c.state))
    return {STATES[state]: many for state, many in rows}


def done(connection: Connection, number: int) -> None:
    """Nobody is pending any more."""
    open_still = (post.c.id == number) & post.c.done_at.is_(None)
    connection.execute(update(post).where(open_still).values(done_at=time.time()))
