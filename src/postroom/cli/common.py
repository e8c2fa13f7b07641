"""What every command shares: failing in one sentence, text from outside, examples.

For: all commands, `serve` included, so it imports nothing but click and the settings.
Guarantees: what people read holds no control characters, whoever wrote it. `Failed` ends
a command with status 1.
"""

import os
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from postroom.base.loading import find_file, load
from postroom.base.settings import Settings, SettingsError


class Failed(click.ClickException):
    """The command failed; the text is one sentence that says why and what to do."""

    exit_code = 1

    def show(self, file: object = None) -> None:
        """Print it where errors go."""
        click.echo(f"postroom: {safe(self.message)}", file=sys.stderr)


@dataclass(frozen=True)
class Options:
    """The options that stand before the subcommand."""

    config: str | None = None

    def settings(self) -> Settings:
        """The settings in force. Raises `Failed`."""
        try:
            return load(self.config)
        except SettingsError as error:
            raise Failed(str(error)) from error

    def file(self) -> Path | None:
        """The file they were read from; None where there is none. Raises `Failed`."""
        try:
            return find_file(self.config, os.environ)
        except SettingsError as error:
            raise Failed(str(error)) from error

    def command(self, words: str) -> str:
        """A command that does `words` with the same settings, as one would type it here."""
        called = sys.argv[0]
        if Path(called).parts[-2:] == ("postroom", "__main__.py"):
            called = f"{shlex.quote(sys.executable)} -m postroom"
        elif Path(called).name != "postroom" or shutil.which("postroom") == called:
            called = "postroom"
        else:
            called = shlex.quote(called)
        config = f"--config {shlex.quote(self.config)} " if self.config else ""
        return f"{called} {config}{words}"


def word(value: str) -> str:
    """The type of an argument on one line; bytes that are no text are refused too."""
    if not value.isprintable():
        raise click.BadParameter(f"{value!a} holds what cannot be printed")
    return value


def safe(text: str) -> str:
    """`text` on one line, and nothing in it that steers a terminal or hides itself."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return char.encode("unicode_escape").decode("ascii")


def example(*lines: str) -> str:
    """The end of a command's help: what to type."""
    return "\b\n" + "\n".join(("Example:", *(f"  {line}" for line in lines)))
