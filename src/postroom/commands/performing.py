"""Performing: the commands of one mail, one after the other.

For: the command runner. Works in the caller's transaction. Guarantees: a command that fails changes
nothing, and the others are done all the same; each has its line in the answer; nobody gets an
answer who may not be answered, or more of them than the site allows.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from postroom.commands import answers, moderation, office, sentences
from postroom.commands.desk import Desk, mailbox
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
from postroom.commands.values import DAY, HOUR, Caller, Refused, Result
from postroom.commands.words import without_tokens
from postroom.lists.keys import read_held_token, site_secret
from postroom.lists.limits import Limit, take
from postroom.lists.pending import Gone
from postroom.lists.registry import ListError
from postroom.notices.language import Sentence, say, sentence
from postroom.notices.requests import Row, reply
from postroom.spool.handing import Handed
from postroom.spool.queue import QueueError

QUOTED: Final = 40  # lines of the mail that its answer quotes
NOTHING: Final = sentence("There was no command in your mail.")


class Errand(NamedTuple):
    """A mail with commands: who wrote it, and what."""

    caller: Caller
    script: Script
    subject: str
    lines: Sequence[str]


class Done(NamedTuple):
    """What was done: what is to be handed on, of each command what was said, in English, and of
    how many there was too much lately; the answer is one of them."""

    handed: list[Handed]
    said: list[str]
    limited: int


def perform(desk: Desk, errand: Errand) -> Done:
    """Do what a mail asks for."""
    script, results = errand.script, list[tuple[str, Result]]()
    for line in script.lines:
        if line.complaint is not None:
            results.append((line.text, Result(line.complaint)))
        elif line.command is not None:
            results.append((line.text, _one(desk, errand.caller, line.command)))
    if script.left_out:
        said = sentence(
            "More commands were not looked at: a mail may hold {most}.", most=desk.commands.most
        )
        results.append(("", Result(said)))
    idle = all(line.command is None for line in script.lines)
    if idle:
        results = results or [("", Result(NOTHING))]
        results.append(("", answers.help_for(desk.listing)))
    handed = [each for _, result in results for each in result.handed]
    limited = sum(result.limited for _, result in results)
    if not all(result.told for _, result in results):
        # Whoever is unknown, or forged, may have written this in somebody else's name.
        known = bool(desk.roles(errand.caller.email)) and not errand.caller.forged
        if _may_answer(desk, errand.caller, known, idle):
            handed.append(_answer_to(desk, errand, known, results))
        else:
            limited += 1
    said_of = [
        without_tokens(" - ".join(filter(None, (text, say(result.said)))))
        for text, result in results
    ]
    return Done(handed, said_of, limited)


def _one(desk: Desk, caller: Caller, command: Command) -> Result:
    """One command; what fails is undone."""
    try:
        with desk.connection.begin_nested():
            return _act(desk, caller, command)
    except Refused as error:
        return Result(error.said)
    except (ListError, Gone, QueueError) as error:
        return Result(sentence("{reason}.", reason=str(error)))


def _act(desk: Desk, caller: Caller, command: Command) -> Result:
    match command:
        case Join(address, digest):
            return office.join(desk, caller, address, digest)
        case Leave(address):
            return office.leave(desk, caller, address)
        case Set(changes):
            return office.change(desk, caller, changes)
        case Answer():
            return _answer(desk, caller, command)
        case Who():
            return answers.who(desk.connection, desk.listing, desk.roles(caller.email))
        case Status():
            return answers.status(desk.listing, caller.email, desk.roles(caller.email))
        case Info():
            return answers.info(desk.listing)
        case Help():
            return answers.help_for(desk.listing)


def _answer(desk: Desk, caller: Caller, answer: Answer) -> Result:
    """Whoever has the token of a held post decides on it; of a request, moves it."""
    of, (token, verb, reason) = desk.listing.of, answer
    number = read_held_token(site_secret(desk.connection), of.list_id, token)
    if number is None:
        return office.answer(desk, caller, token, verb, reason)
    if verb not in ("accept", "reject", "discard"):
        return Result(sentences.UNDECIDED)
    decided = moderation.decide(
        desk.connection, desk.house, of, number, verb, reason, caller.email, desk.language, desk.now
    )
    said = moderation.said(verb, decided.post)
    return Result(said, handed=(decided.notice,) if decided.notice else ())


def _may_answer(desk: Desk, caller: Caller, known: bool, idle: bool) -> bool:
    """Whether this mail may be answered; then it counts. One without a command (`idle`) may be
    a program's, which would answer in turn."""
    name = mailbox(caller.email)
    commands = desk.commands
    limits = [Limit("reply", name, commands.replies, HOUR if known else DAY)]
    if idle:
        limits.append(Limit("help", name, 1, DAY))
    if not known:
        limits += [
            Limit("reply list", str(desk.key), commands.per_list, HOUR),
            Limit("reply site", "", commands.per_site, HOUR),
        ]
        if caller.source:
            limits.append(Limit("reply source", caller.source, commands.per_source, HOUR))
    return take(desk.connection, limits, desk.now) is None


def _answer_to(
    desk: Desk, errand: Errand, known: bool, results: Sequence[tuple[str, Result]]
) -> Handed:
    """The one answer to a mail. It quotes what strangers wrote no further than its commands."""
    caller, language = errand.caller, desk.language
    rows = [
        Row(text, (say(result.said, language), *(_line(each, language) for each in result.lines)))
        for text, result in results
    ]
    original = errand.lines[:QUOTED] if known else ()
    return reply(
        desk.house,
        desk.listing.of,
        caller.email,
        errand.subject,
        rows,
        original,
        caller.message_id,
        language,
        desk.now,
    )


def _line(line: Sentence | str, language: str) -> str:
    return line if isinstance(line, str) else say(line, language)
