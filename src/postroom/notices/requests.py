"""Letters about requests: who wants to join, leave or change, and what came of it.

For: the office that handles requests, and whoever answers commands. Pure. Guarantees: nothing
that goes to somebody who may not have asked can be answered by a program (null sender, RFC 3834
3.3), nor shows more of a request than who asked for what; whoever has a letter with a token can
answer by mail, however long the list's name is. Whatever was asked, a letter stays small.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from postroom.lists.pending import Request
from postroom.lists.registry import MailingList
from postroom.lists.subscription import State
from postroom.notices.language import say, sentence
from postroom.notices.render import LONGEST, WIDTH, Value, one_line
from postroom.notices.sheet import (
    LISTED,
    NO_SUBJECT,
    Answer,
    House,
    Sheet,
    addresses,
    answer_to,
    broken,
    handed,
    in_hours,
    in_utc,
    owner_address,
    sub_address,
    to_staff,
)
from postroom.spool.handing import Handed
from postroom.spool.ids import show

SHOWN: Final = 40  # lines of a mail that a reply to it shows
SHOWN_WIDTH: Final = 400  # characters of each
SAID: Final = 40_000  # characters of what a reply says in all; a template makes 65,536
WELCOME: Final = 20_000  # characters of a list's own text

_RE = re.compile(r"\s*(?:(?:re|aw|antw)\s*:\s*)+", re.IGNORECASE)
# What is set, in words. Who is asked to confirm need not know what settings are called.
_WORDS: Final = {
    ("delivery", "on"): sentence("Posts are sent to this address."),
    ("delivery", "user"): sentence("No posts are sent to this address."),
    ("mode", "regular"): sentence("Each post comes by itself."),
    ("mode", "digest"): sentence("Posts come several at a time, as a digest."),
    ("own_posts", "yes"): sentence("You get your own posts, too."),
    ("own_posts", "no"): sentence("You do not get your own posts."),
    ("duplicates", "yes"): sentence("You also get posts that were sent to you directly."),
    ("duplicates", "no"): sentence("You do not get posts that were sent to you directly."),
    ("ack", "yes"): sentence("You are told when a post of yours goes out."),
    ("ack", "no"): sentence("You are not told when a post of yours goes out."),
}


class Row(NamedTuple):
    """A command as it was written, and what is said to it, in lines."""

    command: str
    said: Sequence[str]


def confirm(
    house: House,
    of: MailingList,
    request: Request,
    language: str,
    now: float,
    answers: str = "",
) -> Handed:
    """To the address of a request: whether it agrees; `answers` is the Message-ID of its own mail,
    if it asked itself. An answer to this letter says yes (RFC 3834 forbids programs to answer
    it)."""
    invited = request.state is State.INVITED
    name = "invitation" if invited else f"confirm_{request.action}"
    answer = answer_to(of.posting_address, request.token)
    values = _request(of, request, answer, language)
    text = house.templates.write(name, values, of.list_id, language)
    automatic: Literal["generated", "replied"] = "generated" if invited else "replied"
    sheet = Sheet(answer.address, request.email, "", automatic, now, answers=answers)
    return handed(house, of, sheet, text)


def welcome(
    house: House, of: MailingList, email: str, name: str, text: str, language: str, now: float
) -> Handed:
    """To somebody who joined; `text` is what the list has to say."""
    lines = broken(text[:WELCOME].splitlines(), WIDTH, WELCOME)
    values = addresses(of) | {"email": email, "name": name, "text": lines}
    return _to_person(house, of, "welcome", email, values, language, now)


def goodbye(house: House, of: MailingList, email: str, language: str, now: float) -> Handed:
    """To somebody who left."""
    return _to_person(house, of, "goodbye", email, addresses(of) | {"email": email}, language, now)


def refused(
    house: House, of: MailingList, request: Request, reason: str, language: str, now: float
) -> Handed:
    """To somebody whose request the owners did not accept; `reason` may be ""."""
    values = addresses(of) | {
        "email": request.email,
        "action": request.action,
        "changes": in_words(request.changes, language),
        "reason": reason,
    }
    return _to_person(house, of, "refused", request.email, values, language, now)


def acknowledged(
    house: House,
    of: MailingList,
    email: str,
    subject: str,
    answers: str,
    language: str,
    now: float,
) -> Handed:
    """To a member who wants it: their post (`answers` is its Message-ID) goes out."""
    values = addresses(of) | {"email": email, "subject": subject or say(NO_SUBJECT, language)}
    text = house.templates.write("acknowledged", values, of.list_id, language)
    owner = owner_address(of.posting_address)
    return handed(house, of, Sheet(owner, email, "", "replied", now, answers=answers), text)


def reply(
    house: House,
    of: MailingList,
    to: str,
    subject: str,
    rows: Sequence[Row],
    original: Sequence[str],
    answers: str,
    language: str,
    now: float,
) -> Handed:
    """To somebody who sent commands, in a mail with this subject, these lines and this
    Message-ID (`answers`)."""
    shown, left_out = _said(rows)
    values = addresses(of) | {
        "subject": _RE.sub("", subject, count=1) if _RE.match(subject) else subject.strip(),
        "commands": shown,
        "left_out": left_out,
        "original": broken(original[:SHOWN], WIDTH - 2, SHOWN_WIDTH),
    }
    text = house.templates.write("reply", values, of.list_id, language)
    request = sub_address(of.posting_address, "request")
    return handed(house, of, Sheet(request, to, "", "replied", now, answers=answers), text)


def request_for_owners(
    house: House,
    of: MailingList,
    request: Request,
    staff: Sequence[str],
    every_hours: float,
    language: str,
    now: float,
) -> Handed:
    """To owners and moderators: somebody wants something, and they decide."""
    answer = answer_to(of.posting_address, request.token)
    values = _request(of, request, answer, language) | {
        "id": show(request.id),
        "action": request.action,
        "name": request.name,
        "hours": in_hours(every_hours, language),
    }
    text = house.templates.write("request_owner", values, of.list_id, language)
    return to_staff(house, of, staff, text, now, answer.address)


def request_summary(
    house: House,
    of: MailingList,
    requests: Sequence[Request],
    waiting: int,
    since: float,
    staff: Sequence[str],
    language: str,
    now: float,
) -> Handed:
    """To owners and moderators: `waiting` requests wait, `requests` are the first of them."""
    rows: list[dict[str, str | int]] = [
        {
            "id": show(each.id),
            "asked": in_utc(each.told_at),
            "email": each.email,
            "name": each.name,
            "action": each.action,
            "token": each.token,
        }
        for each in requests[:LISTED]
    ]
    values = addresses(of) | {
        "waiting": waiting,
        "since": in_utc(since),
        "requests": rows,
        "more": max(0, waiting - len(rows)),
    }
    text = house.templates.write("request_summary", values, of.list_id, language)
    request = sub_address(of.posting_address, "request")
    return to_staff(house, of, staff, text, now, request)


def change_for_owners(
    house: House,
    of: MailingList,
    email: str,
    what: Literal["joined", "left"],
    staff: Sequence[str],
    language: str,
    now: float,
) -> Handed:
    """To owners and moderators: somebody joined or left."""
    values = addresses(of) | {"email": email, "what": what}
    text = house.templates.write("member_change", values, of.list_id, language)
    return to_staff(house, of, staff, text, now)


def in_words(changes: Mapping[str, str], language: str) -> list[str]:
    """What would be set, a sentence each."""
    return [
        say(_WORDS[each], language) if each in _WORDS else " = ".join(each)
        for each in changes.items()
    ]


def _request(of: MailingList, request: Request, answer: Answer, language: str) -> dict[str, Value]:
    """What is said of a request to those who answer it."""
    return addresses(of) | {
        "email": request.email,
        "changes": in_words(request.changes, language),
        "asked_by": request.asked_by,
        "source": request.source,
        "token": request.token,
        "token_in_address": answer.knows,
        "expires": in_utc(request.expires_at),
    }


def _to_person(
    house: House,
    of: MailingList,
    template: str,
    email: str,
    values: Mapping[str, Value],
    language: str,
    now: float,
) -> Handed:
    """A letter whose answers are for the owners."""
    text = house.templates.write(template, values, of.list_id, language)
    owner = owner_address(of.posting_address)
    return handed(house, of, Sheet(owner, email, "", "generated", now), text)


def _said(rows: Sequence[Row]) -> tuple[list[dict[str, str | int | Sequence[str]]], int]:
    """What was said to each command, and how many lines did not find room."""
    room, left_out = SAID, 0
    shown: list[dict[str, str | int | Sequence[str]]] = []
    for row in rows:
        said = []
        room -= WIDTH
        for line in row.said:
            room -= min(len(line), LONGEST) + 1
            if room >= 0:
                said.append(line)
        left_out += len(row.said) - len(said)
        if said or room >= 0:
            shown.append({"command": one_line(row.command, WIDTH - 2), "said": said})
    return shown, left_out
