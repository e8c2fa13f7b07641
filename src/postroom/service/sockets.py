"""Listening sockets, and what supervisor and processes say to each other.

For: binding before anything else is started. Guarantees: a socket is bound and does not
listen yet, so nobody is let in before the door is fit. Fails with `BindError`.
"""

import os
import socket
from collections.abc import Sequence

from postroom.service.settings import parse_listen

READY = b"R"  # a process says over its control socket that it serves
UNFIT = 78  # exit status EX_CONFIG (sysexits.h): starting again will not help


class BindError(Exception):
    """An address cannot be used; `str()` says why and what to do."""


def bind(addresses: Sequence[str]) -> list[socket.socket]:
    """Bind all addresses, or none. Raises `BindError`."""
    bound: list[socket.socket] = []
    for address in addresses:
        try:
            _bind(*parse_listen(address), bound)
        except (OSError, UnicodeError) as error:  # UnicodeError: no name of the DNS
            for each in bound:
                each.close()
            number = getattr(error, "errno", None) or 0
            reason = os.strerror(number) if number > 0 else str(error)
            raise _refusal(address, reason) from error
    return bound


def listen(bound: Sequence[socket.socket]) -> None:
    """Let clients in. Raises `BindError` if another server, bound meanwhile, was quicker."""
    for each in bound:
        try:
            each.listen()
        except OSError as error:
            raise _refusal(address_of(each), error.strerror or str(error)) from error


def _refusal(address: str, reason: str) -> BindError:
    return BindError(
        f"cannot listen on {address} ({reason}): is postroom running already? "
        "`lmtp.listen` names another address, port 0 lets the system choose"
    )


def _bind(host: str, port: int, bound: list[socket.socket]) -> None:
    """Add to `bound` a socket for each address of `host`."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, where in dict.fromkeys(found):
        each = socket.socket(family, kind, protocol)
        bound.append(each)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Two servers that start at once can both come here: the second to listen is refused.
        each.bind(where)


def address_of(bound: socket.socket) -> str:
    """HOST:PORT, with the port that the system chose."""
    host, port = bound.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
