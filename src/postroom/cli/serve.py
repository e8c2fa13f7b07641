"""`postroom serve`.

For: starting the server. Guarantees: imports no more than the supervisor does, which stays
in memory as long as the server runs. Exits with the supervisor's status.
"""

import click

from postroom.cli.common import Options, example
from postroom.service.supervisor import ROLES, run


@click.command(
    epilog=example("postroom serve", "postroom --config /etc/postroom/postroom.toml serve")
)
@click.option("--only", type=click.Choice(ROLES), help="Run this role alone.")
@click.option("--config", metavar="FILE", help="Settings, as before the subcommand.")
@click.pass_context
def serve(context: click.Context, only: str | None, config: str | None) -> None:
    """Accept mail and send it on, until stopped.

    `lmtp` takes mail and puts it into its queues, `runners` serve the queues.
    SIGTERM or Ctrl-C finishes the work in hand and stops, a second one stops at once;
    SIGHUP reads the settings again.
    """
    options = Options(config) if config else context.find_object(Options) or Options()
    context.exit(run(options.settings(), options.config, only))
