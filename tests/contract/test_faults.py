"""When storing fails: our trouble is 4xx, and 4xx means that nothing was stored."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Table, text

from postroom.mail import reply
from postroom.mail.envelope import Envelope
from postroom.spool import intake
from postroom.store.direct import Direct
from postroom.store.direct import Row as Values
from postroom.store.engine import Store
from tests.contract import sabotage
from tests.contract.conftest import NewDesk
from tests.contract.desk import NOTHING, Counts, Desk, counts, endpoints, envelope, rows
from tests.contract.sabotage import BAD

SOON = 0.3  # seconds: a deadline that tests wait for


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give up waiting for a lock soon."""
    monkeypatch.setattr(intake, "LOCK_WAIT", 0.05)
    monkeypatch.setattr(intake, "PAUSE", 0.01)


def good(number: int) -> Envelope:
    return envelope("ant@example.com", raw=b"%d" % number)


def bad(number: int) -> Envelope:
    return envelope("ant@example.com", "no@example.com", sender=BAD, raw=b"%d" % number)


SABOTAGE = [sabotage.refuse, sabotage.refuse_at_commit]


@pytest.mark.parametrize("spoil", SABOTAGE)
def test_d7_what_cannot_be_stored_is_answered_451_and_its_neighbours_succeed(
    desk: Desk, spoil: Any
) -> None:
    spoil(desk.store)
    codes = desk.deliver(good(0), bad(1), good(2), bad(3), good(4), good(0))
    assert codes == [[250], [451, 451], [250], [451, 451], [250], [250]]
    assert [row.raw for row in rows(desk.store)] == [b"0", b"2", b"4"]
    assert counts(desk.store) == Counts(3, 3, 3)
    assert [stored.again for stored in desk.stored] == [0, 0, 0, 1]
    assert not any(trouble.unhealthy or trouble.unknown for trouble in desk.troubles)
    sabotage.repair(desk.store)
    assert desk.deliver(bad(1), bad(3)) == [[250, 550], [250, 550]]
    assert counts(desk.store) == Counts(5, 5, 5)


@pytest.mark.parametrize("spoil", SABOTAGE)
def test_d7_a_failed_commit_leaves_nothing_queued_and_is_no_5xx(desk: Desk, spoil: Any) -> None:
    spoil(desk.store)
    assert desk.work(bad(1)) == [[reply.LOCAL_ERROR, reply.LOCAL_ERROR]]
    assert counts(desk.store) == NOTHING
    assert desk.stored == []
    assert len(desk.troubles) == 1


def test_a_value_that_the_driver_will_not_take_fails_its_envelope_alone(desk: Desk) -> None:
    # No sender from the door holds these; a defect there must not stop the mail of others.
    no_text = good(1)._replace(sender="\udce9@example.org")
    with_nul = good(2)._replace(sender="a\0b@example.org")
    nul_is_taken = desk.store.is_sqlite
    codes = desk.deliver(good(0), no_text, with_nul, good(3))
    assert codes == [[250], [451], [250 if nul_is_taken else 451], [250]]
    assert [row.raw for row in rows(desk.store)] == [
        b"0",
        *([b"2"] if nul_is_taken else []),
        b"3",
    ]


class ClosedAtCommit(Direct):
    """Its connection is closed under it when it is told to commit the first time."""

    closed = False

    def commit(self) -> None:
        if not self.closed:
            self.closed = True
            self._driver.close()
        super().commit()


def test_d7_a_connection_that_is_closed_before_the_commit_leaves_nothing(
    new_desk: NewDesk,
) -> None:
    desk = new_desk(ClosedAtCommit)
    left_behind = []
    desk.at_trouble = lambda: left_behind.append(counts(desk.store))
    assert desk.deliver(good(1), good(2)) == [[250], [250]]
    assert left_behind == [NOTHING]
    assert [row.raw for row in rows(desk.store)] == [b"1", b"2"]
    assert counts(desk.store) == Counts(2, 2, 2)


# Locks and deadlines


def lock(store: Store, stack: ExitStack) -> None:
    """Keep others from writing until the stack ends."""
    connection = stack.enter_context(store.begin())
    if not store.is_sqlite:  # there the transaction has the only write lock
        connection.execute(text("LOCK TABLE receipt IN ACCESS EXCLUSIVE MODE"))


def test_checklist_58_locked_past_the_deadline_is_451_and_nothing_appears_later(
    desk: Desk,
) -> None:
    with ExitStack() as locked:
        lock(desk.store, locked)
        assert desk.deliver(good(1), bad(2), within=SOON) == [[451], [451, 451]]
        assert len(desk.troubles) > 1  # it did try again
        assert all(trouble.retry and not trouble.unknown for trouble in desk.troubles)
    assert counts(desk.store) == NOTHING
    assert desk.deliver(good(3)) == [[250]]
    assert [row.raw for row in rows(desk.store)] == [b"3"]
    assert desk.deliver(good(1)) == [[250]]
    assert counts(desk.store) == Counts(2, 2, 2)


def test_a_lock_that_goes_away_in_time_only_delays(desk: Desk) -> None:
    with ExitStack() as locked:
        lock(desk.store, locked)
        desk.at_trouble = locked.close
        assert desk.deliver(good(1), bad(2)) == [[250], [250, 550]]
    assert len(desk.troubles) == 1
    assert counts(desk.store) == Counts(2, 2, 2)


def test_each_of_a_batch_has_its_own_deadline(desk: Desk) -> None:
    with ExitStack() as locked:
        lock(desk.store, locked)
        desk.at_trouble = lambda: locked.close() if desk.answers else None
        assert desk.deliver(good(1), good(2), within=[SOON, 60.0]) == [[451], [250]]
    assert [row.raw for row in rows(desk.store)] == [b"2"]


class Noted(Direct):
    """Keeps how long it was told to wait at most."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.bounds: list[tuple[float, float]] = []

    def begin(self, lock_wait: float, limit: float) -> None:
        self.bounds.append((lock_wait, limit))
        super().begin(lock_wait, limit)


def test_no_wait_is_longer_than_what_is_left_until_the_deadline(
    new_desk: NewDesk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "LOCK_WAIT", 40.0)
    desk = new_desk(Noted)
    direct = desk.direct
    assert isinstance(direct, Noted)
    assert desk.deliver(good(1), good(2), within=[30.0, 60.0]) == [[250], [250]]
    assert desk.deliver(good(3), within=60.0) == [[250]]
    assert desk.deliver(good(4), within=-1.0) == [[451]]
    (short, first), (lock_wait, second), none_left = direct.bounds
    assert 0 < short == first <= 30.0
    assert lock_wait == 40.0 < second <= 60.0
    assert none_left == (0.0, 0.0)


class Slow(Direct):
    """Its first insert takes ten seconds, by the clock that the intake reads."""

    late = 0.0

    def insert(self, table: Table, rows: Sequence[Values], unless_there: bool = False) -> int:
        Slow.late = 10.0
        return super().insert(table, rows, unless_there)


@pytest.mark.parametrize(
    ("limits", "codes", "stored"),
    [
        ([5.0, 5.0], [[451], [451]], []),
        ([5.0, 60.0], [[451], [250]], [b"2"]),
        ([60.0, 60.0], [[250], [250]], [b"1", b"2"]),
    ],
)
def test_checklist_58_a_deadline_that_passes_before_the_commit_cancels_it(
    new_desk: NewDesk,
    monkeypatch: pytest.MonkeyPatch,
    limits: list[float],
    codes: list[list[int]],
    stored: list[bytes],
) -> None:
    monkeypatch.setattr(Slow, "late", 0.0)
    clock = SimpleNamespace(
        time=time.time, sleep=time.sleep, monotonic=lambda: time.monotonic() + Slow.late
    )
    monkeypatch.setattr(intake, "time", clock)
    desk = new_desk(Slow)
    assert desk.deliver(good(1), good(2), within=limits) == codes
    assert [row.raw for row in rows(desk.store)] == stored


def test_an_envelope_whose_deadline_has_passed_is_not_stored(desk: Desk) -> None:
    assert desk.deliver(good(1), good(2), within=[-1.0, 60.0]) == [[451], [250]]
    assert [row.raw for row in rows(desk.store)] == [b"2"]


def test_a_registry_that_cannot_be_read_is_451_never_550(desk: Desk) -> None:
    sabotage.run(desk.store, "ALTER TABLE domain RENAME TO away")
    assert desk.deliver(good(1), envelope("no@example.com")) == [[451], [451]]
    sabotage.run(desk.store, "ALTER TABLE away RENAME TO domain")
    assert desk.deliver(good(1), envelope("no@example.com")) == [[250], [550]]
    assert endpoints(desk.store) == ["ant@example.com/"]
