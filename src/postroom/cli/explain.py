"""`postroom explain`: what would become of a post?

For: answering that before a message is sent, or why one was held. Guarantees: nothing is
written, posted or told to anybody; rules, facts and changes are those of the server, made by
the same functions; what a stranger wrote cannot steer a terminal. The one thing that is asked
of others is the DMARC policy of the authors' domains, as the server would (see `[dns]`).
"""

import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from postroom.base.settings import Settings
from postroom.cli.common import Failed, Options, example, safe, word
from postroom.cli.database import opened
from postroom.cli.output import json_option, print_facts, print_object, print_table
from postroom.lists.registry import find_list
from postroom.mail.fields import Field, take_apart
from postroom.posting.cook import Cooked, cook
from postroom.posting.decision import Decision, Hit, ListFacts, SenderFacts
from postroom.posting.dns import Resolver
from postroom.posting.facts import facts_for
from postroom.posting.order import last_look, order_for, policy_for
from postroom.posting.rules import decide, examine, not_used
from postroom.reading.post import Post, read, shown

MOST = 100  # fields that are shown to people as removed, or as added


class Changes(NamedTuple):
    """What would go out otherwise than it came: fields as lines, other things as sentences."""

    removed: list[str]
    added: list[str]
    notes: Sequence[str]


class Case(NamedTuple):
    """A message, and all that the server would find out about it."""

    this: ListFacts
    senders: SenderFacts
    post: Post
    rules: list[tuple[str, Hit | None]]
    decision: Decision
    changes: Changes


@click.command(
    epilog=example(
        "postroom explain mylist@example.com message.eml",
        "postroom explain mylist@example.com message.eml --sender ann@example.org --json",
        "postroom explain mylist@example.com - < message.eml",
    )
)
@click.argument("list_address", type=word, metavar="LIST")
@click.argument("file", type=word, metavar="FILE")
@click.option(
    "--sender",
    type=word,
    metavar="ADDRESS",
    help='The envelope sender, "" for none; else X-MailFrom, Return-Path, or the first author.',
)
@json_option
@click.pass_obj
def explain(
    options: Options, list_address: str, file: str, sender: str | None, as_json: bool
) -> None:
    """Show what would become of a post, without posting it.

    Shows what each rule says of the message in FILE ("-" is standard input), what would be
    done, and how its header would change.
    """
    raw = _content(file)
    with opened(options) as store, store.read() as connection:
        found = find_list(connection, list_address)
        post = read(raw, _sender(raw) if sender is None else sender.strip("<> "))
        this, senders = facts_for(connection, found, post)
    settings = options.settings()
    cooked = _cooked(settings, this, post, raw)
    decision = last_look(decide(this, post, senders), cooked.raw, senders.tokens)
    rules = examine(this, post, senders)
    changes = _changes(settings, raw, cooked)
    case = Case(this, senders, post, [*rules], decision, changes)
    if as_json:
        print_object(_facts(case))
    else:
        _print(case)


def _content(file: str) -> bytes:
    try:
        return sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    except OSError as error:
        raise Failed(
            f"{file} cannot be read ({error.strerror}): name a file that holds a message, or -"
        ) from error


def _sender(raw: bytes) -> str:
    """The envelope sender, as far as the message tells."""
    parts = take_apart(raw)
    for name in ("x-mailfrom", "return-path"):
        if each := parts.first(name):
            return shown(each).strip("<> ")
    return next(iter(read(raw, "").authors), "")


def _cooked(settings: Settings, this: ListFacts, post: Post, raw: bytes) -> Cooked:
    dns = settings.dns
    resolver = Resolver(dns.timeout, offline=dns.offline, nameservers=dns.servers)
    policy = policy_for(resolver, this.settings, post.authors)
    return cook(raw, order_for(this, post, settings.site.hostname, policy, time.time()))


def _changes(settings: Settings, raw: bytes, cooked: Cooked) -> Changes:
    before, after = take_apart(raw), take_apart(cooked.raw)
    notes = list(cooked.notes)
    if settings.arc.key:
        notes.append("sealed with ARC, if the mail server has checked the post")
    return Changes(
        _missing(before.fields, after.fields), _missing(after.fields, before.fields), notes
    )


def _missing(these: Sequence[Field], those: Sequence[Field]) -> list[str]:
    """Fields that are here and not there, in order, each as one line."""
    there = Counter(each.raw.rstrip(b"\r\n") for each in those)
    missing = []
    for each in these:
        key = each.raw.rstrip(b"\r\n")
        there[key] -= 1
        if there[key] < 0:
            name, colon, _ = each.raw.partition(b":")
            spelled = name.decode("utf-8", "replace") if colon else ""
            missing.append(f"{spelled}: {shown(each)}")
    return missing


def _facts(case: Case) -> dict[str, Any]:
    decision = case.decision
    return {
        "list": case.this.posting_address,
        "sender": case.post.sender,
        "authors": list(case.post.authors),
        "known": [each._asdict() for each in case.senders.memberships],
        "approved": case.senders.approved,
        "message_id": case.post.message_id,
        "size": case.post.size,
        "rules": [
            {
                "rule": rule,
                "action": hit.action if hit else None,
                "sentence": hit.sentence if hit else None,
            }
            for rule, hit in case.rules
        ],
        "not_used": not_used(case.this.settings.posting),
        "action": decision.action,
        "reason": decision.reason,
        "sentence": decision.sentence,
        "changes": case.changes._asdict(),
    }


def _print(case: Case) -> None:
    known = ", ".join(
        f"{each.email} ({each.role}{f', {each.moderation}' if each.moderation else ''})"
        for each in case.senders.memberships
    )
    print_facts(
        {
            "List": case.this.posting_address,
            "Envelope sender": f"<{case.post.sender}>",
            "Authors": ", ".join(case.post.authors) or "none",
            "Known to the list": known or "nobody",
            "Size": f"{case.post.size} octets",
        }
    )
    click.echo()
    print_table(
        ("RULE", "WANTS", "WHY"),
        (
            (rule, hit.action if hit else "-", hit.sentence if hit else "")
            for rule, hit in case.rules
        ),
        whole=("RULE", "WANTS"),
    )
    for reason in not_used(case.this.settings.posting):
        click.echo(f"warning: {safe(reason)}", err=True)
    decision = case.decision
    click.echo(f"\nDecision: {decision.action} ({decision.reason})")
    click.echo(safe(decision.sentence))
    click.echo(f"\nWhat {'changes' if decision.action == 'accept' else 'would change'}:")
    for note in case.changes.notes:
        click.echo(safe(f"* {note}"))
    _print_fields("-", case.changes.removed)
    _print_fields("+", case.changes.added)


def _print_fields(mark: str, lines: Iterable[str]) -> None:
    every = list(lines)
    for line in every[:MOST]:
        click.echo(safe(f"{mark} {line}"))
    if len(every) > MOST:
        click.echo(f"{mark} and {len(every) - MOST} more: --json shows all")
