"""Care of posts: what operators and upkeep do to those that are not in anybody's hands.

For: `postroom queue retry` and `delete`, and forgetting old posts. Guarantees: an entry of `out`
and its recipients never contradict each other; posts are forgotten in steps, also such as were
left over. Works in the caller's transaction; fails with the database's errors.
"""

from sqlalchemy import Connection, and_, delete, func, not_, or_, select, update

from postroom.delivery.ledger import GONE, PENDING, done
from postroom.store.schema import delivery, entry, post, transmission


def hasten(connection: Connection, number: int) -> None:
    """Recipients of a post who wait are due now; for an operator who has mended something."""
    pending = (delivery.c.post == number) & (delivery.c.state == PENDING)
    connection.execute(update(delivery).where(pending).values(next_at=0.0))


def abandon(connection: Connection, number: int) -> None:
    """Nobody else gets a post: its entry is deleted."""
    pending = (delivery.c.post == number) & (delivery.c.state == PENDING)
    connection.execute(update(delivery).where(pending).values(state=GONE, next_at=None))
    done(connection, number)


def purge(connection: Connection, older_than: float, most: int) -> int:
    """Forget one post that was done before `older_than`, or is left over from then, or `most` of
    its rows; returns how many rows were forgotten, 0 if there is no such post."""
    waits = select(entry.c.id).where(entry.c.id == post.c.id).exists()
    left = and_(post.c.done_at.is_(None), post.c.created_at < older_than, not_(waits))
    old = select(post.c.id).where(or_(post.c.done_at < older_than, left))
    old = old.order_by(post.c.id).limit(1)
    number = connection.execute(old).scalar()
    if number is None:
        return 0
    some = select(delivery.c.n).where(delivery.c.post == number).order_by(delivery.c.n).limit(most)
    last = connection.execute(select(func.max(some.subquery().c.n))).scalar()
    if last is not None:
        rows = (delivery.c.post == number) & (delivery.c.n <= last)
        return connection.execute(delete(delivery).where(rows)).rowcount
    connection.execute(delete(transmission).where(transmission.c.post == number))
    return connection.execute(delete(post).where(post.c.id == number)).rowcount
