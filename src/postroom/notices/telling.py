"""Telling: who gets which notice, now.

For: the stages that hold, reject or pass on mail, the office, and moderators. Each function works
in the caller's transaction and gives back what is to be handed on to `out` in it, so a notice goes
out exactly if what it tells of was committed. Guarantees: the rules of courtesy are asked first;
nobody who leads back to the list is told; of all who are not on a list one is told at a time, and
gets little of what they sent back, since anybody may have sent it in their name. Fails with the
database's errors.
"""

from collections.abc import Iterable, Sequence
from typing import Literal

from sqlalchemy import Connection

from postroom.lists import audit
from postroom.lists.keys import held_token, site_secret
from postroom.lists.limits import Limit, take
from postroom.lists.pending import Request, waiting
from postroom.lists.registry import MailingList
from postroom.lists.roster import memberships, same_address, staff
from postroom.lists.settings import Notices
from postroom.lists.subscription import State
from postroom.notices import bounces, letters, requests
from postroom.notices.courtesy import (
    AUTHORS_EVERY,
    DAY,
    HELD_EVERY,
    LOST,
    OWNERS,
    REJECTED_EVERY,
    STRANGERS,
    TELL_AUTHORS,
    TELL_BOUNCES,
    TELL_HELD,
    TELL_MASS,
    TELL_REJECTED,
    TELL_REQUEST,
    US,
    Due,
    Lost,
    due_bounces,
    due_summaries,
    endpoints_among,
    may_tell,
    unanswerable,
)
from postroom.notices.language import ENGLISH
from postroom.notices.letters import Stopped, for_owners
from postroom.notices.sheet import LISTED, House, is_nobody
from postroom.spool.handing import Handed
from postroom.spool.held import Held, held
from postroom.spool.metadata import Metadata


def tell_rejected(
    connection: Connection,
    house: House,
    of: MailingList,
    post: Held,
    header: bytes,
    reason: str,
    automatic: bool,
    now: float,
    every: float = REJECTED_EVERY,
    language: str = ENGLISH,
) -> Handed | str:
    """To the author, or why they are not told. A moderator's own decision is told each time
    (`every` 0)."""
    if why := _unanswerable(connection, post.sender, automatic):
        return why
    if every and (why := _told_lately(connection, of, TELL_REJECTED, post.sender, every, now)):
        return why
    known = memberships(connection, of.key, [post.sender])
    beside = header if known else letters.identifying(header)
    return letters.rejected(house, of, post, beside, reason, language, now)


def tell_held(
    connection: Connection,
    house: House,
    of: MailingList,
    notices: Notices,
    post: Held,
    beginning: Sequence[str],
    automatic: bool,
    now: float,
) -> list[Handed]:
    """To the author and to those who decide, as the list's settings say."""
    told = []
    if (
        notices.authors
        and not _unanswerable(connection, post.sender, automatic)
        and not _told_lately(connection, of, TELL_HELD, post.sender, HELD_EVERY, now)
    ):
        told.append(letters.held_author(house, of, post, notices.language, now))
    if people := _deciding(connection, house, of, notices, TELL_HELD, now):
        token = held_token(site_secret(connection), of.list_id, post.id)
        hours, language = notices.owners_every, notices.language
        told.append(
            letters.held_owner(house, of, post, token, beginning, people, hours, language, now)
        )
    return told


def tell_request(
    connection: Connection,
    house: House,
    of: MailingList,
    notices: Notices,
    request: Request,
    now: float,
) -> list[Handed]:
    """To those who decide on a request, as the list's settings say; if not now, it is in the next
    summary."""
    people = _deciding(connection, house, of, notices, TELL_REQUEST, now)
    if not people:
        return []
    hours, language = notices.owners_every, notices.language
    return [requests.request_for_owners(house, of, request, people, hours, language, now)]


def tell_change(
    connection: Connection,
    house: House,
    of: MailingList,
    notices: Notices,
    email: str,
    what: Literal["joined", "left"],
    now: float,
) -> list[Handed]:
    """To those who decide, if they want to know who joined and who left."""
    people = _staff(connection, house, of.key) if notices.changes else []
    if not people:
        return []
    return [requests.change_for_owners(house, of, email, what, people, notices.language, now)]


def summaries(connection: Connection, house: House, now: float) -> list[Handed]:
    """To those who decide on lists where posts or requests came while they were not told."""
    told = []
    for due in list(due_summaries(connection, now)):
        if people := _deciding(connection, house, due.list, due.notices, due.kind, now):
            write = _held_summary if due.kind == TELL_HELD else _request_summary
            told.append(write(connection, house, due, people, now))
    return told


def tell_mass(
    connection: Connection,
    house: House,
    of: MailingList,
    notices: Notices,
    number: int,
    share: int,
    now: float,
) -> list[Handed]:
    """To those who decide, once a day: mail to more than `number` members came back, more than
    `share` in a hundred, so that nobody is counted. The site's owner, whose mail server it is
    about, hears of the first of the day's lists."""
    if not may_tell(connection, of.key, TELL_MASS, OWNERS, DAY, now):
        return []
    people = _staff(connection, house, of.key)
    if take(connection, [Limit(TELL_MASS, "", 1, DAY)], now) is None:
        people = _staff(connection, house, of.key, beside=house.owner)
    if not people:
        return []
    return [bounces.mass(house, of, number, share, people, notices.language, now)]


def bounce_summaries(connection: Connection, house: House, now: float) -> list[Handed]:
    """To those who decide, once a day, on lists whose settings say so: what became of members
    because of bounces since they were last told."""
    told = []
    for lost in list(due_bounces(connection, now)):
        if not may_tell(connection, lost.list.key, TELL_BOUNCES, OWNERS, DAY, now):
            continue
        if people := _staff(connection, house, lost.list.key):
            told.append(_bounce_summary(connection, house, lost, people, now))
    return told


def pass_to_owners(
    connection: Connection,
    site_owner: str,
    raw: bytes,
    sender: str,
    facts: Metadata,
    list_key: int | None,
) -> Handed | Stopped:
    """Mail to -owner or postmaster, on its way to people; only reads."""
    people = [] if list_key is None else [each.email for each in staff(connection, list_key)]
    ours = _circular(connection, list_key, [*people, site_owner])
    return for_owners(raw, sender, facts, list_key, people, ours, site_owner)


def _held_summary(
    connection: Connection, house: House, due: Due, people: Sequence[str], now: float
) -> Handed:
    secret, of = site_secret(connection), due.list
    found = [each.post for each in held(connection, of.key, LISTED)]
    posts = [(post, held_token(secret, of.list_id, post.id)) for post in found]
    language = due.notices.language
    return letters.held_summary(house, of, posts, due.waiting, due.since, people, language, now)


def _request_summary(
    connection: Connection, house: House, due: Due, people: Sequence[str], now: float
) -> Handed:
    of, language = due.list, due.notices.language
    first = [each for each, _ in waiting(connection, of.key, LISTED, State.MODERATE)]
    return requests.request_summary(house, of, first, due.waiting, due.since, people, language, now)


def _bounce_summary(
    connection: Connection, house: House, lost: Lost, people: Sequence[str], now: float
) -> Handed:
    of, language, listed = lost.list, lost.notices.language, min(lost.number, LISTED)
    found = audit.since(connection, of.list_id, lost.first, LOST, US, listed)
    rows = [
        bounces.Outcome(each.at, each.email, each.what, str(each.facts.get("reason", "")))
        for each in found
    ]
    more = lost.number - len(rows)
    return bounces.bounce_summary(house, of, rows, more, people, language, now)


def _deciding(
    connection: Connection,
    house: House,
    of: MailingList,
    notices: Notices,
    kind: str,
    now: float,
) -> list[str]:
    """Those who decide, if they may be told something of this kind; then they count as told."""
    every = notices.owners_every * 3600
    if notices.owners and may_tell(connection, of.key, kind, OWNERS, every, now):
        return _staff(connection, house, of.key)
    return []


def _told_lately(
    connection: Connection, of: MailingList, kind: str, author: str, every: float, now: float
) -> str:
    """Why an author must not be told now; "" if they may be, and then they count as told."""
    with connection.begin_nested() as attempt:
        if not may_tell(connection, of.key, kind, author, every, now):
            return "the author was told of another post a moment ago"
        if memberships(connection, of.key, [author]) or may_tell(
            connection, of.key, TELL_AUTHORS, STRANGERS, AUTHORS_EVERY, now
        ):
            return ""
        attempt.rollback()  # so that this author is told next time
    return "somebody else who is not on the list was told a moment ago"


def _unanswerable(connection: Connection, sender: str, automatic: bool) -> str:
    ours = bool(sender) and bool(endpoints_among(connection, [sender]))
    return unanswerable(sender, automatic, ours)


def _staff(connection: Connection, house: House, list_key: int, beside: str = "") -> list[str]:
    """Owners and moderators, and somebody beside them, each once, without those who lead back to
    the list; the site's owner where there are none and it has one."""
    people = {same_address(each.email): each.email for each in staff(connection, list_key)}
    if beside and not is_nobody(beside):
        people.setdefault(same_address(beside), beside)
    ours = _circular(connection, list_key, [*people.values(), house.owner])
    found = [each for each in people.values() if each not in ours]
    if found or house.owner in ours or is_nobody(house.owner):
        return found
    return [house.owner]


def _circular(connection: Connection, list_key: int | None, addresses: Iterable[str]) -> set[str]:
    """Those of these addresses that are endpoints of this list; of the site, for None."""
    found = endpoints_among(connection, addresses)
    return {each for each, endpoint in found.items() if endpoint.list_key == list_key}
