"""The messages of entries: how their columns are read, and how one goes that nobody needs.

For: what works on entries. Guarantees: a SQLite file that somebody wrote to by hand, which may
hold text for octets or octets for text, is read all the same; of two who remove the last two
entries of a message one removes the message. Works in the caller's transaction; fails with the
database's errors.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, LargeBinary, Text, cast, delete, select

from postroom.store.schema import entry, message

RAW = cast(message.c.raw, LargeBinary)
SENDER, METADATA = cast(message.c.sender, Text), cast(entry.c.metadata, Text)


def lock_messages(connection: Connection, messages: Sequence[int]) -> None:
    """To be done before entries of these messages are removed, so that of two who remove the
    last two entries of a message one sees that it is last."""
    which = select(message.c.id).where(message.c.id.in_(messages)).order_by(message.c.id)
    connection.execute(which.with_for_update())


def free_messages(connection: Connection, messages: Sequence[int]) -> None:
    """Remove those of these messages that no entry needs any more."""
    needed = select(entry.c.id).where(entry.c.message == message.c.id).exists()
    connection.execute(delete(message).where(message.c.id.in_(messages), ~needed))
