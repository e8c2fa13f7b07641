"""Recipients of a post by their numbers, in a statement.

For: the ledger. Guarantees: the statement has the same text whatever the numbers, unless they
follow one another; so databases need not read it anew each time.
"""

from collections.abc import Sequence

import msgspec
from sqlalchemy import (
    ARRAY,
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    bindparam,
    func,
    literal_column,
    select,
)

from postroom.store.schema import delivery


def among(connection: Connection, numbers: Sequence[int]) -> ColumnElement[bool]:
    """That `n` is one of these: one statement, however many, and the same text each time."""
    first, last = numbers[0], numbers[-1]
    if last - first + 1 == len(numbers):
        return delivery.c.n.between(first, last)
    if connection.dialect.name == "sqlite":
        every: BindParameter[str] = bindparam(
            "numbers", msgspec.json.encode(list(numbers)).decode()
        )
        return delivery.c.n.in_(select(literal_column("value")).select_from(func.json_each(every)))
    return delivery.c.n == func.any(bindparam("numbers", list(numbers), ARRAY(Integer)))
