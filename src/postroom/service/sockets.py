"""Listening sockets, and what supervisor and processes say to each other.

For: binding before anything else is started. Guarantees: a socket is bound and does not
listen yet, so nobody is let in before the door is fit. The path of a unix socket belongs
to who holds the lock beside it: there a stale socket is replaced, a live one and whatever
is no socket are left alone; only a file that is still ours is removed. Fails with `BindError`.
"""

import contextlib
import errno
import grp
import os
import socket
import stat
from collections.abc import Sequence
from typing import NamedTuple

from postroom.base.places import Tcp, Unix, parse_listen
from postroom.service.locks import take_lock

READY = b"R"  # a process says over its control socket that it serves, with the latest settings
BEAT = b"B"  # and that its event loop is alive
UNFIT = 78  # exit status EX_CONFIG (sysexits.h): starting again will not help
LMTP = "lmtp.listen"
RUNNING = "is postroom running already?"
OWNER = "check owner and mode of it and of its directory;"


class BindError(Exception):
    """An address cannot be used; `str()` says why and what to do."""


class _Unusable(Exception):
    """Why a path cannot be used, and what to do."""

    def __init__(self, reason: str, to_do: str) -> None:
        self.reason, self.to_do = reason, to_do


class Made(NamedTuple):
    """The file of a unix socket: where it is, which it is, and the lock that makes it ours."""

    path: str
    inode: tuple[int, int]
    lock: int


class Listener(NamedTuple):
    """A bound socket. `made` is None where there is no file, or systemd made it."""

    socket: socket.socket
    made: Made | None = None

    def close(self) -> None:
        """Let go of the address; somebody else may have it at once."""
        if self.made is not None:
            path, inode, lock = self.made
            # Before the socket is closed: then a new file could have the same inode.
            with contextlib.suppress(OSError):
                if _inode(path) == inode:
                    os.unlink(path)
            os.close(lock)
        self.socket.close()


def bind(
    addresses: Sequence[str], setting: str = LMTP, mode: int = 0o660, group: str = ""
) -> list[Listener]:
    """Bind all addresses, or none. `setting` is where they come from; mode and, if it is not
    empty, group say who may connect to unix sockets. Raises `BindError`."""
    bound: list[Listener] = []
    try:
        for address in addresses:
            _bind(address, setting, mode, group, bound)
    except BaseException:
        for each in bound:
            each.close()
        raise
    return bound


def listen(bound: Sequence[socket.socket], setting: str = LMTP) -> None:
    """Let clients in. Raises `BindError` if another server, bound meanwhile, was quicker."""
    for each in bound:
        try:
            each.listen()
        except OSError as error:
            raise _refusal(address_of(each), error.strerror or str(error), setting) from error


def address_of(bound: socket.socket) -> str:
    """The address as settings spell it, with the port that the system chose."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return str(Unix(os.fsdecode(name).replace("\0", "@", 1)))
    return str(Tcp(*name[:2]))


def _refusal(address: str, reason: str, setting: str, to_do: str = RUNNING) -> BindError:
    other = f"`{setting}` names another address"
    if setting != LMTP:
        other += ", or is empty to do without"
    elif not address.startswith("unix:"):
        other += ", port 0 lets the system choose"
    return BindError(f"cannot listen on {address} ({reason}): {to_do} {other}")


def _bind(address: str, setting: str, mode: int, group: str, bound: list[Listener]) -> None:
    where = parse_listen(address)
    try:
        if isinstance(where, Unix):
            bound.append(_bind_unix(where.path, mode, group))
        else:
            _bind_tcp(where, bound)
    except _Unusable as error:
        raise _refusal(address, error.reason, setting, error.to_do) from error
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of the DNS
        number = getattr(error, "errno", None) or 0
        reason = os.strerror(number) if number > 0 else str(error)
        to_do = OWNER if isinstance(where, Unix) else RUNNING
        raise _refusal(address, reason, setting, to_do) from error


def _bind_tcp(where: Tcp, bound: list[Listener]) -> None:
    """Add to `bound` a socket for each address of a host."""
    found = socket.getaddrinfo(*where, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    for family, kind, protocol, _, address in dict.fromkeys(found):
        each = socket.socket(family, kind, protocol)
        bound.append(Listener(each))
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # Two servers that start at once can both come here: the second to listen is refused.
        each.bind(address)


def _bind_unix(path: str, mode: int, group: str) -> Listener:
    owners = _group_id(group)
    _is_there(path)  # no lock file beside what is not ours
    lock = _lock(path)
    try:
        _clear(path)
        return _make(path, lock, mode, owners)
    except BaseException:
        os.close(lock)
        raise


def _group_id(name: str) -> int:
    """The number of a group, -1 for none."""
    try:
        return grp.getgrnam(name).gr_gid if name else -1
    except KeyError:
        raise _Unusable(
            f"there is no group {name!r}", "`lmtp.socket_group` must be one that exists;"
        ) from None


def _lock(path: str) -> int:
    lock = f"{path}.lock"
    try:
        return take_lock(lock)
    except BlockingIOError:
        raise _Unusable(f"a process holds {lock}", RUNNING) from None
    except FileNotFoundError:
        raise _Unusable(
            f"there is no directory {os.path.dirname(path)}",
            "make it with mkdir, or with RuntimeDirectory= in a unit of systemd;",
        ) from None
    except OSError as error:
        raise _Unusable(f"{lock}: {error.strerror}", OWNER) from error


def _is_there(path: str) -> bool:
    """Whether there is a socket, of whomever."""
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise _Unusable("what is there is no socket", "it was left alone; move it away, or")
    return True


def _clear(path: str) -> None:
    """Remove a socket that nobody listens on."""
    if not _is_there(path):
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError as error:
            # It is busy, or not of our type; in any case somebody has it.
            if error.errno not in (errno.EAGAIN, errno.EPROTOTYPE):
                raise
    raise _Unusable("a process answers there", RUNNING)


def _make(path: str, lock: int, mode: int, group: int) -> Listener:
    made = socket.socket(socket.AF_UNIX)
    mask = os.umask(0o777)  # until its group and mode are right it is nobody's
    try:
        made.bind(path)
    except BaseException:
        made.close()
        raise
    finally:
        os.umask(mask)
    inode = _inode(path)
    try:
        _chown(path, group)
        os.chmod(path, mode)
    except BaseException:
        os.unlink(path)
        made.close()
        raise
    return Listener(made, Made(path, inode, lock))


def _chown(path: str, group: int) -> None:
    try:
        os.chown(path, -1, group)
    except PermissionError:
        raise _Unusable(
            "this user may not give it to the group of `lmtp.socket_group`",
            "make the user a member of that group;",
        ) from None


def _inode(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
