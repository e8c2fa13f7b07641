"""Admission: who may come in, who is in, and what they did.

For: what all connections of a process share. Guarantees: no more connections than the
settings allow, in all and from one address; over TCP only from the networks that are
allowed. A client that is refused is told 421, the only greeting that every mail server
tries again on. Used in the event loop's thread only.
"""

import ssl
from collections import Counter, defaultdict
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import NamedTuple, Protocol

from postroom.lmtp.protocol import Limits
from postroom.lmtp.turns import Turns
from postroom.mail import reply
from postroom.mail.reply import Reply

LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1/128"))
MOST_DETAINED = 200  # connections that are turned out and not closed yet; more if they were in
REASONS = ("stopping", "not allowed", "too many", "too many of one client")
Networks = tuple[IPv4Network | IPv6Network, ...]


class ServerConfig(NamedTuple):
    """What connections need to know. Times in seconds, sizes in octets. `memory_budget` is
    for messages that are being received or stored, each counted once."""

    hostname: str
    ident: str
    limits: Limits = Limits()
    memory_budget: int = 134_217_728
    max_connections: int = 1000
    max_per_client: int = 500
    allow: Networks = LOOPBACK
    tls: ssl.SSLContext | None = None
    idle_timeout: float = 300.0  # for the next command (RFC 5321 4.5.3.2.7)
    message_timeout: float = 1800.0  # for one whole message
    least_rate: float = 100.0  # octets of a message per second, on average,
    rate_grace: float = 120.0  # once it has taken so long
    write_timeout: float = 60.0  # for the client to read what it was told
    room_wait: float = 150.0  # below the time in which clients give up on sending data
    pause: float = 0.005  # between the turns of clients who ask much at once
    penalty: float = 1.0  # before the connection of a client that was turned out is closed


class Guest(Protocol):
    """What admission sees of a connection."""

    @property
    def host(self) -> str:
        """The client's address; "" over a unix socket."""


class Admission:
    """Counts and limits connections."""

    def __init__(self, config: ServerConfig) -> None:
        self.config = config
        self.stopping = False
        self.turns = Turns(config.pause)
        self.accepted = 0
        # By reason, all from the start: a rate needs a 0 to begin with.
        self.refused: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        # By whole reply; a Counter takes twice as long to count.
        self.replies: defaultdict[bytes, int] = defaultdict(int)
        self.octets_in = 0
        self._inside = self._detained = 0
        self._from: Counter[str] = Counter()

    def enter(self, guest: Guest) -> Reply | None:
        """Let a connection in, or say why not."""
        config, host = self.config, guest.host
        if self.stopping:
            reason, answer = "stopping", reply.SHUTTING_DOWN
        elif host and not _allowed(host, config.allow):
            reason, answer = "not allowed", reply.NOT_ALLOWED
        elif self._inside >= config.max_connections:
            reason, answer = "too many", reply.OVERLOADED
        elif host and self._from[host] >= config.max_per_client:
            reason, answer = "too many of one client", reply.OVERLOADED
        else:
            self.accepted += 1
            self._inside += 1
            self._from[host] += 1
            return None
        self.refused[reason] += 1
        self.replies[answer.wire] += 1
        return answer

    def leave(self, guest: Guest) -> None:
        """A connection that had been let in is gone."""
        self._inside -= 1
        self._from[guest.host] -= 1
        if not self._from[guest.host]:
            del self._from[guest.host]

    def detain(self, inside: bool) -> bool:
        """Whether one more client that was turned out may be kept waiting. One that had been
        let in still takes the place of another."""
        if self.stopping or (not inside and self._detained >= MOST_DETAINED):
            return False
        self._detained += 1
        return True

    def release(self) -> None:
        """One that was kept waiting may go."""
        self._detained -= 1


@lru_cache(maxsize=1024)
def _allowed(host: str, networks: Networks) -> bool:
    address = ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return any((mapped or address) in network for network in networks)
