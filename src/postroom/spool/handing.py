"""Handing on: new entries, made in the transaction that removes the old one.

For: runners. Guarantees: a message is stored once, however many entries it is handed to; what
is handed on with the message as it came refers to the same row. Works in the caller's
transaction and fails with the database's errors.
"""

import time
from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import Connection, insert

from postroom.spool.ids import IdMaker
from postroom.spool.metadata import Metadata, encode
from postroom.store.schema import entry, message


class Letter(NamedTuple):
    """A message of ours, or one that was changed. `sender` is the envelope sender."""

    raw: bytes
    sender: str


class Handed(NamedTuple):
    """An entry to be. `what` is the row id of a message that is there, or a new one; `after`
    is how many seconds it waits."""

    queue: str
    list_key: int | None
    metadata: Metadata
    what: int | Letter
    after: float = 0.0


def hand_on(connection: Connection, ids: IdMaker, handed: Sequence[Handed]) -> list[int]:
    """Make entries; returns their ids. Two statements, whatever their number."""
    if not handed:
        return []
    now = time.time()
    letters: dict[Letter, int] = {}
    rows = []
    for each in handed:
        if isinstance(each.what, Letter):
            number = letters.setdefault(each.what, 0) or ids()
            letters[each.what] = number
        else:
            number = each.what
        rows.append(
            {
                "id": ids(),
                "queue": each.queue,
                "list": each.list_key,
                "message": number,
                "metadata": encode(each.metadata),
                "available_at": now + each.after,
                "attempts": 0,
                "retried_at": now if each.after else None,
            }
        )
    if letters:
        connection.execute(
            insert(message), [_message(number, letter, now) for letter, number in letters.items()]
        )
    connection.execute(insert(entry), rows)
    return [int(str(row["id"])) for row in rows]


def _message(number: int, letter: Letter, now: float) -> dict[str, object]:
    return {
        "id": number,
        "digest": blake2b(letter.raw, digest_size=32).digest(),
        "sender": letter.sender,
        "size": len(letter.raw),
        "received_at": now,
        "peer": "",  # it came from nobody but us
        "lhlo": "",
        "raw": letter.raw,
    }
