"""`postroom bounce`.

For: owners with a shell, who ask why somebody gets no posts, and undo it. Guarantees: a reset is
one transaction with what the audit says, and is done for all that are named or for none. What a
stranger's mail server wrote cannot steer a terminal; tokens are not shown.
"""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import click

from postroom.bounces import standing
from postroom.bounces.reasons import in_words
from postroom.bounces.scoring import Standing, State
from postroom.cli.common import Failed, Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.given import given_words
from postroom.cli.output import (
    at_most,
    json_option,
    limit_option,
    local,
    print_array,
    print_facts,
    print_object,
    print_table,
    say_if_more,
    utc,
)
from postroom.cli.people import note
from postroom.lists.preferences import preferences
from postroom.lists.registry import ListError, find_list
from postroom.lists.roster import Member, find_member, same_address
from postroom.lists.settings import Bounces
from postroom.notices.language import say

LONGEST: Final = 60  # characters of what a mail server said; JSON and `show` have it all
NO_DATE: Final = 253_402_214_400.0  # the last day of the year 9999; what is due later never is
NOTHING: Final = "nothing, until they or the owners turn posts on again"
STATES: Final[Mapping[State, str]] = {
    State.COUNTING: "counting",
    State.PROBING: "probe sent",
    State.OFF: "turned off",
}

list_argument = click.argument("list_address", type=word, metavar="LIST")


@click.group(
    epilog=example(
        "postroom bounce ls mylist@example.com",
        "postroom bounce show mylist@example.com ann@example.org",
    )
)
def bounce() -> None:
    """Members whose mail comes back."""


@bounce.command(
    "ls", epilog=example("postroom bounce ls", "postroom bounce ls mylist@example.com --json")
)
@click.argument("list_address", required=False, type=word, metavar="[LIST]")
@limit_option("newest")
@json_option
@click.pass_obj
def list_members(
    options: Options, list_address: str | None, limit: int | None, as_json: bool
) -> None:
    """Show whose mail comes back, the last bounce first, of one list or of all."""
    most = at_most(limit, as_json)
    with opened(options) as store, store.read() as connection:
        key = find_list(connection, list_address).key if list_address else None
        found = standing.listed(connection, key, most)
        if as_json:
            print_array(_facts(of, member, known) for of, member, known in found)
            return
        every = list(found)
    if not every:
        click.echo("No mail has come back lately.")
        return
    lists = () if list_address else ("LIST",)
    print_table(
        ("ADDRESS", *lists, "SCORE", "STATE", "LAST", "WHY"),
        (
            (
                member.email,
                *(of for _ in lists),
                f"{known.score:g}",
                STATES[known.state],
                local(known.bounced_at),
                _why(known),
            )
            for of, member, known in every
        ),
        whole=("STATE", "LAST"),
    )
    say_if_more(len(every), most, "newest")


@bounce.command(epilog=example("postroom bounce show mylist@example.com ann@example.org"))
@list_argument
@click.argument("address", type=word)
@json_option
@click.pass_obj
def show(options: Options, list_address: str, address: str, as_json: bool) -> None:
    """Show what is known of one member: what came back, why, and what comes next."""
    with opened(options) as store, store.read() as connection:
        of = find_list(connection, list_address)
        member = find_member(connection, of.key, address)
        known = standing.standings(connection, [member.key]).get(member.key)
        try:
            ours = preferences(connection, of.key).bounces
            follows = what_follows(member, known, ours, time.time()) if known else None
            score = f"{known.score:g} of {ours.threshold:g}" if known else None
        except ListError as error:  # what is known is known, all the same
            follows = str(error)
            score = f"{known.score:g}" if known else None
    if as_json:
        print_object(_facts(of.posting_address, member, known) | {"next": follows})
        return
    facts: dict[str, object] = {
        "address": member.email,
        "list": of.posting_address,
        "delivery": "on" if member.delivery == "on" else f"off by {member.delivery}",
        "state": STATES[known.state] if known else "fine: no mail came back lately",
    }
    if known:
        facts |= {
            "score": score,
            "since": local(known.since),
            "last": local(known.bounced_at),
            "why": say(in_words(known.status)),
            "status": known.status or None,
            "they said": known.reason or None,
            "next": follows,
        }
    print_facts(facts)


@bounce.command(
    epilog=example(
        "postroom bounce reset mylist@example.com ann@example.org bo@example.org",
        "postroom bounce reset mylist@example.com - < people.txt",
    )
)
@list_argument
@click.argument("addresses", nargs=-1, required=True, type=word, metavar="ADDRESS...")
@click.pass_obj
def reset(options: Options, list_address: str, addresses: Sequence[str]) -> None:
    """Forget what came back, and turn posts on again if that turned them off.

    "-" reads standard input, an address a line. Who is no member is refused, and then nobody is
    reset. Posts that people have turned off stay off.
    """
    named = {same_address(text): (text, where) for text, where in given_words(addresses)}
    with opened(options) as store, store.begin() as connection:
        of = find_list(connection, list_address)
        found = standing.known(connection, of.key, named)
        for folded, (text, where) in named.items():
            if folded not in found:
                what = f"{text[:100]!r} is not member of {of.posting_address}"
                raise Failed(f"{where}{what}; nothing was done")
        stopped = [email for email, each in found.items() if each.member.delivery == "bounces"]
        counted = [email for email, each in found.items() if each.standing]
        counted = [email for email in counted if email not in set(stopped)]
        standing.reset(connection, [each.member.key for each in found.values()])
        note(connection, "changed", [(of.list_id, email) for email in stopped], delivery="on")
        note(connection, "changed", [(of.list_id, email) for email in counted], score=0)
    click.echo(safe(_done(of.posting_address, len(stopped), len(counted), len(found))))


def _done(of: str, stopped: int, counted: int, every: int) -> str:
    """What came of a reset."""
    unknown = every - stopped - counted
    parts = [f"posts are on again for {stopped}"] if stopped else []
    parts += [f"the score of {counted} is forgotten"] if counted else []
    parts += [f"nothing was known of {unknown}"] if unknown else []
    return f"reset {every} member{'' if every == 1 else 's'} of {of}: {', '.join(parts)}"


def what_follows(member: Member, known: Standing, ours: Bounces, now: float) -> str:
    """What time brings to a member whose mail came back, and when. Pure."""
    if known.next_at >= NO_DATE:
        return NOTHING
    at = f"on {local(known.next_at)}" if known.next_at > now else "at any moment"
    if known.state is State.PROBING:
        return f"forgotten {at}, unless the probe comes back: then posts are turned off"
    if known.state is State.OFF and member.delivery == "bounces":
        if known.warned < ours.warnings:
            return f"warning {known.warned + 1} of {ours.warnings} {at}"
        return f"taken off the list {at}" if ours.remove else NOTHING
    if known.state is State.COUNTING and ours.count and member.delivery == "on":
        if known.score >= ours.threshold:
            return f"a probe {at}"
        return f"a probe at score {ours.threshold:g}; forgotten {at} if nothing comes back"
    return f"forgotten {at}"


def _why(known: Standing) -> str:
    words, said = say(in_words(known.status)), known.reason
    return f"{words} {said if len(said) <= LONGEST else f'{said[:LONGEST]}...'}".rstrip()


def _facts(of: str, member: Member, known: Standing | None) -> dict[str, Any]:
    """For programs; of whom nothing is known they are null."""
    return {
        "address": member.email,
        "list": of,
        "delivery": member.delivery,
        "state": known.state if known else State.FINE,
        "score": known.score if known else 0.0,
        "status": known.status if known else None,
        "why": say(in_words(known.status)) if known else None,
        "reason": known.reason if known else None,
        "warned": known.warned if known else 0,
        "since": utc(known.since) if known else None,
        "bounced_at": utc(known.bounced_at) if known else None,
        "next_at": utc(known.next_at) if known and known.next_at < NO_DATE else None,
    }
