"""`postroom member`.

For: who reads a list and who runs it, one person or a hundred thousand. Guarantees: `add`
checks all it is given before it changes anything, and adds all or none; those who are there
already are no error. Fails as the roster says; for input from a file, with the number of the
line.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, cast, get_args

import click
from sqlalchemy import Connection

from postroom.cli.common import Failed, Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.given import given_words, pairs, progress
from postroom.cli.office import listing_of, office_of
from postroom.cli.output import json_option, print_array, print_table, utc
from postroom.cli.people import note, who
from postroom.commands import office
from postroom.lists import keys, registry, roster
from postroom.lists.pending import Gone
from postroom.lists.roster import Changes, Mode, Role
from postroom.lists.settings import Action
from postroom.spool.handing import Handed, hand_on
from postroom.spool.ids import IdMaker

ROLES = click.Choice(get_args(Role))
# What can be set, in the words of people and in those of the roster.
CHOICES: Mapping[str, Mapping[str, Any]] = {
    "delivery": {"on": "on", "off": "admin"},
    "mode": {each: each for each in get_args(Mode)},
    "moderation": {each: each for each in get_args(Action)} | {"default": None},
    "own_posts": {"yes": True, "no": False},
    "duplicates": {"yes": True, "no": False},
    "ack": {"yes": True, "no": False},
}
SHOWN = 10  # addresses that are named one by one
MOST_INVITED = 1000  # at once: the door must not wait long

role_option = click.option(
    "--role", type=ROLES, default="member", show_default=True, help="In which role."
)
list_argument = click.argument("list_address", type=word, metavar="LIST")
address_argument = click.argument("address", type=word)
addresses_argument = click.argument(
    "addresses", nargs=-1, required=True, type=word, metavar="ADDRESS..."
)


@click.group(
    "member",
    epilog=example(
        "postroom member add mylist@example.com ann@example.org",
        "postroom member ls mylist@example.com",
    ),
)
def members() -> None:
    """Members, owners and moderators of lists."""


@members.command(
    epilog=example(
        'postroom member add mylist@example.com ann@example.org --name "Ann Lee"',
        "postroom member add mylist@example.com --role owner 'Bo <bo@example.org>'",
        "postroom member add mylist@example.com - < people.txt",
    )
)
@list_argument
@addresses_argument
@role_option
@click.option("--name", type=word, metavar="TEXT", help="What the person is called.")
@click.pass_obj
def add(
    options: Options, list_address: str, addresses: Sequence[str], role: Role, name: str | None
) -> None:
    """Add people to a list: all of them or, if one is refused, none.

    "-" reads standard input, ADDRESS or NAME <ADDRESS> a line. A nonmember is somebody whose
    posts are to be treated in a way of their own: see `postroom member set`.
    """
    given = list(given_words(addresses))
    if name is not None and len(given) != 1:
        raise Failed("--name is for one address: write 'Name <address>' for each of several")
    people = []
    with progress("checking", len(given)) as advance:
        for text, where in given:
            people.append(_person(text, where))
            advance(1)
    if name is not None:
        people = [(people[0][0], _checked_name(name))]
    with opened(options) as store, store.begin() as connection:
        found = registry.find_list(connection, list_address)
        named = dict.fromkeys(roster.same_address(email) for email, _ in people)
        before = set(_in_role(connection, found.key, named, role))
        with progress("adding", len(people)) as advance:
            added, already = roster.add_members(connection, found.key, people, role, advance)
        new = [(found.list_id, each) for each in named if each not in before]
        note(connection, "added", new, role=role)
    there = f" ({already} were there already)" if already else ""
    click.echo(f"added {_counted(added, role)} to {safe(found.posting_address)}{there}")


@members.command(
    epilog=example(
        "postroom member invite mylist@example.com ann@example.org 'Bo <bo@example.org>'",
        "postroom member invite mylist@example.com - < people.txt",
    )
)
@list_argument
@addresses_argument
@click.pass_obj
def invite(options: Options, list_address: str, addresses: Sequence[str]) -> None:
    """Ask people whether they want to join: all of them or, if one is refused, none.

    "-" reads standard input, ADDRESS or NAME <ADDRESS> a line. Each is sent a mail, and is a
    member as soon as they answer it. Members are not asked, nor who was asked a short while ago
    (commands.again).
    """
    named: dict[str, tuple[roster.Person, str]] = {}
    for text, where in given_words(addresses):
        email, name = _person(text, where)
        named.setdefault(roster.same_address(email), ((email, name), where))
    if len(named) > MOST_INVITED:
        raise Failed(f"{len(named)} are too many at once: invite at most {MOST_INVITED}")
    at_office, by = office_of(options.settings()), who()
    handed: list[Handed] = []
    with opened(options) as store, store.begin() as connection:
        listing = listing_of(connection, registry.find_list(connection, list_address))
        desk = at_office.at(connection, listing, time.time())
        there = set(_in_role(connection, listing.of.key, named, "member"))
        for folded, ((email, name), where) in named.items():
            if folded in there:
                continue
            try:
                handed += office.invite(desk, email, name, by).handed
            except (registry.ListError, Gone) as error:
                raise Failed(f"{where}{error}; nobody was invited") from error
        hand_on(connection, IdMaker(), handed)
    invited = len(handed)
    lately = len(named) - len(there) - invited
    people = "1 person" if invited == 1 else f"{invited} people"
    verb = "is a member" if len(there) == 1 else "are members"
    others = [f"{len(there)} {verb} already"] if there else []
    others += [f"{lately} asked a short while ago"] if lately else []
    beside = f" ({', '.join(others)})" if others else ""
    click.echo(safe(f"invited {people} to {listing.of.posting_address}{beside}"))


@members.command("ls", epilog=example("postroom member ls mylist@example.com --role owner"))
@list_argument
@click.option("--role", type=ROLES, help="Only those in this role.")
@json_option
@click.pass_obj
def list_members(options: Options, list_address: str, role: Role | None, as_json: bool) -> None:
    """Show who is on a list."""
    with opened(options) as store, store.read() as connection:
        found = registry.find_list(connection, list_address)
        everyone = roster.members(connection, found.key, role)
        if as_json:
            print_array(map(_facts, everyone))
            return
        rows = [_row(each) for each in everyone]
    if rows:
        print_table(("ADDRESS", "NAME", "ROLE", "DELIVERY", "MODERATION", "OTHERWISE"), rows)
    else:
        click.echo(
            safe(
                f"No {role or 'member'}s yet: "
                + options.command(f"member add {found.posting_address} ann@example.org")
                + (f" --role {role}" if role not in (None, "member") else "")
            )
        )


@members.command(
    epilog=example(
        "postroom member remove mylist@example.com ann@example.org",
        "postroom member remove mylist@example.com - < gone.txt",
    )
)
@list_argument
@addresses_argument
@role_option
@click.pass_obj
def remove(options: Options, list_address: str, addresses: Sequence[str], role: Role) -> None:
    """Remove people from a list, in one role; in others they stay.

    "-" reads standard input, ADDRESS or NAME <ADDRESS> a line. Those who are not there are
    counted; it is an error if nobody is.
    """
    emails = [_person(text, where)[0] for text, where in given_words(addresses)]
    with opened(options) as store, store.begin() as connection:
        found = registry.find_list(connection, list_address)
        there = [(found.list_id, each) for each in _in_role(connection, found.key, emails, role)]
        removed, missing = roster.remove_members(connection, found.key, emails, role)
        note(connection, "removed", there, role=role)
    for email in missing[:SHOWN]:
        click.echo(safe(f"not {role}: {email}"), err=True)
    if len(missing) > SHOWN:
        click.echo(f"and {len(missing) - SHOWN} more", err=True)
    if missing and not removed:
        raise Failed(f"nobody was removed from {found.posting_address}")
    click.echo(safe(f"removed {_counted(removed, role)} from {found.posting_address}"))


@members.command(
    "set",
    epilog=example(
        "postroom member set mylist@example.com ann@example.org delivery=off",
        "postroom member set mylist@example.com ann@example.org moderation=hold own_posts=no",
    ),
)
@list_argument
@address_argument
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@role_option
@click.pass_obj
def set_member(
    options: Options, list_address: str, address: str, changes: Sequence[str], role: Role
) -> None:
    """Change what is known of a member.

    \b
    delivery=on|off        whether posts go to them
    mode=regular|digest    in which form
    moderation=accept|hold|reject|discard|default   what happens to their posts
    own_posts=yes|no       whether they get what they wrote
    duplicates=yes|no      whether they get what also went to them directly
    ack=yes|no             whether they are told that what they wrote goes out
    name=TEXT              what they are called, on all lists
    """
    wanted = _changes(pairs(changes))
    with opened(options) as store, store.begin() as connection:
        found = registry.find_list(connection, list_address)
        facts = _facts(roster.change_member(connection, found.key, address, role, **wanted))
        words = {key: _in_words(facts[key]) for key in wanted}
        note(connection, "changed", [(found.list_id, address)], role=role, **words)
    for key, value in words.items():
        click.echo(safe(f"{key} = {value}"))
    if wanted.get("mode") == "digest":
        click.echo("note: there are no digests yet; until then posts come one by one", err=True)


@members.command(epilog=example("postroom member token mylist@example.com bo@example.org"))
@list_argument
@address_argument
@click.pass_obj
def token(options: Options, list_address: str, address: str) -> None:
    """Print the token by which an owner or moderator approves posts.

    Whoever knows it can post as they like: it is theirs alone. It ends with the role: remove
    somebody and add them again, and they have another one.
    """
    with opened(options) as store, store.begin() as connection:
        found = registry.find_list(connection, list_address)
        roles = roster.memberships(connection, found.key, [address])
        ours = [each for each in roles if each.role in ("owner", "moderator")]
        if not ours:
            raise Failed(
                f"{address!r} is neither owner nor moderator of {found.posting_address}: "
                f"{options.command(f'member add {found.posting_address} ADDRESS --role owner')}"
            )
        secret, since = keys.site_secret(connection), ours[0].joined_at
        made = keys.moderator_token(secret, found.list_id, address, since)
    click.echo(made)
    click.echo(
        "A post with this field in its header is accepted, and the field is taken out:", err=True
    )
    click.echo(f"  Approved: {made}", err=True)


def _person(text: str, where: str) -> roster.Person:
    try:
        return roster.person(text)
    except registry.ListError as error:
        raise Failed(f"{where}{error}; nothing was done" if where else str(error)) from error


def _checked_name(name: str) -> str:
    try:
        return roster.checked_name(name)
    except registry.ListError as error:
        raise Failed(str(error)) from error


def _in_role(
    connection: Connection, list_key: int, emails: Iterable[str], role: Role
) -> Iterator[str]:
    """Those of these addresses that have a role on a list, folded."""
    for each in roster.memberships(connection, list_key, emails):
        if each.role == role:
            yield roster.same_address(each.email)


def _counted(number: int, role: Role) -> str:
    return f"{number} {role}{'' if number == 1 else 's'}"


def _facts(member: roster.Member) -> dict[str, Any]:
    return {
        "address": member.email,
        "name": member.name,
        "role": member.role,
        "delivery": member.delivery,
        "mode": member.mode,
        "moderation": member.moderation,
        "own_posts": member.own_posts,
        "duplicates": member.duplicates,
        "ack": member.ack,
        "joined_at": utc(member.joined_at),
    }


def _row(member: roster.Member) -> tuple[str, ...]:
    otherwise = [
        *(["digest"] if member.mode == "digest" else []),
        *([] if member.own_posts else ["no own posts"]),
        *([] if member.duplicates else ["no duplicates"]),
        *(["ack"] if member.ack else []),
    ]
    delivery = "on" if member.delivery == "on" else f"off by {member.delivery}"
    action = member.moderation or ""
    return member.email, member.name, member.role, delivery, action, ", ".join(otherwise)


def _in_words(value: str | bool | None) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "default" if value is None else value


def _changes(given: Sequence[tuple[str, str]]) -> Changes:
    found: dict[str, Any] = {}
    for key, text in given:
        if key == "name":
            found[key] = _checked_name(text)
            continue
        if key not in CHOICES:
            raise Failed(f"there is no {key[:100]!r}: use {_either([*CHOICES, 'name'])}")
        if text not in CHOICES[key]:
            allowed = _either(CHOICES[key])
            raise Failed(f"{key}: {text[:100]!r} is not allowed: use {allowed}")
        found[key] = CHOICES[key][text]
    return cast(Changes, found)


def _either(words: Iterable[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}"
