"""Commands by mail through real processes: many who ask and answer, and what came of it.

For: tests of commands as a whole. Guarantees: each mail is like no other; letters are counted
by what the database handed on, so that one which was delivered twice counts once; `done` returns
when nothing is left to do, and nothing was put aside then. Waits have a deadline.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import count
from typing import Final, NamedTuple

from sqlalchemy import func, select, update

from postroom.lists.audit import changes_of
from postroom.lists.pending import waiting
from postroom.lists.registry import find_list
from postroom.lists.roster import members
from postroom.mail.message import message_id
from postroom.spool.metadata import COMMAND, IN
from postroom.spool.orders import OUT
from postroom.store import schema
from postroom.testing.site import Site
from tests.delivery.servers import MailServer
from tests.integration.deliveries import make, settle
from tests.integration.mail import ACCEPTED, LIST, begin_data, create_lists, end_data
from tests.integration.processes import eventually
from tests.integration.sites import Sites

# Nobody is kept from asking.
FREELY: Final = {"COMMANDS__PER_LIST": "100000", "COMMANDS__PER_SITE": "100000"}
UNDONE: Final = (IN, COMMAND, OUT)

_numbers = count(1)


class Mail(NamedTuple):
    """A mail with commands: to whom, from whom, and its text."""

    to: str
    author: str
    text: str = ""


def office(sites: Sites, server: MailServer, *lists: str, url: str = "", **more: str) -> Site:
    """A site where everybody may ask, not started, with `LIST` and these lists."""
    site = make(sites, server, url=url or None, **(FREELY | more))
    create_lists(site.store, LIST, *lists)
    return site


def to(subaddress: str, of: str = LIST) -> str:
    """An address of a list."""
    return of.replace("@", f"-{subaddress}@")


def asking(subaddress: str, people: Iterable[str], of: str = LIST) -> list[Mail]:
    """Each of them writes to an address of a list."""
    return [Mail(to(subaddress, of), each) for each in people]


def confirming(site: Site, people: Iterable[str], of: str = LIST) -> list[Mail]:
    """Each of them answers the letter that asked them."""
    tokens = waits(site, of)
    return [Mail(to(f"confirm+{tokens[each]}", of), each, "Yes.") for each in people]


def hand_in(site: Site, mails: Iterable[Mail]) -> None:
    """Bring mails to the door."""
    with site.client() as client:
        for mail in mails:
            own = f"<ask-{next(_numbers)}@example.net>"
            head = f"From: {mail.author}\r\nTo: {mail.to}\r\nMessage-ID: {own}\r\n"
            begin_data(client, [mail.to], mail.author)
            assert end_data(client, f"{head}\r\n{mail.text}\r\n".encode(), 1) == [ACCEPTED]


# What came of it


def undone(site: Site, *queues: str) -> int:
    """How many entries there are that somebody has to do something about."""
    some = select(func.count()).where(schema.entry.c.queue.in_(queues or UNDONE))
    with site.store.read() as connection:
        return connection.execute(some).scalar_one()


def done(site: Site) -> None:
    """Wait until everything is done, and delivered; then nothing was put aside."""
    eventually(lambda: not undone(site), "all is done")
    settle(site)


def waits(site: Site, of: str = LIST) -> Mapping[str, str]:
    """Whose requests to a list wait, with their tokens."""
    with site.store.read() as connection:
        key = find_list(connection, of).key
        found = [(each.email, each.token) for each, _ in waiting(connection, key)]
    assert len(dict(found)) == len(found)
    return dict(found)


def on(site: Site, of: str = LIST) -> list[str]:
    """The members of a list, in order."""
    with site.store.read() as connection:
        key = find_list(connection, of).key
        return sorted(each.email for each in members(connection, key, "member"))


def audited(site: Site, *whats: str, of: str = "mylist.example.com") -> Counter[tuple[str, str]]:
    """What happened on a list, to whom, and how often; only of these kinds if there are any."""
    with site.store.read() as connection:
        found = Counter((each.what, each.email) for each in changes_of(connection, of))
    return Counter({each: n for each, n in found.items() if not whats or each[0] in whats})


def each(what: str, people: Iterable[str]) -> Counter[tuple[str, str]]:
    """This, once to each of them."""
    return Counter((what, email) for email in people)


def letters(site: Site) -> Counter[str]:
    """How many letters were handed on to whom."""
    row = schema.delivery.c
    with site.store.read() as connection:
        return Counter(connection.scalars(select(row.email)))


def arrived(server: MailServer) -> Counter[str]:
    """How many letters reached whom; one that came twice counts once."""
    return Counter(
        email
        for email, _ in {
            (email, message_id(taken.content))
            for taken in list(server.taken)
            for email in taken.recipients
        }
    )


def make_all_due(site: Site) -> None:
    """The time to wait is over for what failed once."""
    row = schema.entry.c
    later = row.lease.is_(None) & (row.available_at > time.time())
    with site.store.begin() as connection:
        connection.execute(update(schema.entry).where(later).values(available_at=0.0))
