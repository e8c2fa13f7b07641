"""`postroom list`.

For: making, showing, renaming and removing lists, one or a hundred thousand. Guarantees:
`create` makes all lists it is given or none; removing a list never makes mail vanish.
Fails as the registry says; for input from a file, with the number of the line.
"""

import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import click

from postroom.base.places import Unix, parse_listen
from postroom.cli.common import Failed, Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.given import Advance, given_words, pairs, progress
from postroom.cli.output import (
    json_option,
    local,
    print_array,
    print_facts,
    print_object,
    print_table,
    utc,
)
from postroom.cli.people import first_list_id, note
from postroom.lists import preferences, registry
from postroom.lists.endpoint import SUBADDRESSES
from postroom.mail.address import Mailbox
from postroom.spool.upkeep import remove_list, rename_list

CHUNK = 5000  # lists for each step of the progress bar
FIRST, FIRST_ID = "you@example.org", "hello@example.org"  # in what is to be tried first


@click.group(
    "list",
    epilog=example("postroom list create mylist@example.com", "postroom list ls"),
)
def lists() -> None:
    """Mailing lists."""


@lists.command(
    epilog=example(
        'postroom list create ants@example.com --name "All about ants"',
        "postroom list create - < addresses.txt",
    )
)
@click.argument("addresses", nargs=-1, required=True, type=word, metavar="ADDRESS...")
@click.option("--name", type=word, default="", metavar="TEXT", help="What people call it.")
@click.pass_obj
def create(options: Options, addresses: Sequence[str], name: str) -> None:
    """Create lists: all of them or, if one is refused, none.

    The domain of a list is added if it is new. "-" reads addresses from standard input,
    one a line.
    """
    from_stdin = "-" in addresses
    given = list(given_words(addresses))
    with progress("checking", len(given)) as advance:
        boxes = _checked(given, advance)
    with opened(options) as store, store.begin() as connection:
        with progress("creating", len(boxes)) as advance:
            for first in range(0, len(boxes), CHUNK):
                some = boxes[first : first + CHUNK]
                registry.create_lists(connection, some, name)
                advance(len(some))
        note(connection, "created", [(first_list_id(box), "") for box in boxes])
        warnings = registry.shadow_warnings(connection, boxes)
    _warn(warnings)
    if from_stdin:
        click.echo(f"created {len(boxes)} list{'' if len(boxes) == 1 else 's'}")
        return
    for box in boxes:
        click.echo(f"created {safe(str(box))}")
    if len(boxes) == 1:
        _say_what_next(options, boxes[0])


@lists.command("ls", epilog=example("postroom list ls", "postroom list ls --json"))
@json_option
@click.pass_obj
def list_lists(options: Options, as_json: bool) -> None:
    """Show all lists."""
    with opened(options) as store, store.read() as connection:
        found = list(registry.lists(connection))
    if as_json:
        print_array(map(_facts, found))
    elif found:
        print_table(
            ("ADDRESS", "LIST-ID", "NAME", "CREATED"),
            (
                (each.posting_address, each.list_id, each.display_name, local(each.created_at))
                for each in found
            ),
        )
    else:
        click.echo(f"No lists yet: {options.command('list create mylist@example.com')}")


@lists.command(
    epilog=example(
        "postroom list show mylist@example.com", "postroom list show --json mylist@example.com"
    )
)
@click.argument("address", type=word)
@json_option
@click.pass_obj
def show(options: Options, address: str, as_json: bool) -> None:
    """Show one list: every setting, its value and its default.

    A * stands before what differs from its default.
    """
    with opened(options) as store, store.read() as connection:
        found = registry.find_list(connection, address)
        settings = list(preferences.describe(preferences.preferences(connection, found.key)))
    if as_json:
        print_object(_facts(found) | {"settings": {each.key: _setting(each) for each in settings}})
        return
    print_facts(
        {
            "address": found.posting_address,
            "list-id": found.list_id,
            "name": found.display_name,
            "created": local(found.created_at),
            "also at": " ".join(f"-{suffix}" for suffix in SUBADDRESSES),
        }
    )
    click.echo()
    print_table(
        ("", "SETTING", "VALUE", "DEFAULT", "MEANING"),
        (
            (
                "*" if each.value != each.default else "",
                each.key,
                preferences.in_words(each.value),
                preferences.in_words(each.default),
                each.meaning,
            )
            for each in settings
        ),
        whole=("SETTING",),
    )


@lists.command(
    "set",
    epilog=example(
        "postroom list set mylist@example.com posting.nonmembers=reject",
        'postroom list set mylist@example.com headers.subject_prefix="[ants] "',
        "postroom list set mylist@example.com posting.banned+=@example.net",
    ),
)
@click.argument("address", type=word)
@click.argument("changes", nargs=-1, required=True, metavar="KEY=VALUE...")
@click.pass_obj
def set_settings(options: Options, address: str, changes: Sequence[str]) -> None:
    """Change settings of a list: all of them or, if one is refused, none.

    `postroom list show LIST` shows what there is. Settings that hold several values take
    them with commas between, "" empties them; KEY+=VALUE puts one to them, KEY-=VALUE takes
    one from them.
    """
    given = pairs(changes)
    with opened(options) as store, store.begin() as connection:
        found = registry.find_list(connection, address)
        settings = preferences.set_preferences(connection, found.key, given)
        touched = {key.rstrip("+-") for key, _ in given}
        words = {
            each.key: preferences.in_words(each.value)
            for each in preferences.describe(settings)
            if each.key in touched
        }
        note(connection, "settings", [(found.list_id, "")], **words)
    for key, value in words.items():
        click.echo(safe(f"{key} = {value}"))


@lists.command(epilog=example("postroom list rename ants@example.com bees@example.com"))
@click.argument("old", type=word)
@click.argument("new", type=word)
@click.pass_obj
def rename(options: Options, old: str, new: str) -> None:
    """Give a list another address.

    Its list-id stays, and mail that waits follows. The old address is no longer valid.
    """
    with opened(options) as store, store.begin() as connection:
        before = registry.find_list(connection, old).posting_address
        renamed = rename_list(connection, old, new)
        now = renamed.posting_address
        note(connection, "renamed", [(renamed.list_id, "")], before=before, now=now)
        warnings = registry.shadow_warnings(connection, [registry.posting_address(now)])
    _warn(warnings)
    click.echo(safe(f"{before} is now {now}; its list-id stays {renamed.list_id}"))


@lists.command(
    epilog=example(
        "postroom list remove mylist@example.com", "postroom list remove --force old@example.com"
    )
)
@click.argument("address", type=word)
@click.option("--force", is_flag=True, help="Also if mail waits: it goes to the shunt queue.")
@click.pass_obj
def remove(options: Options, address: str, force: bool) -> None:
    """Remove a list.

    Refused while mail waits for it, unless forced.
    """
    with opened(options) as store, store.begin() as connection:
        found = registry.find_list(connection, address)
        moved = remove_list(connection, address, force)
        note(connection, "deleted", [(found.list_id, "")], address=found.posting_address)
    click.echo(safe(f"removed {found.posting_address}"))
    if moved:
        click.echo(f"entries put into shunt: {moved}; see {options.command('queue ls shunt')}")


def _facts(found: registry.MailingList) -> dict[str, Any]:
    return {
        "address": found.posting_address,
        "list_id": found.list_id,
        "name": found.display_name,
        "created_at": utc(found.created_at),
    }


def _setting(setting: preferences.Setting) -> dict[str, Any]:
    changed = setting.value != setting.default
    return {"value": setting.value, "default": setting.default, "changed": changed}


def _checked(given: Iterable[tuple[str, str]], advance: Advance) -> list[Mailbox]:
    """The addresses, folded; none twice."""
    seen: dict[Mailbox, str] = {}
    for text, where in given:
        try:
            box = registry.posting_address(text)
        except registry.ListError as error:
            raise Failed(f"{where}{error}") from error
        if box in seen:
            before = f", first in {seen[box].rstrip(': ')}" if seen[box] else ""
            raise Failed(f"{where}{box} is named twice{before}; no list was created")
        seen[box] = where
        advance(1)
    return list(seen)


def _warn(warnings: Iterable[str]) -> None:
    for warning in warnings:
        click.echo(f"warning: {safe(warning)}", err=True)


def _say_what_next(options: Options, box: Mailbox) -> None:
    if not str(box).isascii():
        return  # smtplib would need to be told
    where = parse_listen(options.settings().lmtp.listen[0])
    if isinstance(where, Unix):
        server = f"{json.dumps(where.path)}, local_hostname="
    else:  # a port that the system chose is known to `serve` alone
        server = f"{json.dumps(where.host)}, {where.port or 'PORT'}, "
    text = f"From: {FIRST}\nTo: {box}\nSubject: hello\nMessage-ID: <{FIRST_ID}>\n\nHello, list.\n"
    sender, recipient, message = map(json.dumps, (FIRST, str(box), text))
    code = (
        f'import smtplib; smtplib.LMTP({server}"localhost")'
        f".sendmail({sender}, {recipient}, {message})"
    )
    click.echo("Add yourself, with your own address:")
    click.echo(f"  {options.command(f'member add {shlex.quote(str(box))} {FIRST}')}")
    click.echo(f"Post something while `{options.command('serve')}` runs, as that member:")
    click.echo(f"  python3 -c {shlex.quote(code)}")
    click.echo("See what became of it:")
    click.echo(f"  {options.command(f'trace {FIRST_ID}')}")
    click.echo("Print what your mail server must be told, and check that all works together:")
    click.echo(f"  {options.command('mta postfix')}")
    click.echo(f"  {options.command('doctor')}")
