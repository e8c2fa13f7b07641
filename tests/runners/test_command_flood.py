"""A flood of forged requests: whoever makes it cannot make us one."""

import time

from postroom.base.settings import Commands
from postroom.mail.address import parse_mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.store.direct import Direct
from postroom.store.engine import Store
from tests.contract.desk import Desk, make_lists
from tests.runners.clerk import Clerk, mail

JOINS = 10_000
BATCH = 500


def test_ten_thousand_forged_joins_write_no_more_than_the_configured_few(
    sqlite_store: Store,
) -> None:
    make_lists(sqlite_store, "ant@example.com")
    direct = Direct(sqlite_store)
    clerk = Clerk(Desk(sqlite_store, direct))
    join, _ = parse_mailbox("ant-join@example.com")
    peer = Peer("127.0.0.1", "mx.example.com")
    for first in range(0, JOINS, BATCH):
        some = []
        for number in range(first, first + BATCH):
            victim = f"victim{number}@example.org"
            # Nothing tells one from a request of a person: sender, author and network differ.
            trace = f"Received: from x (x [198.51.{number % 100}.{number // 100}]) by mx; now\n"
            raw = mail(author=victim, fields=trace)
            some.append(Envelope(victim, (join,), raw, peer, time.time()))
        clerk.desk.deliver(*some)
    clerk.work()
    limits = Commands()
    assert len(clerk.letters()) <= limits.per_list + 2  # the hour goes on while we work
    assert len(clerk.pending()) <= limits.per_list + 2
    assert clerk.members() == []
    assert "command" not in clerk.queues()
    direct.close()
