"""Migrations: bringing a database to the schema of this postroom.

For: `postroom migrate`. Guarantees: all steps are one transaction, so a migration that
fails changes nothing; an empty database ends exactly as `open_store` would make it; one
that is newer or not ours is left alone. Fails with `StoreError`, one sentence that says
what to do.
"""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from postroom.store import schema
from postroom.store.engine import (
    Store,
    StoreError,
    explain,
    make_engine,
    open_store,
    prepare_file,
    revision_of,
    version_table,
)

SCRIPTS = Path(__file__).with_name("migrations")


def configuration(connection: Connection | None = None) -> Config:
    """Alembic's configuration; no file is read."""
    config = Config(attributes={"connection": connection})
    config.set_main_option("path_separator", "os")
    config.set_main_option("script_location", str(SCRIPTS).replace("%", "%%"))
    return config


def migrate(url: str) -> tuple[str | None, str]:
    """Bring the database at `url` to the newest schema, making it if it is not there.

    Returns the revision before (None: it was empty) and after. The server should be
    stopped: the database is locked meanwhile. Raises `StoreError`.
    """
    store = Store(make_engine(url))
    if store.path is not None:
        prepare_file(store.path, create=True)
    try:
        with store.engine.connect() as connection:
            before = _upgrade(connection)
            connection.commit()
    except DBAPIError as error:
        raise StoreError(explain(store, error)) from error
    finally:
        store.close()
    open_store(url, create=False).close()  # says so if it is newer, or not ours
    return before, schema.REVISION


def _upgrade(connection: Connection) -> str | None:
    """Run the migrations that are missing; returns the revision found."""
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite:
        # To change a table SQLite makes it anew, and may then drop what others refer to.
        # Not possible inside a transaction, so the driver is told before one begins.
        driver = connection.connection.driver_connection
        assert driver is not None
        driver.execute("PRAGMA foreign_keys = OFF")
    else:
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(8024)")
    before = revision_of(connection)
    if before is None:
        version_table.create(connection)
    elif not before.isdigit() or before >= schema.REVISION:
        return before
    try:
        command.upgrade(configuration(connection), "head")
    except CommandError as error:
        raise StoreError(
            f"no release of postroom made this database ({error}): set store.url to another one"
        ) from error
    except DBAPIError as error:
        reason = " ".join(str(error.orig).split())
        raise StoreError(
            f"the migration from {before or 'nothing'} to {schema.REVISION} failed and nothing "
            f"was changed ({reason}): keep the postroom you had, and report it"
        ) from error
    if is_sqlite:
        broken = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
        if broken is not None:
            raise StoreError(
                f"nothing was changed, for rows of table {broken[0]} would refer to rows that "
                "are not there: restore a backup, or report it"
            )
    return before
