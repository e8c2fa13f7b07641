"""What a list may decide for itself, with defaults that work.

For: the one typed value that rules, headers and delivery read. Guarantees: grouped, frozen,
and checked when it is set; an unknown name, a wrong type or an impossible value is refused and
changes nothing. What is stored is only what differs from the defaults. Fails with
`ListError`, one sentence that names the setting and what is allowed.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Action = Literal["accept", "hold", "reject", "discard"]
Count = Annotated[int, Meta(ge=0)]


class Posting(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who may post, and what. `members` and `nonmembers` is what happens to posts of those who
    have no action of their own. With `announce_only` only owners and moderators may post, and
    members whose own action is accept. `emergency` holds everything. `banned` holds addresses,
    "@example.org" (a domain) or "^PATTERN" (a regular expression). `max_size` is in octets,
    `max_recipients` counts To and Cc; 0 is no limit. With `require_named` a post must name the
    list, or one of `also_known_as` (addresses, or "^PATTERN"), in To or Cc. `administrivia`
    holds commands that were sent to the list by mistake. `suspicious` holds lines "ACTION
    Field: PATTERN", the first that matches decides."""

    members: Action = "accept"
    nonmembers: Action = "hold"
    announce_only: bool = False
    emergency: bool = False
    banned: tuple[str, ...] = ()
    max_size: Count = 2_097_152
    max_recipients: Count = 20
    require_named: bool = True
    also_known_as: tuple[str, ...] = ()
    administrivia: bool = True
    suspicious: tuple[str, ...] = ()


class Headers(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a post looks like. `subject_prefix` is put before the subject, once. `reply_to` is
    where replies go: to the author ("author": the field is left alone), to the list, to both,
    or to `reply_to_address`. `anonymous` hides the author. `archive_url` stands in
    List-Archive. `footer` is added to the text; it may use $list, $address, $list_id, and
    $unsubscribe."""

    subject_prefix: str = ""
    reply_to: Literal["author", "list", "both", "address"] = "author"
    reply_to_address: str = ""
    anonymous: bool = False
    archive_url: str = ""
    footer: str = ""


class Dmarc(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done where a list breaks the author's DMARC (RFC 7489): "munge" puts the list
    into From, "wrap" puts the whole post into a message from the list. It is done when the
    author's domain publishes quarantine or reject, or with `always`. `exempt` holds addresses
    or "@example.org"."""

    mitigation: Literal["munge", "wrap", "none"] = "munge"
    always: bool = False
    exempt: tuple[str, ...] = ()


class Sending(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How posts go out. With `personal` each member gets a transaction and an unsubscribe link
    (RFC 8058) of their own; it costs speed. `verp` has bounces name their member."""

    personal: bool = False
    verp: bool = True


class Notices(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who is told. `owners` of posts that wait for them, at once and then in summaries no more
    often than every `owners_every` hours; `authors` of posts that wait."""

    owners: bool = True
    owners_every: Annotated[float, Meta(ge=0, le=168)] = 4.0
    authors: bool = True


class ListSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All settings of a list."""

    posting: Posting = Posting()
    headers: Headers = Headers()
    dmarc: Dmarc = Dmarc()
    sending: Sending = Sending()
    notices: Notices = Notices()
