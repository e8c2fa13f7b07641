"""A site that posts through a mail server, and the mailboxes behind that.

For: following a post from its author to its readers and back. Guarantees: every wait has a
deadline; `settled` returns when neither the site nor the mail server has anything left to do,
and not while a message is on its way between the two.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeVar

from sqlalchemy import Select, func, select

from postroom.bounces.scoring import Standing
from postroom.bounces.standing import known
from postroom.lists.keys import site_secret, verp_key, verp_tag
from postroom.lists.preferences import set_preferences
from postroom.lists.registry import ListError, create_list, find_list
from postroom.lists.roster import Role, add_members, person
from postroom.spool.metadata import BOUNCES, IN
from postroom.spool.orders import OUT
from postroom.store.schema import entry, receipt
from postroom.testing.site import Site
from tests.integration.mail import new_message
from tests.integration.sites import Sites
from tests.interop.mail import MailServer, free_port, until
from tests.interop.mailboxes import DOMAIN, Letter, Mailboxes

LISTS = "lists.example.com"
ROLES = ("lmtp", "runners")

_Found = TypeVar("_Found")


class Office(NamedTuple):
    """A site, the mail server on both sides of it, and the mailboxes."""

    site: Site
    server: MailServer
    mailboxes: Mailboxes

    def wait(self, look: Callable[[], _Found], what: str) -> _Found:
        """As `until`."""
        try:
            return until(self.server, look, what)
        except AssertionError as error:
            error.add_note(self.site.log.read_text(errors="replace")[-4000:])
            raise

    def letter(self, user: str, mark: bytes) -> Letter:
        """Wait for a letter."""
        return self.wait(lambda: self.mailboxes.of(user, mark), f"mail for {user}")[0]

    def letters(self, users: Iterable[str], mark: bytes) -> dict[str, Letter]:
        """Wait until each user has a letter with this mark, and until nothing is under way any
        more; then each has exactly one."""
        found = {user: self.letter(user, mark) for user in users}
        self.settled()
        assert {user: len(self.mailboxes.of(user, mark)) for user in found} == dict.fromkeys(
            found, 1
        )
        return found

    def tag(self, name: str, email: str = "") -> str:
        """The tag in a list's senders: of an address, or the one that all its readers share."""
        with self.site.store.begin() as connection:
            return verp_tag(verp_key(site_secret(connection), f"{name}.{LISTS}"), email)

    def counted(self, name: str, email: str) -> Standing:
        """Wait until something was counted against a member of a list."""

        def look() -> Standing | None:
            with self.site.store.begin() as connection:
                of = find_list(connection, f"{name}@{LISTS}")
                return known(connection, of.key, [email])[email].standing

        found = self.wait(look, f"what is known of {email}")
        assert found is not None
        return found

    def settled(self) -> None:
        """Wait until nobody has anything left to do."""

        def look() -> bool:
            before = self._count(select(func.count()).select_from(receipt))
            busy = select(func.count()).where(entry.c.queue.in_([IN, OUT, BOUNCES]))
            if self._count(busy) or self.server.waiting():
                return False
            # What came from the mail server meanwhile has left a receipt.
            return self._count(select(func.count()).select_from(receipt)) == before

        self.wait(look, "nothing under way")

    def _count(self, statement: Select[int]) -> int:
        with self.site.store.read() as connection:
            return connection.execute(statement).scalar_one()


def posting_site(made: Sites, **settings: str) -> Site:
    """A site that is not started yet, and delivers to a port where nobody listens yet."""
    usual = {
        "SMTP__HOST": f"127.0.0.1:{free_port()}",
        "LMTP__LISTEN": f"127.0.0.1:{free_port()}",
        "MAPS__LISTEN": f"127.0.0.1:{free_port()}",
        "SITE__HOSTNAME": LISTS,
        "SITE__OWNER": f"root@{DOMAIN}",
        "DNS__OFFLINE": "true",
        "DELIVERY__RETRY_FIRST": "0.1",
        "DELIVERY__RETRY_MOST": "1",
    }
    return made.make(**usual | settings)


def smtp_port(site: Site) -> int:
    """Where the mail server of a site is to listen."""
    return int(site.environment["POSTROOM_SMTP__HOST"].rpartition(":")[2])


def open_list(site: Site, name: str, *people: str, role: Role = "member") -> str:
    """A list with these people, users of `DOMAIN` unless they say otherwise; one that is there
    gets them besides. Returns its address."""
    address = f"{name}@{LISTS}"
    with site.store.begin() as connection:
        try:
            of = find_list(connection, address)
        except ListError:
            of = create_list(connection, address)
        given = [person(each if "@" in each else f"{each}@{DOMAIN}") for each in people]
        add_members(connection, of.key, given, role)
    return address


def let_in(site: Site, name: str) -> None:
    """Anybody may post to a list, whatever stands in To."""
    with site.store.begin() as connection:
        of = find_list(connection, f"{name}@{LISTS}")
        changes = {"posting.require_named": "no", "posting.nonmembers": "accept"}
        set_preferences(connection, of.key, changes)


def post(to: str, author: str = "ann", body: bytes = b"Hello.\r\n") -> bytes:
    """A message as a mail client writes it, like no other."""
    return b"From: %s@%s\r\nTo: %s\r\n" % (author.encode(), DOMAIN.encode(), to.encode()) + (
        new_message().partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body
    )
