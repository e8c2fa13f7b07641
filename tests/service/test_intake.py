"""The intake process itself, with the test in the place of the door."""

import contextlib
import io
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import func
from sqlalchemy import select as sql_select

from postroom.base.observe import Log
from postroom.base.settings import LogSettings, Settings
from postroom.lists import registry
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.service import intake as module
from postroom.service.channel import (
    Answers,
    Ask,
    Change,
    Frames,
    Question,
    Ready,
    Report,
    Room,
    Told,
    decode_report,
    delivery,
    frame,
    spell,
)
from postroom.service.sockets import UNFIT
from postroom.spool.care import entries
from postroom.store import schema
from postroom.store.engine import Store
from postroom.watch.figures import Depth, Tally
from tests.integration.processes import eventually

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

    def hear(self) -> Report | None:
        """The next report; None when it has closed."""
        while (taken := self._frames.take()) is None:
            if not (data := self.door.recv(1_048_576)):
                return None
            self._frames.feed(data)
        report: Report = decode_report(taken[0])
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

    def tally(self) -> Tally:
        """Ask it how it is going."""
        self.say(frame(Ask()))
        while not isinstance(report := self.hear(), Told):
            assert report is not None, self.end()
        return report.tally

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


def test_asked_how_it_is_going_it_says_what_it_did(intake: Intake) -> None:
    assert intake.tally().messages == 0
    intake.say(mail(1, LIST, NOBODY), mail(2, OWNER), mail(3, NOBODY))
    intake.answers(3)
    found = intake.tally()
    assert (found.messages, found.failed) == (2, "")
    assert (found.recipients["post"], found.recipients["owner"]) == (1, 1)
    assert found.recipients["unknown"] == 2
    assert found.batches.total == 3
    assert 1 <= sum(found.batches.counts) == sum(found.commits.counts) <= 3


def test_it_says_what_it_was_asked_even_while_it_has_work(intake: Intake) -> None:
    intake.say(*(mail(number, LIST) for number in range(100)), frame(Ask()), mail(100, LIST))
    answered, told = 0, 0
    while answered < 101 or not told:
        report = intake.hear()
        assert report is not None
        answered += len(report.outcomes) if isinstance(report, Answers) else 0
        told += isinstance(report, Told)
    assert (answered, told) == (101, 1)


def test_the_queues_are_counted_without_being_asked(store: Store) -> None:
    first = Intake(store)
    first.say(mail(1, LIST))
    first.answers(1)
    assert first.end()[0] == 0
    second = Intake(store)
    queues = eventually(lambda: second.tally().queues, "queues are counted")
    assert queues is not None
    assert queues["in"].entries == 1
    assert queues["in"].oldest == pytest.approx(time.time(), abs=60)
    assert queues["shunt"] == Depth(0, None)
    assert second.end()[0] == 0


def test_where_nobody_can_look_nothing_is_counted(store: Store) -> None:
    intake = Intake(store, METRICS__LISTEN="")
    intake.say(mail(1, LIST))
    intake.answers(1)
    pid = intake.process.pid
    assert len(os.listdir(f"/proc/{pid}/task")) == 1
    assert intake.tally().queues is None
    assert intake.end()[0] == 0


def test_a_commit_that_failed_is_known_until_one_succeeds(intake: Intake, store: Store) -> None:
    with store.begin():  # it has the write lock
        intake.say(mail(1, LIST, left=0.05))
        assert intake.answers(1) == {1: spell([LATER])}
        found = intake.tally()
        assert "locked" in found.failed
        assert found.troubles["busy"] >= 1
    intake.say(mail(2, LIST))
    intake.answers(1)
    assert intake.tally().failed == ""


@contextlib.contextmanager
def hosted(store: Store, /, bell: int | None = None, **sections: object) -> Iterator[socket.socket]:
    """An intake in a thread of this process; the door's end of its channel."""
    ours, theirs = socket.socketpair()
    ours.settimeout(PATIENCE)
    settings = msgspec.convert({"metrics": {"listen": ""}, **sections}, Settings)
    log = Log(LogSettings("json"), io.StringIO())
    process = module.Process(store, settings, log, theirs, bell)
    thread = threading.Thread(target=process.run)
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(PATIENCE)
        theirs.close()


def ask_until(door: socket.socket, enough: Callable[[list[Report]], bool]) -> list[Report]:
    """Ask how it is going, again and again, until what it says is enough."""
    frames, deadline = Frames(), time.monotonic() + PATIENCE
    heard: list[Report] = []
    while not enough(heard):
        assert time.monotonic() < deadline, heard[-3:]
        door.sendall(b"".join(frame(Ask())))
        frames.feed(door.recv(65_536))
        heard += [decode_report(head) for head, _ in iter(frames.take, None)]
    return heard


def test_to_be_asked_all_the_time_does_not_put_off_upkeep(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UPKEEP_EVERY", 0.05)

    def kept_up(said: list[Report]) -> bool:
        """Upkeep reported again and again after the first answers."""
        kinds = [type(each) for each in said]
        return kinds.count(Told) > 3 and kinds[kinds.index(Told) :].count(Room) >= 3

    with hosted(store) as door:
        assert kept_up(ask_until(door, kept_up))


def test_receipts_that_were_forgotten_are_counted(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UPKEEP_EVERY", 0.01)
    monkeypatch.setattr(module, "PURGE_EVERY", 0.01)
    with hosted(store, store={"receipts_kept": 1e-9}) as door:
        door.sendall(b"".join(mail(1, LIST) + mail(2, LIST, OWNER)))
        ask_until(door, lambda said: any(isinstance(e, Told) and e.tally.purged == 3 for e in said))
    assert counts(store) == [2, 3, 0]


def rung(store: Store, *batches: list[bytes]) -> list[bool]:
    """Whether the bell rang after each of these."""

    def after_the_batch(said: list[Report]) -> bool:
        """What it says next after its answers, it says after it may have rung."""
        kinds = [type(each) for each in said]
        return Answers in kinds and Told in kinds[kinds.index(Answers) :]

    found = []
    heard, bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        with hosted(store, bell) as door:
            for batch in batches:
                door.sendall(b"".join(batch))
                ask_until(door, after_the_batch)
                found.append(bool(select.select([heard], [], [], 0)[0]))
                with contextlib.suppress(BlockingIOError):
                    os.read(heard, 65536)
    finally:
        os.close(heard)
        os.close(bell)
    return found


@pytest.mark.parametrize(
    ("local", "rings"),
    [
        ("mylist", True),
        ("mylist-owner", True),
        ("mylist-request", True),
        ("mylist-confirm", True),
        ("mylist-join", True),
        ("mylist-leave", True),
        ("mylist-bounces", True),
        ("mylist-bounces+anne=example.org", True),
        ("nobody", False),
    ],
)
def test_the_bell_rings_for_what_a_runner_serves(store: Store, local: str, rings: bool) -> None:
    assert rung(store, mail(1, Mailbox(local, "example.com"))) == [rings]


def test_the_bell_rings_once_for_a_message_that_comes_twice(store: Store) -> None:
    assert rung(store, mail(1, LIST), mail(1, LIST), mail(2, LIST)) == [True, False, True]
