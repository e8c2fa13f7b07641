"""An intake without the door: what is delivered to it, what it answers, what it stored.

For: the tests of the spool. Guarantees: the writer, the store and the database are the real
ones; that each delivery is answered exactly once is checked at every delivery.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from sqlalchemy import func, select

from postroom.lists.registry import create_lists, posting_address
from postroom.mail.address import parse_mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.spool.intake import Intake, Item, Replies, Stored, Writer
from postroom.spool.metadata import Metadata
from postroom.spool.trouble import Trouble
from postroom.store import schema
from postroom.store.direct import Direct
from postroom.store.engine import Store

OWNER = "changeme@example.com"
ANNE, BART = "anne@example.org", "bart@example.org"
ENDLESS = 1000  # troubles with one delivery, or few
LONG = 60.0  # seconds: a deadline that no test reaches
POST = b"From: anne@example.org\r\nSubject: hello\r\nMessage-ID: <ant>\r\n\r\nHello.\r\n"


def envelope(*recipients: str, sender: str = ANNE, raw: bytes = POST) -> Envelope:
    """An envelope as the door hands it over."""
    boxes = tuple(parse_mailbox(text)[0] for text in recipients)
    return Envelope(sender, boxes, raw, Peer("192.0.2.1", "mx.example.org"), time.time())


def make_lists(store: Store, *addresses: str) -> None:
    """Create lists, and their domains."""
    with store.begin() as connection:
        create_lists(connection, [posting_address(address) for address in addresses])


class Desk:
    """An intake with a writer of its own; `answers` are by number of delivery."""

    def __init__(self, store: Store, direct: Direct) -> None:
        self.store = store
        self.direct = direct
        self.writer = Writer(self.direct, OWNER)
        self.answers: list[tuple[int, Replies]] = []
        self.stored: list[Stored] = []
        self.troubles: list[Trouble] = []
        self.at_trouble: Callable[[], None] = lambda: None
        self.intake = Intake(self.writer, self.answers.extend, self.stored.extend, self._trouble)

    def _trouble(self, trouble: Trouble, waiting: int) -> None:
        self.troubles.append(trouble)
        assert len(self.troubles) < ENDLESS, "tried without end"
        self.at_trouble()

    def work(self, *envelopes: Envelope, within: float | Sequence[float] = LONG) -> list[Replies]:
        """Deliver as one batch; returns the replies to each envelope in turn."""
        limits = [within] * len(envelopes) if isinstance(within, float) else within
        now = time.monotonic()
        self.answers.clear()
        self.intake.work(
            [
                Item(each, now + limit, number)
                for number, (each, limit) in enumerate(zip(envelopes, limits, strict=True))
            ]
        )
        assert sorted(number for number, _ in self.answers) == list(range(len(envelopes)))
        return [replies for _, replies in sorted(self.answers, key=lambda answer: answer[0])]

    def deliver(
        self, *envelopes: Envelope, within: float | Sequence[float] = LONG
    ) -> list[list[int] | None]:
        """Deliver as one batch; returns the codes of the replies to each envelope in turn."""
        return [
            None if replies is None else [each.code for each in replies]
            for replies in self.work(*envelopes, within=within)
        ]


class Row(NamedTuple):
    """An entry of the database with its message."""

    id: int
    queue: str
    metadata: Metadata
    sender: str
    raw: bytes
    message: int

    @property
    def endpoint(self) -> str:
        """The list's posting address and the sub-address, as `ant@example.com/join`."""
        return f"{self.metadata.get('listname', '')}/{self.metadata.get('subaddress', '')}"


def rows(store: Store) -> list[Row]:
    """All entries, oldest first."""
    entry, message = schema.entry.c, schema.message.c
    with store.read() as connection:
        found = connection.execute(
            select(entry.id, entry.queue, entry.metadata, message.sender, message.raw, message.id)
            .join_from(schema.entry, schema.message)
            .order_by(entry.id)
        )
        return [
            Row(number, queue, json.loads(facts), sender, bytes(raw), key)
            for number, queue, facts, sender, raw, key in found
        ]


def endpoints(store: Store) -> list[str]:
    """Where the entries go, sorted."""
    return sorted(row.endpoint for row in rows(store))


class Counts(NamedTuple):
    """How many rows there are."""

    entries: int
    messages: int
    receipts: int


NOTHING = Counts(0, 0, 0)


def counts(store: Store) -> Counts:
    """How many entries, messages and receipts there are."""
    with store.read() as connection:
        found = [
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (schema.entry, schema.message, schema.receipt)
        ]
    return Counts(*found)
