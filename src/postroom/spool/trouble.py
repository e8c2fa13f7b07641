"""What a database error means for those who wait.

For: the one place where errors of storage become replies. Pure. Guarantees: never 5xx;
an error that may have been a failed flush is never tried again (Linux may report success
the second time) and asks for a restart.
"""

import pysqlite3.dbapi2 as sqlite

from postroom.mail import reply
from postroom.mail.reply import Reply


class Trouble(Exception):
    """A batch could not be stored; `str()` says why, for the log.

    `retry`: the same batch may be tried again until its deadline. `one_envelope`: the
    fault may lie with one envelope. `unknown`: it may have been stored after all.
    `unhealthy`: the process should end and start anew.
    """

    def __init__(
        self,
        text: str,
        answer: Reply,
        *,
        retry: bool = False,
        one_envelope: bool = False,
        unknown: bool = False,
        unhealthy: bool = False,
    ) -> None:
        super().__init__(text)
        self.reply = answer
        self.retry = retry
        self.one_envelope = one_envelope
        self.unknown = unknown
        self.unhealthy = unhealthy


# No server gave psycopg's own errors a code: these are of a value or statement that it will
# not send, the others of a connection.
_OF_A_VALUE = ("DataError", "NotSupportedError", "ProgrammingError")


def diagnose(error: Exception, committing: bool) -> Trouble:
    """Read a driver's error, or SQLAlchemy's around it. `committing`: it came from COMMIT."""
    error = getattr(error, "orig", None) or error
    text = " ".join(str(error).split())
    if isinstance(error, sqlite.Error) and hasattr(error, "sqlite_errorname"):
        return _sqlite(error.sqlite_errorname, text)
    state = getattr(error, "sqlstate", "")
    if state or (state is None and type(error).__name__ not in _OF_A_VALUE):
        return _postgresql(state, text, committing)
    # A defect of ours, or a value that the driver will not take.
    return Trouble(f"{type(error).__name__}: {text}", reply.LOCAL_ERROR, one_envelope=True)


def of_the_database(error: Exception) -> bool:
    """Whether the database is in trouble, rather than what was to be written."""
    return not diagnose(error, committing=False).one_envelope


def _sqlite(name: str, text: str) -> Trouble:
    text = f"{text} ({name})"
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return Trouble(text, reply.LOCAL_ERROR, retry=True)
    if name.startswith("SQLITE_FULL"):
        return Trouble(text, reply.NO_ROOM)
    if name.startswith(("SQLITE_IOERR", "SQLITE_CORRUPT", "SQLITE_NOTADB")):
        return Trouble(text, reply.LOCAL_ERROR, unhealthy=True)
    if name.startswith(("SQLITE_READONLY", "SQLITE_CANTOPEN", "SQLITE_NOMEM")):
        return Trouble(text, reply.LOCAL_ERROR)
    return Trouble(text, reply.LOCAL_ERROR, one_envelope=True)


def _postgresql(state: str | None, text: str, committing: bool) -> Trouble:
    if state is None or state.startswith(("08", "57P")) or state == "40003":
        # No answer from the server: if it was to COMMIT, nobody knows.
        return Trouble(text, reply.LOCAL_ERROR, retry=True, unknown=committing)
    if state.startswith("53"):  # disk full, out of memory, too many connections
        return Trouble(text, reply.NO_ROOM)
    if state.startswith("40") or state in ("55P03", "57014"):  # deadlock, lock or time out
        return Trouble(text, reply.LOCAL_ERROR, retry=True)
    if state.startswith(("58", "XX", "25006")):
        return Trouble(text, reply.LOCAL_ERROR, unhealthy=not state.startswith("25"))
    return Trouble(text, reply.LOCAL_ERROR, one_envelope=True)
