"""Posts on their way from the door to their readers, through real processes.

For: tests of delivery as a whole. Guarantees: the server, its database and the runners are the
real ones, and the mail server is a scripted one; nothing is asked of DNS. Waits have a
deadline, and end when what they wait for is there.
"""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from sqlalchemy import func, select, text, update

from postroom.bounces.scoring import Standing
from postroom.bounces.standing import listed
from postroom.delivery.ledger import STATES
from postroom.lists.preferences import set_preferences
from postroom.lists.registry import find_list
from postroom.lists.roster import add_members, remove_members
from postroom.mail.message import message_id
from postroom.store import schema
from postroom.store.engine import Store
from postroom.testing.site import Site
from tests.delivery.servers import HOLD, Action, MailServer, Said
from tests.integration.mail import ACCEPTED, LIST, SENDER, Queued, create_lists, deliver, queued
from tests.integration.processes import (
    PATIENCE,
    RUNNERS,
    eventually,
    kill,
    process_of,
    wait_ended,
)
from tests.integration.sites import Sites

BOTH = ("lmtp", "runners")
OWNER = "owner@example.net"

_numbers = itertools.count(1)


class Recipient(NamedTuple):
    """What the ledger has of one recipient of a post."""

    email: str
    state: str
    attempts: int
    next_at: float | None
    reply: str | None


# Sites


def make(sites: Sites, *servers: MailServer, url: str | None = None, **settings: str) -> Site:
    """A site that sends to these mail servers, not started."""
    ours = {
        "SMTP__HOST": ",".join(f"127.0.0.1:{server.port}" for server in servers),
        "SMTP__STARTTLS": "never",
        "SMTP__RECIPIENTS": "10",
        "DELIVERY__VERP_SHARE": "0",
        "DNS__OFFLINE": "true",
        "SITE__OWNER": OWNER,
    }
    return sites.make(url, **(ours | settings))


def prepare(site: Site, *members: str, to: str = LIST) -> None:
    """Make a list with these members, to which everybody may post."""
    create_lists(site.store, to)
    join(site, *members, to=to)
    prefer(site, {"posting.nonmembers": "accept"}, to)


def start(
    sites: Sites,
    server: MailServer,
    members: Sequence[str],
    url: str | None = None,
    **settings: str,
) -> Site:
    """A running site whose `LIST` has these members."""
    site = make(sites, server, url=url, **settings)
    prepare(site, *members)
    site.start(roles=BOTH)
    return site


def people(number: int) -> list[str]:
    """So many addresses; a post goes to them in this order."""
    return [f"p{n:03}@example.net" for n in range(1, number + 1)]


def join(site: Site, *members: str, to: str = LIST, role: Any = "member") -> None:
    """Make these members of a list."""
    with site.store.begin() as connection:
        key = find_list(connection, to).key
        add_members(connection, key, [(email, "") for email in members], role)


def leave(site: Site, *members: str) -> None:
    """Have these leave `LIST`."""
    with site.store.begin() as connection:
        remove_members(connection, find_list(connection, LIST).key, members, "member")


def prefer(site: Site, settings: Mapping[str, str], of: str = LIST) -> None:
    """Change settings of a list."""
    with site.store.begin() as connection:
        set_preferences(connection, find_list(connection, of).key, settings)


def kill_runners(site: Site) -> None:
    """SIGKILL for the runners; they are started again."""
    pid = process_of(site.supervisor, RUNNERS)
    kill(pid)
    wait_ended(pid)


# Posts


def new_post(body: str = "Hello.", to: str = LIST, head: str = "") -> bytes:
    """A post that is like no other."""
    number = next(_numbers)
    fields = f"From: {SENDER}\r\nTo: {to}\r\nMessage-ID: <post-{number}@example.org>\r\n"
    return f"{fields}Subject: No {number}\r\n{head}\r\n{body}\r\n".encode()


def post(site: Site, raw: bytes = b"", to: str = LIST) -> str:
    """Bring a post to the door; returns its Message-ID."""
    raw = raw or new_post(to=to)
    with site.client() as client:
        assert deliver(client, [to], raw) == [ACCEPTED]
    return message_id(raw)


def body(raw: bytes) -> bytes:
    """What follows the first empty line."""
    return raw.partition(b"\r\n\r\n")[2]


# What became of them


def copies(server: MailServer, post: str) -> Counter[str]:
    """Who got a post, and how often."""
    return Counter(
        email
        for taken in list(server.taken)
        if message_id(taken.content) == post
        for email in taken.recipients
    )


def once(*emails: str) -> Counter[str]:
    """Each of them has one copy."""
    return Counter(emails)


def ledger(site: Site, post: str) -> dict[str, Recipient]:
    """What the ledger has of the recipients of a post."""
    row = schema.delivery.c
    chosen = (
        select(row.email, row.state, row.attempts, row.next_at, row.reply)
        .join_from(schema.post, schema.delivery, row.post == schema.post.c.id)
        .where(schema.post.c.message_id == post)
        .order_by(row.n)
    )
    with site.store.read() as connection:
        return {
            email: Recipient(email, STATES[state], *rest)
            for email, state, *rest in connection.execute(chosen)
        }


def in_state(site: Site, post: str, state: str) -> list[str]:
    """The recipients of a post in a state, in order."""
    return [each.email for each in ledger(site, post).values() if each.state == state]


def entries(site: Site, *queues: str) -> list[Queued]:
    """The entries of some queues."""
    return [each for each in queued(site.store) if each.queue in queues]


def busy(site: Site) -> int:
    """How many entries are still to be done, or waited for."""
    statement = select(func.count()).where(schema.entry.c.queue.in_(("in", "out", "bounces")))
    with site.store.read() as connection:
        return connection.execute(statement).scalar_one()


def bounced(site: Site) -> dict[str, Standing]:
    """What is known of the members of all lists whose mail came back."""
    with site.store.read() as connection:
        return {member.email: known for _, member, known in listed(connection)}


def settle(site: Site) -> None:
    """Wait until everything is done; then nothing is pending, stuck or put aside."""
    eventually(lambda: not busy(site), "all is delivered")
    assert [each.metadata for each in entries(site, "shunt")] == []
    with site.store.read() as connection:
        pending = select(func.count()).where(schema.delivery.c.state == STATES.index("pending"))
        assert connection.execute(pending).scalar_one() == 0
        undone = select(schema.post.c.id).where(schema.post.c.done_at.is_(None))
        assert connection.execute(undone).all() == []


def wait_put_off(site: Site, post: str) -> None:
    """Wait until a post is in nobody's hands, with more to do later."""
    row = schema.entry.c
    waits = select(row.id).where(
        row.lease.is_(None),
        row.available_at > time.time(),
        row.id == schema.post.c.id,
        schema.post.c.message_id == post,
    )

    def look() -> bool:
        with site.store.read() as connection:
            return connection.execute(waits).first() is not None

    eventually(look, f"{post} is put off")


def make_due(site: Site, post: str) -> None:
    """The time to wait is over, for everybody who waits for a post."""
    this = select(schema.post.c.id).where(schema.post.c.message_id == post).scalar_subquery()
    row = schema.delivery.c
    with site.store.begin() as connection:
        waits = update(schema.delivery).where(row.post == this, row.next_at.is_not(None))
        connection.execute(waits.values(next_at=0.0))
        due = update(schema.entry).where(schema.entry.c.id == this)
        assert connection.execute(due.values(available_at=0.0)).rowcount == 1


# Faults


class Hold:
    """A hook: hold the mail server at the `which`-th of these commands, and as many as to make
    `times`."""

    def __init__(self, verb: str, which: int = 1, times: int = 1) -> None:
        self._verb = verb
        self._before, self._left = which - 1, times
        self._all = threading.Event()

    def __call__(self, said: Said) -> Action | None:
        if said.verb != self._verb:
            return None
        if self._before or not self._left:
            self._before = max(0, self._before - 1)
            return None
        self._left -= 1
        if not self._left:
            self._all.set()
        return HOLD

    def wait(self) -> None:
        """Wait until all of them are held."""
        assert self._all.wait(PATIENCE), f"not held at {self._verb}"


@contextmanager
def stalled(store: Store, event: str) -> Iterator[None]:
    """On SQLite: whoever does this ("INSERT ON post") gets no further, and holds the lock for
    writing; for as long as the block takes, or until it is killed."""
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"
    with store.begin() as connection:
        connection.execute(
            text(f"CREATE TRIGGER stalled BEFORE {event} BEGIN SELECT ({endless}); END")
        )
    yield
    with store.begin() as connection:
        connection.execute(text("DROP TRIGGER stalled"))
