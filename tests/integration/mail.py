"""Mail for tests: messages that differ, lists, what is in the queues.

For: saying in one line what a test sends and what it finds.
"""

import itertools
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import select

from postroom.lists import registry
from postroom.lmtp.client import LMTPClient, LMTPReply
from postroom.mail.message import with_mail_from
from postroom.spool.metadata import Metadata, decode
from postroom.store.engine import Store
from postroom.store.schema import entry, message
from postroom.testing.site import Site

SENDER = "anne@example.org"
LIST = "mylist@example.com"
ACCEPTED = (250, "Message accepted and stored")
NO_MAILBOX = (550, "Requested action not taken: mailbox unavailable")
LOCAL_ERROR = (451, "Local trouble, try again later")
NO_ROOM = (452, "Out of room for now, try again later")
STOPPING = (421, "Shutting down, try again later")

_numbers = itertools.count(1)


class Queued(NamedTuple):
    """An entry as it stands in the database; `raw` is the message as received."""

    id: int
    queue: str
    metadata: Metadata
    sender: str
    raw: bytes

    @property
    def content(self) -> bytes:
        """The message as a consumer sees it."""
        return with_mail_from(self.raw, self.sender)

    @property
    def where(self) -> tuple[str, str, str]:
        """Which endpoint it is for: list, sub-address, detail."""
        facts = self.metadata
        return facts.get("listname", ""), facts.get("subaddress", ""), facts.get("detail", "")


def new_message(body: str = "Hello.", size: int = 0) -> bytes:
    """A message that is like no other; of exactly `size` octets if that is given."""
    number = next(_numbers)
    raw = f"Message-ID: <{number}@example.org>\r\nSubject: No {number}\r\n\r\n{body}\r\n".encode()
    if size:
        filling = b"0123456789abcdef" * 4 + b"\r\n"
        raw += filling * (max(0, size - len(raw) - 2) // len(filling))
        raw += b"x" * (size - len(raw) - 2) + b"\r\n"
        assert len(raw) == size
    return raw


def create_lists(store: Store, *addresses: str) -> None:
    """Create lists, as `postroom list create` does."""
    with store.begin() as connection:
        registry.create_lists(connection, [registry.posting_address(each) for each in addresses])


def queued(store: Store) -> list[Queued]:
    """All entries of all queues, oldest first."""
    statement = (
        select(entry.c.id, entry.c.queue, entry.c.metadata, message.c.sender, message.c.raw)
        .join(message, message.c.id == entry.c.message)
        .order_by(entry.c.id)
    )
    with store.read() as connection:
        return [
            Queued(row.id, row.queue, decode(row.metadata), row.sender, bytes(row.raw))
            for row in connection.execute(statement)
        ]


def depth(store: Store) -> int:
    """How many entries there are."""
    with store.read() as connection:
        return len(connection.execute(select(entry.c.id)).all())


def begin_data(client: LMTPClient, recipients: Sequence[str], sender: str = SENDER) -> None:
    """Everything up to 354."""
    assert client.lhlo("client.example.org").accepted
    assert client.mail(sender).accepted
    for each in recipients:
        assert client.rcpt(each).accepted
    assert client.docmd("DATA").code == 354


def send(client: LMTPClient, octets: bytes) -> None:
    """Send just this, wait for nothing."""
    assert client.sock is not None
    client.sock.sendall(octets)


def end_data(client: LMTPClient, raw: bytes, recipients: int) -> list[LMTPReply]:
    """The message, its end, and the replies to it."""
    send(client, raw + b".\r\n")
    return [client.getreply() for _ in range(recipients)]


def deliver(client: LMTPClient, recipients: Sequence[str], raw: bytes) -> list[LMTPReply]:
    """A whole transaction; returns a reply per recipient."""
    begin_data(client, recipients)
    return end_data(client, raw, len(recipients))


def postroom(site: Site, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[bytes]:
    """A `postroom` command on a site; fails the test on a status other than `status`."""
    done = subprocess.run(
        [sys.executable, "-m", "postroom", *arguments],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == status, done.stderr.decode()
    return done
