"""The desk: one transaction of the office, on one list.

For: the office. Guarantees: what strangers can make us send is counted for the mailbox, the list,
the network that it came from, and the site; every change goes into the audit log. Fails with
`Refused`, and with the database's errors.
"""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import Connection

from postroom.base.settings import Commands
from postroom.commands import sentences
from postroom.commands.values import DAY, HOUR, Listing, Refused
from postroom.lists import audit
from postroom.lists.audit import Change
from postroom.lists.limits import Limit, take
from postroom.lists.naming import named_by
from postroom.lists.roster import Member, memberships, same_address
from postroom.mail.address import is_person
from postroom.notices.courtesy import endpoints_among
from postroom.notices.sheet import House


class Desk(NamedTuple):
    """`commands` say how much strangers can make us send."""

    house: House
    commands: Commands
    connection: Connection
    listing: Listing
    now: float

    @property
    def key(self) -> int:
        """The row of the list."""
        return self.listing.of.key

    @property
    def language(self) -> str:
        """That of the list."""
        return self.listing.settings.notices.language

    def roles(self, email: str) -> list[Member]:
        """What an address is on the list."""
        return memberships(self.connection, self.key, [email])

    def member(self, email: str) -> Member | None:
        """The reader with this address."""
        return next((each for each in self.roles(email) if each.role == "member"), None)

    def admit(self, email: str) -> None:
        """Refuse who may not join, invited or not. Raises `Refused`."""
        local = email.rpartition("@")[0]
        if not is_person(local) or endpoints_among(self.connection, [email]):
            raise Refused(sentences.no_reader(email))
        if named_by(self.listing.settings.posting.banned, [same_address(email)]):
            raise Refused(sentences.banned(self.listing, email))

    def spend(self, source: str) -> bool:
        """Whether the list may write once more because of somebody out there; then it counts."""
        commands = self.commands
        limits = [
            Limit("list", str(self.key), commands.per_list, HOUR),
            Limit("site", "", commands.per_site, HOUR),
        ]
        if source:
            limits.append(Limit("source", source, commands.per_source, HOUR))
        return take(self.connection, limits, self.now) is None

    def spend_on(self, email: str, shown: bool) -> bool:
        """Whether this mailbox may be written to once more; then it counts. What others ask for
        in its name uses up nothing of what its owner can ask for."""
        kind = "address" if shown else "address, forged or not"
        limit = Limit(kind, mailbox(email), self.commands.per_address, DAY)
        return take(self.connection, [limit], self.now) is None

    def lately(self, told_at: float) -> bool:
        """Whether that is so short a while ago that nobody is told again."""
        return self.now - self.commands.again < told_at <= self.now

    def note(self, what: str, email: str, by: str, facts: Mapping[str, str]) -> None:
        """Write it down for `postroom audit`."""
        known = {name: value for name, value in facts.items() if value}
        change = Change(self.listing.of.list_id, what, same_address(email), by, known)
        audit.write(self.connection, self.house.new_id, [change], self.now)


class Office(NamedTuple):
    """The office of a site."""

    house: House
    commands: Commands

    def at(self, connection: Connection, listing: Listing, now: float) -> Desk:
        """A desk, for one transaction on one list."""
        return Desk(self.house, self.commands, connection, listing, now)


def mailbox(email: str) -> str:
    """One name for all addresses that lead to one mailbox, as far as can be told."""
    local, _, domain = same_address(email).rpartition("@")
    return f"{local.partition('+')[0] or local}@{domain}"
