"""What a list may decide for itself, with defaults that work.

For: the one typed value that rules, headers and delivery read, and the one place where each
setting is explained: its description is what commands and documentation show. Guarantees:
grouped and frozen; an unknown name, a wrong type or a number out of bounds is refused when it
is read. What is stored is only what differs from the defaults. What types cannot say is checked
by `lists.preferences`, which also reads and writes it.
"""

from typing import Annotated, Literal

from msgspec import Meta, Struct

Action = Literal["accept", "hold", "reject", "discard"]
Count = Annotated[int, Meta(ge=0, le=2**53)]


class Posting(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who may post, and what."""

    members: Annotated[
        Action, Meta(description="Posts of members who have no action of their own.")
    ] = "accept"
    nonmembers: Annotated[
        Action, Meta(description="Posts of others who have no action of their own.")
    ] = "hold"
    announce_only: Annotated[
        bool,
        Meta(
            description="Only owners and moderators may post, and members whose own action is "
            "accept."
        ),
    ] = False
    emergency: Annotated[bool, Meta(description="Hold every post.")] = False
    banned: Annotated[
        tuple[str, ...],
        Meta(
            description='Who may neither post nor join: addresses, "@example.org" (a domain and '
            'all below it), or "^PATTERN" (a regular expression).'
        ),
    ] = ()
    max_size: Annotated[Count, Meta(description="The largest post, in octets; 0 is no limit.")] = (
        2_097_152
    )
    max_recipients: Annotated[
        Count, Meta(description="The most addresses in To and Cc together; 0 is no limit.")
    ] = 20
    require_named: Annotated[
        bool, Meta(description="Hold posts that do not name the list in To or Cc.")
    ] = True
    also_known_as: Annotated[
        tuple[str, ...],
        Meta(description='What else may stand in To or Cc for the list: addresses, or "^PATTERN".'),
    ] = ()
    administrivia: Annotated[
        bool, Meta(description="Hold commands that were sent to the list by mistake.")
    ] = True
    suspicious: Annotated[
        tuple[str, ...],
        Meta(
            description='Lines "ACTION Field: PATTERN" on the header fields of a post; the first '
            "that matches decides."
        ),
    ] = ()


class Headers(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a post looks like."""

    subject_prefix: Annotated[
        str, Meta(description='Put before the subject, once; for example "[ants] ".')
    ] = ""
    reply_to: Annotated[
        Literal["author", "list", "both", "address"],
        Meta(
            description="Where replies go: author leaves the field alone, address means "
            "headers.reply_to_address."
        ),
    ] = "author"
    reply_to_address: Annotated[
        str, Meta(description="Where replies go if headers.reply_to is address.")
    ] = ""
    anonymous: Annotated[bool, Meta(description="Hide who wrote a post.")] = False
    archive_url: Annotated[
        str, Meta(description="Where the archive is, for the field List-Archive.")
    ] = ""
    footer: Annotated[
        str,
        Meta(
            description="Added to the text; it may use $list, $address, $list_id and $unsubscribe."
        ),
    ] = ""


class Dmarc(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is done where a list breaks the author's DMARC (RFC 7489)."""

    mitigation: Annotated[
        Literal["munge", "wrap", "none"],
        Meta(
            description="For authors whose domain publishes quarantine or reject: munge puts the "
            "list into From, wrap puts the post into a message from the list."
        ),
    ] = "munge"
    always: Annotated[bool, Meta(description="Do so whatever the author's domain publishes.")] = (
        False
    )
    exempt: Annotated[
        tuple[str, ...],
        Meta(description='Authors for whom nothing is done: addresses, or "@example.org".'),
    ] = ()


class Sending(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How posts go out."""

    personal: Annotated[
        bool,
        Meta(
            description="Give each member a transaction and an unsubscribe link (RFC 8058) of "
            "their own; it costs speed."
        ),
    ] = False
    verp: Annotated[bool, Meta(description="Have bounces name the member who bounced.")] = True


class Subscriptions(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who comes, who goes, and who may ask what."""

    join: Annotated[
        Literal["open", "confirm", "moderate", "confirm-then-moderate", "invite-only", "closed"],
        Meta(
            description="Who has to agree before somebody joins by mail: nobody, the address, the "
            "owners, or first the one and then the others; invite-only lets in who was invited."
        ),
    ] = "confirm"
    leave: Annotated[
        Literal["open", "confirm", "moderate", "confirm-then-moderate", "closed"],
        Meta(description="The same for those who leave."),
    ] = "confirm"
    changes: Annotated[
        Literal["open", "confirm"],
        Meta(
            description="Whether an address has to confirm what is set for it by mail: whether "
            "posts go to it, and in which form."
        ),
    ] = "confirm"
    expire_after: Annotated[
        float,
        Meta(gt=0, le=365, description="Days that a request waits for those who have to agree."),
    ] = 7.0
    welcome: Annotated[bool, Meta(description="Welcome those who joined.")] = True
    goodbye: Annotated[bool, Meta(description="Tell those who left that they did.")] = True
    welcome_text: Annotated[
        str, Meta(description="What the list has to say to those who joined.")
    ] = ""
    who: Annotated[
        Literal["nobody", "owners", "members"],
        Meta(description="Who gets the list of members by the command who; moderators are owners."),
    ] = "owners"


class Bounces(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What becomes of members whose mail comes back."""

    count: Annotated[bool, Meta(description="Count what comes back, and act on it.")] = True
    threshold: Annotated[
        float,
        Meta(ge=1, le=1000, description="The score at which a member is sent a probe."),
    ] = 5.0
    temporary: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="What a bounce counts that may pass (a full mailbox, a delay), or that "
            "nobody understands; one that is final counts 1.",
        ),
    ] = 0.5
    unsigned: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="By how much less a bounce counts that does not show our signature: "
            "anybody may have made it up. 1 is as much, 0 not at all.",
        ),
    ] = 0.5
    forget_after: Annotated[
        float,
        Meta(gt=0, le=365, description="Days without a bounce after which the score is forgotten."),
    ] = 7.0
    probe_days: Annotated[
        float,
        Meta(
            gt=0,
            le=30,
            description="Days after which a probe that did not come back has reached its reader.",
        ),
    ] = 6.0
    warnings: Annotated[
        int,
        Meta(
            ge=0,
            le=100,
            description="How often somebody is told that they get no posts any more.",
        ),
    ] = 3
    warn_every: Annotated[float, Meta(gt=0, le=365, description="Days between two of these.")] = 7.0
    remove: Annotated[
        bool, Meta(description="Take off the list who did not answer the last one.")
    ] = False
    complaints: Annotated[
        Literal["leave", "stop", "ignore"],
        Meta(
            description="What becomes of a member who told their provider that a post is spam: "
            "leave takes them off the list, stop turns their posts off."
        ),
    ] = "leave"
    owners: Annotated[
        bool,
        Meta(description="Tell the owners once a day who gets no posts any more, and why."),
    ] = True


class Notices(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Who is told of what."""

    owners: Annotated[
        bool, Meta(description="Tell owners and moderators of posts that wait for them.")
    ] = True
    owners_every: Annotated[
        float,
        Meta(
            ge=0,
            le=168,
            description="Hours between two such notices; what comes meanwhile is summed up.",
        ),
    ] = 4.0
    authors: Annotated[bool, Meta(description="Tell the authors of posts that wait.")] = True
    changes: Annotated[
        bool, Meta(description="Tell the owners who joined and who left, each time.")
    ] = False
    language: Annotated[
        Literal["en", "de"], Meta(description="The language in which the server writes.")
    ] = "en"


class ListSettings(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """All settings of a list."""

    posting: Posting = Posting()
    headers: Headers = Headers()
    dmarc: Dmarc = Dmarc()
    sending: Sending = Sending()
    subscriptions: Subscriptions = Subscriptions()
    bounces: Bounces = Bounces()
    notices: Notices = Notices()
