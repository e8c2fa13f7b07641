"""The fields that a list puts on its posts, and how its addresses are spelled in them.

For: cooking. Guarantees: each field is one field, whatever the values hold; URIs and list-ids
are ASCII (a domain in Unicode is written in A-labels, RFC 5890); an address has octets beyond
ASCII only where its local part has (RFC 6532). Pure, never raises for an address that a list
can have.
"""

from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import quote

from postroom.lists.settings import ListSettings
from postroom.mail.address import Mailbox, ascii_name, parse_mailbox
from postroom.mail.fields import Field, field, phrase
from postroom.mail.loops import LOOP

UNSUBSCRIBE: Final = "List-Unsubscribe"
# What is there of these when a post comes in is another list's. One that knows nothing of the
# lists it is nested in does not pass their fields through (RFC 2919 7, RFC 2369 4).
REPLACED: Final = (
    "list-id",
    "list-post",
    "list-help",
    "list-subscribe",
    "list-unsubscribe",
    "list-unsubscribe-post",
    "list-owner",
    "list-archive",
    "precedence",
    "sender",
)
_FIRST, _LAST = 0.0, 253_402_300_799.0  # the years 1970 and 9999


def endpoint(posting_address: str, suffix: str = "") -> Mailbox:
    """The list's address, or with a suffix one of its sub-addresses."""
    box, _ = parse_mailbox(posting_address)
    local = f"{box.local}-{suffix}" if suffix else box.local
    return Mailbox(local, ascii_name(box.domain))


def mailto(box: Mailbox, query: str = "") -> str:
    """A mailto URI (RFC 6068)."""
    return f"mailto:{quote(box.local, safe='+~!$*=')}@{quote(box.domain, safe='[]:')}{query}"


def list_fields(
    list_id: str, posting_address: str, display_name: str, settings: ListSettings
) -> list[Field]:
    """RFC 2919, RFC 2369, and what else says that this is a list's. List-Archive stands there
    only where there is an archive."""

    def uri(suffix: str, query: str = "") -> str:
        return f"<{mailto(endpoint(posting_address, suffix), query)}>"

    name, ours = phrase(display_name), ascii_name(list_id)
    post = "NO" if settings.posting.announce_only else uri("")
    fields = [
        field("List-Id", f"{name} <{ours}>"),
        field("List-Post", post),
        field("List-Help", uri("request", "?subject=help")),
        field("List-Subscribe", uri("join")),
        field(UNSUBSCRIBE, uri("leave")),
        field("List-Owner", uri("owner")),
    ]
    if archive := settings.headers.archive_url.strip():
        fields.append(field("List-Archive", f"<{quote(archive, safe=_IN_URI)}>"))
    return [
        *fields,
        field("Precedence", "list"),
        field("Sender", str(endpoint(posting_address, "bounces")), utf8=True),
        field(LOOP, ours),
    ]


_IN_URI: Final = "%:/?#[]@!$&'()*+,;=~"


def received(
    hostname: str, at: float, entry_id: str, lhlo: str = "", peer: str = "", hide: bool = False
) -> Field:
    """The trace of the door (RFC 5321 4.4); with `hide` it does not say from where."""
    who = "" if hide else f"from {_word(lhlo) or 'unknown'} ({_word(peer) or 'unknown'}) "
    number = f" id {_word(entry_id)}" if entry_id else ""
    return field("Received", f"{who}by {_word(hostname)} with LMTP{number}; {date(at)}")


def date(at: float) -> str:
    """A time as RFC 5322 3.3 has it."""
    return format_datetime(datetime.fromtimestamp(min(max(at, _FIRST), _LAST), UTC))


def _word(text: str) -> str:
    """As much of a foreign text as may stand in a trace field."""
    kept = "".join(each if each.isascii() and each.isalnum() else _mark(each) for each in text)
    return kept[:255]


def _mark(each: str) -> str:
    return each if each in "-._:[]/+@" else "?"
