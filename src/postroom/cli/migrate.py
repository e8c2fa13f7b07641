"""`postroom migrate`.

For: upgrading the database, or making it. Fails as `store.migrate` says.
"""

import click
from sqlalchemy.engine import make_url

from postroom.cli.common import Options, example
from postroom.cli.database import sentences
from postroom.store.migrate import migrate as bring_up_to_date


@click.command(epilog=example("postroom migrate"))
@click.pass_obj
def migrate(options: Options) -> None:
    """Bring the database up to date, or make it.

    Stop the server and make a backup before; nothing is changed if it fails.
    """
    url = options.settings().store.url
    with sentences():
        before, after = bring_up_to_date(url)
    name = make_url(url).render_as_string(hide_password=True)
    if before is None:
        click.echo(f"{name}: made, with schema {after}")
        click.echo(f"Next: {options.command('serve')}")
    elif before == after:
        click.echo(f"{name}: schema {after} already, nothing to do")
    else:
        click.echo(f"{name}: brought from schema {before} to {after}")
