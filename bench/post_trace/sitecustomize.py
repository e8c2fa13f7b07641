"""Has the runners process write down every SQL statement that it runs.

For: `bench.post_ours`, which puts this directory on PYTHONPATH, so that Python reads this file
when it starts. Guarantees: one line for each statement that SQLite ran, COMMIT included, and
one for each row of a statement that was given many; processes other than the runners are left
alone. Not for measuring time.
"""

import os
import sys
from typing import Any

import pysqlite3.dbapi2 as sqlite

LENGTH = 4096  # octets of a statement that are kept
path = os.environ.get("POST_TRACE")

if path and "postroom.service.runners" in sys.orig_argv:
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    real = sqlite.connect

    def note(statement: str) -> None:
        """Write one down."""
        line = " ".join(statement.split()).encode(errors="replace")[:LENGTH]
        os.write(log, line + b"\n")

    def connect(*arguments: Any, **named: Any) -> Any:
        """A connection that is watched."""
        made = real(*arguments, **named)
        made.set_trace_callback(note)
        return made

    sqlite.connect = connect
