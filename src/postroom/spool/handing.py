"""Handing on: new entries, made in the transaction that removes the old one.

For: runners. Guarantees: a message is stored once, however many entries it is handed to; what
is handed on with the message as it came refers to the same row. Works in the caller's
transaction and fails with the database's errors.
"""

import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import NamedTuple

from sqlalchemy import Connection, insert

from postroom.spool.metadata import Metadata, encode
from postroom.store.schema import entry, message


class Letter(NamedTuple):
    """A message of ours, or one that was changed. `sender` is the envelope sender."""

    raw: bytes
    sender: str


class Handed(NamedTuple):
    """An entry to be, due at once. `what` is the row id of a message that is there, or a new
    one."""

    queue: str
    list_key: int | None
    metadata: Metadata
    what: int | Letter


def hand_on(connection: Connection, ids: Callable[[], int], handed: Sequence[Handed]) -> list[int]:
    """Make entries; returns their ids. Two statements, whatever their number."""
    if not handed:
        return []
    now = time.time()
    letters: dict[Letter, int] = {}
    numbers = [ids() for _ in handed]
    rows = []
    for own, each in zip(numbers, handed, strict=True):
        if isinstance(each.what, Letter):
            if each.what not in letters:
                letters[each.what] = ids()
            number = letters[each.what]
        else:
            number = each.what
        rows.append(
            {
                "id": own,
                "queue": each.queue,
                "list": each.list_key,
                "message": number,
                "metadata": encode(each.metadata),
                "available_at": now,
                "attempts": 0,
            }
        )
    if letters:
        connection.execute(
            insert(message), [_message(number, letter, now) for letter, number in letters.items()]
        )
    connection.execute(insert(entry), rows)
    return numbers


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
