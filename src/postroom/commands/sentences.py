"""Sentences: what the office says to people.

For: the office. Guarantees: what is said of an address that is not the sender's does not tell
whether it is on the list. Pure.
"""

from typing import Final

from postroom.commands.values import Listing, Result
from postroom.lists.pending import Request
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
    'Nothing is done yet, since it is not clear what you want: answer "confirm" or "cancel".'
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


def not_a_member(listing: Listing, email: str) -> Result:
    """There is nothing to leave or to set."""
    return Result(
        sentence(
            "{email} is no member of {list}. If you read it under another address, name that: "
            "leave address=YOU@EXAMPLE.ORG.",
            **on(listing, email),
        )
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
