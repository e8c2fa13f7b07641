"""People with a mailbox, who write to a list, read what comes and answer it as mail clients do.

For: following commands from a person through a mail server to the site and back. Guarantees: a
letter is read once, so the next one is a new one; an answer goes where the letter says that
answers go, and nowhere else; every wait has a deadline.
"""

import re
import textwrap
from collections.abc import Collection
from email import message_from_bytes, policy
from email.message import EmailMessage
from email.utils import formatdate, parseaddr
from itertools import count

from sqlalchemy import func, select

from postroom.lists.audit import changes_of
from postroom.lists.pending import waiting
from postroom.lists.registry import find_list
from postroom.lists.roster import members
from postroom.spool.metadata import COMMAND, IN, SHUNT
from postroom.spool.orders import OUT
from postroom.store.schema import receipt
from tests.integration.deliveries import entries
from tests.interop.mail import hand_in
from tests.interop.mailboxes import DOMAIN, Letter
from tests.interop.office import Office
from tests.interop.postfix import Postfix

_numbers = count(1)


class Person:
    """A user of `DOMAIN`. Letters from before are read already."""

    def __init__(self, office: Office, user: str) -> None:
        self.address = f"{user}@{DOMAIN}"
        self._office, self._user = office, user
        self._seen = {each.raw for each in office.mailboxes.of(user)}

    def write(self, to: str, text: str = "", subject: str = "") -> None:
        """Write a mail."""
        mail = EmailMessage(policy=policy.SMTP)
        mail["To"] = to
        mail["Subject"] = subject
        mail.set_content(text)
        self._send(mail, to)

    def read(self) -> EmailMessage:
        """Wait for a letter; the one that came first."""
        return self.read_all(1)[0]

    def read_all(self, number: int) -> list[EmailMessage]:
        """Wait for so many letters; there is no other when nothing is under way any more."""
        what = f"{number} letters for {self._user}"
        self._office.wait(lambda: len(self._new()) >= number, what)
        settle(self._office)
        new = self._new()
        self._seen |= {each.raw for each in new}
        found = [message_from_bytes(each.raw, EmailMessage, policy=policy.default) for each in new]
        assert len(found) == number, [str(each["Subject"]) for each in found]
        return found

    def answer(self, letter: EmailMessage, text: str = "", to: str = "") -> None:
        """Press "reply", write this above what is quoted, and send it; `to` another address."""
        mail = EmailMessage(policy=policy.SMTP)
        to = to or goes_to(letter)
        mail["To"] = to
        mail["Subject"] = f"Re: {letter['Subject']}"
        mail["In-Reply-To"] = mail["References"] = str(letter["Message-ID"])
        quoted = textwrap.indent(text_of(letter), "> ", lambda line: True)
        said = f"On Fri, 20 Nov 2026 at 10:00, {letter['From']} wrote:"
        mail.set_content(f"{text}\n\n{said}\n{quoted}\n-- \n{self._user}\n")
        self._send(mail, to)

    def _send(self, mail: EmailMessage, to: str) -> None:
        mail["From"] = f"{self._user.title()} <{self.address}>"
        mail["Date"] = formatdate()
        mail["Message-ID"] = f"<people-{next(_numbers)}@{DOMAIN}>"
        if isinstance(self._office.server, Postfix):
            # As a program on the machine does.
            raw = mail.as_bytes().replace(b"\r\n", b"\n")
            self._office.server.submit(self.address, [to], raw)
        else:
            hand_in(self._office.server, [to], mail.as_bytes(), self.address)

    def _new(self) -> list[Letter]:
        return [
            each for each in self._office.mailboxes.of(self._user) if each.raw not in self._seen
        ]


def goes_to(letter: EmailMessage) -> str:
    """Where an answer goes (RFC 5322 3.6.3)."""
    return parseaddr(str(letter["Reply-To"] or letter["From"]))[1]


def text_of(letter: EmailMessage) -> str:
    """What people read."""
    body = letter.get_body(("plain",))
    assert body is not None
    return str(body.get_content())


def token_of(letter: EmailMessage) -> str:
    """The token to be written with a command, as the letter shows it."""
    found = re.search(r"^ *(?:confirm|accept) ([a-z2-7]{26,39})$", text_of(letter), re.MULTILINE)
    assert found, text_of(letter)
    return found[1]


def settle(office: Office) -> None:
    """Wait until nobody has anything left to do, with commands either; nothing is put aside
    then."""
    received = select(func.count()).select_from(receipt)

    def look() -> bool:
        with office.site.store.read() as connection:
            before = connection.execute(received).scalar_one()
        if entries(office.site, IN, COMMAND, OUT) or office.server.waiting():
            return False
        # What came from the mail server meanwhile has left a receipt.
        with office.site.store.read() as connection:
            return connection.execute(received).scalar_one() == before

    office.wait(look, "nothing under way")
    assert entries(office.site, SHUNT) == []


def on(office: Office, address: str) -> Collection[str]:
    """Who is a member of a list."""
    with office.site.store.read() as connection:
        key = find_list(connection, address).key
        return {each.email for each in members(connection, key, "member")}


def audited(office: Office, address: str, email: str) -> list[tuple[str, str]]:
    """What happened to an address on a list, and by whom."""
    with office.site.store.read() as connection:
        of = find_list(connection, address)
        return [(each.what, each.by) for each in changes_of(connection, of.list_id, email)]


def requests(office: Office, address: str) -> list[str]:
    """Whose requests to a list wait."""
    with office.site.store.read() as connection:
        of = find_list(connection, address)
        return [each.email for each, _ in waiting(connection, of.key)]
