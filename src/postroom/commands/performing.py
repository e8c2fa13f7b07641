"""Performing: the commands of one mail, one after the other.

For: the command runner. Works in the caller's transaction. Guarantees: a command that fails changes
nothing, and the others are done all the same; each has its line in the answer; nobody gets an
answer who may not be answered, or more of them than the site allows.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from postroom.commands import answers, moderation, sentences
from postroom.commands.grammar import (
    Answer,
    Command,
    Help,
    Info,
    Join,
    Leave,
    Script,
    Set,
    Status,
    Who,
)
from postroom.commands.office import Office
from postroom.commands.values import HOUR, Caller, Listing, Refused, Result
from postroom.commands.words import without_tokens
from postroom.lists.keys import read_held_token, site_secret
from postroom.lists.limits import Limit, take
from postroom.lists.pending import Gone
from postroom.lists.registry import ListError
from postroom.lists.roster import Member, memberships, same_address
from postroom.notices.language import Sentence, say, sentence
from postroom.notices.requests import Row, reply
from postroom.spool.handing import Handed
from postroom.spool.held import find_held
from postroom.spool.queue import QueueError

# Lines of the mail that its answer quotes. Who is not on the list may not have sent it.
QUOTED, QUOTED_TO_STRANGERS = 40, 5
NOTHING: Final = sentence("There was no command in your mail.")


class Errand(NamedTuple):
    """A mail with commands: from whom, to which list; `answers` is its Message-ID."""

    listing: Listing
    caller: Caller
    script: Script
    subject: str
    lines: Sequence[str]
    answers: str


class Done(NamedTuple):
    """What was done: what is to be handed on, and of each command what was said, in English."""

    handed: list[Handed]
    said: list[str]
    answered: bool


def perform(connection: Connection, office: Office, errand: Errand, now: float) -> Done:
    """Do what a mail asks for."""
    script, terms = errand.script, office.commands
    results: list[tuple[str, Result]] = []
    for line in script.lines:
        if line.complaint is not None:
            results.append((line.text, Result(line.complaint)))
        elif line.command is not None:
            results.append((line.text, _one(connection, office, errand, line.command, now)))
    if script.left_out:
        said = sentence(
            "And {number} more, which were not looked at: a mail may hold {most}.",
            number=script.left_out,
            most=terms.most,
        )
        results.append(("", Result(said)))
    if all(line.command is None for line in script.lines):
        results = results or [("", Result(NOTHING))]
        results.append(("", answers.help_for(errand.listing)))
    handed = [each for _, result in results for each in result.handed]
    said_of = [
        without_tokens(" - ".join(filter(None, (text, say(result.said)))))
        for text, result in results
    ]
    letter = None
    if not all(result.told for _, result in results):
        letter = _reply(connection, office, errand, results, now)
    return Done([*handed, *([letter] if letter else [])], said_of, letter is not None)


def _one(
    connection: Connection, office: Office, errand: Errand, command: Command, now: float
) -> Result:
    """One command; what fails is undone."""
    try:
        with connection.begin_nested():
            return _act(connection, office, errand, command, now)
    except Refused as error:
        return Result(error.said)
    except (ListError, Gone, QueueError) as error:
        return Result(sentence("{reason}.", reason=str(error)))


def _act(
    connection: Connection, office: Office, errand: Errand, command: Command, now: float
) -> Result:
    listing, caller = errand.listing, errand.caller
    match command:
        case Join(address, digest):
            return office.join(connection, listing, caller, address, digest, now)
        case Leave(address):
            return office.leave(connection, listing, caller, address, now)
        case Set(changes):
            return office.change(connection, listing, caller, changes, now)
        case Answer():
            return _answer(connection, office, errand, command, now)
        case Who():
            return answers.who(connection, listing, _roles(connection, errand))
        case Status():
            return answers.status(listing, caller.email, _roles(connection, errand))
        case Info():
            return answers.info(listing)
        case Help():
            return answers.help_for(listing)


def _answer(
    connection: Connection, office: Office, errand: Errand, answer: Answer, now: float
) -> Result:
    """Whoever has the token of a held post decides on it; of a request, moves it."""
    listing, caller = errand.listing, errand.caller
    of, language = listing.of, listing.settings.notices.language
    number = read_held_token(site_secret(connection), of.list_id, answer.token)
    if number is None:
        verb, reason = answer.verb, answer.reason
        return office.answer(connection, listing, caller, answer.token, verb, reason, now)
    if answer.verb not in ("accept", "reject", "discard"):
        return Result(sentences.UNDECIDED)
    if find_held(connection, number).post.list_key != of.key:
        return Result(sentences.NOT_VALID)
    verb, reason, by = answer.verb, answer.reason, caller.email
    decided = moderation.decide(
        connection, office.house, of, number, verb, reason, by, language, now
    )
    author = decided.post.author or decided.post.sender or "<>"
    said = moderation.SAID[verb]._replace(values={"author": author})
    return Result(said, handed=(decided.notice,) if decided.notice else ())


def _roles(connection: Connection, errand: Errand) -> list[Member]:
    return memberships(connection, errand.listing.of.key, [errand.caller.email])


def _reply(
    connection: Connection,
    office: Office,
    errand: Errand,
    results: Sequence[tuple[str, Result]],
    now: float,
) -> Handed | None:
    """The one answer to the mail; None where there were too many lately."""
    listing, caller = errand.listing, errand.caller
    terms = office.commands
    known = bool(_roles(connection, errand))
    limits = [Limit("reply", same_address(caller.email), terms.replies, HOUR)]
    if not known:  # whoever wrote this may have written it in somebody else's name
        limits += [
            Limit("reply list", str(listing.of.key), terms.per_list, HOUR),
            Limit("reply site", "", terms.per_site, HOUR),
        ]
        if caller.source:
            limits.append(Limit("reply source", caller.source, terms.per_source, HOUR))
    if take(connection, limits, now) is not None:
        return None
    language = listing.settings.notices.language
    rows = [
        Row(text, (say(result.said, language), *(_line(each, language) for each in result.lines)))
        for text, result in results
    ]
    original = errand.lines[: QUOTED if known else QUOTED_TO_STRANGERS]
    house, of, to = office.house, listing.of, caller.email
    return reply(house, of, to, errand.subject, rows, original, errand.answers, language, now)


def _line(line: Sentence | str, language: str) -> str:
    return line if isinstance(line, str) else say(line, language)
