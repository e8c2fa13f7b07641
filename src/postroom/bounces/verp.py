"""VERP, read: which member a bounce address names, and whether we made it.

For: mail to `ants-bounces+DETAIL@example.com`, where DETAIL is `TAG+ann=example.org`, `TAG` alone,
or `ann=example.org` as it was before there were tags (`delivery.verp` makes them). Guarantees: only
a tag that was made with the list's key proves anything, and it is compared in constant time;
what has none is an address at most. Pure, never raises; any text will do.
"""

import hmac
from typing import Final

from postroom.bounces.values import Proof
from postroom.lists.keys import verp_tag
from postroom.lists.roster import same_address
from postroom.mail.address import MAX_PATH, Mailbox, fold

TAG: Final = 8  # characters


def read_detail(detail: str, key: str) -> tuple[str, Proof]:
    """The address (folded) that a detail names, "" if it names none, and how that is proved; `key`
    is the list's VERP key. A "+" or "=" may also stand in the user part."""
    if len(detail) > MAX_PATH:
        return "", "none"
    tag, _, named = detail.partition("+")
    if len(tag) == TAG and key:
        tag, email = fold(tag), _address(named)
        if email and _same(tag, verp_tag(key, email)):
            return email, "own"
        if _same(tag, verp_tag(key)):
            return email, "shared"
    return _address(detail), "none"


def _address(named: str) -> str:
    """`ann=example.org` as an address, folded; "" if it is none."""
    user, equals, domain = named.rpartition("=")
    if not (equals and user and domain):
        return ""
    # What would need quotes may have lost them on its way.
    return same_address(f"{user}@{domain}") or same_address(str(Mailbox(user, domain)))


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "surrogatepass"), wanted.encode())
