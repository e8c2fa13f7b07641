"""The store as commands use it.

For: all commands but `serve`. Guarantees: whatever goes wrong with lists, queues or the
database comes out as `Failed`, one sentence that says what to do.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pysqlite3.dbapi2 as sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from postroom.cli.common import Failed, Options
from postroom.lists.registry import ListError
from postroom.mail.reply import NO_ROOM
from postroom.spool.queue import QueueError
from postroom.spool.trouble import diagnose
from postroom.store.engine import Store, StoreError, open_store


@contextmanager
def sentences() -> Iterator[None]:
    """Turn errors of the floors below into `Failed`."""
    try:
        yield
    except (ListError, QueueError, StoreError) as error:
        raise Failed(str(error)) from error
    except IntegrityError as error:
        raise Failed(
            "nothing was changed: somebody else changed the same thing at this moment; "
            f"look and try again ({_reason(error)})"
        ) from error
    except (DBAPIError, sqlite.Error) as error:
        raise Failed(_sentence(error)) from error


@contextmanager
def opened(options: Options) -> Iterator[Store]:
    """The store that the settings name."""
    settings = options.settings()
    with sentences():
        store = open_store(settings.store.url)
        try:
            yield store
        finally:
            store.close()


def _sentence(error: Exception) -> str:
    trouble = diagnose(error, committing=False)
    if trouble.reply is NO_ROOM:
        advice = "the database has no room left: make some, then try again"
    elif trouble.unhealthy:
        advice = "the database or its disk is damaged: look at the system's log, make a copy"
    elif trouble.retry:
        advice = "the database is in use or cannot be reached: try again in a moment"
    else:
        advice = "the database refused it, and nothing was changed"
    return f"{advice} ({trouble})"


def _reason(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
