"""Sheets: what a notice is written on, and the order for `out` that it becomes.

For: the letters. Pure. Guarantees: a notice is marked as automatic (RFC 3834 5), holds no header
field but ours, and stays small; so does what of another message is put beside it. Addresses of a
list are spelled here, so that those which hold a token are never too long to be delivered.
"""

import re
import textwrap
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from typing import Final, Literal, NamedTuple

from postroom.base.settings import DEFAULT_OWNER
from postroom.lists.endpoint import MAX_NAME
from postroom.lists.registry import MailingList
from postroom.lists.roster import same_address
from postroom.mail.fields import field, take_apart, unstructured
from postroom.mail.message import header_end
from postroom.notices.language import say, sentence
from postroom.notices.render import Templates, Text, Value, one_line
from postroom.spool.handing import Handed, Letter
from postroom.spool.ids import show
from postroom.spool.orders import OUT, Order

HEADER: Final = 16_384  # octets of a header that are attached
LISTED: Final = 25  # posts, or requests, in a summary
NO_SUBJECT: Final = sentence("(no subject)")
_PLAIN: Final = (
    b'Content-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 7bit\r\n'
    b"MIME-Version: 1.0\r\n\r\n"
)
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,248}>")
_LINE = 900  # octets of a line that needs no encoding (RFC 5322 2.1.1: 998)


class House(NamedTuple):
    """What all notices of a site have in common. `owner` is the site's; `new_id` gives numbers
    that never come again."""

    templates: Templates
    hostname: str
    owner: str
    new_id: Callable[[], int]


class Sheet(NamedTuple):
    """The envelope and the address fields of a notice."""

    author: str
    to: str
    sender: str
    automatic: Literal["replied", "generated"]
    now: float
    recipients: tuple[str, ...] = ()  # if others than `to`
    answers: str = ""  # a Message-ID
    reply_to: str = ""
    kind: Literal["notice", "probe"] = "notice"


class Answer(NamedTuple):
    """Where an answer to a notice goes. `knows`: the address tells what is answered; if not, the
    token has to stand in the text."""

    address: str
    knows: bool


def is_nobody(site_owner: str) -> bool:
    """Whether the site has not said who its owner is."""
    return same_address(site_owner) == DEFAULT_OWNER


def failures_to(site_owner: str) -> str:
    """The envelope sender of what goes to owners: the site's owner hears if it cannot."""
    return "" if is_nobody(site_owner) else site_owner


def owner_address(posting_address: str) -> str:
    """The address of the owners of a list."""
    return sub_address(posting_address, "owner")


def sub_address(posting_address: str, name: str) -> str:
    """One of the addresses of a list beside its own."""
    local, _, domain = posting_address.rpartition("@")
    return f"{local}-{name}@{domain}"


def addresses(of: MailingList) -> dict[str, Value]:
    """Those of a list that most letters name."""
    return {
        "list": of.posting_address,
        "owner": owner_address(of.posting_address),
        "request": sub_address(of.posting_address, "request"),
        "leave": sub_address(of.posting_address, "leave"),
    }


def answer_to(posting_address: str, token: str) -> Answer:
    """The address that an answer to a question with this token goes to: one of its own, or where
    that would be too long (RFC 5321 4.5.3.1.1) the one for all commands."""
    local, _, domain = posting_address.rpartition("@")
    own = f"{local}-confirm+{token}"
    if len(own.encode()) <= MAX_NAME:
        return Answer(f"{own}@{domain}", True)
    return Answer(sub_address(posting_address, "request"), False)


def to_staff(
    house: House, of: MailingList, staff: Sequence[str], text: Text, now: float, reply_to: str = ""
) -> Handed:
    """A notice to owners and moderators."""
    owner = owner_address(of.posting_address)
    sender = failures_to(house.owner)
    sheet = Sheet(owner, owner, sender, "generated", now, tuple(staff), reply_to=reply_to)
    return handed(house, of, sheet, text)


def handed(
    house: House, of: MailingList | None, sheet: Sheet, text: Text, header: bytes = b""
) -> Handed:
    """A notice as it is handed on; with the header of another message beside the text."""
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
    if sheet.reply_to:
        fields.append(field("Reply-To", sheet.reply_to, utf8=True))
    if _MESSAGE_ID.fullmatch(sheet.answers):
        fields += [field(name, sheet.answers) for name in ("In-Reply-To", "References")]
    raw = take_apart(content).on_top(fields).joined()
    order = Order(
        kind=sheet.kind,
        sender=sheet.sender,
        message_id=own_id,
        recipients=sheet.recipients or (sheet.to,),
    )
    listname, key = (of.posting_address, of.key) if of else ("", None)
    return Handed(OUT, key, order.metadata(listname, len(raw)), Letter(raw, order.sender))


def broken(lines: Sequence[str], width: int, most: int) -> list[str]:
    """Lines that somebody wrote, harmless and none wider than `width` columns where it has a
    blank; of each `most` characters. What is blank stays a line."""
    shown: list[str] = []
    for line in lines:
        shown += textwrap.wrap(one_line(line, most), width) or [""]
    return shown


def in_utc(seconds: float) -> str:
    """A time for people."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def in_hours(hours: float, language: str) -> str:
    """How long that is, after "within"; "" for no time."""
    if not hours:
        return ""
    if hours < 1:
        return say(sentence("{n} minutes", n=round(hours * 60)), language)
    if hours == 1:
        return say(sentence("one hour"), language)
    return say(sentence("{n} hours", n=f"{hours:g}"), language)


def _content(body: str, header: bytes, boundary: str) -> bytes:
    """The MIME fields and the text; with `header` that of another message beside it."""
    if not header and _encoding(body) == "7bit":  # as below, in a tenth of the time
        return _PLAIN + "\r\n".join(body.splitlines()).encode() + b"\r\n"
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
