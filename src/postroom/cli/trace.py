"""`postroom trace`: where is my message?

For: answering that question, step by step and recipient by recipient. Guarantees: it only
reads; JSON has every recipient and is written as it is read, so memory stays flat; what a
stranger wrote cannot steer a terminal. A message that nothing is known of is one sentence.
"""

import json
import time
from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from postroom.cli.common import Failed, Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.output import json_option, local, print_array, print_table, utc
from postroom.delivery.trace import NEWEST, Post, Recipient, Trace, Waiting, recipients
from postroom.delivery.trace import trace as look
from postroom.spool import ids
from postroom.spool.steps import Step
from postroom.store.engine import Store

SHOWN = 50  # recipients of a post, or of those in one state, to people who do not ask for all
TROUBLED = ("refused", "pending", "gone")  # those who were not sent to, the worst first
# What is said of a step, if it has these facts; others follow by name.
_SAYINGS = {
    "received": "from {peer} ({lhlo}), envelope sender <{sender}>, {size} octets",
    "decided": "{action}: {sentence} ({reason})",
    "held": "{sentence} ({reason})",
    "rejected": "{sentence} ({reason})",
    "discarded": "{sentence} ({reason})",
    "accepted": "{sentence} ({reason})",
    "accepted by a moderator": "by {by}",
    "passed to the owners": "recipients: {recipients}",
    "expanded": "recipients: {recipients}",
}


@click.command(
    epilog=example("postroom trace '<ant@example.org>'", "postroom trace ant@example.org --json")
)
@click.argument("name", type=word, metavar="MESSAGE-ID")
@click.option("--all", "everyone", is_flag=True, help=f"Show all recipients, not {SHOWN} at most.")
@json_option
@click.pass_obj
def trace(options: Options, name: str, everyone: bool, as_json: bool) -> None:
    """Show what became of a message.

    Shows each step with its time, where it waits, and for each recipient what the mail server
    said last. MESSAGE-ID is as mail clients show it, with or without angle brackets.
    """
    if not name.strip("<> "):
        raise click.BadParameter("a message without Message-ID cannot be told from others")
    with opened(options) as store:
        with store.read() as connection:
            found = look(connection, name)
        if not found:
            raise Failed(_unknown(name, options.settings().delivery.kept, found.complete))
        if as_json:
            _print_json(store, name.strip(), found)
        else:
            _print_text(store, found, everyone)


def _unknown(name: str, days: float, complete: bool) -> str:
    looked = (
        ""
        if complete
        else f"; of the mail that waits only the newest were looked at, up to {NEWEST} of each "
        "queue (`postroom queue ls` shows all)"
    )
    return (
        f"nothing is known of a message {name.strip()}: give its Message-ID exactly as in the "
        f"message's source; what became of a message is kept for {days:g} days (delivery.kept)"
        f"{looked}"
    )


def _print_json(store: Store, name: str, found: Trace) -> None:
    """One object, in pieces: there may be very many recipients."""
    click.echo(f'{{"message_id": {json.dumps(name)}, "steps": ', nl=False)
    print_array(
        {"at": utc(each.at), "list": each.list, "what": each.what, "facts": each.facts}
        for each in found.steps
    )
    click.echo(', "waiting": ', nl=False)
    print_array(map(_waiting_facts, found.waiting))
    before = ', "deliveries": ['
    for post in found.posts:
        click.echo(f'{before}{json.dumps(_post_facts(post))[:-1]}, "recipients": ', nl=False)
        print_array(_recipient_facts(post, each) for each in recipients(store, post.id))
        before = "}, "
    click.echo("}]}" if found.posts else f"{before}]}}")


def _waiting_facts(each: Waiting) -> dict[str, Any]:
    return {
        "id": ids.show(each.id),
        "queue": each.queue,
        "list": each.list or None,
        "kind": each.kind or None,
        "reason": each.reason or None,
        "peer": each.peer,
        "lhlo": each.lhlo,
        "sender": each.sender,
        "size": each.size,
        "received_at": utc(each.received_at),
        "attempts": each.attempts,
        "due_at": utc(each.available_at),
        "leased_until": None if each.lease_until is None else utc(each.lease_until),
        "last_error": each.last_error or None,
    }


def _post_facts(each: Post) -> dict[str, Any]:
    return {
        "id": ids.show(each.id),
        "list": each.list or None,
        "kind": each.kind or None,
        "created_at": utc(each.created_at),
        "done_at": None if each.done_at is None else utc(each.done_at),
        "states": each.states,
    }


def _recipient_facts(post: Post, each: Recipient) -> dict[str, Any]:
    # Who was not tried yet is due since the post was made.
    due = None if each.next_at is None else max(each.next_at, post.created_at)
    return {
        "email": each.email,
        "state": each.state,
        "attempts": each.attempts,
        "next_at": None if due is None else utc(due),
        "reply": each.reply or None,
        "at": None if each.at is None else utc(each.at),
        "server": each.server or None,
    }


def _print_text(store: Store, found: Trace, everyone: bool) -> None:
    if found.steps:
        print_table(
            ("TIME", "LIST", "STEP", "WHAT"),
            [(local(each.at), each.list, each.what, _said(each)) for each in found.steps],
            whole=("TIME", "STEP"),
        )
    for place, waiting in enumerate(found.waiting):
        if place or found.steps:
            click.echo()
        _print_waiting(waiting)
    for place, post in enumerate(found.posts):
        if place or found.steps or found.waiting:
            click.echo()
        _print_post(store, post, everyone)


def _said(step: Step) -> str:
    """What a step tells, for people."""
    facts = {name: _text(value) for name, value in step.facts.items() if value != []}
    saying = _SAYINGS.get(step.what, "")
    try:
        told = [saying.format_map(facts)]
    except KeyError:
        saying, told = "", []
    told += [f"{name} {value}" for name, value in facts.items() if f"{{{name}}}" not in saying]
    return ", ".join(filter(None, told))


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _print_waiting(each: Waiting) -> None:
    """One that is in work waits for its runner; others for their time."""
    if each.lease_until is not None:
        state = f"in work until {local(each.lease_until)}"
    elif each.queue == "held":
        state = "a moderator decides"
    elif each.queue == "shunt":
        state = f"set aside: `postroom queue show {ids.show(each.id)}` says why"
    else:
        state = _due(each.available_at)
    tried = f", {_times(each.attempts)}" if each.attempts else ""
    click.echo(safe(f"waits in queue {each.queue} ({ids.show(each.id)}): {state}{tried}"))
    whence = f"from {each.peer} ({each.lhlo})" if each.peer else "made here"
    told = [
        f"for {each.list or 'the site owner'}{f', {each.kind}' if each.kind else ''}",
        f"{whence} {local(each.received_at)}, envelope sender <{each.sender}>, {each.size} octets",
        each.reason,
        each.last_error.rstrip().rpartition("\n")[2],
    ]
    for text in filter(None, told):
        click.echo(f"  {safe(text)}")


def _print_post(store: Store, post: Post, everyone: bool) -> None:
    counts = ", ".join(f"{count:,} {state}" for state, count in post.states.items() if count)
    ended = "under way" if post.done_at is None else f"done {local(post.done_at)}"
    click.echo(
        safe(
            f"delivery {ids.show(post.id)}, {post.kind or 'mail'} of {post.list or 'the site'}: "
            f"begun {local(post.created_at)}, {ended}; {counts or 'nobody to send it to'}"
        )
    )
    if everyone or post.recipients <= SHOWN:
        _print_recipients(recipients(store, post.id))
        return
    for state in TROUBLED:
        _print_recipients(islice(recipients(store, post.id, state), SHOWN))
        if post.states[state] > SHOWN:
            click.echo(f"  and {post.states[state] - SHOWN:,} more {state}: --all shows everyone")


def _print_recipients(some: Iterator[Recipient]) -> None:
    for each in some:
        told = [f"{each.state:<7}", each.reply]
        if each.at is not None:
            told.append(f"({each.server + ', ' if each.server else ''}{local(each.at)})")
        if each.state == "pending":
            told.append(f"{_times(each.attempts)}, {_due(each.next_at or 0.0)}")
        elif each.attempts > 1:
            told.append(_times(each.attempts))
        click.echo(safe(f"  {each.email:<32}  {'  '.join(filter(None, told))}").rstrip())


def _due(seconds: float) -> str:
    return "due now" if seconds <= time.time() else f"next {local(seconds)}"


def _times(attempts: int) -> str:
    return f"{attempts} attempt{'' if attempts == 1 else 's'}"
