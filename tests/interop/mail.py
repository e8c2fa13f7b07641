"""What the tests with mail servers share: a server of that kind, mail for it, what came of it.

For: saying each scenario once for every program. Guarantees: every wait has a deadline; a
message is counted by its Message-ID, so one that is lost or doubled is seen whatever the
program adds to it.
"""

import contextlib
import os
import re
import signal
import smtplib
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeVar

from sqlalchemy import func, select

from postroom.base.places import Tcp, Unix
from postroom.spool.metadata import decode
from postroom.store.schema import entry, message
from postroom.testing.site import Site
from tests.integration.mail import Queued, create_lists, depth
from tests.integration.processes import (
    DOOR,
    INTAKE,
    PATIENCE,
    eventually,
    kill,
    listens,
    process_of,
)
from tests.integration.sites import Sites

ANNE = "anne@example.org"
STORED = "250 2.0.0 Message accepted and stored"
NO_MAILBOX = "550 5.1.1 Requested action not taken: mailbox unavailable"
HUGE = 26_000_000  # octets of a message; a little below what the server takes
HEADER = 4096  # octets in which a test looks for what marks its message

_Found = TypeVar("_Found")


class Printed(NamedTuple):
    """What `postroom mta` has printed, with the files that it names; and a domain whose mail is
    for users of the machine, too."""

    text: str = ""
    tables: Mapping[str, str] = MappingProxyType({})
    shared: str = "users.example.com"


Routes = Mapping[str, Tcp | Unix]  # where the mail to each domain goes
NOWHERE: Routes = MappingProxyType({})
NOTHING = Printed()


class Program(Protocol):
    """A running program of others."""

    port: int
    log: Path

    def push(self) -> None:
        """Try again at once what could not be delivered."""


class MailServer(Program, Protocol):
    """One that takes mail by SMTP and delivers it by LMTP."""

    def says_sent(self, recipient: str) -> tuple[str, ...]:
        """How a line of its log says that a recipient has the message."""

    def says_bounced(self, recipient: str) -> tuple[str, ...]:
        """How a line of its log says that a recipient was refused for good, and why."""

    def waiting(self) -> str:
        """What it still has to deliver; empty if there is nothing."""


class Since:
    """What a server logs from now on."""

    def __init__(self, server: Program) -> None:
        self._server = server
        self._start = server.log.stat().st_size

    def line(self, texts: tuple[str, ...]) -> str:
        """Wait for a line that holds all `texts`, in whatever order lines come."""

        def look() -> str:
            with self._server.log.open("rb") as log:
                log.seek(self._start)
                lines = log.read().decode(errors="replace").split("\n")[:-1]
            return next((line for line in lines if all(text in line for text in texts)), "")

        return until(self._server, look, f"a line with {texts}")


def until(server: Program, look: Callable[[], _Found], what: str) -> _Found:
    """As `eventually`; every second the server is told not to wait with what it has left."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return eventually(look, what, within=1.0)
        except AssertionError as error:
            if time.monotonic() > deadline:
                log = server.log.read_text(errors="replace")[-4000:]
                raise AssertionError(f"{error}; the log ends:\n{log}") from None
        server.push()


def free_port() -> int:
    """A loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextlib.contextmanager
def unix_socket() -> Iterator[Unix]:
    """A place for a unix socket that the users of all programs can come to."""
    with tempfile.TemporaryDirectory(prefix="postroom-") as directory:
        os.chmod(directory, 0o755)
        yield Unix(f"{directory}/lmtp.sock")


def listening_at(made: Sites, place: Unix, *lists: str) -> Site:
    """A server with lists that listens there for everybody, besides its TCP port."""
    site = made.make(LMTP__SOCKET_MODE="0666")
    site.listen = (str(place),)
    create_lists(site.store, *lists)
    site.start()
    return site


def hand_in(
    server: MailServer,
    recipients: Sequence[str],
    raw: bytes,
    sender: str = ANNE,
    options: Sequence[str] = (),
) -> None:
    """Mail for a mail server, by SMTP; it must take it for all recipients."""
    with smtplib.SMTP("127.0.0.1", server.port) as client:
        assert client.sendmail(sender, recipients, raw, options) == {}


def marked(site: Site, mark: bytes) -> list[Queued]:
    """The entries whose message has `mark` near its beginning."""
    head = func.substr(message.c.raw, 1, HEADER)
    statement = (
        select(entry.c.id, entry.c.queue, entry.c.metadata, message.c.sender, message.c.raw)
        .join(message, message.c.id == entry.c.message)
        .where(func.instr(head, mark) > 0)
        .order_by(entry.c.id)
    )
    with site.store.read() as connection:
        return [
            Queued(row.id, row.queue, decode(row.metadata), row.sender, bytes(row.raw))
            for row in connection.execute(statement)
        ]


def arrived(site: Site, server: Program, mark: bytes, number: int = 1) -> list[Queued]:
    """Wait for so many entries whose message has `mark` near its beginning, and no more."""
    found = until(
        server,
        lambda: each if len(each := marked(site, mark)) >= number else [],
        f"{number} entries with {mark!r}",
    )
    assert len(found) == number
    return found


def message_id(raw: bytes) -> bytes:
    """What tells a message of ours from all others."""
    found = re.search(rb"^Message-ID: *(\S+)", raw, re.MULTILINE | re.IGNORECASE)
    assert found, raw[:HEADER]
    return found[1]


def ledger(site: Site, ids: Container[bytes]) -> Counter[bytes]:
    """How many entries there are of each of these messages."""
    head = func.substr(message.c.raw, 1, HEADER)
    statement = select(head.label("head")).select_from(entry)
    statement = statement.join(message, message.c.id == entry.c.message)
    with site.store.read() as connection:
        found = [message_id(bytes(row.head)) for row in connection.execute(statement)]
    return Counter(each for each in found if each in ids)


def wait_for_depth(site: Site, server: Program, goal: int) -> None:
    """Wait for so many entries."""
    until(server, lambda: depth(site.store) >= goal, f"{goal} entries")


def kill_and_restart(site: Site, part: str) -> None:
    """kill -9 of a part of the server, or of all of it; it is there again afterwards."""
    if part == "everything":
        pids = process_of(site.supervisor, DOOR), process_of(site.supervisor, INTAKE)
        for pid in site.supervisor, *pids:
            kill(pid)
        assert site.stop() == -signal.SIGKILL
        site.start()
    else:
        kill(process_of(site.supervisor, DOOR if part == "door" else INTAKE))


def send_while_it_ends(
    site: Site, send: Callable[[bytes], bool], messages: Sequence[bytes]
) -> dict[bytes, int]:
    """Send messages, each until `send` says that it was taken, to a server that is killed and
    stopped meanwhile. Returns by Message-ID how many attempts it took."""

    def insist(raw: bytes) -> int:
        attempts = 1
        while not send(raw):
            attempts += 1
            eventually(lambda: listens(site.port), "the server listens again")
        return attempts

    before, part = depth(site.store), len(messages) // 4
    with ThreadPoolExecutor(4) as threads:
        sent = [threads.submit(insist, raw) for raw in messages]
        eventually(lambda: depth(site.store) >= before + part, "a quarter of all")
        kill_and_restart(site, "door")
        eventually(lambda: depth(site.store) >= before + 2 * part, "half of all")
        site.stop()
        site.start()
        pairs = zip(messages, sent, strict=True)
        return {message_id(raw): each.result() for raw, each in pairs}
