"""Doing things to the queues, each in a transaction of its own."""

from collections.abc import Callable

from sqlalchemy import select, update

from postroom.spool.care import Entry, find
from postroom.spool.queue import Claim, claim
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.desk import Desk, envelope


class Filler:
    """Delivers messages, a new one for each recipient."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._number = 0

    def __call__(self, *locals_: str) -> list[int]:
        """Deliver to these addresses at example.com; returns the ids of the entries."""
        before = len(self._desk.stored)
        batch = []
        for local in locals_:
            self._number += 1
            batch.append(envelope(f"{local}@example.com", raw=b"%d" % self._number))
        self._desk.deliver(*batch)
        return [number for stored in self._desk.stored[before:] for number in stored.entries]


def take(
    store: Store, limit: int = 100, name: str = "in", lease: float = 60.0, now: float | None = None
) -> list[Claim]:
    """Claim entries for `lease` seconds."""
    with store.begin() as connection:
        return claim(connection, name, limit, lease, now)


def change(store: Store, number: int, **values: object) -> None:
    """Change columns of an entry behind the spool's back."""
    with store.begin() as connection:
        which = update(schema.entry).where(schema.entry.c.id == number)
        assert connection.execute(which.values(**values)).rowcount == 1


def seen(store: Store, number: int) -> Entry:
    """An entry that is there."""
    with store.read() as connection:
        found = find(connection, number)
    assert found is not None
    return found


def do(store: Store, action: Callable[..., object], *arguments: object) -> None:
    """Do it in a transaction of its own."""
    with store.begin() as connection:
        action(connection, *arguments)


def everything(store: Store) -> list[tuple[object, ...]]:
    """All columns of all entries."""
    with store.read() as connection:
        rows = connection.execute(select(schema.entry).order_by(schema.entry.c.id))
        return [tuple(row) for row in rows]
