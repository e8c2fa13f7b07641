"""Sentences: what the office says to people.

For: the office. Guarantees: what is said of an address that is not the sender's does not tell
whether it is on the list. Pure.
"""

from collections.abc import Collection
from typing import Final

from postroom.commands.values import Listing, Result
from postroom.lists.pending import Request
from postroom.lists.roster import Member
from postroom.lists.subscription import Action, Policy, State
from postroom.notices.language import Sentence, sentence
from postroom.notices.sheet import owner_address

NOT_VALID: Final = sentence(
    "This token is not valid: it was used already, it has expired, or it is of another list. "
    "Ask again, and you get another one."
)
UNDECIDED: Final = sentence(
    'Nothing is decided yet: begin your answer with "accept", "reject" (and a reason, if you like) '
    'or "discard".'
)
UNCLEAR: Final = sentence(
    'Nothing is done yet, since it is not clear what you want. Answer with one word, "yes" or "no".'
)
TOO_MUCH: Final = sentence("Too much was asked for lately: try again tomorrow.")


def on(listing: Listing, email: str) -> dict[str, str | int]:
    """What most sentences are about."""
    return {"email": email, "list": listing.of.posting_address}


def neutral(listing: Listing, email: str) -> Result:
    """What is said of an address that is not the sender's: nothing about it."""
    return Result(
        sentence(
            "If this can be done, {email} gets a mail; once it is answered, it is done.",
            **on(listing, email),
        )
    )


def asked_before(listing: Listing, email: str) -> Result:
    """A mail that waits for an answer has been sent already."""
    return Result(
        sentence("{email} has got a mail already: answer that one.", **on(listing, email)),
        told=True,
    )


def awaits_owners(listing: Listing, request: Request) -> Result:
    """The owners have to agree."""
    return Result(
        sentence(
            "The owners of {list} have been asked: as soon as they agree, it is done for {email}.",
            **on(listing, request.email),
        )
    )


def not_a_member(listing: Listing, email: str, roles: Collection[Member]) -> Result:
    """There is nothing to leave or to set; `roles` are what the address is on the list."""
    about = on(listing, email)
    if any(each.role in ("owner", "moderator") for each in roles):
        said = sentence(
            "{email} runs {list}, and is no member: this cannot be ended by mail.", **about
        )
        return Result(said)
    return Result(
        sentence(
            "{email} is no member of {list}. If you read it under another address, name that: "
            "leave address=YOU@EXAMPLE.ORG.",
            **about,
        )
    )


def no_reader(email: str) -> Sentence:
    """The address is a program's, or our own."""
    return sentence("{email} is an address of this server or of a program.", email=email)


def banned(listing: Listing, email: str) -> Sentence:
    """The owners do not want this address."""
    owner = owner_address(listing.of.posting_address)
    return sentence(
        "{email} may not join {list}. The owners are at {owner}.", owner=owner, **on(listing, email)
    )


def turned_off(listing: Listing, email: str) -> Sentence:
    """The owners do not want posts to go to this address."""
    owner = owner_address(listing.of.posting_address)
    return sentence(
        "The owners of {list} have turned delivery to {email} off. Write to {owner}.",
        owner=owner,
        **on(listing, email),
    )


def closed(listing: Listing, action: Action) -> Sentence:
    """The list's policy lets nobody ask for this."""
    address = listing.of.posting_address
    values = {"list": address, "owner": owner_address(address)}
    if action == "leave":
        return sentence("Nobody leaves {list} by mail. Its owners are at {owner}.", **values)
    if listing.policies["join"] is Policy.INVITE_ONLY:
        return sentence(
            "Only those who were invited join {list}. Its owners are at {owner}.", **values
        )
    return sentence("{list} takes no new members. Its owners are at {owner}.", **values)


def no_move(listing: Listing, request: Request) -> Sentence:
    """Why an owner cannot decide on a request now."""
    if request.state is State.MODERATE:
        return sentence("This cannot be done with the request of {email}.", email=request.email)
    return sentence(
        "{email} has to confirm first. To do without that: postroom member add {list} {email}",
        **on(listing, request.email),
    )
