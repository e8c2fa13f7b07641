"""What a test of a mail system reaches for: a server, a client, the queues.

For: tests and documentation outside this project too. Guarantees: the server is the real
one, on a throwaway database and a free port, with nothing to configure.
"""

from email.message import Message
from typing import NamedTuple

from postroom.lmtp.client import LMTPClient
from postroom.mail.message import parse
from postroom.spool.metadata import Metadata
from postroom.spool.queue import claim, finish
from postroom.testing import site


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


def _expect(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise AssertionError(f"{expected} messages were expected, {found} are there")
