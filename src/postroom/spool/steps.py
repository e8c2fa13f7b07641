"""Steps: what became of a message, for those who ask where it is.

For: every stage writes a row or two, in the transaction that does what they say. Guarantees: a
step is there exactly if what it tells of was committed; nothing depends on steps, so they may
be purged. Steps of messages without Message-ID are kept under "". Fails with the database's
errors.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, insert, select

from postroom.spool.metadata import decode, encode
from postroom.store.schema import step

STEP = 1000  # rows per transaction of a purge


class Step(NamedTuple):
    """One thing that was done with a message: when (seconds since the epoch), for which list
    (its posting address), what, and the facts."""

    message_id: str
    at: float
    list: str
    what: str
    facts: dict[str, Any]


def write(connection: Connection, ids: Callable[[], int], steps: Sequence[Step]) -> None:
    """Write steps; one statement."""
    if steps:
        rows = [each._asdict() | {"id": ids(), "facts": encode(each.facts)} for each in steps]
        connection.execute(insert(step), rows)


def steps_of(connection: Connection, message_id: str) -> Iterator[Step]:
    """What became of a message, in order."""
    columns = (step.c.message_id, step.c.at, step.c.list, step.c.what, step.c.facts)
    found = select(*columns).where(step.c.message_id == message_id).order_by(step.c.at, step.c.id)
    for row in connection.execute(found):
        try:
            facts = decode(row.facts)
        except ValueError:
            facts = {"unreadable": row.facts}
        yield Step(row.message_id, row.at, row.list, row.what, facts)


def purge_steps(connection: Connection, older_than: float) -> int:
    """Forget some steps from before `older_than`, oldest first; returns how many."""
    first = select(step.c.id, step.c.at).order_by(step.c.id).limit(STEP).subquery()
    old = select(first.c.id).where(first.c.at < older_than)
    return connection.execute(delete(step).where(step.c.id.in_(old))).rowcount
