"""VERP: an envelope sender that names the recipient, so that a bounce does.

For: bulk mail, and later for reading bounces. Guarantees: `ants-bounces@example.com` and
`ann@example.org` give `ants-bounces+ann=example.org@example.com`, which is also what a mail
server makes of the plain sender where it offers XVERP with `XVERP`. Addresses are spelled as
they are in the envelope: with A-labels, or the sender would need SMTPUTF8. Pure.
"""

from typing import Final

XVERP: Final = "XVERP=+="  # parameter of MAIL; postfix.org/VERP_README.html


def verp_sender(sender: str, recipient: str) -> str:
    """The envelope sender for one recipient; the null sender stays what it is."""
    local, at, host = sender.rpartition("@")
    if not at:
        return sender
    user, _, domain = recipient.rpartition("@")
    return f"{local}+{user}={domain}@{host}"


def is_chosen(member: int | None, post: int, share: float) -> bool:
    """Whether this member is among the `share` (0 to 1) of a post's recipients who get a
    transaction of their own. From post to post it is others."""
    if member is None or share <= 0:
        return False
    # Multiplicative hashing: members of one post are spread evenly, and posts differ.
    mixed = ((member + (post >> 12) * 0x9E3779B1) * 0x85EBCA6B) & 0xFFFFFFFF
    return mixed < share * 0x1_0000_0000
