"""systemd: the sockets that it hands over, and what it wants to hear from a service.

For: what sd_listen_fds(3), sd_notify(3) and sd_watchdog_enabled(3) describe. Guarantees:
where there is no systemd nothing happens; its variables are taken out of the environment,
so no other process acts on them; to tell it something never fails. Raises `BindError`
for a socket that is not fit to serve.
"""

import contextlib
import os
import socket
from collections.abc import MutableMapping

from postroom.base.places import parse_listen
from postroom.service.sockets import BindError, address_of

KINDS = ("lmtp", "maps", "metrics")
_FIRST = 3  # SD_LISTEN_FDS_START
_FAMILIES = (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
_PATIENCE = 1.0  # seconds; a manager that does not listen must not hold us

Environment = MutableMapping[str, str]


def take_sockets(environment: Environment) -> dict[str, list[socket.socket]]:
    """The sockets that were handed to this very process, by kind. Raises `BindError`."""
    names = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID")
    pid, count, called, _ = (environment.pop(name, "") for name in names)
    if pid != str(os.getpid()) or not count.isdecimal():
        return {}
    kinds = called.split(":")
    taken: dict[str, list[socket.socket]] = {}
    for place in range(int(count)):
        kind = kinds[place] if place < len(kinds) and kinds[place] in KINDS else KINDS[0]
        taken.setdefault(kind, []).append(_take(_FIRST + place))
    return taken


def _take(number: int) -> socket.socket:
    try:
        taken = socket.socket(fileno=number)
    except OSError as error:
        raise _refusal(number, f"is no socket ({error.strerror})") from error
    if (fault := _fault(taken)) is not None:
        taken.close()
        raise _refusal(number, fault)
    taken.set_inheritable(False)
    return taken


def _fault(taken: socket.socket) -> str | None:
    if taken.type != socket.SOCK_STREAM or taken.family not in _FAMILIES:
        return "is no stream socket of TCP or a path"
    if not taken.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        return "does not listen"
    try:
        parse_listen(address_of(taken))
    except ValueError as error:
        return f"has an address that cannot be used ({error})"
    return None


def _refusal(number: int, fault: str) -> BindError:
    return BindError(
        f"descriptor {number}, which systemd handed over, {fault}: "
        "use ListenStream= and Accept=no in the .socket unit, or disable it"
    )


class Manager:
    """The service manager, if there is one that wants to hear from this process."""

    def __init__(self, environment: Environment) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        interval = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", "") in ("", str(os.getpid()))
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Seconds within which it wants to hear that we are alive, None if it does not.
        self.watchdog = int(interval) / 1e6 or None if interval.isdecimal() and watched else None

    def tell(self, *assignments: str) -> None:
        """Send `NAME=value`, each of which is made one line."""
        if not self._address:
            return
        lines = "\n".join(" ".join(each.split()) for each in assignments)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
            ours.settimeout(_PATIENCE)
            ours.sendto(lines.encode(errors="backslashreplace"), self._address)
