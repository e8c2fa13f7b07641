"""A server with this directory in PYTHONPATH copies SQLite's log into the database soon and
often. What takes a busy day is then seen in a short test."""

import sys

if "postroom.service.intake" in sys.orig_argv:
    from postroom.store import engine

    engine.CHECKPOINT_PAGES = 60
