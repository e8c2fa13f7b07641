"""Places to listen on, as settings and command lines spell them.

For: reading `HOST:PORT` and `unix:/PATH`. Guarantees: what is returned can be given to the
system; LMTP's ban on port 25 holds. Raises ValueError, which says what is allowed.
"""

import re
from typing import NamedTuple

MOST_PATH = 107  # octets of a unix socket's path (unix(7): sun_path holds 108 with its NUL)


class Tcp(NamedTuple):
    """A host name or address, and a port; port 0 lets the system choose."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Unix(NamedTuple):
    """The absolute path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


def parse_listen(address: str) -> Tcp | Unix:
    """`HOST:PORT`, `[IPV6]:PORT` or `unix:/PATH`. Raises ValueError."""
    if address.startswith("unix:"):
        return _unix(address.removeprefix("unix:"))
    host, colon, port = address.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        raise ValueError("must be HOST:PORT, as in 127.0.0.1:8024, or unix:/PATH")
    if int(port) == 25:
        raise ValueError("port 25 is SMTP's; LMTP must not use it (RFC 2033 5): try 8024")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError("an IPv6 address goes in brackets, as in [::1]:8024")
    return Tcp(host, int(port))


def _unix(path: str) -> Unix:
    if not path.startswith("/") or path.endswith("/") or not path.isprintable():
        raise ValueError("a unix socket needs an absolute path, as in unix:/run/postroom/lmtp.sock")
    if len(path.encode()) > MOST_PATH:
        raise ValueError(
            f"the path of a unix socket may have {MOST_PATH} octets: use a shorter one"
        )
    return Unix(path)


def parse_server(text: str, port: int) -> Tcp:
    """`HOST` (then `port` is its port), `HOST:PORT`, `[IPV6]` or `[IPV6]:PORT`. Raises
    ValueError."""
    match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^\s:\[\]/@,]+)(?::(\d{1,5}))?", text, re.ASCII)
    number = int(match[2] or port) if match else 0
    if match is None or not 0 < number < 65536:
        raise ValueError("must be HOST or HOST:PORT, as in mail.example.com:587 or [::1]:25")
    return Tcp(match[1].strip("[]"), number)
