"""What goes wrong with the database comes out as a sentence."""

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import insert
from sqlalchemy.exc import OperationalError

from postroom.cli.common import Failed
from postroom.cli.database import sentences
from postroom.store.engine import Store
from postroom.store.schema import domain


def sentence(error: Exception) -> str:
    """What a person reads when a statement fails with `error`."""
    with pytest.raises(Failed) as caught, sentences():
        raise error
    return caught.value.message


def sqlite_error(name: str) -> OperationalError:
    error = sqlite.OperationalError("it failed")
    error.sqlite_errorname = name
    return OperationalError("SELECT secret", {}, error)


def test_two_at_once_are_told_apart_from_a_defect(store: Store) -> None:
    with pytest.raises(Failed) as caught, sentences(), store.begin() as connection:
        for _ in range(2):
            connection.execute(insert(domain).values(mail_host="example.com"))
    assert "somebody else changed the same thing" in caught.value.message
    assert "UNIQUE constraint failed: domain.mail_host" in caught.value.message


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SQLITE_BUSY", "try again in a moment"),
        ("SQLITE_FULL", "has no room left"),
        ("SQLITE_IOERR_FSYNC", "is damaged"),
        ("SQLITE_CORRUPT", "is damaged"),
        ("SQLITE_READONLY", "refused it, and nothing was changed"),
    ],
)
def test_trouble_of_the_database_is_one_sentence_without_the_statement(
    name: str, advice: str
) -> None:
    said = sentence(sqlite_error(name))
    assert advice in said
    assert f"it failed ({name})" in said
    assert "secret" not in said
    assert "\n" not in said
