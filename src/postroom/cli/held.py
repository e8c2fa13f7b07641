"""`postroom held`.

For: moderators with a shell. Guarantees: each decision is one transaction with its notice and
its step, and the ids that one call names are decided on together or not at all; whoever decides
second is told that it was done. What a stranger wrote cannot steer a terminal.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import click
from sqlalchemy import Connection

from postroom.cli.common import Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.office import house_of
from postroom.cli.output import (
    at_most,
    duration,
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
from postroom.cli.people import who
from postroom.cli.queues import entry_argument, entry_id
from postroom.commands import moderation
from postroom.commands.moderation import DONE, Decided, Verb
from postroom.lists.preferences import preferences
from postroom.lists.registry import find_list, list_of_key
from postroom.lists.roster import same_address
from postroom.notices.language import ENGLISH
from postroom.notices.sheet import House
from postroom.reading.post import read
from postroom.spool import held as spool
from postroom.spool import ids
from postroom.spool.handing import hand_on
from postroom.spool.held import Held
from postroom.spool.queue import QueueError
from postroom.store.engine import Store

# Posts of one transaction, when all of a list are decided on: the door must not wait long.
CHUNK = 50


class Chosen(NamedTuple):
    """Which posts: those with these ids, or all of a list that fit."""

    numbers: tuple[int, ...]
    address: str | None
    author: str | None
    reason: str | None
    yes: bool


def _choosing(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that say which posts."""
    for add in reversed(
        (
            click.argument("numbers", type=entry_id, nargs=-1, metavar="[ID]..."),
            click.option("--all", "address", metavar="LIST", type=word, help="All of this list."),
            click.option(
                "--from", "author", metavar="ADDRESS", type=word, help="With --all: by this author."
            ),
            click.option(
                "--held-for", metavar="CODE", type=word, help="With --all: held for this reason."
            ),
            click.option("--yes", is_flag=True, help="With --all: do not ask."),
        )
    ):
        command = add(command)
    return command


@click.group(epilog=example("postroom held ls", "postroom held accept 0326c1a2b4000001"))
def held() -> None:
    """Posts that wait for a moderator."""


@held.command(
    "ls", epilog=example("postroom held ls", "postroom held ls mylist@example.com --json")
)
@click.argument("address", required=False, type=word, metavar="[LIST]")
@limit_option()
@json_option
@click.pass_obj
def list_posts(options: Options, address: str | None, limit: int | None, as_json: bool) -> None:
    """Show held posts, oldest first, of one list or of all."""
    most = at_most(limit, as_json)
    with opened(options) as store, store.read() as connection:
        key = find_list(connection, address).key if address else None
        found = spool.held(connection, key, most)
        if as_json:
            print_array(_facts(each.post) for each in found)
            return
        posts = [each.post for each in found]
    if not posts:
        click.echo("No post waits for a moderator.")
        return
    now = time.time()
    print_table(
        ("ID", "LIST", "FROM", "SUBJECT", "HELD", "WHY"),
        (
            (
                ids.show(each.id),
                each.list,
                _author(each),
                each.subject,
                duration(max(0.0, now - each.held_at)),
                each.reason,
            )
            for each in posts
        ),
        whole=("ID", "HELD"),
    )
    say_if_more(len(posts), most)


@held.command(epilog=example("postroom held show 0326c1a2b4000001"))
@entry_argument
@json_option
@click.pass_obj
def show(options: Options, number: int, as_json: bool) -> None:
    """Show one held post: who, why, and where its text begins."""
    with opened(options) as store, store.read() as connection:
        found = spool.find_held(connection, number)
    post, lines = found.post, read(found.head, found.post.sender).first_lines
    if as_json:
        print_object(_facts(post) | {"beginning": list(lines)})
        return
    print_facts(
        {
            "id": ids.show(post.id),
            "list": post.list,
            "from": _author(post),
            "sender": post.sender or "<>",
            "subject": post.subject or "(no subject)",
            "message-id": post.message_id or None,
            "size": f"{post.size} octets",
            "received": local(post.received_at),
            "held": local(post.held_at),
            "why": f"{post.sentence} ({post.reason})",
        }
    )
    click.echo()
    for line in lines:
        click.echo(f"  {safe(line)}")
    click.echo(f"\n`{options.command(f'queue show {ids.show(post.id)}')} --raw` writes all of it.")


@held.command(
    epilog=example(
        "postroom held accept 0326c1a2b4000001",
        "postroom held accept --all mylist@example.com --from anne@example.org",
    )
)
@_choosing
@click.pass_obj
def accept(options: Options, /, **chosen: Any) -> None:
    """Let posts go out to their list."""
    _decide(options, "accept", _chosen(chosen))


@held.command(
    epilog=example(
        'postroom held reject 0326c1a2b4000001 --reason "Please write to help@example.com."',
        "postroom held reject --all mylist@example.com --held-for nonmember",
    )
)
@_choosing
@click.option("--reason", metavar="TEXT", type=word, default="", help="What the author is told.")
@click.pass_obj
def reject(options: Options, /, reason: str, **chosen: Any) -> None:
    """Remove posts, and tell their authors.

    Programs and addresses that nobody reads are not told.
    """
    _decide(options, "reject", _chosen(chosen), reason)


@held.command(epilog=example("postroom held discard 0326c1a2b4000001"))
@_choosing
@click.pass_obj
def discard(options: Options, /, **chosen: Any) -> None:
    """Remove posts without a word: the mail is gone."""
    _decide(options, "discard", _chosen(chosen))


def _chosen(given: dict[str, Any]) -> Chosen:
    numbers = tuple(sorted(set(given["numbers"])))  # in one order, whoever else decides
    chosen = Chosen(numbers, given["address"], given["author"], given["held_for"], given["yes"])
    if bool(chosen.numbers) == bool(chosen.address):
        raise click.UsageError("give either ids or --all LIST: `held ls` shows the ids")
    if chosen.numbers and (chosen.author or chosen.reason):
        raise click.UsageError("--from and --held-for choose among --all LIST")
    return chosen


def _decide(options: Options, verb: Verb, chosen: Chosen, reason: str = "") -> None:
    """Decide on all that were chosen, and say so."""
    house, by = house_of(options.settings()), who()

    def decide(connection: Connection, number: int) -> Decided:
        return _decide_one(connection, house, number, verb, reason, by)

    with opened(options) as store:
        numbers = chosen.numbers
        if chosen.address:
            with store.read() as connection:
                numbers = tuple(_fitting(connection, chosen))
            if not numbers:
                click.echo("No held post fits.")
                return
            if not chosen.yes:
                what = f"{len(numbers)} post{'s' * (len(numbers) > 1)} to {safe(chosen.address)}"
                click.confirm(f"{verb.capitalize()} {what}?", abort=True)
        gone = 0
        for some in _chunks(numbers) if chosen.address else [numbers]:
            said = _together(store, some, decide, chosen)
            for line in said:
                click.echo(f"{DONE[verb]} {line}")
            gone += len(some) - len(said)
    if gone:
        click.echo(f"{gone} others could not be: somebody else decided, or `held show` says why")


def _together(
    store: Store,
    numbers: Sequence[int],
    decide: Callable[[Connection, int], Decided],
    chosen: Chosen,
) -> list[str]:
    """Decide on some posts in one transaction; returns a line about each. Of all the posts of a
    list those that cannot be decided on are left out."""
    decided = []
    with store.begin() as connection:
        for number in numbers:
            try:
                decided.append(decide(connection, number))
            except QueueError:
                if chosen.numbers:
                    raise
        hand_on(connection, ids.IdMaker(), [each.notice for each in decided if each.notice])
    return [_line(each) for each in decided]


def _decide_one(
    connection: Connection, house: House, number: int, verb: Verb, reason: str, by: str
) -> Decided:
    """Decide on one post. Raises `QueueError`."""
    of = list_of_key(connection, spool.find_held(connection, number).post.list_key)
    if of is None:
        raise QueueError(f"the list of {ids.show(number)} was removed meanwhile")
    # The other verbs tell nobody, so that they need no settings that can be read.
    language = preferences(connection, of.key).notices.language if verb == "reject" else ENGLISH
    return moderation.decide(connection, house, of, number, verb, reason, by, language, time.time())


def _line(decided: Decided) -> str:
    told = "; the author is told" if decided.notice else ""
    if decided.untold:
        told = f"; the author is not told: {decided.untold}"
    return safe(f"{ids.show(decided.post.id)} from {_author(decided.post)}{told}")


def _fitting(connection: Connection, chosen: Chosen) -> Iterator[int]:
    """The posts of a list that fit, oldest first."""
    wanted = same_address(chosen.author) if chosen.author else None
    for post, _ in spool.held(connection, find_list(connection, chosen.address or "").key):
        by = {same_address(post.author), same_address(post.sender)}
        if (wanted is None or wanted in by) and chosen.reason in (None, post.reason):
            yield post.id


def _chunks(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(numbers), CHUNK):
        yield numbers[first : first + CHUNK]


def _author(post: Held) -> str:
    return post.author or post.sender or "<>"


def _facts(post: Held) -> dict[str, Any]:
    return {
        "id": ids.show(post.id),
        "list": post.list,
        "author": post.author,
        "sender": post.sender,
        "subject": post.subject,
        "message_id": post.message_id,
        "size": post.size,
        "received_at": utc(post.received_at),
        "held_at": utc(post.held_at),
        "reason": post.reason,
        "sentence": post.sentence,
    }
