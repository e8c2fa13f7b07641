"""The `postroom` command.

For: the way in for people and scripts. Guarantees: a command's module is imported when the
command is called, so `serve` stays small and help is quick. Exits 0, 1 when the command
failed, 2 when it was called wrongly; whatever happens, no traceback is shown.
"""

import importlib
import io
import os
import sys
import traceback
from collections.abc import Mapping
from typing import Any, NamedTuple

import click
from click.shell_completion import CompletionItem

from postroom import __version__
from postroom.cli.common import Failed, Options, example


class Lazy(NamedTuple):
    """A command that is not imported yet: MODULE:NAME, and its line in the help."""

    where: str
    help: str


class LazyGroup(click.Group):
    """A group that imports a command when it is called, not to list it or complete it."""

    def __init__(self, *args: Any, lazy: Mapping[str, Lazy], **options: Any) -> None:
        super().__init__(*args, **options)
        self.lazy = lazy

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.lazy:
            return None
        module, _, name = self.lazy[cmd_name].where.partition(":")
        command = getattr(importlib.import_module(module), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, each.help) for name, each in self.lazy.items()])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        found = [
            CompletionItem(name, help=each.help)
            for name, each in self.lazy.items()
            if name.startswith(incomplete)
        ]
        return found + click.Command.shell_complete(self, ctx, incomplete)


COMMANDS = {
    "serve": Lazy("postroom.cli.serve:serve", "Accept mail and send it on, until stopped."),
    "domain": Lazy("postroom.cli.domains:domain", "Mail domains and their aliases."),
    "list": Lazy("postroom.cli.lists:lists", "Mailing lists."),
    "member": Lazy("postroom.cli.members:members", "Members, owners and moderators of lists."),
    "queue": Lazy("postroom.cli.queues:queue", "Mail that was accepted and waits."),
    "held": Lazy("postroom.cli.held:held", "Posts that wait for a moderator."),
    "pending": Lazy(
        "postroom.cli.pending:pending", "People who asked to join, leave or change something."
    ),
    "bounce": Lazy("postroom.cli.bounce:bounce", "Members whose mail comes back."),
    "explain": Lazy(
        "postroom.cli.explain:explain", "Show what would become of a post, without posting it."
    ),
    "trace": Lazy("postroom.cli.trace:trace", "Show what became of a message."),
    "audit": Lazy(
        "postroom.cli.audit:audit", "Show who joined or left a list, what was changed, and by whom."
    ),
    "config": Lazy("postroom.cli.config:config", "The settings in force."),
    "mta": Lazy("postroom.cli.mta:mta", "Configuration for your mail server."),
    "doctor": Lazy("postroom.cli.doctor:doctor", "Look for what is wrong, and say what to do."),
    "top": Lazy("postroom.cli.top:top", "Watch the server at work."),
    "migrate": Lazy("postroom.cli.migrate:migrate", "Bring the database up to date, or make it."),
}


@click.group(
    cls=LazyGroup,
    lazy=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=example(
        "postroom serve",
        "postroom list create mylist@example.com",
        "postroom queue ls",
    )
    + "\n\n\b\nCompletion, in ~/.bashrc (zsh and fish alike):\n"
    '  eval "$(_POSTROOM_COMPLETE=bash_source postroom)"',
)
@click.option(
    "--config",
    metavar="FILE",
    help="Settings; else $POSTROOM_CONFIG, ./postroom.toml, /etc/postroom/postroom.toml.",
)
@click.version_option(__version__, prog_name="postroom", message="%(prog)s %(version)s")
@click.pass_context
def cli(context: click.Context, config: str | None) -> None:
    """A mailing list server whose front door speaks LMTP."""
    context.obj = Options(config)


def main() -> None:
    """The console script. Never returns."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli(prog_name="postroom")
    except OSError as error:
        where = f" ({os.fsdecode(error.filename)})" if error.filename else ""
        Failed(f"{error.strerror or error}{where}").show()
    except Exception as error:
        if sys.flags.dev_mode:
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)} line {last.lineno}"
        Failed(
            f"a defect of postroom: {type(error).__name__}: {error} ({where}); please report "
            "it, with what the same command prints when PYTHONDEVMODE=1 is set"
        ).show()
    sys.exit(1)
