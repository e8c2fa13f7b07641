"""`postroom doctor`.

For: finding out why mail does not arrive, or will not tomorrow. Guarantees: it changes
nothing; each line is ok, a warning or a failure, and says what to do. Exits 1 if there is a
failure.
"""

import sys
from collections.abc import Iterator

import click

from postroom.cli.common import Failed, Options, example, safe
from postroom.cli.output import json_option, print_array
from postroom.doctor import facts, findings, handover, outgoing
from postroom.doctor.findings import FAILURE, OK, WARNING, Finding
from postroom.store.engine import StoreError, make_engine

_COLOURS = {OK: "green", WARNING: "yellow", FAILURE: "red"}


@click.command(epilog=example("postroom doctor", "postroom doctor --json"))
@json_option
@click.pass_context
def doctor(context: click.Context, as_json: bool) -> None:
    """Look for what is wrong, and say what to do."""
    options = context.find_object(Options) or Options()
    failed = False
    found = _examined(options)
    if as_json:
        every = list(found)
        print_array(each._asdict() for each in every)
        failed = any(each.level == FAILURE for each in every)
    else:
        for each in found:  # as they come: some take seconds
            failed |= each.level == FAILURE
            _print(each)
    context.exit(int(failed))


def _print(found: Finding) -> None:
    level = click.style(f"{found.level:8}", fg=_COLOURS[found.level])
    text = f"{found.text}: {found.to_do}" if found.to_do else found.text
    click.echo(f"{level} {found.check:12} {safe(text)}")
    sys.stdout.flush()


def _examined(options: Options) -> Iterator[Finding]:
    try:
        settings = options.settings()
        make_engine(settings.store.url).dispose()
    except (Failed, StoreError) as error:
        yield Finding("settings", FAILURE, str(error), "nothing else can be looked at before")
        return
    path = options.file()
    yield Finding("settings", OK, str(path.absolute()) if path else "defaults, no file")
    machine = facts.machine(settings.site.hostname)
    stored = facts.database(settings.store.url)
    status, trouble = facts.status(settings.metrics.listen)
    yield from findings.database(stored)
    disk = facts.disk(settings.store.url)
    if disk is not None:
        yield from findings.space(disk, settings)
    yield from findings.listeners("lmtp", map(facts.lmtp, settings.lmtp.listen))
    if settings.maps.listen:
        yield from findings.listeners("maps", [facts.maps(settings.maps.listen)])
    yield findings.metrics(settings.metrics.listen, status, trouble)
    if settings.lmtp.tls_certificate:
        yield from findings.certificate(facts.certificate(settings.lmtp), machine.now)
    if stored.addresses:
        handed = handover.ask(stored.addresses)
        yield from handover.handed_over(handed, settings.lmtp.listen)
    along = outgoing.way(settings.store.url, settings.site.owner)
    yield from outgoing.posts(outgoing.ask(settings, along), along, settings)
    yield from findings.identity(settings.site, machine, along.circular)
    yield findings.clock(machine, stored.newest)
    yield from findings.limits(settings, machine, status)
