"""Posts on their way out: made, claimed and looked at in the database."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import select, text, update

from postroom.delivery.ledger import STATES, Expanded, Row, due, expand
from postroom.lists.roster import add_members, person
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT, Order
from postroom.spool.queue import Claim
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.queues import take

make_id = IdMaker()
ANT, SENDER = "ant@example.com", "ant-bounces@example.com"
HEADER = b"Subject: hello\r\n\r\n"


def key_of(store: Store, name: str = "ant") -> int:
    """The key of a list at example.com."""
    with store.read() as connection:
        found = f"SELECT id FROM mailing_list WHERE list_name = '{name}'"
        return int(connection.scalar(text(found)) or 0)


def join(store: Store, *emails: str, name: str = "ant", **columns: object) -> None:
    """Make these members; `columns` are of their rows."""
    with store.begin() as connection:
        key = key_of(store, name)
        add_members(connection, key, [person(each) for each in emails], "member")
        if columns:
            them = select(schema.address.c.id).where(schema.address.c.email.in_(emails))
            ours = (schema.member.c.list == key) & schema.member.c.address.in_(them)
            connection.execute(update(schema.member).where(ours).values(**columns))


def post(store: Store, order: Order | None = None, name: str = "ant") -> Claim:
    """A post in a worker's hands."""
    order = order or Order("post", SENDER, "<ant@example.org>")
    facts = order.metadata(f"{name}@example.com", 5)
    handed = Handed(OUT, key_of(store, name), facts, Letter(HEADER + b"Hello", order.sender))
    with store.begin() as connection:
        [number] = hand_on(connection, make_id, [handed])
    return next(each for each in take(store, name=OUT) if each.id == number)


def expanded(store: Store, held: Claim, order: Order | None = None) -> Expanded:
    """Expand a post."""
    with store.begin() as connection:
        return expand(connection, held, order or Order("post", SENDER, "<ant@example.org>"))


def those_due(
    store: Store, held: Claim, after: int = 0, limit: int = 100, without: Sequence[str] = ()
) -> list[Row]:
    """Whose turn it is."""
    with store.read() as connection:
        return due(connection, held, after, limit, without)


class Line(NamedTuple):
    """A row of the ledger."""

    n: int
    email: str
    state: str
    attempts: int
    next_at: float | None
    reply: str | None


def ledger_of(store: Store, held: Claim) -> list[Line]:
    """All rows of a post."""
    this = schema.delivery.c
    columns = (this.n, this.email, this.state, this.attempts, this.next_at, this.reply)
    with store.read() as connection:
        found = select(*columns).where(this.post == held.id).order_by(this.n)
        return [
            Line(n, email, STATES[state], *rest)
            for n, email, state, *rest in connection.execute(found)
        ]


def states(store: Store, held: Claim) -> dict[str, str]:
    """What became of each."""
    return {each.email: each.state for each in ledger_of(store, held)}


def all_of(store: Store, table: Any) -> list[dict[str, Any]]:
    """Every row of a table."""
    with store.read() as connection:
        return [dict(row) for row in connection.execute(select(table)).mappings()]
