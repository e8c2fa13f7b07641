"""Letters: what the server itself writes, and what it sends on to owners, as orders for `out`.

For: whoever has to tell somebody something. Pure. Guarantees: a notice stays small whatever it
is about, is marked as automatic (RFC 3834 5) and holds no header field but ours; an answer to
an author has the null sender (RFC 3834 3.3), so nothing can answer it; mail for owners goes on
with its bytes untouched below one marker, and never in circles.
"""

import re
import textwrap
from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final, Literal, NamedTuple

from postroom.base.settings import DEFAULT_OWNER
from postroom.lists.registry import MailingList
from postroom.lists.roster import same_address
from postroom.mail.fields import field, take_apart, unstructured
from postroom.mail.loops import LOOP, MOST_RECEIVED
from postroom.mail.message import header_end, message_id
from postroom.notices.render import WIDTH, Templates, Text, Value, one_line
from postroom.spool.handing import Handed, Letter
from postroom.spool.held import Held
from postroom.spool.ids import show
from postroom.spool.metadata import Metadata
from postroom.spool.orders import OUT, Order

HEADER: Final = 16_384  # octets of a header that are attached
BEGINNING: Final = 14  # lines of a post that a notice shows: about a kilobyte
LISTED: Final = 25  # posts in a summary
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,248}>")
_IDENTIFYING = ("from", "subject", "date", "message-id")
_LINE = 900  # octets of a line that needs no encoding (RFC 5322 2.1.1: 998)


class House(NamedTuple):
    """What all notices of a site have in common. `owner` is the site's; `new_id` gives numbers
    that never come again."""

    templates: Templates
    hostname: str
    owner: str
    new_id: Callable[[], int]


class Stopped(NamedTuple):
    """Mail for owners that goes no further: a code, and why."""

    reason: str
    sentence: str


class Failed(NamedTuple):
    """A notice that could not be delivered: to whom, its header, and the last reply."""

    recipient: str
    header: bytes
    reply: str


def owner_address(posting_address: str) -> str:
    """The address of the owners of a list."""
    local, _, domain = posting_address.rpartition("@")
    return f"{local}-owner@{domain}"


def identifying(header: bytes) -> bytes:
    """Of the header of a message only what tells which one it was."""
    found = take_apart(header[: 2 * HEADER])
    fields = [each for name in _IDENTIFYING if (each := found.first(name))]
    return b"".join(each.raw[:_LINE].rstrip(b"\r\n") + b"\r\n" for each in fields)


def is_nobody(site_owner: str) -> bool:
    """Whether the site has not said who its owner is."""
    return same_address(site_owner) == DEFAULT_OWNER


def rejected(
    house: House, of: MailingList, post: Held, header: bytes, reason: str, now: float
) -> Handed:
    """To the author: it was not accepted."""
    values = _about(of, post) | {"reason": reason}
    text = house.templates.write("rejected", values, of.list_id)
    return _answer(house, of, post, text, header, now)


def held_author(house: House, of: MailingList, post: Held, now: float) -> Handed:
    """To the author: it awaits a moderator."""
    text = house.templates.write("held_author", _about(of, post), of.list_id)
    return _answer(house, of, post, text, b"", now)


def held_owner(
    house: House,
    of: MailingList,
    post: Held,
    beginning: Sequence[str],
    staff: Sequence[str],
    every_hours: float,
    now: float,
) -> Handed:
    """To owners and moderators: a post waits. `beginning` are the first
    lines of its text."""
    values = _about(of, post) | {"beginning": _beginning(beginning), "hours": _hours(every_hours)}
    text = house.templates.write("held_owner", values, of.list_id)
    return _to_staff(house, of, staff, text, now)


def held_summary(
    house: House,
    of: MailingList,
    posts: Sequence[Held],
    waiting: int,
    since: float,
    staff: Sequence[str],
    now: float,
) -> Handed:
    """To owners and moderators: `waiting` posts wait, `posts` are the first of them."""
    rows: list[dict[str, str | int]] = [
        {
            "id": show(each.id),
            "held": _time(each.held_at),
            "author": each.author or each.sender or "<>",
            "subject": each.subject or "(no subject)",
            "reason": each.sentence or each.reason,
        }
        for each in posts[:LISTED]
    ]
    values: dict[str, Value] = {
        "list": of.posting_address,
        "owner": owner_address(of.posting_address),
        "waiting": waiting,
        "since": _time(since),
        "posts": rows,
        "more": max(0, waiting - len(rows)),
    }
    text = house.templates.write("held_summary", values, of.list_id)
    return _to_staff(house, of, staff, text, now)


def undeliverable(
    house: House, failed: Failed, of: MailingList | None, now: float
) -> Handed | None:
    """To the site's owner: somebody could not be told. With the null sender, and None if it was
    the site's owner or there is none, so that it ends here."""
    if same_address(failed.recipient) == same_address(house.owner) or is_nobody(house.owner):
        return None
    subject = take_apart(failed.header).first("subject")
    values: dict[str, Value] = {
        "recipient": failed.recipient,
        "subject": subject.text if subject else "(no subject)",
        "list": of.posting_address if of else "(none)",
        "reply": failed.reply or "(none)",
        "hostname": house.hostname,
    }
    text = house.templates.write("undeliverable", values, of.list_id if of else "")
    return _handed(
        house, of, _Sheet(house.owner, house.owner, "", "generated", now), text, failed.header
    )


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
        sender=_failures_to(facts.get("envsender", site_owner)) if sender else "",
        message_id=message_id(raw),
        recipients=tuple(people),
    )
    listname = facts.get("listname", "")
    return Handed(
        OUT, list_key, order.metadata(listname, len(marked)), Letter(marked, order.sender)
    )


def _failures_to(site_owner: str) -> str:
    """The envelope sender of what goes to owners: the site's owner hears if it cannot."""
    return "" if is_nobody(site_owner) else site_owner


class _Sheet(NamedTuple):
    """The envelope and the address fields of a notice."""

    author: str
    to: str
    sender: str
    automatic: Literal["replied", "generated"]
    now: float
    recipients: tuple[str, ...] = ()  # if others than `to`
    answers: str = ""  # a Message-ID


def _about(of: MailingList, post: Held) -> dict[str, Value]:
    return {
        "list": of.posting_address,
        "owner": owner_address(of.posting_address),
        "id": show(post.id),
        "sender": post.sender or "<>",
        "author": post.author or post.sender or "<>",
        "subject": post.subject or "(no subject)",
        "size": post.size,
        "reason": post.sentence or post.reason,
    }


def _answer(
    house: House, of: MailingList, post: Held, text: Text, header: bytes, now: float
) -> Handed:
    # RFC 3834 4: it goes to the sender of the envelope, whatever the message says.
    owner = owner_address(of.posting_address)
    sheet = _Sheet(owner, post.sender, "", "replied", now, answers=post.message_id)
    return _handed(house, of, sheet, text, header)


def _to_staff(
    house: House, of: MailingList, staff: Sequence[str], text: Text, now: float
) -> Handed:
    owner = owner_address(of.posting_address)
    sender = _failures_to(house.owner)
    sheet = _Sheet(owner, owner, sender, "generated", now, recipients=tuple(staff))
    return _handed(house, of, sheet, text, b"")


def _handed(
    house: House, of: MailingList | None, sheet: _Sheet, text: Text, header: bytes
) -> Handed:
    own_id = f"<{show(house.new_id())}@{house.hostname}>"
    content = _content(text.body, header, own_id)
    fields = [
        field("From", sheet.author, utf8=True),
        field("To", one_line(sheet.to, 1024), utf8=True),
        field("Subject", unstructured(one_line(text.subject, 200))),
        field("Date", format_datetime(datetime.fromtimestamp(sheet.now, UTC))),
        field("Message-ID", own_id),
        field("Auto-Submitted", f"auto-{sheet.automatic}"),
        field("X-Auto-Response-Suppress", "All"),
    ]
    if _MESSAGE_ID.fullmatch(sheet.answers):
        fields += [field(name, sheet.answers) for name in ("In-Reply-To", "References")]
    raw = take_apart(content).on_top(fields).joined()
    order = Order(
        kind="notice",
        sender=sheet.sender,
        message_id=own_id,
        recipients=sheet.recipients or (sheet.to,),
    )
    listname, key = (of.posting_address, of.key) if of else ("", None)
    return Handed(OUT, key, order.metadata(listname, len(raw)), Letter(raw, order.sender))


def _content(body: str, header: bytes, boundary: str) -> bytes:
    """The MIME fields and the text; with `header` that of another message beside it."""
    message = EmailMessage(policy=SMTP)
    message.set_content(body, cte=_encoding(body))
    if header:
        beside = header[: min(header_end(header), HEADER)].decode("utf-8", "replace")
        message.add_attachment(beside, subtype="rfc822-headers", cte=_encoding(beside))
        message.set_boundary(f"=_{boundary.strip('<>').partition('@')[0]}")
    return message.as_bytes()


def _encoding(text: str) -> str:
    lines = text.splitlines()
    plain = text.isascii() and all(
        len(line) <= _LINE and line.expandtabs().isprintable() for line in lines
    )
    return "7bit" if plain else "quoted-printable"


def _beginning(lines: Sequence[str]) -> list[str]:
    shown: list[str] = []
    for line in (one_line(each) for each in lines[:BEGINNING]):
        shown += textwrap.wrap(line, WIDTH - 6)
    return shown[:BEGINNING]


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _hours(hours: float) -> str:
    if not hours:
        return ""
    if hours < 1:
        return f"{round(hours * 60)} minutes"
    return "hour" if hours == 1 else f"{hours:g} hours"
