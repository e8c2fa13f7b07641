"""The command line on a database of its own.

For: calling commands as a person would, and putting mail into the queues as the door does.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from sqlalchemy import select

from postroom.cli.main import cli
from postroom.mail.address import parse_mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.spool import ids
from postroom.spool.intake import Writer
from postroom.spool.metadata import decode
from postroom.spool.orders import order_of
from postroom.store.direct import Direct
from postroom.store.engine import Store, open_store
from postroom.store.schema import entry, message

Run = Callable[..., Result]
Post = Callable[..., list[str]]
Postroom = Callable[..., subprocess.CompletedProcess[bytes]]

MESSAGE = b"Subject: hello\r\nMessage-ID: <ant@example.org>\r\n\r\nHello, list.\r\n"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, without settings, and a database below it."""
    for name in list(os.environ):
        if name.startswith("POSTROOM_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("POSTROOM_STORE__URL", f"sqlite:///{tmp_path}/postroom.db")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run() -> Run:
    """Calls a command in this process: `run("list", "ls")`.

    Fails the test on a status other than `status`, and on a traceback.
    """

    def call(*arguments: str, status: int = 0, stdin: str | bytes | None = None) -> Result:
        result = CliRunner().invoke(cli, arguments, input=stdin, prog_name="postroom")
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == status, result.output
        return result

    return call


@pytest.fixture
def postroom() -> Postroom:
    """Calls a command in a process of its own: `postroom("list", "ls")`."""

    def call(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        command = [sys.executable, "-m", "postroom", *arguments]
        return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False)

    return call


@pytest.fixture
def store(place: Path) -> Iterator[Store]:
    """The store that the commands use."""
    store = open_store(os.environ["POSTROOM_STORE__URL"])
    yield store
    store.close()


@pytest.fixture
def post(store: Store) -> Post:
    """Accepts a message as the door would; returns the ids of its entries, as text."""

    def deliver(
        recipients: str | Sequence[str],
        raw: bytes = MESSAGE,
        sender: str = "anne@example.org",
        received_at: float | None = None,
    ) -> list[str]:
        to = [recipients] if isinstance(recipients, str) else recipients
        envelope = Envelope(
            sender,
            tuple(parse_mailbox(each)[0] for each in to),
            raw,
            Peer("127.0.0.1:4025", "mail.example.org"),
            time.time() if received_at is None else received_at,
        )
        direct = Direct(store)
        writer = Writer(direct, "owner@example.com")
        [stored] = writer.commit([writer.draft(envelope, time.monotonic() + 60)])
        direct.close()
        return [ids.show(number) for number in stored.entries]

    return deliver


def notices(store: Store) -> list[tuple[tuple[str, ...], bytes]]:
    """Recipients and octets of what waits in `out`."""
    with store.read() as connection:
        rows = connection.execute(
            select(entry.c.metadata, message.c.raw)
            .join_from(entry, message)
            .where(entry.c.queue == "out")
            .order_by(entry.c.id)
        )
        return [(order_of(decode(text)).recipients, bytes(raw)) for text, raw in rows]
