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

from postroom.base.places import Tcp, parse_listen
from postroom.mail.address import AddressError, parse_mailbox

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
PREFIX = "POSTROOM_"
DEFAULT_OWNER = "changeme@example.com"  # nobody: a site names its own
_SEVERAL = {("lmtp", "listen"), ("lmtp", "allow"), ("smtp", "host"), ("dns", "servers")}
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
    """Who we are. `owner` receives mail to postmaster and stands for the site; `web_url` is where
    members' pages are, for links to unsubscribe (RFC 8058), empty where there are none."""

    hostname: str = msgspec.field(default_factory=_hostname)
    owner: str = DEFAULT_OWNER
    web_url: str = ""


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


class Notices(Struct, frozen=True, forbid_unknown_fields=True):
    """What people are told. `templates` is a directory whose NAME.txt, or LIST-ID/NAME.txt for
    one list, take the place of the texts in the package; empty: none do."""

    templates: str = ""


class Smtp(Struct, frozen=True, forbid_unknown_fields=True):
    """The mail servers that posts are handed to: `host` or `host:port` each, any of them will
    do. `starttls` "auto" uses TLS where it works, whatever the certificate says; "always" needs
    it and verifies the certificate. `connections` are for each server, `recipients` for one
    transaction; `hello` is the name we give, "" for that of the site."""

    host: tuple[str, ...] = ("127.0.0.1",)
    port: Annotated[int, Meta(ge=1, le=65535)] = 25
    starttls: Literal["auto", "always", "never"] = "auto"
    user: str = ""
    password: str = ""
    connections: Annotated[int, Meta(ge=1, le=1000)] = 8
    recipients: Annotated[int, Meta(ge=1, le=10_000)] = 500
    hello: str = ""


class Destination(Struct, frozen=True, forbid_unknown_fields=True):
    """What mail for one domain is limited to: transactions at once, and recipients a minute;
    0 is no limit."""

    connections: Annotated[int, Meta(ge=0)] = 0
    per_minute: Annotated[int, Meta(ge=0)] = 0


class Delivery(Struct, frozen=True, forbid_unknown_fields=True):
    """How posts go out. `expire_after` in days is how long a recipient is tried, `retry_first`
    and `retry_most` in seconds how long the first wait is and the longest; `verp_share` is the
    part of a post's recipients who are sent to singly to tell their bounces, where the server
    has no XVERP; `kept` in days is how long can be looked up what became of a message;
    `destinations` holds limits by domain."""

    expire_after: Annotated[float, Meta(gt=0, le=365)] = 5.0
    retry_first: Seconds = 300.0
    retry_most: Seconds = 14_400.0
    verp_share: Annotated[float, Meta(ge=0, le=1)] = 0.1
    kept: Annotated[float, Meta(gt=0, le=3650)] = 7.0
    destinations: dict[str, Destination] = {}


class Dns(Struct, frozen=True, forbid_unknown_fields=True):
    """Look-ups of the policy (DMARC) of authors' domains. `timeout` in seconds is for one domain;
    `servers` are ADDRESS or ADDRESS:PORT, none: those of the system. With `offline` nothing is
    asked, and every domain is taken to have no policy."""

    timeout: Seconds = 5.0
    offline: bool = False
    servers: tuple[str, ...] = ()


class Arc(Struct, frozen=True, forbid_unknown_fields=True):
    """Sealing posts (RFC 8617), done where `key` is set: the file of an RSA key (PEM), whose
    public half is published at `selector`._domainkey.`domain`. `authserv_id` is how the mail
    server calls itself in Authentication-Results, "": as the site's hostname."""

    key: str = ""
    selector: str = ""
    domain: str = ""
    authserv_id: str = ""


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
    smtp: Smtp = msgspec.field(default_factory=Smtp)
    delivery: Delivery = msgspec.field(default_factory=Delivery)
    notices: Notices = msgspec.field(default_factory=Notices)
    dns: Dns = msgspec.field(default_factory=Dns)
    arc: Arc = msgspec.field(default_factory=Arc)
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


def _fault(settings: Settings) -> tuple[str, str] | None:
    """What types cannot say: the key that is wrong, and what is allowed."""
    return (
        _lmtp_fault(settings.lmtp)
        or _listen_fault(settings)
        or _site_fault(settings)
        or _smtp_fault(settings.smtp)
        or _delivery_fault(settings.delivery)
        or _dns_fault(settings.dns)
        or _arc_fault(settings.arc)
    )


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
    if site.web_url and not re.fullmatch(r"https://[!-~]{1,200}", site.web_url):
        return (
            "site.web_url",
            "must be an https URL, as in https://lists.example.com (RFC 8058 3.1)",
        )
    if " " in site.hostname:
        return "site.hostname", "must be a host name"
    try:
        owner, _ = parse_mailbox(site.owner)
    except AddressError as error:
        return "site.owner", f"must be an address, as in postmaster@example.com ({error})"
    if not owner.domain:
        return "site.owner", "must be an address, as in postmaster@example.com"
    return None


def parse_server(text: str, port: int) -> Tcp:
    """`HOST` (then `port` is its port), `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`. Raises
    ValueError."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@,]+)(?::(\d{1,5}))?", text, re.ASCII)
    number = int(match[2] or port) if match else 0
    if match is None or not 0 < number < 65536:
        raise ValueError("must be HOST or HOST:PORT, as in mail.example.com:587 or [::1]:25")
    return Tcp(match[1].strip("[]"), number)


def _smtp_fault(smtp: Smtp) -> tuple[str, str] | None:
    if not smtp.host:
        return "smtp.host", "needs at least one HOST or HOST:PORT"
    places = []
    for text in smtp.host:
        try:
            places.append(parse_server(text, smtp.port))
        except ValueError as error:
            return "smtp.host", f"{text!r}: {error}"
    hello = smtp.hello
    if not (hello.isascii() and hello.isprintable() and len(hello) <= 253) or " " in hello:
        return "smtp.hello", "must be a host name"
    if bool(smtp.user) != bool(smtp.password):
        missing = "password" if smtp.user else "user"
        return f"smtp.{missing}", "smtp.user and smtp.password go together: set both or neither"
    if "\0" in smtp.user + smtp.password:
        return "smtp.password", "neither smtp.user nor smtp.password can hold NUL (RFC 4616)"
    if smtp.user and smtp.starttls != "always" and not all(map(_is_local, places)):
        why = 'must be "always": a password goes to another machine only over verified TLS'
        return "smtp.starttls", why
    return None


def _is_local(place: Tcp) -> bool:
    try:
        return ipaddress.ip_address(place.host).is_loopback
    except ValueError:
        return place.host == "localhost"


def _delivery_fault(delivery: Delivery) -> tuple[str, str] | None:
    if delivery.retry_most < delivery.retry_first:
        return "delivery.retry_most", "must not be less than delivery.retry_first"
    for domain in delivery.destinations:
        if not re.fullmatch(r"[^\s@.]+(\.[^\s@.]+)*", domain):
            why = 'holds domains, as in [delivery.destinations."example.net"]'
            return "delivery.destinations", f"{domain!r}: {why}"
    return None


def _dns_fault(dns: Dns) -> tuple[str, str] | None:
    for text in dns.servers:
        try:
            ipaddress.ip_address(parse_server(text, 53).host)
        except ValueError:
            return "dns.servers", f"{text!r}: must be an address, as in 192.0.2.53 or [::1]:53"
    return None


def _arc_fault(arc: Arc) -> tuple[str, str] | None:
    for key, text in ("domain", arc.domain), ("selector", arc.selector):
        if not re.fullmatch(r"[A-Za-z0-9._-]{0,253}", text):
            return f"arc.{key}", "must be a name of DNS"
        if arc.key and not text:
            return f"arc.{key}", f"arc.key needs arc.{key} beside it"
    if not re.fullmatch(r"[!-:<-~]{0,253}", arc.authserv_id):
        return "arc.authserv_id", "must be a name as it stands in Authentication-Results"
    return None
