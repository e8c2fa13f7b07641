"""One connection of the driver's own, for the one place where every microsecond counts.

For: the intake's writer. SQLAlchemy makes the statements once, from the schema; they are
executed without it, which takes a quarter off a small batch. Guarantees: the same settings
and durability as every other connection of the store; a connection that cannot roll back
is thrown away. Fails with the driver's errors.
"""

from collections.abc import Sequence
from contextlib import suppress
from time import monotonic, sleep, time
from typing import Any

import pysqlite3.dbapi2 as sqlite
from sqlalchemy import Table, insert

from postroom.store.engine import Store

Row = tuple[Any, ...]
LOOK = 0.0003  # seconds between looks whether SQLite's write lock is free
MOST_ROWS = 50  # per statement; each number of rows has a prepared statement of its own


class Direct:
    """A connection for one thread, opened at its first use and again when it was given up."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._pooled: Any = None
        self._driver: Any = None
        self._statements: dict[tuple[str, int, int, bool], str] = {}

    @property
    def is_sqlite(self) -> bool:
        """Which of the two dialects the statements must speak."""
        return self._store.is_sqlite

    def begin(self, lock_wait: float, limit: float) -> None:
        """Begin to write. `lock_wait` bounds the wait for locks, `limit` (PostgreSQL) that
        for any statement; both in seconds."""
        if self._driver is None:
            self._pooled = self._store.engine.raw_connection()
            self._driver = self._pooled.driver_connection
            if self.is_sqlite:
                self._driver.execute("PRAGMA busy_timeout = 0")  # we wait ourselves
        if self.is_sqlite:
            self._begin_immediate(monotonic() + lock_wait)
        else:
            self.execute(
                "SELECT set_config('lock_timeout', %s, true), "
                "set_config('statement_timeout', %s, true)",
                # 0 would mean no bound at all.
                (str(max(1, int(lock_wait * 1000))), str(max(1, int(limit * 1000)))),
            )

    def _begin_immediate(self, until: float) -> None:
        """Take the write lock. SQLite's own way to wait looks ever more rarely, up to ten times
        a second, so that one who writes all the time would hardly ever let us in."""
        while True:
            try:
                self._driver.execute("BEGIN IMMEDIATE")
                return
            except sqlite.OperationalError as error:
                busy = error.sqlite_errorname.startswith("SQLITE_BUSY")
                if not busy or monotonic() >= until:
                    raise
            sleep(LOOK)

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        """Execute a query and return its rows."""
        return list(self._driver.execute(statement, parameters).fetchall())

    def insert(self, table: Table, rows: Sequence[Row], unless_there: bool = False) -> int:
        """Insert rows, in the order of the table's columns; returns how many were new.

        All have as many values; the columns after those get their defaults. `unless_there`
        leaves out rows whose key is there already; without it they are an error.
        """
        width = len(rows[0])
        if not self.is_sqlite:  # psycopg sends them in one go
            cursor = self._driver.cursor()
            cursor.executemany(self._statement(table, width, 1, unless_there), rows)
            return int(cursor.rowcount)
        # Many rows a statement: a call into SQLite costs more than a small row.
        changed = 0
        for start in range(0, len(rows), MOST_ROWS):
            some = rows[start : start + MOST_ROWS]
            values = [value for row in some for value in row]
            statement = self._statement(table, width, len(some), unless_there)
            changed += self._driver.execute(statement, values).rowcount
        return changed

    def _statement(self, table: Table, width: int, rows: int, unless_there: bool) -> str:
        key = (table.name, width, rows, unless_there)
        if key not in self._statements:
            columns = [column.name for column in table.columns][:width]
            dialect = self._store.engine.dialect
            text = str(insert(table).compile(dialect=dialect, column_keys=columns))
            head, _, values = text.partition(" VALUES ")
            tail = " ON CONFLICT DO NOTHING" if unless_there else ""
            self._statements[key] = f"{head} VALUES {', '.join([values] * rows)}{tail}"
        return self._statements[key]

    def commit(self) -> None:
        """Make it durable."""
        self._driver.commit()

    def discard(self) -> None:
        """Undo what is not committed, and give up a connection that cannot even do that."""
        if self._driver is None:
            return
        try:
            self._driver.rollback()
        except Exception:
            self._pooled.invalidate()
            self._driver = self._pooled = None

    def overwrite(self) -> None:
        """Write over what a commit left in SQLite's log when its flush failed, and close.

        It may stand there complete, and whoever opens the database next would take it for
        committed. Nothing is flushed for that: a failed flush is never tried again.
        """
        with suppress(Exception):  # it may well fail like the commit did
            if self.is_sqlite:
                self._driver.execute("PRAGMA synchronous = NORMAL")
                self._driver.execute("BEGIN IMMEDIATE")
                self._driver.execute(f"PRAGMA user_version = {int(time())}")
                self._driver.execute("COMMIT")
        self.close()

    def close(self) -> None:
        """Undo what is not committed and close."""
        if self._pooled is not None:
            self._pooled.invalidate()
            self._driver = self._pooled = None
