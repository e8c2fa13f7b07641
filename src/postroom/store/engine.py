"""Engines and transactions on SQLite and PostgreSQL.

For: opening the database safely and lending connections. Guarantees: a commit is flushed
to disk (SQLite WAL with synchronous=FULL; PostgreSQL with synchronous_commit=on); writing
transactions on SQLite take the write lock at their beginning; a database that is newer,
older or broken is never opened. Fails with `StoreError`, one sentence that says what to do.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import Connection, Engine, create_engine, event, insert, inspect, select
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.schema import Column, MetaData, Table
from sqlalchemy.types import Text

from postroom.store import schema

# Older ones can corrupt the write-ahead log when two connections write and checkpoint at
# the same instant (sqlite.org/wal.html, "the WAL-reset bug").
SQLITE_NEEDED = (3, 51, 3)
BUSY_TIMEOUT = 30.0  # seconds that one writer waits for another
CHECKPOINT_PAGES = 8000

version_table = Table("alembic_version", MetaData(), Column("version_num", Text))


class StoreError(Exception):
    """The database cannot be used; `str()` says why and what to do."""


class Store:
    """A database. Safe to share between threads; not across fork."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.is_sqlite = engine.dialect.name == "sqlite"

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A writing transaction: committed at the end, rolled back on an exception."""
        with self.engine.begin() as connection:
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A reading transaction: one consistent view, takes no write lock."""
        with self.engine.connect().execution_options(postroom_read=True) as connection:
            yield connection

    @property
    def name(self) -> str:
        """The URL as a person wrote it, without its password."""
        url = self.engine.url.set(drivername="sqlite" if self.is_sqlite else "postgresql")
        return url.render_as_string(hide_password=True)

    @property
    def path(self) -> Path | None:
        """The database file; None on PostgreSQL."""
        return Path(self.engine.url.database or "") if self.is_sqlite else None

    def close(self) -> None:
        """Close all pooled connections."""
        self.engine.dispose()


def open_store(url: str, create: bool = True) -> Store:
    """Open the database at `url`, making it if it is empty and `create` is set.

    Raises `StoreError` if it cannot be reached or its schema is not the one we speak.
    """
    store = Store(make_engine(url))
    try:
        _check(store, create)
    except BaseException:
        store.close()
        raise
    return store


def make_engine(url: str) -> Engine:
    """An engine for `sqlite:///path` or `postgresql://...`, nothing looked at yet."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite_engine(parsed)
        if parsed.get_backend_name() == "postgresql":
            return _postgresql_engine(parsed)
    except ArgumentError:
        raise StoreError(f"store.url {_shown(url)!r} is no database URL") from None
    except (NoSuchModuleError, ModuleNotFoundError):
        raise StoreError("PostgreSQL needs an extra: pip install 'postroom[postgres]'") from None
    raise StoreError(f"store.url {_shown(url)!r}: use sqlite:///PATH or postgresql://HOST/NAME")


def _shown(url: str) -> str:
    """What should be a URL, without its password."""
    return re.sub(r":(?!//).*@", ":***@", re.sub(r"(?<=password=)[^&]*", "***", url))


def _sqlite_engine(url: URL) -> Engine:
    if sqlite.sqlite_version_info < SQLITE_NEEDED:
        needed = ".".join(map(str, SQLITE_NEEDED))
        raise StoreError(
            f"SQLite {sqlite.sqlite_version} can corrupt its log; {needed} or newer is needed: "
            "pip install --upgrade pysqlite3"
        )
    if not url.database or url.database == ":memory:":
        raise StoreError("store.url: a SQLite database must be a file")
    engine = create_engine(
        url,
        module=sqlite,
        connect_args={
            "isolation_level": None,
            "timeout": BUSY_TIMEOUT,
            "cached_statements": 256,
        },
        pool_size=4,
        max_overflow=0,
    )

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.text_factory = _text
        if _may_be_ours(connection):  # the mode stays with the file
            connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -16000")  # KiB
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A deferred BEGIN that writes later fails at once if another one wrote between.
        reading = connection.get_execution_options().get("postroom_read")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    return engine


def _text(stored: bytes) -> str:
    """A text of the database. One that is damaged must not hide the others of its query."""
    return stored.decode("utf-8", "backslashreplace")  # "\xff", which is never JSON


def _may_be_ours(connection: Any) -> bool:
    """Whether a SQLite database is ours, or empty."""
    names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
    return not names or {version_table.name, schema.entry.name} <= names


def _postgresql_engine(url: URL) -> Engine:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        paramstyle="format",
        pool_pre_ping=True,
        pool_size=4,
        max_overflow=0,
        connect_args={
            "connect_timeout": 10,
            "options": "-c synchronous_commit=on",
            # A server that vanished without a word must not hold us past every deadline.
            "tcp_user_timeout": 30_000,
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
        },
    )

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        if connection.get_execution_options().get("postroom_read"):
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY")

    return engine


def revision_of(connection: Connection) -> str | None:
    """The schema revision found in the database; None if it holds no tables of ours."""
    tables = inspect(connection).get_table_names()
    if {version_table.name, schema.entry.name} <= set(tables):
        found = connection.execute(select(version_table.c.version_num)).scalar()
        return str(found) if found is not None else ""
    return "" if tables else None


def _check(store: Store, create: bool) -> None:
    path = store.path
    if path is not None:
        prepare_file(path, create)
    try:
        with store.read() as connection:
            revision = revision_of(connection)
        if revision is None and create:
            with store.begin() as connection:
                _create(connection)
                revision = revision_of(connection)
    except (DBAPIError, sqlite.Error) as error:
        raise StoreError(explain(store, error)) from error
    name = store.name
    if revision is None:
        raise StoreError(f"{name} is empty: `postroom migrate` sets it up")
    if revision == "" or not revision.isdigit():
        raise StoreError(f"{name} is not a postroom database: set store.url to another one")
    if revision > schema.REVISION:
        raise StoreError(
            f"{name} was made by a newer postroom (schema {revision}, this one speaks "
            f"{schema.REVISION}): upgrade postroom"
        )
    if revision < schema.REVISION:
        raise StoreError(
            f"{name} has schema {revision}, this postroom needs {schema.REVISION}: "
            "stop the server, make a backup, run `postroom migrate`"
        )


def prepare_file(path: Path, create: bool) -> None:
    """Look at the place of a SQLite file, and make its directory. Raises `StoreError`."""
    try:
        if not path.exists():
            if not create:
                raise StoreError(f"{path} does not exist: `postroom serve` or `migrate` makes it")
            if path.parent.exists() and not path.parent.is_dir():
                raise StoreError(f"{path} cannot be used (no directory above it): set store.url")
            missing = [each for each in path.parents if not each.exists()]
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
            for each in missing:
                _flush_directory(each.parent)
        elif not path.is_file():
            raise StoreError(f"{path} is not a file: set store.url to a file for the database")
        if not os.access(path if path.exists() else path.parent, os.W_OK):
            raise StoreError(f"{path} cannot be written: check owner and mode, or set store.url")
    except OSError as error:
        raise StoreError(f"{path} cannot be used ({error.strerror}): set store.url") from error


def _flush_directory(path: Path) -> None:
    """Have what was made in a directory stay there (SQLite does so for its own files)."""
    with suppress(OSError):  # not every directory may be opened, or can do that
        number = os.open(path, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def _create(connection: Connection) -> None:
    """Make all tables; harmless if another process does the same at once."""
    if connection.dialect.name != "sqlite":  # there the transaction has the write lock
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(8024)")
    if revision_of(connection) is not None:
        return
    schema.metadata.create_all(connection)
    version_table.create(connection)
    connection.execute(insert(version_table).values(version_num=schema.REVISION))


def explain(store: Store, error: Exception) -> str:
    """One sentence on a database that cannot be opened."""
    name = store.name
    reason = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if "malformed" in reason or "not a database" in reason or "corrupt" in reason:
        return (
            f"{name} is damaged ({reason}): keep a copy of it and of its -wal file, then "
            "restore a backup, or recover it with `sqlite3 FILE .recover`"
        )
    if "unable to open" in reason and store.path is not None and _is_full(store.path.parent):
        return f"{name} cannot be opened: its disk has no room for new files: free some"
    if "locked" in reason:
        return f"{name} is in use ({reason}): try again in a moment"
    return f"{name} cannot be opened ({reason}): check that it is there and may be written"


def _is_full(directory: Path) -> bool:
    """Whether no file can be made there."""
    try:
        disk = os.statvfs(directory)
    except OSError:
        return False
    return disk.f_bavail == 0 or (disk.f_files > 0 and disk.f_favail == 0)
