"""The intake process itself, with the test in the place of the door."""

import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func
from sqlalchemy import select as sql_select

from postroom.lists import registry
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.service.channel import (
    Answers,
    Change,
    Frames,
    Question,
    Ready,
    Room,
    decode_report,
    delivery,
    frame,
    spell,
)
from postroom.service.sockets import UNFIT
from postroom.spool.queue import entries
from postroom.store import schema
from postroom.store.engine import Store

LIST, NOBODY = Mailbox("mylist", "example.com"), Mailbox("nobody", "example.com")
OWNER = Mailbox("mylist-owner", "example.com")
PATIENCE = 30.0  # seconds
YES, NO, LATER = reply.ACCEPTED, reply.NO_MAILBOX, reply.LOCAL_ERROR


class Intake:
    """A running intake process on a database, and our end of the channel."""

    def __init__(self, store: Store, **settings: str) -> None:
        self.door, theirs = socket.socketpair()
        self.door.settimeout(PATIENCE)
        url = store.engine.url.render_as_string(hide_password=False)
        ours = {"STORE__URL": url, "LOG__FORMAT": "json", **settings}
        clean = {k: v for k, v in os.environ.items() if not k.startswith("POSTROOM_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "postroom.service.intake", str(theirs.fileno())],
            env=clean | {f"POSTROOM_{name}": text for name, text in ours.items()},
            pass_fds=[theirs.fileno()],
            stderr=subprocess.PIPE,
        )
        theirs.close()
        self._frames = Frames()

    def say(self, *pieces: list[bytes]) -> None:
        """Everything in one write."""
        self.door.sendall(b"".join(b"".join(each) for each in pieces))

    def hear(self) -> Ready | Room | Answers | None:
        """The next report; None when it has closed."""
        while (taken := self._frames.take()) is None:
            if not (data := self.door.recv(1_048_576)):
                return None
            self._frames.feed(data)
        report: Ready | Room | Answers = decode_report(taken[0])
        return report

    def answers(self, expected: int) -> dict[int, list[tuple[int, str, str]] | None]:
        """The outcomes of so many requests, in the order in which they came."""
        found: dict[int, list[tuple[int, str, str]] | None] = {}
        while len(found) < expected:
            report = self.hear()
            assert report is not None, self.end()
            if isinstance(report, Answers):
                found |= dict(report.outcomes)
        return found

    def end(self) -> tuple[int, str]:
        """Close; its exit status, and what it logged."""
        self.door.close()
        _, said = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, said.decode()


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """A database with one list."""
    with sqlite_store.begin() as connection:
        registry.create_list(connection, str(LIST))
    return sqlite_store


@pytest.fixture
def intake(store: Store) -> Iterator[Intake]:
    """A running intake."""
    made = Intake(store)
    yield made
    made.end()


def mail(number: int, *recipients: Mailbox, text: str = "", left: float = PATIENCE) -> list[bytes]:
    """A frame with a message like no other; `left` is the time that there is to store it."""
    raw = f"Message-ID: <{number}@example.org>\r\n\r\n{text}\r\n".encode()
    peer = Peer("127.0.0.1:5", "client")
    envelope = Envelope("anne@example.org", recipients, raw, peer, time.time())
    return delivery(number, time.monotonic() + left, envelope)


def question(number: int, *recipients: Mailbox) -> list[bytes]:
    return frame(Question(number, recipients))


def counts(store: Store) -> list[int]:
    """How many rows there are of each kind that an acceptance writes."""
    with store.read() as connection:
        tables = schema.message, schema.entry, schema.receipt
        return [
            connection.scalar(sql_select(func.count()).select_from(each)) or 0 for each in tables
        ]


def depth(store: Store) -> int:
    return counts(store)[1]


def test_it_says_that_it_is_ready_and_how_much_room_there_is(intake: Intake) -> None:
    ready = intake.hear()
    assert isinstance(ready, Ready)
    assert ready.database.startswith("sqlite:///")
    assert ready.lists == 1
    room = intake.hear()
    assert isinstance(room, Room)
    assert room.free is not None and room.free > 0


def test_a_database_that_cannot_be_used_is_told_and_nothing_is_ready(tmp_path: Path) -> None:
    path = tmp_path / "postroom.db"
    path.write_bytes(b"no database at all " * 500)
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-m", "postroom.service.intake", str(theirs.fileno())],
        env=os.environ | {"POSTROOM_STORE__URL": f"sqlite:///{path}"},
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
    )
    theirs.close()
    _, said = process.communicate(timeout=PATIENCE)
    with ours:
        assert ours.recv(1) == b""
    assert process.returncode == UNFIT
    assert said.startswith(b"postroom: ") and said.count(b"\n") == 1


def test_deliveries_and_questions_are_answered_by_number(intake: Intake, store: Store) -> None:
    intake.say(mail(7, LIST, NOBODY, LIST), question(8, NOBODY, OWNER), mail(9, NOBODY))
    found = intake.answers(3)
    assert found == {
        7: spell([YES, NO, YES]),
        8: spell([NO, reply.RECIPIENT_OK]),
        9: spell([NO]),
    }
    assert next(iter(found)) == 8  # a look-up does not wait for a flush
    assert depth(store) == 1


def test_what_comes_together_is_stored_together(intake: Intake, store: Store) -> None:
    assert isinstance(intake.hear(), Ready)
    intake.say(*(mail(number, LIST) for number in range(200)))
    found = [intake.hear() for _ in range(2)]
    batches = [each for each in found if isinstance(each, Answers)]
    assert [len(each.outcomes) for each in batches] == [200]
    assert depth(store) == 200


def test_it_stores_what_it_was_sent_before_it_ends_with_its_door(
    intake: Intake, store: Store
) -> None:
    intake.say(*(mail(number, LIST) for number in range(50)))
    status, said = intake.end()
    assert (status, said.count('"event":"accepted"')) == (0, 50)
    assert depth(store) == 50


def test_half_a_request_is_forgotten_when_the_door_is_gone(intake: Intake, store: Store) -> None:
    whole = b"".join(mail(1, LIST, text="x" * 1000))
    intake.say(mail(2, LIST), [whole[:-1]])
    assert intake.end()[0] == 0
    assert depth(store) == 1


def test_it_leaves_stopping_to_its_door(intake: Intake) -> None:
    assert isinstance(intake.hear(), Ready)
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        intake.process.send_signal(number)
    intake.say(mail(1, LIST))
    assert intake.answers(1) == {1: spell([YES])}
    assert intake.end()[0] == 0


def test_new_settings_hold_for_what_comes_after_them(intake: Intake, store: Store) -> None:
    intake.say(mail(1, OWNER), frame(Change("boss@example.com", 1000.0)))
    intake.answers(1)
    intake.say(mail(2, OWNER))
    intake.answers(1)
    with store.read() as connection:
        owners = [each.metadata.partition('"envsender":"')[2] for each, _ in entries(connection)]
    # Those that came in one piece with the change may already have it.
    assert owners[1].startswith("boss@example.com")


def test_what_is_past_its_deadline_is_not_stored(intake: Intake, store: Store) -> None:
    intake.say(mail(1, LIST, LIST, left=-1.0))
    assert intake.answers(1) == {1: spell([LATER, LATER])}
    intake.say(mail(2, LIST))
    assert intake.answers(1) == {2: spell([YES])}
    assert depth(store) == 1


def test_an_io_error_is_451_for_all_never_tried_again_and_asks_for_a_new_start(
    intake: Intake, store: Store
) -> None:
    intake.say(mail(1, LIST))
    assert intake.answers(1) == {1: spell([YES])}
    # Its writes now end short and then fail; that is no full disk, so it may be a bad one.
    resource.prlimit(intake.process.pid, resource.RLIMIT_FSIZE, (100_000, 100_000))
    lost = mail(2, LIST, NOBODY, text="x" * 1_000_000)
    intake.say(lost)
    assert intake.answers(1) == {2: spell([LATER, LATER])}
    assert intake.hear() is None
    status, said = intake.end()
    assert status == 1
    assert said.count('"event":"not stored"') == 1
    assert "SQLITE_IOERR" in said and '"trying_again":false' in said
    assert counts(store) == [1, 1, 1]
    again = Intake(store)
    again.say(lost)
    assert again.answers(1) == {2: spell([YES, NO])}
    assert again.end()[0] == 0


def test_receipts_are_forgotten_after_their_time(store: Store) -> None:
    for kept, total in ("1e-9", 1), ("1e-9", 2), ("5", 2):
        intake = Intake(store, STORE__RECEIPTS_KEPT=kept)
        intake.say(mail(1, LIST))
        assert intake.answers(1) == {1: spell([YES])}
        assert intake.end()[0] == 0
        assert depth(store) == total


def test_it_stores_what_it_was_sent_when_its_door_is_killed_with_answers_unread(
    intake: Intake, store: Store
) -> None:
    assert select.select([intake.door], [], [], PATIENCE)[0]
    intake.say(*(mail(number, LIST) for number in range(50)))
    status, said = intake.end()
    assert (status, said.count('"event":"accepted"')) == (0, 50)
    assert "Traceback" not in said
    assert depth(store) == 50
