"""VERP: an envelope sender that names the recipient, so that a bounce does.

For: bulk mail; `bounces` reads them. Guarantees: `ants-bounces@example.com` and
`ann@example.org` give `ants-bounces+TAG+ann=example.org@example.com`; TAG shows that we made it
(`lists.keys`). Where a mail server offers XVERP it makes the same of `ants-bounces+TAG@` with
`XVERP`, and TAG is the one that all readers of the list share. Addresses are spelled as they are
in the envelope: with A-labels, or the sender would need SMTPUTF8. Pure.
"""

from typing import Final

from postroom.lists.keys import verp_tag
from postroom.lists.roster import same_address
from postroom.mail.address import ascii_domain
from postroom.spool.orders import Order

XVERP: Final = "XVERP=+="  # parameter of MAIL; postfix.org/VERP_README.html


def verp_sender(sender: str, recipient: str) -> str:
    """The envelope sender for one recipient; the null sender stays what it is."""
    local, at, host = sender.rpartition("@")
    if not at:
        return sender
    user, _, domain = recipient.rpartition("@")
    return f"{local}+{user}={domain}@{host}"


def tagged(sender: str, tag: str) -> str:
    """An envelope sender with a tag; the null sender stays what it is."""
    local, at, host = sender.rpartition("@")
    return f"{local}+{tag}@{host}" if at else sender


def sender_of(order: Order, one: str) -> str:
    """The envelope sender of a transaction for `one` recipient alone, "" for several, of each of
    whom a mail server may make one of their own (XVERP). Where it does not, reports still show the
    tag."""
    sender = ascii_domain(order.sender)
    if not order.verp:
        return sender
    if order.verp_key:
        sender = tagged(sender, verp_tag(order.verp_key, same_address(one)))
    return verp_sender(sender, ascii_domain(one)) if one else sender


def is_chosen(member: int | None, post: int, share: float) -> bool:
    """Whether this member is among the `share` (0 to 1) of a post's recipients who get a
    transaction of their own. From post to post it is others."""
    if member is None or share <= 0:
        return False
    # Multiplicative hashing: members of one post are spread evenly, and posts differ.
    mixed = ((member + (post >> 12) * 0x9E3779B1) * 0x85EBCA6B) & 0xFFFFFFFF
    return mixed < share * 0x1_0000_0000
