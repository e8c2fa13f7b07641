"""Loading: settings from a file and the environment.

For: all processes and commands. Guarantees: an unknown key, a wrong type or an impossible value
is refused; the environment comes before the file. Fails with `SettingsError`, which names file,
key and what is allowed.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from postroom.base.faults import fault_of
from postroom.base.settings import Settings, SettingsError

PREFIX = "POSTROOM_"
_SEVERAL = {("lmtp", "listen"), ("lmtp", "allow"), ("smtp", "host"), ("dns", "servers")}


def find_file(explicit: str | None, environment: Mapping[str, str]) -> Path | None:
    """The configuration file to read; None if there is none.

    Raises `SettingsError` if one was named and is not there.
    """
    named = explicit or environment.get("POSTROOM_CONFIG")
    if named:
        if not Path(named).is_file():
            raise SettingsError(f"{named}: there is no such file (--config or POSTROOM_CONFIG)")
        return Path(named)
    for path in (Path("postroom.toml"), Path("/etc/postroom/postroom.toml")):
        if path.is_file():
            return path
    return None


def load(explicit: str | None = None, environment: Mapping[str, str] = os.environ) -> Settings:
    """Read file and environment, the environment first. Raises `SettingsError`."""
    path = find_file(explicit, environment)
    tree: dict[str, Any] = {}
    if path is not None:
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
        settings = _convert(tree, str(path), strict=True)
    overlay = _from_environment(environment)
    if overlay:
        for section, values in overlay.items():
            tree[section] = tree.get(section, {}) | values
        settings = _convert(tree, "environment", strict=False)
    elif path is None:
        settings = Settings()
    if (fault := fault_of(settings)) is not None:
        key, why = fault
        section, _, name = key.partition(".")
        source = "environment" if name in overlay.get(section, {}) else path or "settings"
        raise SettingsError(f"{source}: {key}: {why}")
    return settings


def _from_environment(environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """`POSTROOM_<SECTION>__<KEY>`; lists are comma-separated."""
    overlay: dict[str, dict[str, Any]] = {}
    for name, text in environment.items():
        section, mark, key = name.removeprefix(PREFIX).lower().partition("__")
        if not name.startswith(PREFIX) or not mark:
            continue
        value: Any = text
        if (section, key) in _SEVERAL:
            value = [part.strip() for part in text.split(",") if part.strip()]
        overlay.setdefault(section, {})[key] = value
    return overlay


def _convert(tree: Mapping[str, Any], source: str, strict: bool) -> Settings:
    _refuse_unknown(tree, source)
    try:
        return msgspec.convert(tree, Settings, strict=strict)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise SettingsError(f"{source}: {where.rstrip('`') or 'settings'}: {what}") from error


def _refuse_unknown(tree: Mapping[str, Any], source: str) -> None:
    sections = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    for section, values in tree.items():
        if section not in sections:
            raise SettingsError(
                f"{source}: {section}: unknown section; there are {', '.join(sections)}"
            )
        if not isinstance(values, dict):
            raise SettingsError(f"{source}: {section}: must be a section, [{section}]")
        keys = [field.name for field in msgspec.structs.fields(sections[section])]
        for key in values:
            if key not in keys:
                raise SettingsError(
                    f"{source}: {section}.{key}: unknown key; [{section}] has {', '.join(keys)}"
                )
