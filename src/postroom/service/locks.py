"""Lock files: one supervisor for the path of a socket, one for a role on a SQLite database.

For: keeping a second one out before it does anything. Guarantees: a lock ends with the
process that holds it, however that ends, and is passed on to nobody; the file stays, since
removing it would let two hold the same lock. Raises `LockError`, or OSError.
"""

import contextlib
import fcntl
import os
from urllib.parse import unquote


class LockError(Exception):
    """The database may not be used; `str()` says why and what to do."""


def take_lock(path: str) -> int:
    """Lock this file, made if need be. Returns its descriptor: to close it ends the lock.

    Raises BlockingIOError while another process holds it, OSError if there can be no lock.
    """
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise
    return lock


def lock_database(url: str, role: str) -> int | None:
    """Take the one place of a supervisor that runs `role`, beside a SQLite database; None
    where many may be. The directory is made if it is not there. Raises `LockError`."""
    path = sqlite_file(url)
    if path is None or (os.path.exists(path) and not os.path.isfile(path)):
        return None  # what is wrong with it is said by who opens it
    lock = f"{path}.{role}.lock"
    try:
        with contextlib.suppress(FileExistsError):
            os.makedirs(os.path.dirname(path), 0o750)
        return take_lock(lock)
    except BlockingIOError as error:
        raise LockError(
            f"{path} is served by another postroom, which runs {role} and holds {lock}: "
            "stop that one first, or set store.url to another database"
        ) from error
    except OSError as error:
        raise LockError(
            f"{lock} cannot be locked ({error.strerror}): check owner and mode of it and of "
            "its directory, or set store.url"
        ) from error


def sqlite_file(url: str) -> str | None:
    """The real path of a SQLite database; None if the URL is not one of a file."""
    scheme, _, rest = url.partition("://")
    name = unquote(rest.partition("?")[0].partition("/")[2])
    if scheme.partition("+")[0] != "sqlite" or name in ("", ":memory:"):
        return None
    return os.path.realpath(name)
