"""Answers: help, info, who and status.

For: those who ask by mail. Only reads, in the caller's transaction; a constant number of
statements, however many members there are. Guarantees: who is on a list is told to those alone
whom its settings name.
"""

from collections.abc import Collection
from itertools import islice
from typing import Final

from sqlalchemy import Connection

from postroom.commands.sentences import on
from postroom.commands.values import Listing, Result
from postroom.lists.roster import Member, members
from postroom.lists.subscription import Policy
from postroom.notices.language import Sentence, sentence
from postroom.notices.sheet import owner_address

MOST_MEMBERS: Final = 1000  # that one mail shows
_RUN: Final = ("owner", "moderator")
_JOIN: Final = {
    Policy.OPEN: sentence("Whoever wants to joins."),
    Policy.CONFIRM: sentence("Who joins confirms it from their address."),
    Policy.MODERATE: sentence("The owners decide who joins."),
    Policy.CONFIRM_THEN_MODERATE: sentence(
        "Who joins confirms it from their address, then the owners decide."
    ),
    Policy.INVITE_ONLY: sentence("Only those who were invited join."),
    Policy.CLOSED: sentence("Nobody joins by mail."),
}
_LEAVE: Final = {
    Policy.OPEN: sentence("Whoever wants to leaves."),
    Policy.CONFIRM: sentence("Who leaves confirms it from their address."),
    Policy.MODERATE: sentence("The owners decide who leaves."),
    Policy.CONFIRM_THEN_MODERATE: sentence(
        "Who leaves confirms it from their address, then the owners decide."
    ),
    Policy.CLOSED: sentence("Nobody leaves by mail."),
}
_HELP: Final = (
    sentence("join [digest=yes] [address=ANN@EXAMPLE.ORG] - become a member"),
    sentence("leave [address=ANN@EXAMPLE.ORG] - end that"),
    sentence("confirm TOKEN - agree to what a mail of ours asks; cancel TOKEN - do not"),
    sentence("status - what is known of you here"),
    sentence("set delivery=off - get no posts for a while; set delivery=on - get them again"),
    sentence("set digest=yes or no - get posts put together, or one by one"),
    sentence("set own=yes or no - get your own posts too, or not"),
    sentence("set duplicates=yes or no - get posts that also name you in To or Cc, or not"),
    sentence("set ack=yes or no - be told that your post went out, or not"),
    sentence("info - what this list is; who - who is on it"),
    sentence("accept TOKEN, reject TOKEN REASON, discard TOKEN - for owners and moderators"),
    sentence("end - what follows is not read"),
)


def help_for(listing: Listing) -> Result:
    """The commands there are."""
    said = sentence("These commands are for {request}, one on a line:", **_addresses(listing))
    return Result(said, lines=_HELP)


def info(listing: Listing) -> Result:
    """What a list is, and what it asks of people."""
    lines: tuple[Sentence | str, ...] = (
        sentence("Posts go to {list}.", **_addresses(listing)),
        sentence("Its owners are at {owner}.", **_addresses(listing)),
        sentence("Commands go to {request}.", **_addresses(listing)),
        _JOIN[listing.policies["join"]],
        _LEAVE[listing.policies["leave"]],
    )
    name = listing.of.display_name or listing.of.posting_address
    return Result(sentence("This is the mailing list {name}.", name=name), lines=lines)


def who(connection: Connection, listing: Listing, roles: Collection[Member]) -> Result:
    """The members, for those who may know; `roles` are those of who asks."""
    allowed = listing.settings.subscriptions.who
    runs = any(each.role in _RUN for each in roles)
    reads = any(each.role == "member" for each in roles)
    if allowed == "nobody" or not (runs or (allowed == "members" and reads)):
        return Result(sentence("Who is on {list} is not told to you.", **_addresses(listing)))
    found = list(islice(members(connection, listing.of.key, "member"), MOST_MEMBERS + 1))
    lines: list[Sentence | str] = [
        f"{each.name} <{each.email}>" if each.name else each.email for each in found[:MOST_MEMBERS]
    ]
    if len(found) > MOST_MEMBERS:
        lines.append(sentence("And others: these are the first {number}.", number=MOST_MEMBERS))
    if not lines:
        return Result(sentence("Nobody is on {list}.", **_addresses(listing)))
    return Result(sentence("Members of {list}:", **_addresses(listing)), lines=tuple(lines))


def status(listing: Listing, email: str, roles: Collection[Member]) -> Result:
    """What is known of somebody; `roles` are theirs."""
    about = on(listing, email)
    roles = [each for each in roles if each.role != "nonmember"]
    if not roles:
        return Result(sentence("{email} is not on {list}.", **about))
    lines: list[Sentence | str] = []
    for each in roles:
        if each.role == "owner":
            lines.append(sentence("You are an owner."))
        elif each.role == "moderator":
            lines.append(sentence("You are a moderator."))
        elif each.role == "member":
            lines.append(sentence("You are a member."))
            lines.extend(_options(each))
    return Result(sentence("{email} on {list}:", **about), lines=tuple(lines))


def _options(member: Member) -> list[Sentence]:
    delivery = {
        "on": sentence("delivery=on: posts go to you."),
        "user": sentence("delivery=off: you have turned posts off."),
        "bounces": sentence(
            "delivery=off: posts to you came back. Turn them on again with: set delivery=on"
        ),
        "admin": sentence("delivery=off: the owners have turned posts to you off."),
    }
    return [
        delivery[member.delivery],
        sentence("digest={value}", value=_yes(member.mode == "digest")),
        sentence("own={value}", value=_yes(member.own_posts)),
        sentence("duplicates={value}", value=_yes(member.duplicates)),
        sentence("ack={value}", value=_yes(member.ack)),
    ]


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _addresses(listing: Listing) -> dict[str, str | int]:
    address = listing.of.posting_address
    local, _, domain = address.rpartition("@")
    return {
        "list": address,
        "owner": owner_address(address),
        "request": f"{local}-request@{domain}",
    }
