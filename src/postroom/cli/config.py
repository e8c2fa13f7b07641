"""`postroom config`.

For: knowing which settings are in force and why. Guarantees: a password is never shown;
what `show` prints is TOML that means the same. Fails with the sentence of the settings.
"""

import json
import os
import tomllib
from typing import Any

import click
import msgspec
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from postroom.base.loading import PREFIX
from postroom.base.settings import Settings
from postroom.cli.common import Options, example, safe
from postroom.cli.database import sentences
from postroom.cli.output import json_option, print_object
from postroom.store.engine import make_engine

SECRET = ("password", "sslpassword")  # what PostgreSQL's URLs may hold besides the userinfo
HIDDEN = "hidden"


@click.group(epilog=example("postroom config show", "postroom config check"))
def config() -> None:
    """The settings in force."""


@config.command(epilog=example("postroom config show", "postroom config show --json"))
@json_option
@click.pass_obj
def show(options: Options, as_json: bool) -> None:
    """Show every setting, and where it comes from.

    Passwords, of the database and of mail servers, are hidden.
    """
    settings = options.settings()
    tree = _tree(settings)
    sources = _sources(options, tree)
    if as_json:
        print_object(tree | {"sources": sources})
        return
    click.echo(f"# {_origin(options)}")
    for section, values in tree.items():
        click.echo(f"\n[{section}]")
        for key, value in values.items():
            click.echo(f"{key} = {_toml(value)}  # {sources[f'{section}.{key}']}")


@config.command(epilog=example("postroom --config new.toml config check"))
@click.pass_obj
def check(options: Options) -> None:
    """Check the settings, without touching the database."""
    settings = options.settings()
    with sentences():
        make_engine(settings.store.url).dispose()
    click.echo(f"OK: {_origin(options)}")


def _origin(options: Options) -> str:
    path = options.file()
    file = str(path.absolute()) if path else "defaults (there is no file)"
    names = sorted(_environment().values())
    return safe(f"{file}, and {', '.join(names)}" if names else file)


def _environment() -> dict[str, str]:
    """SECTION__KEY, as settings read it, and the name of the variable."""
    return {
        name.removeprefix(PREFIX).lower(): name
        for name in os.environ
        if name.startswith(PREFIX) and "__" in name
    }


def _sources(options: Options, tree: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Where each setting comes from, by SECTION.KEY."""
    path = options.file()
    read = tomllib.loads(path.read_text(encoding="utf-8")) if path else {}
    environment = _environment()
    sources = {}
    for section, values in tree.items():
        for key in values:
            source = str(path) if key in read.get(section, {}) else "default"
            sources[f"{section}.{key}"] = environment.get(f"{section}__{key}", source)
    return sources


def _tree(settings: Settings) -> dict[str, dict[str, Any]]:
    tree: dict[str, dict[str, Any]] = msgspec.to_builtins(settings)
    tree["store"]["url"] = _without_password(settings.store.url)
    if settings.smtp.password:
        tree["smtp"]["password"] = HIDDEN
    return tree


def _without_password(text: str) -> str:
    try:
        url = make_url(text)
    except ArgumentError:
        return HIDDEN if "@" in text else text
    hidden = {key: HIDDEN for key in SECRET if key in url.query}
    return url.update_query_dict(hidden).render_as_string(hide_password=True)


def _toml(value: Any) -> str:
    """A value as TOML: its strings are JSON's, but for the escapes of rare characters."""
    if isinstance(value, dict):
        pairs = ", ".join(f"{_toml(key)} = {_toml(each)}" for key, each in value.items())
        return f"{{{pairs}}}"
    text = json.dumps(value, ensure_ascii=False)
    return "".join(char if char.isprintable() else f"\\U{ord(char):08x}" for char in text)
