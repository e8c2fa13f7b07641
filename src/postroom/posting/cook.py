"""The message that goes out, made from the one that came in.

For: runners (and `explain`, which shows what would be changed). Guarantees: fields of others
are kept, left out or moved, never spelled anew; the body keeps its octets unless a footer, a
wrap or a moderator's token says otherwise; each field of the list stands there exactly once;
no text, however hostile, makes a field of its own. The same input gives the same bytes. Pure,
linear time; any bytes will do, never raises.

What is left out: fields of other lists (see `own.REPLACED`), moderator tokens, what asks every
member's program for a receipt, what names blind recipients, and what a delivering agent wrote
for this one copy. Signatures and Authentication-Results stay. Loop markers of other lists stay,
too: they are what ends a loop through several lists.
"""

import re
from typing import Final, NamedTuple

from postroom.lists.settings import ListSettings
from postroom.mail.fields import Field, Parts, field, take_apart
from postroom.posting import munge, own
from postroom.posting.approval import without_approval
from postroom.posting.footer import spelled, with_footer
from postroom.posting.munge import Policy, Poster
from postroom.posting.subject import prefixed
from postroom.reading.post import Author

_RECEIPTS: Final = (
    "disposition-notification-to",
    "disposition-notification-options",
    "return-receipt-to",
    "x-confirm-reading-to",
    "errors-to",
)
_BLIND: Final = ("bcc", "resent-bcc")
# Delivered-To: a mail server that sees a member's own address there calls it a loop.
_DELIVERY: Final = (
    "return-path",
    "envelope-to",
    "delivery-date",
    "delivered-to",
    "x-original-to",
    "x-envelope-to",
    "x-mailfrom",
)
_REMOVED: Final = (
    (_RECEIPTS, "requests for receipts"),
    (_BLIND, "blind recipients"),
    (_DELIVERY, "traces of the delivery to the list"),
)


class CookInput(NamedTuple):
    """What a post is cooked with. `authors` are those in From (`munge.authors_of`), `policy` the
    strictest DMARC policy of their domains, None if it could not be found out. `approval` is
    what the post offers as moderator token. How it came to the door: `peer`, `lhlo`,
    `received_at` (seconds since the epoch), `entry_id` as people see it."""

    list_id: str
    posting_address: str
    display_name: str
    settings: ListSettings
    hostname: str
    now: float
    policy: Policy | None = "none"
    authors: tuple[Author, ...] = ()
    approval: str = ""
    peer: str = ""
    lhlo: str = ""
    received_at: float = 0.0
    entry_id: str = ""


class Cooked(NamedTuple):
    """The message, and a sentence on each thing that was changed, but for the fields that every
    post gets."""

    raw: bytes
    notes: tuple[str, ...]


def cook(raw: bytes, order: CookInput) -> Cooked:
    """The message that goes out."""
    notes: list[str] = []
    parts = _cleaned(take_apart(raw), order.approval, notes)
    parts = _presented(parts, order, notes)
    parts = _with_subject(parts, order.settings.headers.subject_prefix, notes)
    parts = _with_footer(parts, order, notes)
    parts = _completed(parts, order, notes)
    ours = own.list_fields(order.list_id, order.posting_address, order.display_name, order.settings)
    trace = own.received(
        order.hostname,
        order.received_at or order.now,
        order.entry_id,
        order.lhlo,
        order.peer,
        hide=order.settings.headers.anonymous,
    )
    parts = _without_others(parts, ours[-1], notes)
    return Cooked(parts.with_last(ours).on_top([trace]).joined(), tuple(notes))


def _cleaned(parts: Parts, approval: str, notes: list[str]) -> Parts:
    """What must not go out is left out; lines that are no fields, too: a mail server would take
    one for the end of the header."""
    fields = tuple(_ended(each) for each in parts.fields if each.name)
    if len(fields) < len(parts.fields):
        notes.append("removed from the header: lines that are no fields")
    rest = re.sub(rb"\A\r(?!\n)", b"\r\n", parts.rest)
    clean = without_approval(Parts(fields, rest), approval)
    if approval or len(clean.fields) < len(fields):
        notes.append("removed: the moderator token")
    for names, what in _REMOVED:
        before = len(clean.fields)
        clean = clean.without(names)
        if len(clean.fields) < before:
            notes.append(f"removed: {what}")
    return clean


def _ended(each: Field) -> Field:
    """A field that ends in CR alone would swallow the next one where CR is no line end; the
    blank line is treated alike."""
    return each._replace(raw=each.raw + b"\n") if each.raw.endswith(b"\r") else each


def _presented(parts: Parts, order: CookInput, notes: list[str]) -> Parts:
    """Under whose name it goes out, and where replies go."""
    headers = order.settings.headers
    box = own.endpoint(order.posting_address)
    poster = Poster(order.authors, box, order.display_name or box.local)
    moved = False
    if headers.anonymous:
        parts = munge.anonymised(parts, poster, _message_id(order), order.now)
        notes.append("anonymous: From is the list, and only what does not tell the author is kept")
    else:
        what, why = munge.mitigation(
            order.settings.dmarc, order.policy, order.authors, len(parts.all("from"))
        )
        moved = what != "none"
        if what == "munge":
            parts = munge.munged(parts, poster)
            notes.append(f"From is the list, on behalf of the author: {why}")
        elif what == "wrap":
            parts = munge.wrapped(parts, poster)
            notes.append(f"wrapped in a message from the list: {why}")
        elif why:
            notes.append(why)
    parts, said = munge.with_replies(parts, headers, poster, moved)
    return _noted(parts, said, notes)


def _noted(parts: Parts, said: str, notes: list[str]) -> Parts:
    if said:
        notes.append(said)
    return parts


def _with_subject(parts: Parts, prefix: str, notes: list[str]) -> Parts:
    old = parts.first("subject")
    new = prefixed(old, prefix)
    if new is None:
        return parts
    notes.append(f"subject: {new.text[:200]}")
    if old is None:
        return parts.with_last([new])
    return parts._replace(fields=tuple(new if each is old else each for each in parts.fields))


def _with_footer(parts: Parts, order: CookInput, notes: list[str]) -> Parts:
    values = {
        "list": order.display_name,
        "address": order.posting_address,
        "list_id": order.list_id,
        "unsubscribe": str(own.endpoint(order.posting_address, "leave")),
    }
    text = spelled(order.settings.headers.footer, values)
    if not text.strip():
        return parts
    parts, said = with_footer(parts, text)
    return _noted(parts, said, notes)


def _completed(parts: Parts, order: CookInput, notes: list[str]) -> Parts:
    """With what a message must have (RFC 5322 3.6), and all copies must have alike."""
    box = own.endpoint(order.posting_address)
    lacking = [
        each
        for each in (
            field("From", str(box), utf8=True),
            field("Date", own.date(order.received_at or order.now)),
            field("Message-ID", _message_id(order)),
        )
        if parts.first(each.name) is None
    ]
    if lacking:
        names = ", ".join(each.raw.partition(b":")[0].decode() for each in lacking)
        notes.append(f"added, because there was none: {names}")
    return parts.with_last(lacking)


def _message_id(order: CookInput) -> str:
    """A Message-ID of ours, the same whenever this entry is cooked."""
    return f"<{order.entry_id or 'preview'}@{own.endpoint(order.posting_address).domain}>"


def _without_others(parts: Parts, loop: Field, notes: list[str]) -> Parts:
    """Without what stands where our fields go; of loop markers only that of this list."""
    kept = tuple(
        each
        for each in parts.without(own.REPLACED).fields
        if each.name != loop.name or each.value != loop.value
    )
    if len(kept) < len(parts.fields):
        notes.append("removed: list fields and Sender of others")
    return parts._replace(fields=kept)
