"""Whether the mail server hands the addresses of lists to us.

For: `postroom doctor`. Asks Postfix and Exim with their own commands, which change nothing.
Guarantees: what they say is read by pure functions; a command that is missing, fails or takes
too long is a reason to tell how to check, never an error.
"""

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from postroom.base.places import Tcp, Unix, parse_listen
from postroom.doctor.findings import FAILURE, OK, WARNING, Finding

PATIENCE = 10.0  # seconds for one command
_SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}


class Said(NamedTuple):
    """How a command ended."""

    status: int
    output: str
    errors: str


Run = Callable[..., Said]


class Handed(NamedTuple):
    """What a mail server does with a domain, seen with one address in it. `accepts` and
    `knows` say that it takes mail for the domain and for the address, `hop` is where it sends
    it: TRANSPORT:NEXTHOP as in Postfix's transport(5). `trouble` if it could not be asked."""

    program: str
    address: str
    accepts: bool = True
    knows: bool = True
    hop: str = ""
    trouble: str = ""


def handed_over(facts: Sequence[Handed], listens: Sequence[str]) -> Iterator[Finding]:
    """Findings. Pure."""
    for each in facts:
        yield _judged(each, [parse_listen(address) for address in listens])
    if not facts:
        yield Finding(
            "mail server",
            WARNING,
            "no mail server was found on this machine",
            "where it runs, use what `postroom mta` prints for it, and send a message to a list",
        )


def _judged(facts: Handed, places: Sequence[Tcp | Unix]) -> Finding:
    program, address = facts.program, facts.address
    show = f"`postroom mta {program.lower()}` prints what it needs"
    domain = address.rpartition("@")[2]
    if facts.trouble:
        text = f"{program} could not be asked about {address} ({facts.trouble})"
        return Finding("mail server", WARNING, text, f"ask it as root; {show}")
    if not facts.accepts:
        text = f"{program} takes no mail for {domain}"
    elif not facts.knows:
        text = f"{program} does not know {address}: it refuses mail to it"
    elif not any(leads_to(facts.hop, place) for place in places):
        where = f"sends it to {facts.hop}" if facts.hop else "delivers it elsewhere"
        text = f"{program} does not hand {address} to us, it {where}"
    else:
        return Finding("mail server", OK, f"{program} hands {address} to {facts.hop}")
    return Finding("mail server", FAILURE, text, show)


def leads_to(hop: str, place: Tcp | Unix) -> bool:
    """Whether a next hop is a place where we listen."""
    where = hop.partition(":")[2]
    if isinstance(place, Unix):
        path = where.removeprefix("unix:").lstrip("/")
        # Postfix may name it as seen from its queue directory.
        return bool(path) and (place.path == f"/{path}" or place.path.endswith(f"/{path}"))
    host, _, port = where.removeprefix("inet:").rpartition(":")
    same = host.strip("[]").lower()
    if port != str(place.port):
        return False
    if same in _LOOPBACK:
        return place.host in _LOOPBACK | {"0.0.0.0", "::"}
    return same == place.host.lower() or place.host in ("0.0.0.0", "::")


def ask(addresses: Sequence[str]) -> list[Handed]:
    """Ask the mail server of this machine about some addresses."""
    if postconf := _find("postconf"):
        return list(_postfix(addresses, _runner(postconf.rpartition("/")[0])))
    if exim := _find("exim") or _find("exim4"):
        directory, _, name = exim.rpartition("/")
        return [_exim(address, name, _runner(directory)) for address in addresses]
    return []


def _find(program: str) -> str | None:
    return shutil.which(program) or shutil.which(program, path=_SBIN)


def _runner(directory: str) -> Run:
    """Runs the commands in a directory. They raise OSError, `SubprocessError`."""

    def run(program: str, *arguments: str) -> Said:
        done = subprocess.run(
            [f"{directory}/{program}", *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
        output, errors = (
            octets.decode("utf-8", "replace").strip() for octets in (done.stdout, done.stderr)
        )
        return Said(done.returncode, output, errors)

    return run


# Postfix

# A kind of domain, where Postfix looks for its recipients (ADDRESS_CLASS_README), and what
# delivers them where transport_maps says nothing.
_CLASSES = {
    "mydestination": (
        "local_recipient_maps",
        ("mailbox_transport", "fallback_transport", "local_transport"),
    ),
    "virtual_alias_domains": ("virtual_alias_maps", ()),
    "virtual_mailbox_domains": ("virtual_mailbox_maps", ("virtual_transport",)),
    "relay_domains": ("relay_recipient_maps", ("relay_transport",)),
}
_SETTINGS = (
    "transport_maps",
    *(
        name
        for kind, (recipients, transports) in _CLASSES.items()
        for name in (kind, recipients, *transports)
    ),
)


class _Postfix:
    """Raises OSError where Postfix cannot say."""

    def __init__(self, run: Run) -> None:
        self._run = run
        said = run("postconf", "-x", *_SETTINGS)
        if said.status:
            raise OSError(_last_line(said.errors))
        pairs = (line.partition("=") for line in said.output.splitlines())
        self._settings = {name.strip(): words_of(value) for name, _, value in pairs}

    def value(self, name: str) -> list[str]:
        """The words of a setting."""
        return self._settings.get(name, [])

    def look_up(self, items: Sequence[str], *keys: str) -> str | None:
        """What the first of the keys that is there gives: in tables, or as a word."""
        for key in keys:
            for item in items:
                if ":" not in item:
                    if item.lower() == key:
                        return item
                    continue
                # proxymap(8) is for daemons in a chroot; we are in none.
                said = self._run("postmap", "-q", key, item.removeprefix("proxy:"))
                if not said.status:
                    return said.output
                if "fatal:" in said.errors:  # else it is not there
                    raise OSError(_last_line(said.errors))
        return None

    def handed(self, address: str) -> Handed:
        """What becomes of mail to an address."""
        local, _, domain = address.rpartition("@")
        above = _parents(domain)
        for kind, (recipients, transports) in _CLASSES.items():
            # parent_domain_matches_subdomains has relay_domains alone of these.
            names = [domain, *above] if kind == "relay_domains" else [domain]
            if self.look_up(self.value(kind), *names) is None:
                continue
            maps = self.value(recipients)
            knows = not maps or self.look_up(maps, address, local, f"@{domain}") is not None
            keys = [address, domain, *(f".{each}" for each in above), "*"]
            hop = self.look_up(self.value("transport_maps"), *keys)
            others = [word for name in transports for word in self.value(name)[:1]]
            return Handed("Postfix", address, knows=knows, hop=hop or next(iter(others), ""))
        return Handed("Postfix", address, accepts=False)


def _postfix(addresses: Sequence[str], run: Run) -> Iterator[Handed]:
    try:
        postfix = _Postfix(run)
    except (OSError, subprocess.SubprocessError) as error:
        yield Handed("Postfix", addresses[0], trouble=str(error))
        return
    for address in addresses:
        try:
            yield postfix.handed(address)
        except (OSError, subprocess.SubprocessError) as error:
            yield Handed("Postfix", address, trouble=str(error))


def words_of(value: str) -> list[str]:
    """A list in main.cf; braces hold what belongs together (postconf(5))."""
    words, depth, word = [], 0, ""
    for char in value + " ":
        depth += (char == "{") - (char == "}")
        if depth == 0 and (char == "," or char.isspace()):
            if word:
                words.append(word)
            word = ""
        else:
            word += char
    return words


def _parents(domain: str) -> list[str]:
    labels = domain.split(".")
    return [".".join(labels[first:]) for first in range(1, len(labels))]


# Exim


def _exim(address: str, exim: str, run: Run) -> Handed:
    try:
        said = run(exim, "-bt", address)
        transport, host = routed(said.output)
        if not transport:
            if address in said.output:
                return Handed("Exim", address, knows=False)
            return Handed("Exim", address, trouble=_last_line(said.errors or said.output))
        said = run(exim, "-bP", "transport", transport)
        if said.status:
            return Handed("Exim", address, trouble=_last_line(said.errors or said.output))
        return Handed("Exim", address, hop=hop_of(transport, host, said.output))
    except (OSError, subprocess.SubprocessError) as error:
        return Handed("Exim", address, trouble=str(error))


def _last_line(text: str) -> str:
    return text.splitlines()[-1] if text else "it does not say why"


def routed(said: str) -> tuple[str, str]:
    """The transport and the host of what `exim -bt` says; "" where there is none."""
    transport = re.search(r"transport = (\S+)", said)
    host = re.search(r"^\s*host \S+\s+\[([^]]+)\]", said, re.M)
    return transport[1] if transport else "", host[1] if host else ""


def hop_of(transport: str, host: str, options: str) -> str:
    """The next hop of a transport, from what `exim -bP transport` says."""
    found = dict(re.findall(r"^(\w+) = ?(.*)$", options, re.M))
    if found.get("driver") == "lmtp":
        return f"lmtp:unix:{found.get('socket', '')}"
    if found.get("protocol") == "lmtp":
        return f"lmtp:inet:{host}:{found.get('port') or '24'}"
    return transport
