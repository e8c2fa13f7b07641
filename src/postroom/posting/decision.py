"""Decisions: what becomes of a post, what is known to decide it, and why it was decided.

For: the values that the rules take and give. Guarantees: frozen; `reason` is one of `REASONS`,
which programs may rely on; `sentence` is for people, on one line, and says what happened and
what to do. Nothing here can fail.
"""

from typing import Final, Literal, NamedTuple

from postroom.lists.settings import Action, ListSettings
from postroom.mail.address import Mailbox, parse_mailbox

Reason = Literal[
    "loop",
    "banned",
    "approved",
    "emergency",
    "no-sender",
    "automatic",
    "suspicious",
    "too-big",
    "too-many-recipients",
    "not-named",
    "administrivia",
    "announce-only",
    "member-moderated",
    "nonmember",
    "token-visible",
    "accepted",
]

# From the mildest to the strictest: of several, the strictest is what happens.
SEVERITY: Final[tuple[Action, ...]] = ("accept", "hold", "reject", "discard")


class ListFacts(NamedTuple):
    """A list as the rules see it. `aliases` are other addresses that post to it (those at
    domains that are aliases of its own), folded like `posting_address`."""

    posting_address: str
    list_id: str
    display_name: str
    settings: ListSettings
    aliases: tuple[str, ...] = ()

    def endpoint(self, suffix: str) -> str:
        """The address of one of the list's endpoints: "owner", "bounces"..."""
        box, _ = parse_mailbox(self.posting_address)
        return str(Mailbox(f"{box.local}-{suffix}", box.domain))


class Membership(NamedTuple):
    """What one of a post's senders is on the list: member, owner, moderator or nonmember.
    `moderation` is their own action; None: as the list says. With `ack` they are told when it
    goes out."""

    email: str
    role: str
    moderation: Action | None = None
    ack: bool = False


class SenderFacts(NamedTuple):
    """What is known of a post's senders: their rows on the list, whether the post carries the
    right moderator token, and whether a moderator has accepted it by a command. `tokens` are
    those of the list's owners and moderators, which must not go out (`lists.keys`)."""

    memberships: tuple[Membership, ...] = ()
    approved: bool = False
    accepted: bool = False
    tokens: frozenset[str] = frozenset()


class Hit(NamedTuple):
    """A rule that has something to say of a post: what it wants done, and why."""

    rule: Reason
    action: Action
    sentence: str


class Decision(NamedTuple):
    """What happens to a post. `hits` are all rules that had something to say, in the order of
    the chain; `reason` and `sentence` are those of the one that decided. A post that is
    rejected can be answered: one that must not be is discarded instead."""

    action: Action
    reason: Reason
    sentence: str
    hits: tuple[Hit, ...] = ()
