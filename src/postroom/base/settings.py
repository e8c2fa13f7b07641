"""Settings: what a site may decide, with defaults that work.

For: every process and command, as frozen values (`base.loading` reads them). Guarantees: no
setting is needed. Wrong types and values out of range are refused by `msgspec` when they are
converted; what types cannot say is in `base.faults`.
"""

import os
import socket
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

Positive = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0, le=86_400)]
DEFAULT_OWNER = "changeme@example.com"  # nobody: a site names its own
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


class Commands(Struct, frozen=True, forbid_unknown_fields=True):
    """What people can make the server do by mail, so that nobody can make it flood others. `most`
    commands of one mail are done. A request is asked about again after `again` seconds.
    `per_address` confirmations a day go to one address, from all lists; `per_list` an hour from
    one list, `per_source` an hour to what comes from one network, `per_site` an hour in all;
    `replies` an hour to one address. `audit_kept` in days is how long is known who changed what."""

    most: Annotated[int, Meta(ge=1, le=1000)] = 20
    again: Annotated[float, Meta(ge=0, le=604_800)] = 3600.0
    per_address: Positive = 5
    per_list: Positive = 200
    per_source: Positive = 50
    per_site: Positive = 1000
    replies: Positive = 30
    audit_kept: Annotated[float, Meta(gt=0, le=36_500)] = 400.0


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
    verp_share: Annotated[float, Meta(ge=0, le=1)] = 0.05
    kept: Annotated[float, Meta(gt=0, le=3650)] = 7.0
    destinations: dict[str, Destination] = {}


class Dns(Struct, frozen=True, forbid_unknown_fields=True):
    """Look-ups of the policy (DMARC) of authors' domains. `timeout` in seconds is for one post;
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
    commands: Commands = msgspec.field(default_factory=Commands)
    dns: Dns = msgspec.field(default_factory=Dns)
    arc: Arc = msgspec.field(default_factory=Arc)
    log: LogSettings = msgspec.field(default_factory=LogSettings)
