"""What a test of a mail system reaches for: a server, a client, the queues, what members get.

For: tests and documentation outside this project too. Guarantees: the server is the real
one, on a throwaway database and a free port, with nothing to configure; what it sends goes
to a mail server that keeps it, and nowhere else; nobody has to wait for days to pass.
"""

import time
from email.message import Message
from typing import Final, NamedTuple

from sqlalchemy import func, select, update

from postroom.base.loading import load
from postroom.base.observe import Log
from postroom.lmtp.client import LMTPClient
from postroom.mail.message import parse
from postroom.notices.render import Templates
from postroom.notices.sheet import House
from postroom.runners.upkeep import Upkeep
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import SERVED, Metadata
from postroom.spool.queue import claim, finish
from postroom.store.schema import audit, bounce, entry, notified, pending, tally
from postroom.testing import site
from postroom.testing.sink import Sink

PATIENCE: Final = 30.0  # seconds after which something is stuck
SOON: Final = 1.0  # seconds; who waits for longer waits for another attempt
DAY: Final = 86_400.0  # seconds
# Where it is written down when something was, or will be, apart from mail on its way.
_TIMES: Final = (
    (audit.c.at,),
    (bounce.c.bounced_at, bounce.c.since, bounce.c.next_at),
    (notified.c.at,),
    (pending.c.created_at, pending.c.told_at, pending.c.expires_at),
    (tally.c.at, tally.c.empty_at),
)


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
    sink = _rest(here)
    found = [
        Delivery(kept.sender, kept.recipient, parse(kept.raw.replace(b"\r\n", b"\n")))
        for kept in sink.look()
    ]
    _expect(len(found), expected_count)
    sink.empty()
    return sorted(found, key=lambda each: (each.recipient, str(each.msg["subject"])))


def let_pass(days: int) -> None:
    """Let so many days pass: what is known of bounces, requests, limits and notices is so much
    longer ago, and what upkeep does once a minute is done. Before that, whatever is due is done;
    mail that waits for another attempt does not notice.

    Raises AssertionError if the server runs without 'runners' or does not come to rest.
    """
    here = site.current()
    _rest(here)
    with here.store.begin() as connection:
        for columns in _TIMES:
            earlier = {each.name: each - days * DAY for each in columns}
            connection.execute(update(columns[0].table).values(earlier))
        connection.execute(update(bounce).values(counted_on=bounce.c.counted_on - days))
    settings = load(environment=here.environment)
    with here.log.open("a") as said:
        log = Log(settings.log, said)
        templates, who = Templates(settings.notices.templates, log), settings.site
        house = House(templates, who.hostname, who.owner, IdMaker())
        kept, audit_kept = settings.delivery.kept * DAY, settings.commands.audit_kept * DAY
        Upkeep(here.store, house, kept, audit_kept, log, lambda: None).turn()


def _rest(here: site.Site) -> Sink:
    """Wait until nothing is due in the queues that runners serve, and nothing in their hands;
    returns what takes what they send. Nobody tells when that is, so it is looked at again and
    again."""
    if here.sink is None:
        raise AssertionError("nothing is sent: start the server with 'runners'")
    if here.has_pending:
        raise AssertionError("the runners cannot see what was done: transaction.commit() first")
    deadline = time.monotonic() + PATIENCE
    while True:
        # What is handed on while we ask is due a moment later than now, and does not wait.
        waits = (entry.c.available_at > time.time() + SOON) & entry.c.lease.is_(None)
        busy = select(func.count()).where(entry.c.queue.in_(SERVED), ~waits)
        with here.store.read() as connection:
            if not connection.scalar(busy):
                return here.sink
        if time.monotonic() > deadline:
            said = here.log.read_text(errors="replace")[-2000:]
            raise AssertionError(f"the runners did not come to rest within {PATIENCE} s:\n{said}")
        time.sleep(0.01)


def _expect(found: int, expected: int | None) -> None:
    if expected is not None and found != expected:
        raise AssertionError(f"{expected} messages were expected, {found} are there")
