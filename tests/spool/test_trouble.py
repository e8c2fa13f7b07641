"""What errors of storage mean for those who wait."""

from typing import NamedTuple

import psycopg
import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy.exc import OperationalError

from postroom.mail import reply
from postroom.mail.reply import Reply
from postroom.spool.trouble import Trouble, diagnose


class Meaning(NamedTuple):
    """What is answered, and what is done."""

    answer: Reply = reply.LOCAL_ERROR
    retry: bool = False
    one_envelope: bool = False
    unhealthy: bool = False
    unknown_at_commit: bool = False


AGAIN = Meaning(retry=True)
GONE = Meaning(retry=True, unknown_at_commit=True)
FULL = Meaning(answer=reply.NO_ROOM)
BROKEN = Meaning(unhealthy=True)
OURS = Meaning()
ONE = Meaning(one_envelope=True)

SQLITE = {
    "SQLITE_BUSY": AGAIN,
    "SQLITE_BUSY_SNAPSHOT": AGAIN,
    "SQLITE_BUSY_RECOVERY": AGAIN,
    "SQLITE_LOCKED": AGAIN,
    "SQLITE_LOCKED_SHAREDCACHE": AGAIN,
    "SQLITE_FULL": FULL,
    "SQLITE_IOERR": BROKEN,
    "SQLITE_IOERR_FSYNC": BROKEN,
    "SQLITE_IOERR_WRITE": BROKEN,
    "SQLITE_IOERR_SHORT_READ": BROKEN,
    "SQLITE_CORRUPT": BROKEN,
    "SQLITE_CORRUPT_INDEX": BROKEN,
    "SQLITE_NOTADB": BROKEN,
    "SQLITE_READONLY": OURS,
    "SQLITE_READONLY_DBMOVED": OURS,
    "SQLITE_CANTOPEN": OURS,
    "SQLITE_NOMEM": OURS,
    "SQLITE_CONSTRAINT_UNIQUE": ONE,
    "SQLITE_CONSTRAINT_TRIGGER": ONE,
    "SQLITE_CONSTRAINT_FOREIGNKEY": ONE,
    "SQLITE_TOOBIG": ONE,
    "SQLITE_ERROR": ONE,
    "SQLITE_MISMATCH": ONE,
}
POSTGRESQL = {
    "08000": GONE,
    "08003": GONE,
    "08006": GONE,
    "08007": GONE,  # transaction_resolution_unknown
    "40003": GONE,  # statement_completion_unknown
    "57P01": GONE,  # admin_shutdown
    "57P02": GONE,
    "57P03": GONE,
    "53000": FULL,
    "53100": FULL,
    "53200": FULL,
    "53300": FULL,
    "40001": AGAIN,
    "40P01": AGAIN,
    "55P03": AGAIN,  # lock_not_available
    "57014": AGAIN,  # query_canceled
    "58030": BROKEN,  # io_error
    "XX000": BROKEN,
    "XX001": BROKEN,  # data_corrupted
    "25006": OURS,  # read_only_sql_transaction
    "23505": ONE,
    "23503": ONE,
    "22021": ONE,  # character_not_in_repertoire
    "42P01": ONE,
    "P0001": ONE,
}


def meaning(error: Exception) -> Meaning:
    found, at_commit = diagnose(error, committing=False), diagnose(error, committing=True)
    assert not found.unknown
    for each in (found, at_commit):
        assert each.reply in (reply.LOCAL_ERROR, reply.NO_ROOM)  # never 5xx
        assert len(str(each).splitlines()) == 1
    assert (at_commit.reply, at_commit.retry, at_commit.one_envelope, at_commit.unhealthy) == (
        found.reply,
        found.retry,
        found.one_envelope,
        found.unhealthy,
    )
    return Meaning(found.reply, found.retry, found.one_envelope, found.unhealthy, at_commit.unknown)


def sqlite_error(name: str) -> sqlite.Error:
    error = sqlite.OperationalError("it went\nwrong")
    error.sqlite_errorname = name
    return error


def postgresql_error(state: str) -> psycopg.Error:
    try:
        kind = psycopg.errors.lookup(state)
    except KeyError:
        kind = type("Unnamed", (psycopg.DatabaseError,), {"sqlstate": state})
    return kind("it went\nwrong")


@pytest.mark.parametrize(("name", "expected"), SQLITE.items())
def test_errors_of_sqlite(name: str, expected: Meaning) -> None:
    error = sqlite_error(name)
    assert meaning(error) == expected
    assert str(diagnose(error, committing=False)) == f"it went wrong ({name})"


@pytest.mark.parametrize(("state", "expected"), POSTGRESQL.items())
def test_errors_of_postgresql(state: str, expected: Meaning) -> None:
    assert meaning(postgresql_error(state)) == expected


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("server closed the connection unexpectedly"), GONE),
        (psycopg.InterfaceError("the connection is closed"), GONE),
        (psycopg.errors.ConnectionTimeout("timeout"), GONE),
        (psycopg.errors.PipelineAborted("aborted"), GONE),
        (psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes"), ONE),
        (psycopg.ProgrammingError("cannot adapt type 'object'"), ONE),
        (psycopg.NotSupportedError("no"), ONE),
        (sqlite.ProgrammingError("Cannot operate on a closed database."), ONE),
        (sqlite.InterfaceError("bad parameter"), ONE),
        (UnicodeEncodeError("utf-8", "\udce9", 0, 1, "surrogates not allowed"), ONE),
        (KeyError("a defect"), ONE),
        (ValueError(""), ONE),
        (OverflowError("int too large"), ONE),
        (MemoryError(), ONE),
    ],
)
def test_errors_that_no_database_gave_a_code(error: Exception, expected: Meaning) -> None:
    assert meaning(error) == expected


def test_an_error_of_the_driver_is_read_out_of_sqlalchemy_s_around_it() -> None:
    wrapped = OperationalError("INSERT ...", {}, sqlite_error("SQLITE_FULL"))
    assert meaning(wrapped) == FULL
    assert "INSERT" not in str(diagnose(wrapped, committing=False))
    wrapped = OperationalError("SELECT 1", {}, psycopg.OperationalError("connection refused"))
    assert meaning(wrapped) == GONE


def test_real_errors_of_sqlite_carry_the_name_that_is_looked_at() -> None:
    connection = sqlite.connect(":memory:")
    with pytest.raises(sqlite.Error) as full:
        connection.execute("PRAGMA max_page_count = 1").fetchall()
        connection.execute("CREATE TABLE a (b)")
        connection.execute("CREATE TABLE c (d)")
    connection.close()
    assert meaning(full.value) == FULL


def test_trouble_says_its_text() -> None:
    trouble = Trouble("why", reply.NO_ROOM)
    assert (str(trouble), trouble.reply) == ("why", reply.NO_ROOM)
    assert not (trouble.retry or trouble.one_envelope or trouble.unknown or trouble.unhealthy)
