"""What a test of a mail system reaches for: a server, a client, the queues, what members get.

For: tests and documentation outside this project too. Guarantees: the server is the real
one, on a throwaway database and a free port, with nothing to configure; what it sends goes
to a mail server that keeps it, and nowhere else.
"""

import time
from email.message import Message
from typing import Final, NamedTuple

from sqlalchemy import func, select

from postroom.lmtp.client import LMTPClient
from postroom.mail.message import parse
from postroom.spool.metadata import SERVED, Metadata
from postroom.spool.queue import claim, finish
from postroom.store.schema import entry
from postroom.testing import site

PATIENCE: Final = 30.0  # seconds after which something is stuck
SOON: Final = 1.0  # seconds; who waits for longer waits for another attempt


class TestableMaster:
    """Starts and stops the server of the current site."""

    __test__ = False  # pytest: the name is the field's, this is no test

    def start(self, *roles: str) -> None:
        """Start the given roles ('lmtp', 'runners'), all if none is given; returns when they
        serve. Without 'runners' mail stays in its queues."""
        site.current().start(roles=roles or ("lmtp", "runners"))

    def stop(self) -> None:
        """Stop the server and throw the site away."""
        site.forget()


class QueueItem(NamedTuple):
    """A message that was taken out of a queue."""

    msg: Message
    msgdata: Metadata


def get_lmtp_client(quiet: bool = False) -> LMTPClient:
    """A client connected to the current site; prints the greeting unless `quiet`."""
    client = site.current().client()
    if not quiet:
        print(client.greeting)
    return client


def get_queue_messages(queue: str, expected_count: int | None = None) -> list[QueueItem]:
    """Take all messages out of a queue, oldest first.

    Raises AssertionError if `expected_count` is given and there are more or fewer; then
    nothing is taken out.
    """
    here = site.current()
    # A transaction that a test has open sees, and would block, this one: so be part of it.
    if here.has_pending:
        connection = here.pending()
        claims = claim(connection, queue, limit=1_000_000, lease_for=60)
        _expect(len(claims), expected_count)
        finish(connection, claims)
    else:
        with here.store.begin() as connection:
            claims = claim(connection, queue, limit=1_000_000, lease_for=60)
            _expect(len(claims), expected_count)
            finish(connection, claims)
    return [QueueItem(parse(each.content()), each.metadata) for each in claims]


class Delivery(NamedTuple):
    """What one recipient got: the sender and the recipient of the envelope, and the message,
    its lines ended as Python ends them."""

    sender: str
    recipient: str
    msg: Message


def get_delivered(expected_count: int | None = None) -> list[Delivery]:
    """Wait until the runners have nothing left to do, and take out what was sent since the last
    time: one for each recipient, by address and subject.

    Raises AssertionError if `expected_count` is given and there are more or fewer, and then
    nothing is taken out; if the server runs without 'runners'; or if it does not come to rest.
    """
    here = site.current()
    if here.sink is None:
        raise AssertionError("nothing is sent: start the server with 'runners'")
    if here.has_pending:
        raise AssertionError("the runners cannot see what was done: transaction.commit() first")
    _rest(here)
    found = [
        Delivery(kept.sender, kept.recipient, parse(kept.raw.replace(b"\r\n", b"\n")))
        for kept in here.sink.look()
    ]
    _expect(len(found), expected_count)
    here.sink.empty()
    return sorted(found, key=lambda each: (each.recipient, str(each.msg["subject"])))


def _rest(here: site.Site) -> None:
    """Wait until nothing is due in the queues that runners serve, and nothing in their hands.
    Nobody tells when that is, so it is looked at again and again."""
    deadline = time.monotonic() + PATIENCE
    while True:
        # What is handed on while we ask is due a moment later than now, and does not wait.
        waits = (entry.c.available_at > time.time() + SOON) & entry.c.lease.is_(None)
        busy = select(func.count()).where(entry.c.queue.in_(SERVED), ~waits)
        with here.store.read() as connection:
            if not connection.scalar(busy):
                return
        if time.monotonic() > deadline:
            said = here.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"the runners did not come to rest within {PATIENCE} s:\n{said}")
        time.sleep(0.01)


def _expect(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise AssertionError(f"{expected} messages were expected, {found} are there")
