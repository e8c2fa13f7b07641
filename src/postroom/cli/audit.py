"""`postroom audit`.

For: who changed what of a list, and how. Guarantees: it only reads; a list that was removed is
still known by its list-id. What a stranger wrote cannot steer a terminal. A list that nothing is
known of is one sentence.
"""

from typing import Any

import click
from sqlalchemy import Connection

from postroom.cli.common import Failed, Options, example, word
from postroom.cli.database import opened
from postroom.cli.output import (
    at_most,
    json_option,
    limit_option,
    local,
    print_array,
    print_table,
    say_if_more,
    utc,
)
from postroom.cli.people import first_list_id
from postroom.lists.audit import Entry, changes_of
from postroom.lists.registry import ListError, find_list
from postroom.lists.roster import same_address
from postroom.mail.address import Mailbox

LONGEST = 60  # characters of a value; JSON has it all


@click.command(
    epilog=example(
        "postroom audit mylist@example.com",
        "postroom audit mylist@example.com --address ann@example.org --json",
    )
)
@click.argument("name", type=word, metavar="LIST")
@click.option("--address", type=word, metavar="ADDRESS", help="Only what concerns this address.")
@limit_option("newest")
@json_option
@click.pass_obj
def audit(
    options: Options, name: str, address: str | None, limit: int | None, as_json: bool
) -> None:
    """Show who joined or left a list, what was changed, and by whom.

    The newest comes last. A list that was removed is found by its list-id, or by the address it
    was created with.
    """
    most = at_most(limit, as_json)
    if address is not None and not same_address(address):
        raise click.BadParameter(f"{address!a} is no address", param_hint="--address")
    with opened(options) as store, store.read() as connection:
        list_id, there = _list_id(connection, name)
        if not there and not any(changes_of(connection, list_id, None, 1)):
            kept = options.settings().commands.audit_kept
            raise Failed(
                f"nothing is known of a list {name}: give the address or, if it was removed, the "
                f"list-id; what was changed is kept for {kept:g} days (commands.audit_kept)"
            )
        found = changes_of(connection, list_id, address, most)
        if as_json:
            print_array(map(_facts, found))
            return
        changes = list(found)
    if not changes:
        click.echo("No change is known.")
        return
    print_table(
        ("WHEN", "WHAT", "ADDRESS", "BY", "HOW"),
        ((local(each.at), each.what, each.email, each.by, _how(each)) for each in changes),
        whole=("WHEN", "WHAT"),
    )
    say_if_more(len(changes), most, "newest")


def _list_id(connection: Connection, name: str) -> tuple[str, bool]:
    """The list-id of a list, and whether `name` is the address of one that is there."""
    try:
        return find_list(connection, name).list_id, True
    except ListError:
        local_part, at, host = (same_address(name) or name).rpartition("@")
        if at:
            return first_list_id(Mailbox(local_part, host)), False
        return name.strip("<> ").lower(), False


def _how(change: Entry) -> str:
    """In which way, and what else is known of it."""
    facts = dict(change.facts)
    how = str(facts.pop("how", ""))
    rest = ", ".join(f"{name}={_in_words(value)}" for name, value in facts.items())
    return f"{how} ({rest})" if how and rest else how or rest


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _facts(change: Entry) -> dict[str, Any]:
    return {
        "at": utc(change.at),
        "list_id": change.list_id,
        "what": change.what,
        "address": change.email,
        "by": change.by,
        "facts": change.facts,
    }
