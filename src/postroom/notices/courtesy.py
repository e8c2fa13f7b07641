"""Courtesy: who may be answered at all, and how often somebody may be told.

For: every automatic answer (RFC 3834), and what owners are told. Guarantees: nothing that a program
sent is answered, nor anybody who would answer back; of two who ask at once whether somebody may be
told, one is told yes. The look-ups of how often work in the caller's transaction, on SQLite and
PostgreSQL, and fail with the database's errors.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import Column, ColumnElement, Connection, and_, delete, func, or_, select
from sqlalchemy.dialects import postgresql, sqlite

from postroom.lists.endpoint import Endpoint
from postroom.lists.registry import MailingList
from postroom.lists.roster import same_address
from postroom.lists.routing import route
from postroom.lists.settings import ListSettings, Notices
from postroom.lists.subscription import State
from postroom.mail.address import AddressError, is_person, parse_mailbox
from postroom.spool.ids import first_at
from postroom.spool.metadata import HELD
from postroom.store.schema import audit, entry, mailing_list, notified, pending

DAY: Final = 86_400.0
HELD_EVERY: Final = DAY  # seconds between two notices to an author that a post waits
# A rejected post is lost to its author if nobody says so: often, but no loop can live on it.
REJECTED_EVERY: Final = 600.0
# What strangers send may have a forged sender, who gets the notice: a list that tells each of
# them could be made to flood others.
AUTHORS_EVERY: Final = 10.0
OWNERS: Final = ""  # stands for a list's owners and moderators
STRANGERS: Final = ""  # the same for all who are not on a list
TELL_HELD: Final = "held"
TELL_REJECTED: Final = "rejected"
TELL_AUTHORS: Final = "authors"
TELL_REQUEST: Final = "request"
TELL_BOUNCES: Final = "bounces"
TELL_MASS: Final = "mass"
# What becomes of members because of bounces, and who does it, in the audit log.
LOST: Final = ("stopped", "removed", "complained")
US: Final = "postroom"
LOST_WITHIN: Final = 7 * DAY  # what is older was told of, or nobody wanted to know
SETTLED: Final = 300.0  # seconds after which what was done then has been committed
KEPT: Final = 30 * DAY  # longer than any interval
_LISTS: Final = (
    mailing_list.c.id,
    mailing_list.c.list_id,
    mailing_list.c.posting_address,
    mailing_list.c.display_name,
    mailing_list.c.created_at,
    mailing_list.c.settings,
)


def unanswerable(sender: str, automatic: bool, ours: bool) -> str:
    """Why the sender of an envelope gets no automatic answer, "" if it may get one (RFC 3834 2).

    `automatic` is whether the message looks like sent by a program, `ours` whether the address
    is one of our own endpoints. Pure.
    """
    if not sender:
        return "the null sender is never answered"
    if automatic:
        return "a program sent it"
    if ours:
        return "the sender is an address of this site's lists"
    try:
        box, _ = parse_mailbox(sender)
    except AddressError as error:
        return f"the sender cannot be answered ({error})"
    if not box.domain:
        return "the sender has no domain"
    if not is_person(box.local):
        return "the sender is no person's address"
    return ""


def endpoints_among(connection: Connection, addresses: Iterable[str]) -> dict[str, Endpoint]:
    """Those of these addresses that are endpoints of this site; one statement."""
    boxes = {}
    for address in addresses:
        with suppress(AddressError):
            boxes[address] = parse_mailbox(address)[0]

    def query(statement: str, parameters: tuple[Any, ...]) -> Iterable[Any]:
        return connection.exec_driver_sql(statement, parameters)

    found = route(query, connection.dialect.name == "sqlite", boxes.values()) if boxes else {}
    return {each: end for each, box in boxes.items() if (end := found[box]) is not None}


def may_tell(
    connection: Connection, list_key: int, kind: str, email: str, every: float, now: float
) -> bool:
    """Whether `email` (`OWNERS`) may be told something of this kind again, if not more often
    than `every` seconds. If so, it counts as told `now`; one statement."""
    insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
    row = {"list": list_key, "kind": kind, "email": same_address(email), "at": now}
    # What was told in the future was told by another clock.
    due = or_(notified.c.at <= now - every, notified.c.at > now)
    told = insert(notified).values(row)
    told = told.on_conflict_do_update(
        index_elements=[notified.c.list, notified.c.kind, notified.c.email],
        set_={"at": now},
        where=due,
    )
    return connection.execute(told.returning(notified.c.at)).first() is not None


def told_since(connection: Connection, list_key: int, kind: str, email: str, since: float) -> bool:
    """Whether `email` (`OWNERS`) was told something of this kind since then; one statement."""
    key = (notified.c.list == list_key) & (notified.c.kind == kind)
    told = select(notified.c.at).where(key, notified.c.email == same_address(email))
    at = connection.scalar(told)
    return at is not None and at >= since


def forget(connection: Connection, now: float) -> int:
    """Forget who was told what so long ago that it no longer matters; returns how many."""
    return connection.execute(delete(notified).where(notified.c.at < now - KEPT)).rowcount


class Due(NamedTuple):
    """A list whose owners should get a summary: of what (`TELL_HELD`, `TELL_REQUEST`), how many
    wait, and since when."""

    list: MailingList
    notices: Notices
    kind: str
    waiting: int
    since: float

    @property
    def every(self) -> float:
        """Seconds between two notices."""
        return self.notices.owners_every * 3600


def due_summaries(connection: Connection, now: float) -> Iterator[Due]:
    """Lists on which posts were held, or requests came before the owners, since these were last
    told, and whose interval has passed; one statement for each. It decides nothing: `may_tell`
    does."""
    held = entry.c.queue == HELD
    yield from _due(connection, TELL_HELD, entry.c.list, entry.c.available_at, held, now)
    waits = (pending.c.state == State.MODERATE) & (pending.c.expires_at > now)
    # A request comes before the owners when it is moved there, with a new token.
    yield from _due(connection, TELL_REQUEST, pending.c.list, pending.c.told_at, waits, now)


class Lost(NamedTuple):
    """A list whose owners should be told what became of members because of bounces: of how many,
    and the id of the first entry in the audit log that tells it."""

    list: MailingList
    notices: Notices
    number: int
    first: int


def due_bounces(connection: Connection, now: float) -> Iterator[Lost]:
    """Lists where bounces cost members their posts since the owners were last told, which was a
    day ago; one statement. It decides nothing: `may_tell` does."""
    # What is newer waits for the next time. So nothing is missed that was committed late.
    settled = audit.c.at <= now - SETTLED
    unknown = or_(notified.c.at.is_(None), notified.c.at > now)
    since = and_(notified.c.at <= now - DAY, audit.c.at > notified.c.at - SETTLED)
    found = (
        select(*_LISTS, func.count(), func.min(audit.c.id))
        .select_from(audit)
        .join(mailing_list, mailing_list.c.list_id == audit.c.list_id)
        .join(notified, _owners_told(TELL_BOUNCES), isouter=True)
        .where(audit.c.id >= first_at(now - LOST_WITHIN), audit.c.by == US)
        .where(audit.c.what.in_(LOST), settled, or_(unknown, since))
        .group_by(*_LISTS)
        .order_by(mailing_list.c.id)
    )
    for row in connection.execute(found):
        *this, text, number, first = row
        settings = _settings(text)
        if settings.bounces.owners:
            yield Lost(MailingList(*this), settings.notices, number, first)


def _owners_told(kind: str) -> ColumnElement[bool]:
    """That a row says when a list's owners were last told of this kind."""
    of = notified.c.list == mailing_list.c.id
    return and_(of, notified.c.kind == kind, notified.c.email == OWNERS)


def _due(
    connection: Connection,
    kind: str,
    of: Column[Any],
    came: Column[Any],
    waits: ColumnElement[bool],
    now: float,
) -> Iterator[Due]:
    """Lists with rows that wait, of which some came since the owners were last told of this
    kind."""
    last = func.max(notified.c.at)
    found = (
        select(*_LISTS, func.count(), func.min(came), last)
        .select_from(of.table)
        .join(mailing_list, mailing_list.c.id == of)
        .join(notified, _owners_told(kind), isouter=True)
        .where(waits)
        .group_by(*_LISTS)
        .having(or_(last.is_(None), last > now, func.max(came) > last))
        .order_by(mailing_list.c.id)
    )
    for row in connection.execute(found):
        *this, settings, waiting, since, at = row
        due = Due(MailingList(*this), _settings(settings).notices, kind, waiting, since)
        if due.notices.owners and (at is None or at > now or at <= now - due.every):
            yield due


def _settings(text: str) -> ListSettings:
    try:
        return msgspec.json.decode(text, type=ListSettings)
    except (msgspec.DecodeError, ValueError):  # of another version: then as by default
        return ListSettings()
