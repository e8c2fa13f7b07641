"""`postroom mta`.

For: connecting a mail server, with its exact configuration for this installation.
Guarantees: what is printed is for both directions, lets nobody relay, names no address of a
list (those are looked up), and stands alone on stdout, so it can go into a file. Fails where a
setting cannot be written down, with what to change.
"""

import re
from collections.abc import Iterator

import click

from postroom.base.places import Tcp, parse_listen, parse_server
from postroom.cli import mta_outgoing as outgoing
from postroom.cli import mta_texts as texts
from postroom.cli.common import Failed, Options, example
from postroom.cli.database import opened
from postroom.cli.mta_outgoing import Outgoing
from postroom.cli.mta_texts import Installation, Place
from postroom.lists import registry
from postroom.lists.endpoint import POSTMASTER, SUBADDRESSES
from postroom.mail.address import Mailbox, parse_mailbox

_PLAIN = re.compile(r"[A-Za-z0-9/._:+-]+")  # means itself in every configuration
_EVERY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # where to connect to who listens everywhere

shared_option = click.option(
    "--shared", is_flag=True, help="For domains in which other people get mail, too."
)


@click.group(epilog=example("postroom mta postfix", "postroom mta exim --shared"))
def mta() -> None:
    """Configuration for your mail server."""


@mta.command(epilog=example("postroom mta postfix", "postroom mta postfix --shared > shared.cf"))
@shared_option
@click.pass_obj
def postfix(options: Options, shared: bool) -> None:
    """Print the lines for Postfix's main.cf, for mail in both directions.

    Postfix looks each address up in postroom: a list takes mail as soon as it exists, and
    an unknown address is refused at RCPT. There is no map file.
    """
    here = _installation(options)
    if here.maps is None and not shared:
        _need_domains(options, here)
    click.echo(texts.postfix(here, shared) + outgoing.postfix(_outgoing(options)), nl=False)


@mta.command(epilog=example("postroom mta exim", "postroom mta exim --shared"))
@shared_option
@click.pass_obj
def exim(options: Options, shared: bool) -> None:
    """Print parts of Exim's configuration.

    Exim looks each address of these domains up in postroom: a list takes mail as soon as it
    exists, and an unknown address is refused at RCPT.
    """
    here = _installation(options)
    _need_domains(options, here)
    click.echo(texts.exim(here, shared) + outgoing.exim(_outgoing(options)), nl=False)


@mta.command(
    epilog=example(
        "postroom mta opensmtpd",
        "postroom mta opensmtpd --table recipients > /etc/postroom/recipients",
    )
)
@shared_option
@click.option(
    "--table",
    type=click.Choice(["domains", "recipients"]),
    help="Print a file with all domains, or all addresses, instead.",
)
@click.pass_obj
def opensmtpd(options: Options, shared: bool, table: str | None) -> None:
    """Print the lines for OpenSMTPD's smtpd.conf, or the files that they name.

    OpenSMTPD cannot ask at RCPT which addresses there are: it has to be given them.
    """
    if table is None:
        text = texts.opensmtpd(_installation(options, looks_up=False), shared)
        click.echo(text + outgoing.opensmtpd(_outgoing(options)), nl=False)
        return
    for line in _domains(options) if table == "domains" else _recipients(options):
        click.echo(line)


@mta.command(epilog=example("postroom mta sendmail", "postroom mta sendmail --shared"))
@shared_option
@click.pass_obj
def sendmail(options: Options, shared: bool) -> None:
    """Print the lines for sendmail.mc.

    sendmail looks each address of these domains up in postroom: a list takes mail as soon
    as it exists, and an unknown address is refused at RCPT.
    """
    here = _installation(options)
    _need_domains(options, here)
    if here.maps is None and shared:
        raise Failed("without look-ups sendmail cannot share a domain: set maps.listen")
    click.echo(texts.sendmail(here, shared) + outgoing.sendmail(_outgoing(options)), nl=False)


def _installation(options: Options, looks_up: bool = True) -> Installation:
    """What a mail server has to know. Raises `Failed`."""
    settings = options.settings()
    if looks_up and not settings.maps.listen:
        click.echo(
            "postroom: look-ups are off (maps.listen is empty): this configuration does without",
            err=True,
        )
    return Installation(
        lmtp=_place("lmtp.listen", settings.lmtp.listen[0]),
        maps=_place("maps.listen", settings.maps.listen) if settings.maps.listen else None,
        at_rcpt=settings.lmtp.refuse_unknown == "at-rcpt",
        max_recipients=settings.lmtp.max_recipients,
        domains=tuple(_domains(options)),
        command=options.command("").strip(),
    )


def _outgoing(options: Options) -> Outgoing:
    """What a mail server has to know of posts that go out."""
    settings = options.settings()
    servers = [parse_server(text, settings.smtp.port) for text in settings.smtp.host]
    return Outgoing(servers, settings.smtp.recipients, settings.lmtp.max_message_size)


def _place(setting: str, address: str) -> Place:
    """Where a mail server connects to. Raises `Failed`."""
    place = parse_listen(address)
    if not _PLAIN.fullmatch(place.host if isinstance(place, Tcp) else place.path):
        raise Failed(
            f"{setting}: {address} cannot be written into the configuration of a mail server: "
            "use letters, digits and -_.+ alone"
        )
    if not isinstance(place, Tcp):
        return place
    if place.port == 0:
        raise Failed(f"{setting}: the system chooses the port: set one, as in 127.0.0.1:8024")
    return Tcp(_EVERY.get(place.host, place.host), place.port)


def _domains(options: Options) -> Iterator[str]:
    """All domains that lists have."""
    with opened(options) as store, store.read() as connection:
        for each in registry.domains(connection):
            yield from _spellings(each.mail_host)


def _recipients(options: Options) -> Iterator[str]:
    """Every valid address. What may stand after a "+" is left out: OpenSMTPD does not look
    at it unless its table has one."""
    hosts: dict[str, list[str]] = {}
    with opened(options) as store, store.read() as connection:
        for each in registry.domains(connection):
            spellings = _spellings(each.mail_host)
            hosts.setdefault(each.alias_of or each.mail_host, []).extend(spellings)
            yield from (f"{POSTMASTER}@{host}" for host in spellings)
        for mailing_list in registry.lists(connection):
            box, _ = parse_mailbox(mailing_list.posting_address)
            for host in hosts[box.domain]:
                yield str(Mailbox(box.local, host))
                for suffix in SUBADDRESSES:
                    yield str(Mailbox(f"{box.local}-{suffix}", host))


def _spellings(host: str) -> list[str]:
    """A domain in Unicode is also written in A-labels (RFC 5890 2.3.2.1)."""
    if host.isascii():
        return [host]
    labels = (
        label if label.isascii() else f"xn--{label.encode('punycode').decode()}"
        for label in host.split(".")
    )
    return [host, ".".join(labels)]


def _need_domains(options: Options, here: Installation) -> None:
    if not here.domains:
        raise Failed(
            "there is no domain yet whose mail could be handed over: "
            f"{options.command('list create mylist@example.com')} makes the first"
        )
