"""Letters about mail that came back: to members whose address may not work, and to owners.

For: whoever counts bounces, and upkeep. Pure. Guarantees: a probe tells by its envelope sender
whose it is, so that nobody else can say that it came back; whoever gets no posts any more gets
them again by an answer. What goes to members is marked as automatic (RFC 3834 5). Whatever mail
servers said, a letter stays small.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from postroom.lists.pending import Request
from postroom.lists.registry import MailingList
from postroom.notices.render import one_line
from postroom.notices.sheet import (
    LISTED,
    House,
    Sheet,
    addresses,
    answer_to,
    handed,
    in_utc,
    owner_address,
    sub_address,
    to_staff,
)
from postroom.spool.handing import Handed

# Characters of what a mail server said. Whoever sends us a bounce has written them, so they are
# as few as tell what is wrong.
SAID: Final = 200


class Outcome(NamedTuple):
    """What became of a member, and when: "stopped", "removed" or "complained"; `reason` is in the
    words of whoever refused, "" if none were."""

    at: float
    email: str
    what: str
    reason: str


def probe(
    house: House,
    of: MailingList,
    email: str,
    token: str,
    status_words: str,
    reason: str,
    language: str,
    now: float,
) -> Handed:
    """To a member whose mail came back: if this does, too, the address does not work. `reason` is
    in the words of whoever refused, "" if these are not to be shown."""
    values = addresses(of) | {
        "email": email,
        "words": status_words,
        "reason": one_line(reason, SAID),
    }
    text = house.templates.write("probe", values, of.list_id, language)
    # Of a list whose name has more than 29 octets this is longer than a local part should be (RFC
    # 5321 4.5.3.1.1: 64). It comes back to our own mail server and door, which take it.
    sender = sub_address(of.posting_address, f"bounces+{token}")
    owner = owner_address(of.posting_address)
    return handed(house, of, Sheet(owner, email, sender, "generated", now, kind="probe"), text)


def turned_off(
    house: House,
    of: MailingList,
    request: Request,
    words: str,
    reason: str,
    warnings_left: int,
    removes: bool,
    language: str,
    now: float,
    since: float | None = None,
) -> Handed:
    """To a member who gets no posts any more, `since` then (seconds since the epoch; without it
    since the request was made): an answer says yes to the request, which turns them on again.
    After this letter come `warnings_left` more, and then they are taken off the list, if it
    `removes` them."""
    answer = answer_to(of.posting_address, request.token)
    values = addresses(of) | {
        "email": request.email,
        "since": in_utc(request.created_at if since is None else since),
        "words": words,
        "reason": one_line(reason, SAID),
        "warnings_left": warnings_left,
        "removes": removes,
        "token": request.token,
        "token_in_address": answer.knows,
        "expires": in_utc(request.expires_at),
    }
    text = house.templates.write("turned_off", values, of.list_id, language)
    return handed(house, of, Sheet(answer.address, request.email, "", "generated", now), text)


def bounce_summary(
    house: House,
    of: MailingList,
    rows: Sequence[Outcome],
    more: int,
    staff: Sequence[str],
    language: str,
    now: float,
) -> Handed:
    """To owners and moderators: what became of these members, and of `more`."""
    shown: list[dict[str, str | int]] = [
        {
            "at": in_utc(each.at),
            "email": each.email,
            "what": each.what,
            "reason": one_line(each.reason, SAID),
        }
        for each in rows[:LISTED]
    ]
    values = addresses(of) | {"number": len(rows) + more, "members": shown}
    values |= {"more": len(rows) + more - len(shown)}
    text = house.templates.write("bounce_summary", values, of.list_id, language)
    return to_staff(house, of, staff, text, now)


def mass(
    house: House,
    of: MailingList,
    number: int,
    share: int,
    people: Sequence[str],
    language: str,
    now: float,
) -> Handed:
    """To owners and the site's owner: within a day mail to more than `number` members came back,
    more than `share` in a hundred. So it is not about them, and nobody is counted."""
    values = addresses(of) | {"number": number, "share": share}
    text = house.templates.write("mass_bounce", values, of.list_id, language)
    return to_staff(house, of, people, text, now)
