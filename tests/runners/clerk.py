"""The list ant@example.com, and a worker for the commands that come to its addresses."""

import re
from email import message_from_bytes, policy
from email.message import EmailMessage
from itertools import count

from sqlalchemy import Connection

from postroom.base.settings import Commands
from postroom.commands.desk import Office
from postroom.lists.audit import Entry, changes_of
from postroom.lists.pending import Request, waiting
from postroom.lists.registry import find_list
from postroom.lists.roster import Member, members
from postroom.runners.command import Commanded
from postroom.spool.orders import order_of
from tests.contract.desk import ANNE, Desk
from tests.runners.ants import Ants, site
from tests.runners.scripted import Watched

LIST = "ant@example.com"
_numbers = count(1)
SERVER = "mx.example.com"  # as the mail server calls itself


def mail(
    text: str = "", subject: str = "", author: str = ANNE, fields: str = "", to: str = LIST
) -> bytes:
    """A mail with commands."""
    own = f"<{next(_numbers)}@example.org>"  # else the door would take it for the same again
    head = f"From: {author}\nTo: {to}\nSubject: {subject}\nMessage-ID: {own}\n{fields}"
    return f"{head}\n{text}\n".replace("\n", "\r\n").encode()


class Letter(EmailMessage):
    """What the server wrote."""

    recipients: tuple[str, ...]
    envelope: str

    @property
    def text(self) -> str:
        """Its text."""
        body = self.get_body(("plain",))
        assert body is not None
        return str(body.get_content())

    @property
    def token(self) -> str:
        """The token that it holds."""
        [found] = set(re.findall(r"\b[a-z2-7]{39}\b|\b[a-z2-7]{26}\b", self.as_string()))
        return str(found)


class Clerk(Ants):
    """Takes commands for the list, and shows what was written in answer."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.limited()
        self.posts = self.worker_of(site())
        self._read = 0

    def limited(self, **terms: int) -> None:
        """The same with other limits."""
        self.worker = Watched(
            self.store, Commanded(Office(site().house, Commands(**terms)), SERVER)
        )

    def command(self, to: str, raw: bytes | None = None, sender: str = ANNE) -> list[Letter]:
        """A mail comes to one of the addresses of the list; returns what is written."""
        self.post(mail(author=sender) if raw is None else raw, sender, to)
        return self.letters()

    def letters(self) -> list[Letter]:
        """What has been written since the last time."""
        rows = [row for row in self.queues().get("out", []) if row.id > self._read]
        found = []
        for row in rows:
            letter = message_from_bytes(row.raw, Letter, policy=policy.default)
            assert isinstance(letter, Letter)
            letter.recipients, letter.envelope = order_of(row.metadata).recipients, row.sender
            found.append(letter)
            self._read = max(self._read, row.id)
        return found

    def key_of(self, connection: Connection) -> int:
        """The row of the list."""
        return find_list(connection, LIST).key

    def members(self) -> list[str]:
        """Who reads the list."""
        return [each.email for each in self.roster() if each.role == "member"]

    def roster(self) -> list[Member]:
        """Everybody."""
        with self.store.read() as connection:
            return list(members(connection, find_list(connection, LIST).key))

    def pending(self) -> list[Request]:
        """What waits."""
        with self.store.read() as connection:
            return [each for each, _ in waiting(connection)]

    def audit(self) -> list[Entry]:
        """What was changed."""
        with self.store.read() as connection:
            return list(changes_of(connection, "ant.example.com", limit=1000))

    def audited(self) -> list[tuple[str, str, str]]:
        """What was changed, of whom, and by whom."""
        return [(each.what, each.email, each.by) for each in self.audit()]
