"""What a post that was accepted is cooked with, and the last look at what would go out.

For: the incoming runner and `postroom explain`, which so make the same message. Guarantees: DNS
is asked only where the answer matters, within one timeout for all authors; who is exempt is not
asked about; no token of the list's owners and moderators goes out. Never raises.
"""

from collections.abc import Collection, Iterable
from typing import Final

from postroom.lists.settings import ListSettings
from postroom.posting.cook import CookInput
from postroom.posting.decision import Decision, Hit, ListFacts
from postroom.posting.dns import Resolver
from postroom.posting.munge import Policy, authors_of, is_exempt
from postroom.posting.visible import shows
from postroom.reading.post import Post

VISIBLE: Final = Hit(
    "token-visible",
    "hold",
    "The post shows a moderator's token to all who read it, so it does not go out, whoever "
    "accepts it. Send it again without the token, or with it in the field Approved alone.",
)


def policy_for(resolver: Resolver, settings: ListSettings, authors: Iterable[str]) -> Policy | None:
    """The strictest policy of the domains of these addresses, if it matters; None if it cannot
    be found out."""
    dmarc = settings.dmarc
    if dmarc.mitigation == "none" or dmarc.always or settings.headers.anonymous:
        return "none"
    asked = [each for each in authors if not is_exempt(dmarc.exempt, each)]
    return resolver.strictest_policy(sorted({each.rpartition("@")[2] for each in asked}))


def order_for(
    this: ListFacts, post: Post, hostname: str, policy: Policy | None, now: float
) -> CookInput:
    """What a post to this list is cooked with; how it came to the door is not known here."""
    return CookInput(
        list_id=this.list_id,
        posting_address=this.posting_address,
        display_name=this.display_name,
        settings=this.settings,
        hostname=hostname,
        now=now,
        policy=policy,
        authors=authors_of(post.fields),
        approval=post.approval,
    )


def last_look(decision: Decision, raw: bytes, tokens: Collection[str]) -> Decision:
    """What becomes of a post once it is known what would go out. `tokens` are those that nobody
    may read (see `SenderFacts`)."""
    if decision.action != "accept" or not shows(raw, tokens):
        return decision
    return Decision(VISIBLE.action, VISIBLE.rule, VISIBLE.sentence, (*decision.hits, VISIBLE))
