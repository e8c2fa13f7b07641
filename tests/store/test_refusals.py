"""A database that cannot be used is refused with a sentence, and stays as it was."""

import os
from collections.abc import Callable
from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import inspect, text

from postroom.store import schema
from postroom.store.engine import Store, StoreError, make_engine, open_store


def contents(place: Path) -> dict[str, bytes | None]:
    """Every file and directory below `place`."""
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None
        for path in place.rglob("*")
    }


def newer(path: Path) -> None:
    made(path)
    execute(path, "UPDATE alembic_version SET version_num = '9999'")


def older(path: Path) -> None:
    made(path)
    execute(path, "UPDATE alembic_version SET version_num = '0000'")


def unversioned(path: Path) -> None:
    made(path)
    execute(path, "DELETE FROM alembic_version")


def of_another_project(path: Path) -> None:
    execute(path, "CREATE TABLE alembic_version (version_num VARCHAR(32))")
    execute(path, "INSERT INTO alembic_version VALUES ('1975ea83b712')")


def foreign(path: Path) -> None:
    execute(path, "CREATE TABLE guests (name TEXT)")


def no_database(path: Path) -> None:
    path.write_bytes(b"no database at all " * 500)


def corrupt(path: Path) -> None:
    made(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:100] + b"\xff" * (len(whole) - 100))


def directory(path: Path) -> None:
    path.mkdir()


REFUSED = [
    (newer, "made by a newer postroom (schema 9999, this one speaks", "upgrade postroom"),
    (older, "has schema 0000, this postroom needs", "make a backup, run `postroom migrate`"),
    (unversioned, "is not a postroom database", "set store.url to another one"),
    (of_another_project, "is not a postroom database", "set store.url to another one"),
    (foreign, "is not a postroom database", "set store.url to another one"),
    (no_database, "is damaged", "restore a backup"),
    (corrupt, "is damaged", "restore a backup"),
    (directory, "is not a file", "set store.url to a file"),
]


@pytest.mark.parametrize("create", [True, False])
@pytest.mark.parametrize(
    ("make", "why", "fix"), REFUSED, ids=lambda it: getattr(it, "__name__", "")
)
def test_a_file_that_is_not_fit_is_refused_and_stays_as_it_was(
    tmp_path: Path, make: Callable[[Path], None], why: str, fix: str, create: bool
) -> None:
    path = tmp_path / "place" / "postroom.db"
    path.parent.mkdir()
    make(path)
    before = contents(tmp_path)
    with pytest.raises(StoreError) as caught:
        open_store(f"sqlite:///{path}", create)
    assert why in str(caught.value)
    assert fix in str(caught.value)
    assert str(path) in str(caught.value)
    assert contents(tmp_path) == before


def test_a_place_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/postroom.db cannot be used .*: set store.url"):
        open_store(f"sqlite:///{tmp_path}/file/postroom.db")
    assert contents(tmp_path) == {"file": b""}


def test_a_file_that_is_not_there_is_not_made_unless_wanted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"does not exist: .* makes it"):
        open_store(f"sqlite:///{tmp_path}/place/postroom.db", create=False)
    assert contents(tmp_path) == {}


def test_an_empty_database_is_not_set_up_unless_wanted(postgresql_url: str) -> None:
    with pytest.raises(StoreError, match="is empty: `postroom migrate` sets it up"):
        open_store(postgresql_url, create=False)
    store = Store(make_engine(postgresql_url))
    with store.read() as connection:
        assert inspect(connection).get_table_names() == []
    store.close()


def test_an_empty_database_is_set_up_if_wanted(url: str) -> None:
    open_store(url).close()
    store = open_store(url, create=False)
    with store.read() as connection:
        assert set(schema.metadata.tables) < set(inspect(connection).get_table_names())
    store.close()


@pytest.mark.parametrize("there", [True, False])
def test_a_file_that_may_not_be_written_is_refused(tmp_path: Path, there: bool) -> None:
    path = tmp_path / "postroom.db"
    if there:
        made(path)
        path.chmod(0o400)
    tmp_path.chmod(0o500)
    if os.access(tmp_path, os.W_OK):
        pytest.skip("this user may write everywhere")
    before = contents(tmp_path)
    with pytest.raises(StoreError, match="cannot be written: check owner and mode"):
        open_store(f"sqlite:///{path}")
    assert contents(tmp_path) == before


def test_a_place_where_nobody_may_write_is_refused() -> None:
    with pytest.raises(StoreError, match=r"/proc/postroom.db cannot be"):
        open_store("sqlite:////proc/postroom.db")


def test_a_newer_postgresql_database_is_refused(postgresql_url: str) -> None:
    store = open_store(postgresql_url)
    with store.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    store.close()
    with pytest.raises(StoreError, match="made by a newer postroom"):
        open_store(postgresql_url)


def test_a_server_that_is_not_there_is_named_without_its_password(tmp_path: Path) -> None:
    url = f"postgresql://anne:sesame@/mail?host={tmp_path}"
    with pytest.raises(StoreError, match=r"cannot be (opened|reached).*: check") as caught:
        open_store(url)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "fix"),
    [
        ("nonsense", "is no database URL"),
        ("mysql://host/mail", "use sqlite:///PATH or postgresql://HOST/NAME"),
        ("sqlite://", "a SQLite database must be a file"),
        ("sqlite:///:memory:", "a SQLite database must be a file"),
    ],
)
def test_an_impossible_url_is_refused(url: str, fix: str) -> None:
    with pytest.raises(StoreError, match=fix):
        open_store(url)


@pytest.mark.parametrize("url", ["mysql://anne:sesame@host/mail", "postgresql//anne:sesame@host"])
def test_an_impossible_url_does_not_show_its_password(url: str) -> None:
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "sesame" not in str(caught.value)


def made(path: Path) -> None:
    """A database of ours."""
    open_store(f"sqlite:///{path}").close()


def execute(path: Path, statement: str) -> None:
    """What somebody else does to the file."""
    connection = sqlite.connect(str(path))
    with connection:
        connection.execute(statement)
    connection.close()
