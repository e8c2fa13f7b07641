"""`postroom domain`.

For: the mail domains that are ours. A domain that is new comes with its first list, so
this is for aliases and for tidying up. Fails as the registry says.
"""

import click

from postroom.cli.common import Options, example, word
from postroom.cli.database import opened
from postroom.cli.output import json_option, print_array, print_table
from postroom.lists import registry
from postroom.lists.endpoint import host_of


@click.group(epilog=example("postroom domain add example.net --alias-of example.com"))
def domain() -> None:
    """Mail domains and their aliases."""


@domain.command(epilog=example("postroom domain add example.net --alias-of example.com"))
@click.argument("host", type=word)
@click.option("--alias-of", type=word, metavar="HOST", help="Reach the lists of this domain.")
@click.pass_obj
def add(options: Options, host: str, alias_of: str | None) -> None:
    """Add a mail domain, or another name for one.

    `postroom list create` adds the domain of a list by itself.
    """
    with opened(options) as store, store.begin() as connection:
        added = registry.add_domain(connection, host, alias_of)
    if added.alias_of:
        click.echo(
            f"added {added.mail_host}: mail to NAME@{added.mail_host} reaches NAME@{added.alias_of}"
        )
    else:
        click.echo(f"added {added.mail_host}")
        click.echo(f"Next: {options.command(f'list create mylist@{added.mail_host}')}")


@domain.command("ls", epilog=example("postroom domain ls", "postroom domain ls --json"))
@json_option
@click.pass_obj
def list_domains(options: Options, as_json: bool) -> None:
    """Show all domains."""
    with opened(options) as store, store.read() as connection:
        found = list(registry.domains(connection))
    if as_json:
        print_array(each._asdict() for each in found)
    elif found:
        print_table(
            ("DOMAIN", "ALIAS OF"), ((each.mail_host, each.alias_of or "") for each in found)
        )
    else:
        click.echo(f"No domains yet: {options.command('domain add example.com')}")


@domain.command(epilog=example("postroom domain remove example.net"))
@click.argument("host", type=word)
@click.pass_obj
def remove(options: Options, host: str) -> None:
    """Remove a domain that has no lists and no aliases."""
    with opened(options) as store, store.begin() as connection:
        registry.remove_domain(connection, host)
    click.echo(f"removed {host_of(host)}")
