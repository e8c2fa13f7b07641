"""Receipts: forgetting those that nobody will ask for any more.

For: the upkeep of what recognises a message that comes again (`spool.intake` writes it).
Guarantees: only what is old is forgotten, in steps; and no more than mail allows, whatever
the clock says. Fails with the database's own errors.
"""

from sqlalchemy import Connection, delete, select

from postroom.store.schema import receipt

STEP = 1000  # receipts per transaction


def most_to_purge(written: int) -> int:
    """How many receipts may be forgotten after so many were written.

    Twice as many, so that old ones do not pile up; and no more, so that a clock that is a
    year ahead expires only the oldest, in step with the mail that comes meanwhile.
    """
    return min(2 * written, STEP)


def purge_receipts(connection: Connection, older_than: float, most: int) -> int:
    """Forget at most `most` receipts from before `older_than`; returns how many."""
    first = select(receipt.c.entry, receipt.c.accepted_at).order_by(receipt.c.entry)
    oldest = first.limit(STEP).subquery()
    old = select(oldest.c.entry).where(oldest.c.accepted_at < older_than)
    old = old.order_by(oldest.c.entry).limit(most)
    return connection.execute(delete(receipt).where(receipt.c.entry.in_(old))).rowcount
