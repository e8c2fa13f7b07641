"""The outcome of a request to which all have agreed: joined, left, changed.

For: the office. Guarantees: what was asked for is done once, is in the audit log, and is told to
whom the list's settings say. Fails with `ListError`.
"""

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from postroom.commands import sentences
from postroom.commands.desk import Desk
from postroom.commands.sentences import on
from postroom.commands.values import Refused, Result
from postroom.lists.pending import Request
from postroom.lists.registry import ListError
from postroom.lists.roster import Changes, add_members, change_member, remove_members
from postroom.notices import requests
from postroom.notices.language import sentence
from postroom.notices.telling import tell_change

_FLAGS: Final = {"yes": True, "no": False}
_ANY: Final = tuple(_FLAGS)
# What can be set by mail, and to what.
SETTABLE: Final[Mapping[str, tuple[str, ...]]] = {
    "delivery": ("on", "user"),
    "mode": ("regular", "digest"),
    "own_posts": _ANY,
    "duplicates": _ANY,
    "ack": _ANY,
}


class Agreed(NamedTuple):
    """A request to which all have agreed, and who was the last; `facts` are for the audit log."""

    request: Request
    by: str
    facts: Mapping[str, str]


def carry_out(desk: Desk, agreed: Agreed) -> Result:
    """Do what was asked for."""
    action = agreed.request.action
    if action in ("change", "resume"):
        return _change(desk, agreed)
    return _join(desk, agreed) if action == "join" else _leave(desk, agreed)


def _join(desk: Desk, agreed: Agreed) -> Result:
    request, of, ours = agreed.request, desk.listing.of, desk.listing.settings.subscriptions
    email, about = request.email, on(desk.listing, request.email)
    added, _ = add_members(desk.connection, desk.key, [(email, request.name)], "member")
    if not added:
        if desk.member(email) is None:
            raise ListError(f"{email} could not be added: write to the owners")
        return Result(sentence("{email} is a member of {list} already.", **about))
    if request.changes:
        change_member(desk.connection, desk.key, email, **_changes(request.changes))
    desk.note("joined", email, agreed.by, agreed.facts)
    said = sentence("{email} is a member of {list} now.", **about)
    handed = tell_change(
        desk.connection, desk.house, of, desk.listing.settings.notices, email, "joined", desk.now
    )
    if ours.welcome:
        name, text = request.name, ours.welcome_text
        letter = requests.welcome(desk.house, of, email, name, text, desk.language, desk.now)
        handed = [letter, *handed]
    return Result(said, handed=tuple(handed), told=ours.welcome)


def _leave(desk: Desk, agreed: Agreed) -> Result:
    email, of = agreed.request.email, desk.listing.of
    removed, _ = remove_members(desk.connection, desk.key, [email], "member")
    if not removed:
        return sentences.not_a_member(desk.listing, email, desk.roles(email))
    desk.note("left", email, agreed.by, agreed.facts)
    said = sentence("{email} is no member of {list} any more.", **on(desk.listing, email))
    handed = tell_change(
        desk.connection, desk.house, of, desk.listing.settings.notices, email, "left", desk.now
    )
    goodbye = desk.listing.settings.subscriptions.goodbye
    if goodbye:
        handed = [requests.goodbye(desk.house, of, email, desk.language, desk.now), *handed]
    return Result(said, handed=tuple(handed), told=goodbye)


def _change(desk: Desk, agreed: Agreed) -> Result:
    email, changes = agreed.request.email, dict(agreed.request.changes)
    member = desk.member(email)
    if member is None:
        return sentences.not_a_member(desk.listing, email, desk.roles(email))
    refuse_delivery(desk, member.delivery, changes, email)
    change_member(desk.connection, desk.key, email, **_changes(changes))
    desk.note("changed", email, agreed.by, {**agreed.facts, **changes})
    said = sentence("For {email} on {list} is set now:", **on(desk.listing, email))
    return Result(said, lines=tuple(requests.in_words(changes, desk.language)))


def refuse_delivery(desk: Desk, delivery: str, changes: Mapping[str, str], email: str) -> None:
    """What the owners turned off they turn on again, nobody else. Raises `Refused`."""
    if delivery == "admin" and "delivery" in changes:
        raise Refused(sentences.turned_off(desk.listing, email))


def _changes(changes: Mapping[str, str]) -> Changes:
    """What a request sets, as the roster takes it. Raises `ListError` on what cannot be set."""
    found: dict[str, Any] = {}
    for name, value in changes.items():
        if value not in SETTABLE.get(name, ()):
            raise ListError("this request cannot be read: ask again")
        found[name] = _FLAGS.get(value, value)
    return cast(Changes, found)
