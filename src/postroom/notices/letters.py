"""Letters: what is said of posts, and of notices that failed; and what is sent on to owners.

For: whoever has to tell somebody something. Pure. Guarantees: a notice stays small whatever it
is about; an answer to an author has the null sender (RFC 3834 3.3), so nothing can answer it;
mail for owners goes on with its bytes untouched below one marker, and never in circles.
"""

import textwrap
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from postroom.lists.registry import MailingList
from postroom.lists.roster import same_address
from postroom.mail.fields import field, take_apart
from postroom.mail.loops import LOOP, MOST_RECEIVED
from postroom.mail.message import message_id
from postroom.notices.language import ENGLISH, say, sentence
from postroom.notices.render import WIDTH, Text, Value, one_line
from postroom.notices.sheet import (
    HEADER,
    LISTED,
    NO_SUBJECT,
    House,
    Sheet,
    answer_to,
    failures_to,
    handed,
    in_hours,
    in_utc,
    is_nobody,
    owner_address,
    sub_address,
    to_staff,
)
from postroom.spool.handing import Handed, Letter
from postroom.spool.held import Held
from postroom.spool.ids import show
from postroom.spool.metadata import Metadata
from postroom.spool.orders import OUT, Order

BEGINNING: Final = 14  # lines of a post that a notice shows: about a kilobyte
_IDENTIFYING = ("from", "subject", "date", "message-id")
_LINE = 900  # octets of a field that are attached of a stranger's header


class Stopped(NamedTuple):
    """Mail for owners that goes no further: a code, and why."""

    reason: str
    sentence: str


class Failed(NamedTuple):
    """A notice that could not be delivered: to whom, its header, and the last reply."""

    recipient: str
    header: bytes
    reply: str


def identifying(header: bytes) -> bytes:
    """Of the header of a message only what tells which one it was."""
    found = take_apart(header[: 2 * HEADER])
    fields = [each for name in _IDENTIFYING if (each := found.first(name))]
    return b"".join(each.raw[:_LINE].rstrip(b"\r\n") + b"\r\n" for each in fields)


def rejected(
    house: House,
    of: MailingList,
    post: Held,
    header: bytes,
    reason: str,
    language: str,
    now: float,
) -> Handed:
    """To the author: it was not accepted."""
    values = _about(of, post, language) | {"reason": reason}
    text = house.templates.write("rejected", values, of.list_id, language)
    return _answer(house, of, post, text, header, now)


def held_author(house: House, of: MailingList, post: Held, language: str, now: float) -> Handed:
    """To the author: it awaits a moderator."""
    values = _about(of, post, language)
    text = house.templates.write("held_author", values, of.list_id, language)
    return _answer(house, of, post, text, b"", now)


def held_owner(
    house: House,
    of: MailingList,
    post: Held,
    token: str,
    beginning: Sequence[str],
    staff: Sequence[str],
    every_hours: float,
    language: str,
    now: float,
) -> Handed:
    """To owners and moderators: a post waits, and who has `token` decides on it by mail.
    `beginning` are the first lines of its text."""
    answer = answer_to(of.posting_address, token)
    values = _about(of, post, language) | {
        "beginning": _beginning(beginning),
        "hours": in_hours(every_hours, language),
        "request": sub_address(of.posting_address, "request"),
        "token": token,
        "token_in_address": answer.knows,
    }
    text = house.templates.write("held_owner", values, of.list_id, language)
    return to_staff(house, of, staff, text, now, answer.address)


def held_summary(
    house: House,
    of: MailingList,
    posts: Sequence[tuple[Held, str]],
    waiting: int,
    since: float,
    staff: Sequence[str],
    language: str,
    now: float,
) -> Handed:
    """To owners and moderators: `waiting` posts wait, `posts` are the first of them, each with
    its token."""
    rows: list[dict[str, str | int]] = [
        {
            "id": show(each.id),
            "held": in_utc(each.held_at),
            "author": each.author or each.sender or "<>",
            "subject": each.subject or say(NO_SUBJECT, language),
            "reason": each.sentence or each.reason,
            "token": token,
        }
        for each, token in posts[:LISTED]
    ]
    request = sub_address(of.posting_address, "request")
    values: dict[str, Value] = {
        "list": of.posting_address,
        "owner": owner_address(of.posting_address),
        "request": request,
        "waiting": waiting,
        "since": in_utc(since),
        "posts": rows,
        "more": max(0, waiting - len(rows)),
    }
    text = house.templates.write("held_summary", values, of.list_id, language)
    return to_staff(house, of, staff, text, now, request)


def undeliverable(
    house: House, failed: Failed, of: MailingList | None, now: float, language: str = ENGLISH
) -> Handed | None:
    """To the site's owner: somebody could not be told. With the null sender, and None if it was
    the site's owner or there is none, so that it ends here."""
    if same_address(failed.recipient) == same_address(house.owner) or is_nobody(house.owner):
        return None
    subject = take_apart(failed.header).first("subject")
    none = say(sentence("(none)"), language)
    values: dict[str, Value] = {
        "recipient": failed.recipient,
        "subject": subject.text if subject else say(NO_SUBJECT, language),
        "list": of.posting_address if of else none,
        "reply": failed.reply or none,
        "hostname": house.hostname,
    }
    text = house.templates.write("undeliverable", values, of.list_id if of else "", language)
    sheet = Sheet(house.owner, house.owner, "", "generated", now)
    return handed(house, of, sheet, text, failed.header)


def for_owners(
    raw: bytes,
    sender: str,
    facts: Metadata,
    list_key: int | None,
    recipients: Sequence[str],
    ours: Collection[str],
    site_owner: str,
) -> Handed | Stopped:
    """Mail to -owner or postmaster, on its way to people.

    `facts` are the entry's metadata. `recipients` are owners and moderators, `ours` those among
    all these addresses that lead to the same endpoint or list again; if nobody is left the
    site's owner gets it.
    """
    parts = take_apart(raw)
    endpoint = owner_address(facts["listname"]) if "listname" in facts else site_owner
    if any(same_address(each.text) == same_address(endpoint) for each in parts.all(LOOP.lower())):
        return Stopped("loop", f"it was sent to {endpoint} before and came back")
    if (hops := len(parts.all("received"))) > MOST_RECEIVED:
        return Stopped("loop", f"it has {hops} Received fields: it goes in circles")
    circular = {same_address(each) for each in ours}
    wanted: dict[str, str] = {}
    for each in recipients:
        wanted.setdefault(same_address(each), each)
    people = [each for folded, each in wanted.items() if folded not in circular]
    if not people and same_address(site_owner) not in circular:
        people = [site_owner]
    if not people:
        return Stopped("loop", f"all who get mail for {endpoint} are that address itself")
    marked = parts.on_top([field(LOOP, endpoint, utf8=True)]).joined()
    order = Order(
        kind="owner",
        sender=failures_to(facts.get("envsender", site_owner)) if sender else "",
        message_id=message_id(raw),
        recipients=tuple(people),
    )
    listname = facts.get("listname", "")
    return Handed(
        OUT, list_key, order.metadata(listname, len(marked)), Letter(marked, order.sender)
    )


def _about(of: MailingList, post: Held, language: str) -> dict[str, Value]:
    return {
        "list": of.posting_address,
        "owner": owner_address(of.posting_address),
        "id": show(post.id),
        "sender": post.sender or "<>",
        "author": post.author or post.sender or "<>",
        "subject": post.subject or say(NO_SUBJECT, language),
        "size": post.size,
        "reason": post.sentence or post.reason,
    }


def _answer(
    house: House, of: MailingList, post: Held, text: Text, header: bytes, now: float
) -> Handed:
    # RFC 3834 4: it goes to the sender of the envelope, whatever the message says.
    owner = owner_address(of.posting_address)
    sheet = Sheet(owner, post.sender, "", "replied", now, answers=post.message_id)
    return handed(house, of, sheet, text, header)


def _beginning(lines: Sequence[str]) -> list[str]:
    shown: list[str] = []
    for line in (one_line(each) for each in lines[:BEGINNING]):
        shown += textwrap.wrap(line, WIDTH - 6)
    return shown[:BEGINNING]
