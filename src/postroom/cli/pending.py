"""`postroom pending`.

For: owners with a shell, who decide on requests to join, leave or change something. Guarantees:
the requests that one call names are decided on together or not at all, with their letters and
what the audit says, in one transaction; whoever decides second is told that it was done; nobody's
consent is given in their place. Tokens are not shown. What a stranger wrote cannot steer a
terminal.
"""

import time
from collections.abc import Sequence
from typing import Any, Final

import click
from sqlalchemy import Connection

from postroom.cli.common import Failed, Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.office import listing_of, office_of
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
from postroom.cli.people import who
from postroom.cli.queues import entry_id
from postroom.commands import office
from postroom.lists import pending as requests
from postroom.lists.pending import Gone, Request
from postroom.lists.registry import ListError, MailingList, find_list, list_of_key
from postroom.lists.subscription import Event, State, after
from postroom.notices.language import say
from postroom.spool import ids
from postroom.spool.handing import hand_on

WAITS_FOR: Final = {
    State.CONFIRM: "the address",
    State.MODERATE: "the owners",
    State.INVITED: "the address, invited",
}
# What does at once, without asking anybody, what was asked for.
INSTEAD: Final = {"join": "member add", "leave": "member remove", "change": "member set"} | {
    "resume": "bounce reset"
}
DONE: Final = {Event.ACCEPT: "accepted", Event.REJECT: "rejected", Event.DISCARD: "discarded"}

numbers_argument = click.argument(
    "numbers", type=entry_id, nargs=-1, required=True, metavar="ID..."
)


@click.group(epilog=example("postroom pending ls", "postroom pending accept 0326c1a2b4000001"))
def pending() -> None:
    """People who asked to join, leave or change something."""


@pending.command(
    "ls", epilog=example("postroom pending ls", "postroom pending ls mylist@example.com --json")
)
@click.argument("address", required=False, type=word, metavar="[LIST]")
@limit_option()
@json_option
@click.pass_obj
def list_requests(options: Options, address: str | None, limit: int | None, as_json: bool) -> None:
    """Show what waits for somebody, oldest first, of one list or of all."""
    most = at_most(limit, as_json)
    with opened(options) as store, store.read() as connection:
        key = find_list(connection, address).key if address else None
        found = requests.waiting(connection, key, most)
        if as_json:
            print_array(_facts(request, name) for request, name in found)
            return
        every = list(found)
    if not every:
        click.echo("No request waits for anybody.")
        return
    print_table(
        ("ID", "LIST", "ACTION", "ADDRESS", "WAITS FOR", "SINCE", "UNTIL"),
        (
            (
                ids.show(request.id),
                name,
                request.action,
                request.email,
                WAITS_FOR.get(request.state, request.state),
                local(request.created_at),
                local(request.expires_at),
            )
            for request, name in every
        ),
        whole=("ID", "SINCE", "UNTIL"),
    )
    say_if_more(len(every), most)


@pending.command(epilog=example("postroom pending show 0326c1a2b4000001"))
@click.argument("number", type=entry_id, metavar="ID")
@json_option
@click.pass_obj
def show(options: Options, number: int, as_json: bool) -> None:
    """Show one request: who asked for what, and who has to agree."""
    with opened(options) as store, store.read() as connection:
        request = requests.find(connection, number)
        name = _list_of(connection, request).posting_address
    if as_json:
        print_object(_facts(request, name))
        return
    changes = ", ".join(f"{key}={value}" for key, value in request.changes.items())
    print_facts(
        {
            "id": ids.show(request.id),
            "list": name,
            "action": request.action,
            "address": request.email,
            "name": request.name or None,
            "with": changes or None,
            "waits for": WAITS_FOR.get(request.state, request.state),
            "policy": request.policy,
            "asked by": request.asked_by,
            "from network": request.source or None,
            "asked": local(request.created_at),
            "last told": local(request.told_at),
            "until": local(request.expires_at),
        }
    )


@pending.command(epilog=example("postroom pending accept 0326c1a2b4000001"))
@numbers_argument
@click.pass_obj
def accept(options: Options, numbers: Sequence[int]) -> None:
    """Agree to requests that wait for the owners: all of them or none."""
    _decide(options, numbers, Event.ACCEPT)


@pending.command(
    epilog=example(
        'postroom pending reject 0326c1a2b4000001 --reason "This list is for our members."'
    )
)
@numbers_argument
@click.option("--reason", metavar="TEXT", type=word, default="", help="What the person is told.")
@click.pass_obj
def reject(options: Options, numbers: Sequence[int], reason: str) -> None:
    """Refuse requests that wait for the owners, and tell who asked: all of them or none."""
    _decide(options, numbers, Event.REJECT, reason)


@pending.command(epilog=example("postroom pending discard 0326c1a2b4000001"))
@numbers_argument
@click.pass_obj
def discard(options: Options, numbers: Sequence[int]) -> None:
    """Drop requests without a word, whoever they wait for: all of them or none."""
    _decide(options, numbers, Event.DISCARD)


def _decide(options: Options, numbers: Sequence[int], event: Event, reason: str = "") -> None:
    """Decide on all that were named, and say what came of each."""
    at_office, by, new_id = office_of(options.settings()), who(), ids.IdMaker()
    now = time.time()
    lines = []
    with opened(options) as store, store.begin() as connection:
        for number in sorted(set(numbers)):  # in one order, whoever else decides
            try:
                request = requests.find(connection, number)
                listing = listing_of(connection, _list_of(connection, request))
                _refuse(request, event, listing.of.posting_address, now)
                desk = at_office.at(connection, listing, now)
                result = office.decide(desk, request, event, by, reason)
            except (ListError, Gone) as error:
                raise Failed(f"{ids.show(number)}: {error}; nothing was decided") from error
            hand_on(connection, new_id, result.handed)
            lines.append(f"{DONE[event]} {ids.show(number)}: {say(result.said)}")
    for line in lines:
        click.echo(safe(line))


def _refuse(request: Request, event: Event, address: str, now: float) -> None:
    """Refuse what only the address itself may decide, and what is over. Raises `ListError`."""
    if request.expires_at <= now:
        raise ListError("it has expired: whoever asked may ask again")
    if after(request.policy, request.state, event) is not None:
        return
    if event is Event.ACCEPT:
        instead = f"`postroom {INSTEAD[request.action]} {address} {request.email}` does it at once"
    else:
        instead = "`postroom pending discard` drops it"
    raise ListError(f"it waits for {request.email} to confirm, not for the owners: {instead}")


def _list_of(connection: Connection, request: Request) -> MailingList:
    of = list_of_key(connection, request.list_key)
    if of is None:
        raise ListError("its list was removed meanwhile")
    return of


def _facts(request: Request, name: str) -> dict[str, Any]:
    return {
        "id": ids.show(request.id),
        "list": name,
        "action": request.action,
        "address": request.email,
        "name": request.name,
        "changes": dict(request.changes),
        "state": request.state,
        "policy": request.policy,
        "asked_by": request.asked_by,
        "source": request.source,
        "created_at": utc(request.created_at),
        "told_at": utc(request.told_at),
        "expires_at": utc(request.expires_at),
    }
