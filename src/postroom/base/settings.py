"""Settings: what a site may decide, with defaults that work.

For: reading TOML and the environment into frozen values. Guarantees: no setting is needed;
an unknown key, a wrong type or an impossible value is refused. Fails with
`SettingsError`, which names file, key and what is allowed.
"""

import ipaddress
import os
import re
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from postroom.base.places import parse_listen
from postroom.mail.address import AddressError, parse_mailbox

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
PREFIX = "POSTROOM_"
# What storing one message of the largest size takes besides the message itself, in copies
# of it: one in the door, the others in the intake and its database driver.
WORKING_COPIES = 6


class SettingsError(Exception):
    """The settings cannot be used; `str()` says which and what is allowed."""


def _hostname() -> str:
    return socket.gethostname() or "localhost"


def default_store_url() -> str:
    """SQLite in /var/lib/postroom for root, else in the user's state directory."""
    if os.geteuid() == 0:
        return "sqlite:////var/lib/postroom/postroom.db"
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    if state.startswith("~"):
        raise SettingsError("this user has no home directory: set store.url")
    return f"sqlite:///{state}/postroom/postroom.db"


class Site(Struct, frozen=True, forbid_unknown_fields=True):
    """Who we are. `owner` receives mail to postmaster and stands for the site."""

    hostname: str = msgspec.field(default_factory=_hostname)
    owner: str = "changeme@example.com"


class StoreSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where data lives. `min_free_space` in octets is left on the disk of SQLite;
    `receipts_kept` in days is how long a resent message is recognised."""

    url: str = msgspec.field(default_factory=default_store_url)
    min_free_space: Annotated[int, Meta(ge=0)] = 67_108_864
    receipts_kept: Annotated[float, Meta(gt=0, le=365)] = 5.0


class Lmtp(Struct, frozen=True, forbid_unknown_fields=True):
    """The door. Sizes in octets, times in seconds. `socket_mode` (octal) and `socket_group`
    are for all unix sockets; `allow` names the networks whose clients are let in over TCP; with
    `tls_certificate` and `tls_key` (PEM files; the key may be in the first one) STARTTLS is
    offered there. `idle_timeout` is for the next command, `message_timeout` for one whole
    message; `memory_budget` is what messages in flight may take in all, copies included."""

    listen: tuple[str, ...] = ("127.0.0.1:8024",)
    socket_mode: str = "0660"
    socket_group: str = ""
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    tls_certificate: str = ""
    tls_key: str = ""
    ident: str = "Python LMTP queue runner 1.0"
    refuse_unknown: Literal["after-data", "at-rcpt"] = "after-data"
    max_message_size: Positive = 26_214_400
    max_recipients: Positive = 1000
    max_connections: Positive = 1000
    max_connections_per_client: Positive = 500
    idle_timeout: Seconds = 300.0
    message_timeout: Seconds = 1800.0
    memory_budget: Positive = 268_435_456
    commit_deadline: Seconds = 60.0


class Maps(Struct, frozen=True, forbid_unknown_fields=True):
    """Look-ups for mail servers (socketmap_table(5)); an empty `listen` turns them off."""

    listen: str = "127.0.0.1:8025"


class Metrics(Struct, frozen=True, forbid_unknown_fields=True):
    """/metrics and /healthz over HTTP; an empty `listen` turns them off."""

    listen: str = "127.0.0.1:9125"


class Service(Struct, frozen=True, forbid_unknown_fields=True):
    """Processes. `drain` is how long, in seconds, a stop waits for work in hand."""

    drain: Seconds = 30.0


class LogSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Logs. `auto` is human on a terminal and JSON otherwise."""

    format: Literal["auto", "human", "json"] = "auto"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """All settings."""

    site: Site = msgspec.field(default_factory=Site)
    store: StoreSettings = msgspec.field(default_factory=StoreSettings)
    lmtp: Lmtp = msgspec.field(default_factory=Lmtp)
    maps: Maps = msgspec.field(default_factory=Maps)
    metrics: Metrics = msgspec.field(default_factory=Metrics)
    service: Service = msgspec.field(default_factory=Service)
    log: LogSettings = msgspec.field(default_factory=LogSettings)


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
    if (fault := _fault(settings)) is not None:
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
        if section == "lmtp" and key in ("listen", "allow"):
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


def _fault(settings: Settings) -> tuple[str, str] | None:
    """What types cannot say: the key that is wrong, and what is allowed."""
    return _lmtp_fault(settings.lmtp) or _listen_fault(settings) or _site_fault(settings)


def _lmtp_fault(lmtp: Lmtp) -> tuple[str, str] | None:
    if not lmtp.listen:
        return "lmtp.listen", "needs at least one HOST:PORT or unix:/PATH"
    for network in lmtp.allow:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            return "lmtp.allow", f"must hold networks, as in 192.0.2.0/24 ({error})"
    if not re.fullmatch(r"0?[0-7]{3}", lmtp.socket_mode):
        return "lmtp.socket_mode", 'must be an octal mode, as in "0660"'
    if lmtp.tls_key and not lmtp.tls_certificate:
        return "lmtp.tls_key", "needs lmtp.tls_certificate beside it"
    times = WORKING_COPIES + 1
    if lmtp.memory_budget < (least := times * lmtp.max_message_size):
        why = f"must be at least {times} times lmtp.max_message_size, {least}"
        return "lmtp.memory_budget", why
    return None


def _listen_fault(settings: Settings) -> tuple[str, str] | None:
    listens = [("lmtp.listen", address) for address in settings.lmtp.listen]
    listens += [
        (key, address)
        for key, address in (
            ("maps.listen", settings.maps.listen),
            ("metrics.listen", settings.metrics.listen),
        )
        if address
    ]
    for key, address in listens:
        try:
            parse_listen(address)
        except ValueError as error:
            return key, f"{address!r}: {error}"
    return None


def _site_fault(settings: Settings) -> tuple[str, str] | None:
    site, ident = settings.site, settings.lmtp.ident
    # Together they are one line of at most 510 octets (RFC 5321 4.5.3.1.5).
    for key, text, most in ("site.hostname", site.hostname, 253), ("lmtp.ident", ident, 250):
        if not (text.isascii() and text.isprintable() and 0 < len(text) <= most):
            return key, f"must be 1 to {most} printable ASCII characters"
    if " " in site.hostname:
        return "site.hostname", "must be a host name"
    try:
        owner, _ = parse_mailbox(site.owner)
    except AddressError as error:
        return "site.owner", f"must be an address, as in postmaster@example.com ({error})"
    if not owner.domain:
        return "site.owner", "must be an address, as in postmaster@example.com"
    return None
