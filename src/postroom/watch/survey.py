"""Looks at the database for those who watch, from a thread of its own.

For: the depths of the queues, whether their runners take what is due, and whether a database
that failed is well again, which on an idle site no mail would show. Guarantees: the intake
never waits for it; it takes a twentieth of the time at most, with tens of millions of entries
too; it writes only after a commit failed. What it cannot find out is None; the log says so once.
"""

import contextlib
import threading
import time

from sqlalchemy import update

from postroom.base.observe import Log
from postroom.spool.depth import depths, due_since
from postroom.spool.metadata import HELD, QUEUES, SHUNT
from postroom.store.engine import Store, version_table
from postroom.watch.counts import Counts
from postroom.watch.figures import Depth

EVERY = 10.0  # seconds
SHARE = 20  # times as long as one look took, the next one waits
MOST = 60.0  # seconds that it waits
_FOR_RUNNERS = tuple(name for name in QUEUES if name not in (HELD, SHUNT))


class Survey:
    """A thread that ends with the process. `queues` is what it saw last."""

    def __init__(self, store: Store, counts: Counts, log: Log) -> None:
        self._store, self._counts, self._log = store, counts, log
        self._blind = False
        self.queues: dict[str, Depth] | None = None

    def start(self) -> None:
        """Begin; at the end of the process it may be cut off."""
        threading.Thread(target=self._run, name="survey", daemon=True).start()

    def _run(self) -> None:
        while True:
            began = time.monotonic()
            self.look()
            took = time.monotonic() - began
            if self._counts.failed:
                self.recover()
            time.sleep(min(max(EVERY, SHARE * took), MOST))

    def look(self) -> None:
        """Count the queues."""
        try:
            with self._store.read() as connection:
                found, due = depths(connection), due_since(connection, _FOR_RUNNERS)
        except Exception as error:
            if not self._blind:
                self._log.warning("queues not counted", reason=" ".join(str(error).split()))
            self._blind, self.queues = True, None
            return
        self._blind = False
        names = dict.fromkeys([*QUEUES, *sorted(found)])
        queues = {}
        for name in names:
            entries, oldest = found.get(name, (0, None))
            queues[name] = Depth(entries, oldest, due.get(name))
        self.queues = queues

    def recover(self) -> None:
        """Try a commit that changes nothing, and is flushed to disk like any other."""
        same = update(version_table).values(version_num=version_table.c.version_num)
        with contextlib.suppress(Exception), self._store.begin() as connection:
            connection.execute(same)
            connection.commit()
            self._counts.failed = ""
