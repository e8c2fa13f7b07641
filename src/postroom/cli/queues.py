"""`postroom queue`.

For: seeing what mail waits and why, and acting on one entry at a time. Guarantees: reads
take one consistent view and hold it no longer than the reading; what a stranger wrote
cannot steer a terminal; `--raw` is byte for byte what a consumer gets.
"""

import json
import sys
import time
from typing import Any

import click
from sqlalchemy import Connection

from postroom.cli.common import Options, example, safe
from postroom.cli.database import opened
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
from postroom.delivery.care import abandon, hasten
from postroom.mail.message import header_end, message_id, with_mail_from
from postroom.spool import care as spool
from postroom.spool import ids
from postroom.spool.depth import depths
from postroom.spool.metadata import QUEUES, decode
from postroom.spool.queue import QueueError

HEAD = 65_536  # octets of a message that are read to show it
BODY_LINES = 10


def entry_id(value: str) -> int:
    """The type of an argument: an id as `queue ls` shows it."""
    try:
        return ids.read(value)
    except ValueError:
        raise click.BadParameter(f"{value!a} is no id: `queue ls` shows them") from None


entry_argument = click.argument("number", type=entry_id, metavar="ID")


@click.group(epilog=example("postroom queue stats", "postroom queue ls in --limit 10"))
def queue() -> None:
    """Mail that was accepted and waits."""


@queue.command("ls", epilog=example("postroom queue ls", "postroom queue ls in --json"))
@click.argument("name", type=click.Choice(QUEUES), required=False, metavar="[QUEUE]")
@limit_option()
@json_option
@click.pass_obj
def list_entries(options: Options, name: str | None, limit: int | None, as_json: bool) -> None:
    """Show entries, oldest first, of one queue or of all.

    Queues: in, command, bounces, out, archive, digest, news, held, shunt.
    """
    most = at_most(limit, as_json)
    with opened(options) as store, store.read() as connection:
        found = [
            (each, message_id(head)) for each, head in spool.entries(connection, name, most, HEAD)
        ]
    if as_json:
        print_array(_facts(each, known_as) for each, known_as in found)
        return
    if not found:
        _say_empty(options, name)
        return
    now = time.time()
    print_table(
        ("ID", "QUEUE", "LIST", "SENDER", "SIZE", "AGE", "TRIES", "MESSAGE-ID"),
        (
            (
                ids.show(each.id),
                each.queue,
                each.list or _metadata(each).get("listname", "(site owner)"),
                each.sender or "<>",
                each.size,
                duration(max(0.0, now - each.received_at)),
                each.attempts,
                known_as,
            )
            for each, known_as in found
        ),
        whole=("ID", "QUEUE", "AGE"),
    )
    say_if_more(len(found), most, besides=", `queue stats` counts all")


@queue.command(
    epilog=example(
        "postroom queue show 0326c1a2b4000001",
        "postroom queue show 0326c1a2b4000001 --raw > message.eml",
    )
)
@entry_argument
@click.option("--raw", is_flag=True, help="Write the whole message, as a consumer sees it.")
@json_option
@click.pass_obj
def show(options: Options, number: int, raw: bool, as_json: bool) -> None:
    """Show one entry: facts, last error, headers and the first lines."""
    if raw and as_json:
        raise click.UsageError("--raw and --json exclude each other")
    with opened(options) as store, store.read() as connection:
        found = _found(connection, number)
        if raw:
            content = spool.raw_of(connection, number)
        else:
            content = spool.headers_of(connection, number, HEAD)
    if raw:
        output = sys.stdout.buffer
        output.write(with_mail_from(content, found.sender))
        output.flush()
    elif as_json:
        print_object(_details(found, content))
    else:
        _print_entry(found, content)


@queue.command(epilog=example("postroom queue retry 0326c1a2b4000001"))
@entry_argument
@click.pass_obj
def retry(options: Options, number: int) -> None:
    """Make an entry due now; one in shunt goes back to its queue.

    Of a post on its way out, everybody who waits for it is due.
    """
    with opened(options) as store, store.begin() as connection:
        spool.requeue(connection, number)
        hasten(connection, number)
        found = _found(connection, number)
    click.echo(f"{ids.show(number)} is due now in queue {safe(found.queue)}")


@queue.command(epilog=example("postroom queue delete 0326c1a2b4000001"))
@entry_argument
@click.pass_obj
def delete(options: Options, number: int) -> None:
    """Delete an entry for good: the mail is gone."""
    with opened(options) as store, store.begin() as connection:
        spool.remove(connection, number)
        abandon(connection, number)
    click.echo(f"deleted {ids.show(number)}")


@queue.command(epilog=example("postroom queue stats", "postroom queue stats --json"))
@json_option
@click.pass_obj
def stats(options: Options, as_json: bool) -> None:
    """Show depth and oldest entry of every queue."""
    with opened(options) as store, store.read() as connection:
        found = depths(connection)
    now = time.time()
    rows: list[tuple[str, int, float | None]] = []
    for name in dict.fromkeys([*QUEUES, *sorted(found)]):
        depth, oldest = found.get(name, (0, None))
        rows.append((name, depth, None if oldest is None else max(0.0, now - oldest)))
    if as_json:
        print_array({"queue": name, "depth": depth, "oldest_age": age} for name, depth, age in rows)
        return
    print_table(
        ("QUEUE", "DEPTH", "OLDEST"),
        ((name, depth, "-" if age is None else duration(age)) for name, depth, age in rows),
    )


def _found(connection: Connection, number: int) -> spool.Entry:
    found = spool.find(connection, number)
    if found is None:
        raise QueueError("there is no such entry: `postroom queue ls` shows those there are")
    return found


def _metadata(found: spool.Entry) -> dict[str, Any]:
    try:
        return decode(found.metadata)
    except ValueError:
        return {"unreadable": found.metadata}


def _facts(found: spool.Entry, known_as: str) -> dict[str, Any]:
    return {
        "id": ids.show(found.id),
        "queue": found.queue,
        "list": found.list,
        "sender": found.sender,
        "size": found.size,
        "received_at": utc(found.received_at),
        "attempts": found.attempts,
        "message_id": known_as,
        "metadata": _metadata(found),
    }


def _details(found: spool.Entry, head: bytes) -> dict[str, Any]:
    return _facts(found, message_id(head)) | {
        "message": ids.show(found.message),
        "due_at": utc(found.available_at),
        "leased_until": None if found.lease_until is None else utc(found.lease_until),
        "last_error": found.last_error,
        "headers": head[: header_end(head)].decode("utf-8", "replace"),
    }


def _print_entry(found: spool.Entry, head: bytes) -> None:
    """`head` is where the message begins."""
    print_facts(
        {
            "id": ids.show(found.id),
            "queue": found.queue,
            "list": found.list,
            "sender": found.sender or "<>",
            "size": f"{found.size} octets",
            "received": local(found.received_at),
            "message": ids.show(found.message),
            "attempts": found.attempts,
            "due": local(found.available_at),
            "in work until": None if found.lease_until is None else local(found.lease_until),
            "metadata": json.dumps(_metadata(found), ensure_ascii=False),
        }
    )
    if found.last_error:
        click.echo("last error")
        _print_lines(found.last_error.splitlines())
    end = header_end(head)
    body = head[end:].splitlines()
    click.echo()
    _print_lines(_text(head[:end].splitlines()))
    _print_lines(_text(body[: BODY_LINES + 1]))
    if len(body) > BODY_LINES + 1 or len(head) < found.size:
        click.echo("  ... --raw writes the whole message")


def _text(lines: list[bytes]) -> list[str]:
    return [line.decode("utf-8", "replace") for line in lines]


def _print_lines(lines: list[str]) -> None:
    for line in lines:
        click.echo(f"  {safe(line.expandtabs())}".rstrip())


def _say_empty(options: Options, name: str | None) -> None:
    if name is None:
        click.echo(f"Nothing waits. Mail that `{options.command('serve')}` accepts appears here.")
    else:
        click.echo(f"Queue {name} is empty. All queues: {options.command('queue stats')}")
