"""Limits: how often something may be done that strangers can make us do.

For: whoever is about to send mail because a stranger asked. Each function works in the caller's
transaction. A limit is a bucket that leaks: `most` of something at once, and as many again in
`every` seconds. Guarantees: of several limits all are taken from or none; however many take at
once, on SQLite or PostgreSQL, none is exceeded; a clock that was set back leaves no limit used
up for longer than twice `every`, since a bucket from further in the future counts as empty.
Fails with the database's errors.

Those who take in one transaction more than once can wait for one another in a ring: PostgreSQL
then ends one of the transactions, which is tried again.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, Float, bindparam, case, delete, select, tuple_
from sqlalchemy.dialects import postgresql, sqlite

from postroom.store.schema import tally

ROWS: Final = 1000  # per transaction of a purge


class Limit(NamedTuple):
    """At most `most` in `every` seconds of what is counted under a kind and a name; `most` is
    counted in whole steps of one, `every` is above 0."""

    kind: str
    name: str
    most: float
    every: float


def take(
    connection: Connection, limits: Sequence[Limit], now: float, number: int = 1
) -> Limit | None:
    """Take so many from each of these limits; None if that could be done. Else the first, in the
    order of kinds and names, that is used up: then nothing was taken from any. One statement
    for each."""
    with connection.begin_nested() as attempt:
        # In one order, so that two who take from the same limits do not wait in a ring.
        for limit in sorted(limits):
            if not _take(connection, limit, now, number):
                attempt.rollback()
                return limit
    return None


def _taking(insert: Any) -> Any:
    """The statement that takes from a limit, or does nothing if it is used up. Made once: to
    put it together takes as long as to run it."""
    now, most = bindparam("now", type_=Float), bindparam("most", type_=Float)
    every, leaks = bindparam("every", type_=Float), bindparam("leaks", type_=Float)  # per second
    number = bindparam("number", type_=Float)
    # Those who waited for a lock come with an earlier time than whoever held it, so that the
    # time of a row is not always in the past.
    ahead = tally.c.at - now
    left = case((ahead > 0, tally.c.level), else_=tally.c.level + ahead * leaks)
    level = case((left < 0, 0.0), (ahead > every, 0.0), else_=left) + number
    at = case((ahead.between(0.0, every), tally.c.at), else_=now)
    taking = insert(tally).values(
        kind=bindparam("kind"),
        name=bindparam("name"),
        level=number,
        at=now,
        empty_at=now + number / leaks,
    )
    taking = taking.on_conflict_do_update(
        index_elements=[tally.c.kind, tally.c.name],
        set_={"level": level, "at": at, "empty_at": at + level / leaks},
        where=level <= most,
    )
    return taking.execution_options(preserve_rowcount=True)


_TAKING: Final = {
    "sqlite": _taking(sqlite.insert),
    "postgresql": _taking(postgresql.insert),
}


def _take(connection: Connection, limit: Limit, now: float, number: int) -> bool:
    if limit.most < number:
        return False
    most, every = float(limit.most), float(limit.every)
    values = {
        "kind": limit.kind,
        "name": limit.name,
        "now": now,
        "number": float(number),
        "most": most,
        "every": every,
        "leaks": most / every,
    }
    return connection.execute(_TAKING[connection.dialect.name], values).rowcount == 1


def purge_limits(connection: Connection, now: float, limit: int = ROWS) -> int:
    """Forget buckets that are empty, at most `limit`; returns how many. Waits for nobody: what
    is being taken from is left for another time."""
    key = tuple_(tally.c.kind, tally.c.name)
    found = select(tally.c.kind, tally.c.name).where(tally.c.empty_at <= now).limit(limit)
    rows = connection.execute(found.with_for_update(skip_locked=True)).all()
    if rows:
        connection.execute(delete(tally).where(key.in_([tuple(row) for row in rows])))
    return len(rows)
