"""What a doctor finds: facts about an installation become findings, each with what to do.

For: `postroom doctor`. Guarantees: a failure means that mail is not taken, can be lost or does
not reach us; a warning that it will be so, or could be for a reason that was not to be seen
from here. Pure: facts are gathered in `facts`, `handover` and `outgoing`.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from postroom.base.settings import Settings, Site
from postroom.spool.space import fits
from postroom.watch import health
from postroom.watch.figures import Status

OK: Final = "ok"
WARNING: Final = "warning"
FAILURE: Final = "failure"
SKEW: Final = 60.0  # seconds by which clocks may differ
MOST_DOMAINS = 10  # of which the mail server is asked about
FEW_DAYS, FEW_INODES, FEW_OCTETS = 14, 10_000, 1_073_741_824
BESIDES_CLIENTS = 700  # files that are open besides connections for LMTP, look-ups included
MEMORY_SHARE = 0.5  # of the machine's memory, for messages in flight
START = "start the server: `postroom serve`, or `systemctl start postroom`"


class Finding(NamedTuple):
    """One line: what was looked at, one of ok, warning and failure, what was found and what
    to do about it."""

    check: str
    level: str
    text: str
    to_do: str = ""


class Database(NamedTuple):
    """`trouble` is the sentence for one that cannot be used; then nothing else is known.
    `settings` are the database's own that durability depends on, by name; `damage` is None
    where time ran out, "" if there is none; `newest` is when the last message was accepted,
    in seconds since the epoch; `addresses` are one in each of the first domains."""

    name: str
    trouble: str = ""
    version: str = ""
    lists: int = 0
    domains: int = 0
    addresses: tuple[str, ...] = ()
    settings: dict[str, str] = {}  # noqa: RUF012
    not_writable: str = ""
    damage: str | None = ""
    newest: float | None = None


class Disk(NamedTuple):
    """Where the database is. In octets and inodes; a total of 0 says that there is no limit."""

    path: str
    free: int
    inodes_free: int
    inodes: int


class Answer(NamedTuple):
    """What became of talking to a listener: "" is well."""

    address: str
    trouble: str


class Certificate(NamedTuple):
    """The files of TLS; `trouble` says why they cannot be used. `not_after` is in seconds
    since the epoch; `exposed` if others than the owner and its group can read the key."""

    trouble: str = ""
    not_after: float = math.inf
    exposed: bool = False


class Machine(NamedTuple):
    """`resolves` if the site's host name does; `synchronised` is None where nobody can say;
    `open_files` is the limit of this process; `memory` in octets, None if unknown."""

    now: float
    resolves: bool
    synchronised: bool | None
    open_files: int
    memory: int | None


def database(facts: Database) -> Iterator[Finding]:
    """Reachable, writable, sound, and durable."""
    if facts.trouble:
        yield Finding("database", FAILURE, facts.trouble)
        return
    text = f"{facts.name} ({facts.version}), {_number(facts.domains, 'domain')}, "
    text += _number(facts.lists, "list")
    if facts.not_writable:
        yield Finding(
            "database",
            FAILURE,
            f"{text}, cannot be written ({facts.not_writable})",
            "check owner and mode of the file and its directory, or who holds it locked",
        )
    elif not facts.lists:
        to_do = "make one: `postroom list create mylist@example.com`"
        yield Finding("database", WARNING, f"{text}: no address takes mail yet", to_do)
    else:
        yield Finding("database", OK, text)
    if facts.damage:
        yield Finding(
            "integrity",
            FAILURE,
            f"the database is damaged: {facts.damage}",
            "stop the server, keep a copy of it and of its -wal file, then restore a backup, "
            "or recover it with `sqlite3 FILE .recover`",
        )
    elif facts.damage is None:
        to_do = "when there is time: `sqlite3 FILE 'PRAGMA quick_check'`"
        yield Finding("integrity", WARNING, "not all of the database could be checked", to_do)
    else:
        yield Finding("integrity", OK, "no damage found")
    yield durability(facts.settings)


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def durability(settings: dict[str, str]) -> Finding:
    """Whether 250 means flushed to disk."""
    needed = {"journal_mode": "wal", "synchronous": "full"}
    if "journal_mode" not in settings:
        needed = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
    said = ", ".join(f"{name} = {value}" for name, value in settings.items())
    wrong = [name for name, value in needed.items() if settings.get(name) != value]
    if not wrong:
        return Finding("durability", OK, said)
    return Finding(
        "durability",
        FAILURE,
        f"{said}: a power cut can lose mail that was answered 250",
        "the database needs " + ", ".join(f"{name} = {needed[name]}" for name in wrong),
    )


def clock(facts: Machine, newest: float | None) -> Finding:
    """Whether it shows the time."""
    if newest is not None and newest > facts.now + SKEW:
        ahead = newest - facts.now
        text = f"the last message was accepted {ahead:.0f} s in the future"
        return Finding("clock", WARNING, text, "see whether the clock was set back: `timedatectl`")
    if facts.synchronised is False:
        text = "the clock is not synchronised"
        return Finding("clock", WARNING, text, "turn it on: `timedatectl set-ntp true`")
    told = "synchronised" if facts.synchronised else "not behind what is stored"
    return Finding("clock", OK, told)


def space(facts: Disk, settings: Settings) -> Iterator[Finding]:
    """Room for mail."""
    reserve, largest = settings.store.min_free_space, settings.lmtp.max_message_size
    text = f"{facts.free / 1e9:.1f} GB free in {facts.path}"
    to_do = f"make room; {reserve / 1e6:.0f} MB must stay free (store.min_free_space)"
    if not fits(largest, facts.free, reserve):
        yield Finding("space", FAILURE, f"{text}: messages are refused 452", to_do)
    elif facts.free < reserve + FEW_OCTETS:
        yield Finding("space", WARNING, text, to_do)
    else:
        yield Finding("space", OK, text)
    if not facts.inodes:
        return
    text = f"{facts.inodes_free} inodes free in {facts.path}"
    if facts.inodes_free < FEW_INODES:
        level = WARNING if facts.inodes_free else FAILURE
        yield Finding("inodes", level, text, "remove files that nobody needs")
    else:
        yield Finding("inodes", OK, text)


def listeners(check: str, answers: Iterable[Answer]) -> Iterator[Finding]:
    """Whether the server answers where it should."""
    for address, trouble in answers:
        if address.endswith(":0"):
            text = f"the system chooses the port of {address}: it cannot be asked from here"
            yield Finding(check, WARNING, text, "the server's log says which; set a port")
        elif trouble:
            yield Finding(check, FAILURE, f"{address} does not answer ({trouble})", START)
        else:
            yield Finding(check, OK, f"{address} answers")


def metrics(address: str, status: Status | None, trouble: str) -> Finding:
    """What the server says of itself."""
    if not address:
        return Finding("health", OK, "metrics.listen is empty: the server's health is not shown")
    if status is None:
        return next(listeners("health", [Answer(address, trouble)]))
    found = health.judge(status)
    levels = {health.OK: OK, health.DEGRADED: WARNING, health.FAILING: FAILURE}
    text = f"{address} says {found.status}"
    return Finding("health", levels[found.status], ": ".join([text, *found.reasons]))


def certificate(facts: Certificate, now: float) -> Iterator[Finding]:
    """Whether clients can use STARTTLS, and for how long."""
    if facts.trouble:
        to_do = "see lmtp.tls_certificate and lmtp.tls_key"
        yield Finding("tls", FAILURE, facts.trouble, to_do)
        return
    days = math.floor((facts.not_after - now) / 86_400)
    renew = "renew it, then reload the server: SIGHUP, or `systemctl reload postroom`"
    if days < 0:
        yield Finding("tls", FAILURE, f"the certificate expired {-days} days ago", renew)
    elif days < FEW_DAYS:
        yield Finding("tls", WARNING, f"the certificate ends in {days} days", renew)
    else:
        yield Finding("tls", OK, f"the certificate and its key match, {days} days are left")
    if facts.exposed:
        text = "everybody on this machine can read the key"
        yield Finding("tls", WARNING, text, "chmod o-r on lmtp.tls_key")


def identity(site: Site, facts: Machine, circular: bool = False) -> Iterator[Finding]:
    """Who we say that we are; `circular` if the owner is an address of this site."""
    default, person = Site().owner, "set it to an address that a person reads"
    if site.owner == default:
        text = f"site.owner is {default}: mail to postmaster reaches nobody"
        yield Finding("owner", WARNING, text, person)
    elif circular:
        text = f"site.owner is {site.owner}, an address of this site: mail to postmaster goes in"
        yield Finding("owner", WARNING, f"{text} circles", person)
    else:
        yield Finding("owner", OK, site.owner)
    to_do = "set site.hostname to the full name of this machine"
    name = site.hostname
    if name.partition(".")[0] == "localhost" or "." not in name:
        yield Finding("hostname", WARNING, f"{name} is no full host name", to_do)
    elif not facts.resolves:
        yield Finding("hostname", WARNING, f"{name} has no address in the DNS", to_do)
    else:
        yield Finding("hostname", OK, name)


def limits(settings: Settings, facts: Machine, status: Status | None) -> Iterator[Finding]:
    """Whether the machine can hold what the settings allow."""
    files = status.open_files if status else facts.open_files
    needed = settings.lmtp.max_connections + BESIDES_CLIENTS
    whose = "the server" if status else "a server started from here"
    text = f"{whose} may open {files if files >= 0 else 'any number of'} files"
    if 0 <= files < needed:
        text += f", {settings.lmtp.max_connections} connections need {needed}"
        to_do = "raise it (LimitNOFILE= in the unit, `ulimit -n`) or lower lmtp.max_connections"
        yield Finding("files", WARNING, text, to_do)
    else:
        yield Finding("files", OK, text)
    if facts.memory is None:
        return
    budget = settings.lmtp.memory_budget
    text = f"messages in flight may take {budget / 1e6:.0f} MB of {facts.memory / 1e6:.0f} MB"
    if budget > MEMORY_SHARE * facts.memory:
        yield Finding("memory", WARNING, text, "lower lmtp.memory_budget")
    else:
        yield Finding("memory", OK, text)
