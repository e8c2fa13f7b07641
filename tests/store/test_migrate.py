"""Migrations: the schema is their sum, and a migration is all or nothing."""

import re
import shutil
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, insert, inspect, select, text

from postroom.spool.queue import claim
from postroom.store import migrate as migrations
from postroom.store import schema
from postroom.store.engine import Store, StoreError, make_engine, open_store, revision_of
from postroom.store.migrate import configuration, migrate

NOW = schema.REVISION
LATER = """
import sqlalchemy as sa
from alembic import op

revision = "9999"
down_revision = "NOW"


def upgrade():
    # A table that others refer to is made anew where the database knows no other way.
    how = "always" if op.get_bind().dialect.name == "sqlite" else "never"
    with op.batch_alter_table("domain", recreate=how) as table:
        table.add_column(sa.Column("added", sa.Text))
""".replace("NOW", NOW)


@pytest.fixture
def later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A postroom of tomorrow, with one more migration; returns its file."""
    scripts = tmp_path / "scripts 100%"
    shutil.copytree(migrations.SCRIPTS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    later = scripts / "versions" / "9999_later.py"
    later.write_text(LATER)
    monkeypatch.setattr(migrations, "SCRIPTS", scripts)
    monkeypatch.setattr(schema, "REVISION", "9999")
    return later


def structure(connection: Connection) -> dict[str, object]:
    """Everything that reflection can tell about the tables, by table, as text."""
    look = inspect(connection)
    return {
        name: (
            [repr(each) for each in look.get_columns(name)],
            repr(look.get_pk_constraint(name)),
            sorted(_spell(each) for each in look.get_indexes(name)),
            sorted(_spell(each) for each in look.get_unique_constraints(name)),
            sorted(_spell(each) for each in look.get_foreign_keys(name)),
            repr(look.get_table_options(name)),
        )
        for name in sorted(look.get_table_names())
    }


def _spell(value: object) -> str:
    """A value as text; an SQL expression as SQL."""
    if isinstance(value, dict):
        return repr({key: _spell(each) for key, each in value.items()})
    return str(value)


def definitions(connection: Connection) -> dict[str, list[str]]:
    """What SQLite keeps of each table and index, white space aside; of a table the parts, in
    any order, for a column that came later stands last; of an index also the columns, for
    statements name those that come with a table."""
    rows = connection.execute(text("SELECT type, name, sql FROM sqlite_master")).all()
    found = {f"{kind} {name}": _parts(" ".join((sql or "").split())) for kind, name, sql in rows}
    for name in (name for kind, name, _ in rows if kind == "index"):
        columns = text("SELECT name FROM pragma_index_info(:name) ORDER BY seqno")
        found[f"index {name}"] += connection.scalars(columns, {"name": name})
    return found


def _parts(sql: str) -> list[str]:
    if not sql.startswith("CREATE TABLE"):
        return [sql]
    head, _, body = sql.partition("(")
    return [head, *sorted(each.strip() for each in re.split(r",(?![^(]*\))", body[:-1]))]


def test_the_newest_migration_is_the_revision_of_the_schema() -> None:
    scripts = ScriptDirectory.from_config(configuration())
    assert scripts.get_heads() == [schema.REVISION]


def test_the_first_migration_does_not_read_the_schema() -> None:
    for path in (migrations.SCRIPTS / "versions").glob("*.py"):
        assert "postroom" not in path.read_text()


def test_migrations_add_up_to_the_schema(url: str) -> None:
    assert migrate(url) == (None, schema.REVISION)
    store = Store(make_engine(url))
    try:
        with store.read() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema.metadata) == []
    finally:
        store.close()


def test_migrated_and_created_databases_have_the_same_structure(url: str) -> None:
    migrate(url)
    store = Store(make_engine(url))
    try:
        with store.read() as connection:
            migrated = structure(connection)
        with store.begin() as connection:
            old = MetaData()
            old.reflect(connection)
            old.drop_all(connection)
        open_store(url).close()
        with store.read() as connection:
            assert structure(connection) == migrated
    finally:
        store.close()


def test_migrated_and_created_files_hold_the_same_definitions(tmp_path: Path) -> None:
    found = []
    for name in ("migrated", "created"):
        url = f"sqlite:///{tmp_path / name}"
        if name == "migrated":
            migrate(url)
        store = open_store(url)
        with store.read() as connection:
            found.append(definitions(connection))
        store.close()
    assert found[0] == found[1]
    assert {"table domain", "table entry", "index ix_entry_leased"} <= found[0].keys()
    # lists.routing names these.
    assert found[0]["index sqlite_autoindex_domain_1"][1:] == ["mail_host"]
    assert found[0]["index sqlite_autoindex_mailing_list_1"][1:] == ["mail_host", "list_name"]


def test_a_second_migrate_has_nothing_to_do(url: str) -> None:
    migrate(url)
    assert migrate(url) == (schema.REVISION, schema.REVISION)


def test_a_database_that_open_store_made_is_up_to_date(url: str) -> None:
    open_store(url).close()
    assert migrate(url) == (schema.REVISION, schema.REVISION)


def test_the_directory_of_a_new_database_is_made(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "postroom.db"
    migrate(f"sqlite:///{path}")
    open_store(f"sqlite:///{path}", create=False).close()
    assert path.is_file()


def test_an_older_database_keeps_its_rows(url: str, later: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "REVISION", NOW)
        fill(url)
    assert migrate(url) == (NOW, "9999")
    store = open_store(url, create=False)
    try:
        with store.read() as connection:
            domains = Table("domain", MetaData(), autoload_with=connection)
            assert connection.execute(select(domains)).all() == [("example.com", None, "", None)]
            lists = select(schema.mailing_list.c.posting_address)
            assert connection.scalars(lists).all() == ["ants@example.com"]
    finally:
        store.close()


def test_mail_that_waits_comes_through_the_migrations(url: str) -> None:
    store = Store(make_engine(url))
    try:
        with store.engine.connect() as connection:
            command.upgrade(configuration(connection), "0001")
            for statement in (
                "INSERT INTO message VALUES (1, '', 'a@b', 5, 0, '', '', 'Hello')",
                "INSERT INTO entry VALUES (2, 'in', NULL, 1, '{}', 9, 3, NULL, NULL, 'busy')",
            ):
                connection.execute(text(statement))
            connection.commit()
        assert migrate(url) == ("0001", schema.REVISION)
        with store.begin() as connection:
            (held,) = claim(connection, "in", limit=2, lease_for=60)
        assert (held.id, held.sender, held.raw, held.attempts) == (2, "a@b", b"Hello", 4)
    finally:
        store.close()


def test_a_migration_that_fails_changes_nothing(url: str, later: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "REVISION", NOW)
        fill(url)
    later.write_text(LATER + '    op.execute("INSERT INTO nowhere VALUES (1)")\n')
    with pytest.raises(StoreError, match=rf"{NOW} to 9999 failed and nothing was changed.*nowhere"):
        migrate(url)
    store = Store(make_engine(url))
    try:
        with store.read() as connection:
            assert revision_of(connection) == NOW
            columns = [each["name"] for each in inspect(connection).get_columns("domain")]
            assert columns == ["mail_host", "alias_of", "description"]
    finally:
        store.close()


def test_a_migration_that_breaks_a_reference_changes_nothing(sqlite_url: str, later: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "REVISION", NOW)
        fill(sqlite_url)
    later.write_text(LATER + '    op.execute("DELETE FROM domain")\n')
    with pytest.raises(StoreError, match="nothing was changed, for rows of table mailing_list"):
        migrate(sqlite_url)
    store = Store(make_engine(sqlite_url))
    try:
        with store.read() as connection:
            assert revision_of(connection) == NOW
            assert connection.scalars(select(schema.domain.c.mail_host)).all() == ["example.com"]
    finally:
        store.close()


def test_a_revision_that_no_release_had_is_refused(sqlite_url: str) -> None:
    mark(sqlite_url, "0000")
    with pytest.raises(StoreError, match="no release of postroom made this"):
        migrate(sqlite_url)


def test_a_newer_database_is_not_migrated(url: str) -> None:
    mark(url, "9999")
    with pytest.raises(StoreError, match=r"newer postroom.*upgrade postroom"):
        migrate(url)


def test_a_database_that_is_not_ours_is_not_migrated(url: str) -> None:
    store = Store(make_engine(url))
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE guests (name TEXT)"))
    with pytest.raises(StoreError, match=r"not a postroom database: set store.url"):
        migrate(url)
    with store.read() as connection:
        assert inspect(connection).get_table_names() == ["guests"]
    store.close()


def test_a_file_that_is_no_database_is_not_migrated(tmp_path: Path) -> None:
    path = tmp_path / "postroom.db"
    path.write_text("no database " * 1000)
    with pytest.raises(StoreError, match="damaged"):
        migrate(f"sqlite:///{path}")
    assert path.read_text() == "no database " * 1000


def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"cannot be used.*set store.url"):
        migrate(f"sqlite:///{tmp_path}/file/postroom.db")
    with pytest.raises(StoreError, match=r"is not a file: set store.url"):
        migrate(f"sqlite:///{tmp_path}")


def fill(url: str) -> None:
    """A database with a domain and a list."""
    store = open_store(url)
    with store.begin() as connection:
        connection.execute(insert(schema.domain).values(mail_host="example.com"))
        connection.execute(
            insert(schema.mailing_list).values(
                list_id="ants.example.com",
                list_name="ants",
                mail_host="example.com",
                posting_address="ants@example.com",
                created_at=0.0,
            )
        )
    store.close()


def mark(url: str, revision: str) -> None:
    """A database that says it has this revision."""
    store = open_store(url)
    with store.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :it"), {"it": revision})
    store.close()
