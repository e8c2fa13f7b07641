"""Mail that comes back: what it looks like, put in, and followed until nothing of it waits.

For: all parts of `bench.bounce`. Guarantees: reports are put in while the bounce runner is held
(SIGSTOP). What is timed begins when the first of them is gone, since a server may look into its
queue now and then only, and ends when nothing waits in it any more. Fails with `LoadError`.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pysqlite3.dbapi2 as sqlite

from bench.command_run import LIMIT, Mail, Worked, address, put_in
from bench.command_sites import Contender, Lists, Ours, Peer
from bench.load import LoadError
from bench.post_ours import Site, runners_of
from bench.post_run import DOMAIN, message
from bench.process import paused
from postroom.lists.keys import site_secret, verp_key, verp_tag
from postroom.store.engine import open_store

BOUNCES = "bounces"  # the queue, with both
LOOK = 0.02  # seconds between looks


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int = 3
    entries: int = 10_000  # reports that are worked off
    listed: int = 50_000  # members of the list on which so many are counted
    peer_entries: int = 1_000  # reports to Mailman, of another thousand members each round
    members: tuple[int, ...] = (10, 100_000)
    mass: int = 100_000  # recipients of a post that is refused
    small: int = 100
    seconds: float = 1.0  # that a run of the door should take alone


QUICK = Plan(1, 500, 2_500, 50, (10, 5_000), 10_000, 100, 0.3)


class Report(Mail):
    """A report on one recipient of a post, to the bounce address `to` that names them."""

    __slots__ = ()

    @property
    def reader(self) -> str:
        """Whom it is about."""
        detail = self.to.rpartition("@")[0].rpartition("+")[2]
        user, _, host = detail.rpartition("=")
        return f"{user}@{host}"

    def text(self) -> str:
        """As Postfix writes it, with the post."""
        host = f"mx.{self.reader.rpartition('@')[2]}"
        post = message(f"list@{DOMAIN}", f"author@{DOMAIN}")
        return _REPORT.format(host=host, to=self.to, n=self.number, about=self.reader, post=post)


_REPORT = """\
From: Mail Delivery System <MAILER-DAEMON@{host}>
To: {to}
Subject: Undelivered Mail Returned to Sender
Date: Fri, 20 Nov 2026 09:55:03 +0000
Message-ID: <{n}.{to}>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary="9sT9.1763632503/{host}"

This is a MIME-encapsulated message.

--9sT9.1763632503/{host}
Content-Description: Notification
Content-Type: text/plain; charset=us-ascii

This is the mail system at host {host}.

I'm sorry to have to inform you that your message could not
be delivered to one or more recipients. It's attached below.

                   The mail system

<{about}>: host {host} said: 550 5.1.1 <{about}>: Recipient address
    rejected: User unknown in virtual mailbox table (in reply to RCPT TO command)

--9sT9.1763632503/{host}
Content-Description: Delivery report
Content-Type: message/delivery-status

Reporting-MTA: dns; {host}
X-Postfix-Queue-ID: 4dCQ8z1Xk6z9sT9
X-Postfix-Sender: rfc822; {to}
Arrival-Date: Fri, 20 Nov 2026 09:54:42 +0000 (UTC)

Final-Recipient: rfc822; {about}
Original-Recipient: rfc822;{about}
Action: failed
Status: 5.1.1
Remote-MTA: dns; {host}
Diagnostic-Code: smtp; 550 5.1.1 <{about}>: Recipient address rejected: User
    unknown in virtual mailbox table

--9sT9.1763632503/{host}
Content-Description: Undelivered Message
Content-Type: message/rfc822

{post}
--9sT9.1763632503/{host}--
"""


@contextlib.contextmanager
def ours(site: Site, lists: Lists) -> Iterator[Ours]:
    """Run postroom with these lists and members. Other than in `command_sites`, `bounces` is
    served."""
    site.create(lists)
    with site.serve() as server:
        path = f"file:{site.directory / 'postroom.db'}?mode=ro"
        database = sqlite.connect(path, uri=True, isolation_level=None)
        with contextlib.closing(database):
            yield Ours(site, server, runners_of(server.pid), database)


def key_of(directory: Path, name: str) -> str:
    """What the tags of a list of the postroom in a directory are made with."""
    store = open_store(f"sqlite:///{directory / 'postroom.db'}", create=False)
    with contextlib.closing(store), store.begin() as connection:
        secret = site_secret(connection)
    return verp_key(secret, f"{name}.{DOMAIN}")


def reports(name: str, readers: Sequence[str], key: str | None = None) -> list[Report]:
    """A report on each of these members of a list; with a tag, if there is a `key`."""
    found = []
    for number, reader in enumerate(readers):
        tag = "" if key is None else f"{verp_tag(key, reader)}+"
        to = address(name, f"{BOUNCES}+{tag}{reader.replace('@', '=')}")
        found.append(Report("", to, number))
    return found


def work_off(by: Contender, mails: Sequence[Report]) -> Worked:
    """Put reports in, and time how they are worked off. Raises `LoadError`."""
    by.settle()
    await_none(by)
    with paused(*(by.idle or [by.runner])):
        put_in(by.server.port, mails)
        if (found := by.waiting(BOUNCES)) != len(mails):
            raise LoadError(f"{found:,} entries wait instead of {len(mails):,}")
        os.sync()
    deadline = time.monotonic() + LIMIT
    while (left := by.waiting(BOUNCES)) == len(mails):
        if time.monotonic() > deadline:
            raise LoadError(f"nobody looks at the queue within {LIMIT:.0f} s")
        time.sleep(LOOK)
    began = time.monotonic()
    if not left:
        raise LoadError("the queue was worked off too soon")
    await_none(by)
    return Worked(left, began, time.monotonic() - began)


def await_none(by: Contender) -> None:
    """Wait until no report waits. Raises `LoadError`."""
    deadline = time.monotonic() + LIMIT
    while left := by.waiting(BOUNCES):
        if time.monotonic() > deadline:
            raise LoadError(f"{left:,} entries wait after {LIMIT:.0f} s")
        time.sleep(LOOK)


def counted(by: Ours | Peer) -> int:
    """Of how many members something is known."""
    if isinstance(by, Ours):
        return number_of(by.database, "SELECT count(*) FROM bounce")
    data = by.directory / "var/data/mailman.db"
    with contextlib.closing(sqlite.connect(f"file:{data}?mode=ro", uri=True)) as database:
        return number_of(database, "SELECT count(*) FROM member WHERE bounce_score > 0")


def number_of(database: sqlite.Connection, query: str) -> int:
    """What a query counts."""
    found: int = database.execute(query).fetchone()[0]
    return found
