"""What every runner stands on: the worker, on both databases."""

import threading
import time
from collections.abc import Callable

import pytest
from sqlalchemy import Connection, event, text

from postroom.runners import base as module
from postroom.runners.base import Outcome
from postroom.spool import ids
from postroom.spool.handing import Handed, hand_on
from postroom.spool.queue import ATTEMPTS, Claim, Lost, claim
from postroom.store.engine import Store
from tests.contract.desk import Desk, counts, envelope, rows
from tests.contract.queues import Filler, change, seen, take
from tests.integration.processes import eventually
from tests.runners.scripted import (
    Gone,
    Process,
    Scripted,
    Watched,
    make_id,
    note,
    noted,
    notes,
    working,
)


def poison(*bad: str, how: Callable[[], object] = lambda: 1 // 0) -> Process:
    """Fails with these messages, and notes the others."""

    def process(held: Claim) -> Outcome:
        if held.raw.decode() in bad:
            how()
        return noted(held)

    return process


def bad_act(*bad: str, how: Callable[[Connection], object]) -> Process:
    """The same, when it is to be done."""

    def process(held: Claim) -> Outcome:
        def act(connection: Connection) -> None:
            note(connection, held.raw.decode())
            if held.raw.decode() in bad:
                how(connection)

        return Outcome(act, "noted", {})

    return process


def fill(desk: Desk, *texts: str) -> list[int]:
    """Entries in `in`, with these messages."""
    for each in texts:
        desk.deliver(envelope("ant@example.com", raw=each.encode()))
    return [row.id for row in rows(desk.store)]


# What is done


def test_an_entrys_effects_and_its_removal_are_one_commit(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 1000.0)
    fill(desk, "a", "b", "c")
    made: list[int] = []
    event.listen(desk.store.engine, "commit", lambda connection: made.append(1))
    runner = Scripted(noted)
    worker = Watched(desk.store, runner)
    assert worker.turn()
    assert len(made) == 3, "one to mend, one to claim, one to do everything"
    assert notes(desk.store) == ["a", "b", "c"]
    assert counts(desk.store)[:2] == (0, 0)
    assert worker.commits == 1
    assert not worker.turn()


def test_what_was_done_is_said_after_the_commit(desk: Desk) -> None:
    [number] = fill(desk, "a")
    worker = Watched(desk.store, Scripted(noted))
    worker.turn()
    [line] = worker.said("noted")
    assert (line["entry"], line["n"], line["level"]) == (ids.show(number), 1, "info")


def test_what_is_handed_on_is_there_when_the_others_are_woken(desk: Desk) -> None:
    fill(desk, "a")

    def process(held: Claim) -> Outcome:
        handed = [Handed("out", held.list_key, {"version": 1}, held.message)]

        def act(connection: Connection) -> None:
            hand_on(connection, make_id, handed)

        return Outcome(act, "handed on", {})

    worker = Watched(desk.store, Scripted(process))
    there: list[list[str]] = []
    worker._handed_on = lambda: there.append([row.queue for row in rows(desk.store)])
    worker.turn()
    assert there == [["out"]]


def test_an_entry_that_moves_is_not_removed(desk: Desk) -> None:
    [number] = fill(desk, "a")

    def process(held: Claim) -> Outcome:
        def act(connection: Connection) -> None:
            move = text("UPDATE entry SET queue = 'held', lease = NULL WHERE id = :id")
            connection.execute(move, {"id": held.id})

        return Outcome(act, "moved", {}, moves=True)

    Watched(desk.store, Scripted(process)).turn()
    assert seen(desk.store, number).queue == "held"


@pytest.mark.parametrize("when", ["claim", "do"])
def test_d1_d7_a_commit_that_fails_leaves_the_entries_and_nothing_else(
    desk: Desk, when: str
) -> None:
    numbers = fill(desk, "a", "b")
    before = [seen(desk.store, number) for number in numbers]
    left = {"claim": 1, "do": 2}[when]  # the first one mends

    @event.listens_for(desk.store.engine, "commit")
    def refuse(connection: Connection) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise Gone

    worker = Watched(desk.store, Scripted(noted))
    with pytest.raises(Gone):
        worker.turn()
    assert notes(desk.store) == []
    after = [seen(desk.store, number) for number in numbers]
    assert [each.attempts for each in after] == [0, 0]
    assert [each.lease_until for each in after] == [None, None]
    assert [each.queue for each in after] == [each.queue for each in before]
    assert worker.said("noted") == []
    assert worker.commits == 0
    while worker.turn():
        pass
    assert notes(desk.store) == ["a", "b"]
    assert counts(desk.store)[:2] == (0, 0)


# What fails


def test_an_entry_that_fails_is_tried_again_later_and_later_and_then_put_aside(
    desk: Desk,
) -> None:
    [number] = fill(desk, "bad")
    worker = Watched(desk.store, Scripted(poison("bad")))
    waits = []
    for attempt in range(1, ATTEMPTS):
        before = time.time()
        assert worker.turn()
        entry = seen(desk.store, number)
        assert (entry.queue, entry.attempts) == ("in", attempt)
        assert entry.last_error is not None and "ZeroDivisionError" in entry.last_error
        assert entry.last_error.startswith("Traceback")
        waits.append(round((entry.available_at - before) / 10))
        assert not worker.turn(), "it is not due"
        change(desk.store, number, available_at=0.0)
    assert waits == [1, 4, 16, 64]
    assert worker.turn()
    entry = seen(desk.store, number)
    assert (entry.queue, entry.attempts) == ("shunt", ATTEMPTS)
    assert entry.last_error is not None and entry.last_error.startswith("Traceback")
    assert [row.metadata["shunted_from"] for row in rows(desk.store)] == ["in"]
    assert len(worker.said("to be tried again")) == ATTEMPTS - 1
    assert "ZeroDivisionError" in worker.said("shunted")[0]["reason"]
    assert notes(desk.store) == []


def test_d17_a_poison_entry_does_not_hold_up_the_others(desk: Desk) -> None:
    numbers = fill(desk, "a", "bad", "b", "worse", "c")
    worker = Watched(desk.store, Scripted(poison("bad", "worse")))
    assert worker.turn()
    assert notes(desk.store) == ["a", "b", "c"]
    assert [row.id for row in rows(desk.store)] == [numbers[1], numbers[3]]


def test_what_a_failing_act_did_is_undone_and_its_neighbours_stand(desk: Desk) -> None:
    fill(desk, "a", "bad", "b")
    worker = Watched(desk.store, Scripted(bad_act("bad", how=lambda connection: 1 // 0)))
    assert worker.turn()
    assert notes(desk.store) == ["a", "b"]
    assert [row.raw for row in rows(desk.store)] == [b"bad"]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO domain (mail_host, alias_of) VALUES ('x.example', 'nowhere.example')",
        "INSERT INTO nowhere VALUES (1)",
        "INSERT INTO domain (mail_host) VALUES (NULL)",
    ],
)
def test_an_act_that_the_database_refuses_is_undone_alone(desk: Desk, statement: str) -> None:
    fill(desk, "a", "bad", "b")
    how = bad_act("bad", how=lambda connection: connection.execute(text(statement)))
    worker = Watched(desk.store, Scripted(how))
    assert worker.turn()
    assert notes(desk.store) == ["a", "b"]
    assert [row.raw for row in rows(desk.store)] == [b"bad"]


def test_an_entry_that_ended_its_process_too_often_is_put_aside_unseen(desk: Desk) -> None:
    numbers = fill(desk, "bad", "a")
    change(desk.store, numbers[0], attempts=ATTEMPTS)
    runner = Scripted(noted)
    worker = Watched(desk.store, runner)
    while worker.turn():
        pass
    assert runner.seen == numbers[1:]
    entry = seen(desk.store, numbers[0])
    assert entry.queue == "shunt"
    assert entry.last_error == "5 attempts ended with the process that made them\n"


def test_an_error_that_no_database_can_store_ends_no_worker(desk: Desk) -> None:
    def fail() -> None:
        raise ValueError("\0 \udcff")

    [number] = fill(desk, "bad")
    worker = Watched(desk.store, Scripted(poison("bad", how=fail)))
    assert worker.turn()
    error = seen(desk.store, number).last_error
    assert error is not None and "ValueError: \\0 \\udcff" in error


# What is not its own failure


def test_whoever_lost_a_lease_changes_nothing(desk: Desk) -> None:
    numbers = fill(desk, "a", "b", "c")

    def process(held: Claim) -> Outcome:
        if held.id == numbers[1]:
            change(desk.store, held.id, lease="another's")
        return noted(held)

    worker = Watched(desk.store, Scripted(process))
    with pytest.raises(Lost):
        worker.turn()
    assert notes(desk.store) == []
    entries = [seen(desk.store, number) for number in numbers]
    assert [each.attempts for each in entries] == [0, 1, 0]
    assert [each.lease_until is None for each in entries] == [True, False, True]


def test_whoever_lost_a_lease_goes_on_with_the_others(desk: Desk) -> None:
    numbers = fill(desk, "a", "b", "c")
    stolen = False

    def process(held: Claim) -> Outcome:
        nonlocal stolen
        if held.id == numbers[1] and not stolen:
            stolen = True
            change(desk.store, held.id, lease="another's")
        return noted(held)

    with working(desk.store, process) as worker:
        worker.until(lambda: worker.commits)
        assert worker.said("lease lost")
    assert notes(desk.store) == ["a", "c"]
    assert [row.id for row in rows(desk.store)] == [numbers[1]]


@pytest.mark.parametrize("where", ["process", "act"])
def test_trouble_of_the_database_is_no_attempt_of_anybodys(desk: Desk, where: str) -> None:
    numbers = fill(desk, "a", "b", "c")

    def gone(*_: object) -> None:
        raise Gone

    how = poison("b", how=gone) if where == "process" else bad_act("b", how=gone)
    worker = Watched(desk.store, Scripted(how))
    for _ in range(ATTEMPTS + 2):
        with pytest.raises(Gone):
            worker.turn()
    assert notes(desk.store) == []
    assert [row.id for row in rows(desk.store)] == numbers
    assert [seen(desk.store, number).attempts for number in numbers] == [0, 0, 0]
    assert all(seen(desk.store, number).last_error is None for number in numbers)


def test_trouble_of_the_database_is_waited_out(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 0.001)
    monkeypatch.setattr(module, "LONGEST_PAUSE", 0.01)
    fill(desk, "a", "b")
    left = 5

    def gone() -> None:
        nonlocal left
        left -= 1
        if left >= 0:
            raise Gone

    with working(desk.store, poison("b", how=gone)) as worker:
        worker.until(lambda: worker.commits)
        assert len(worker.said("queue not served")) == 5
        assert worker.failure is None
    assert notes(desk.store) == ["a", "b"]
    assert counts(desk.store)[:2] == (0, 0)


def test_what_cannot_be_given_back_is_given_back_when_it_can(desk: Desk) -> None:
    numbers = fill(desk, "a", "b")
    broken = False

    @event.listens_for(desk.store.engine, "begin")
    def refuse(connection: Connection) -> None:
        if broken:
            raise Gone

    def process(held: Claim) -> Outcome:
        nonlocal broken
        broken = True
        raise Gone

    worker = Watched(desk.store, Scripted(process))
    for _ in range(3):
        with pytest.raises(Gone):
            worker.turn()
    assert worker.said("entries not given back yet")
    broken = False
    assert [seen(desk.store, number).attempts for number in numbers] == [1, 1]
    worker._runner = Scripted(noted)
    assert worker.turn()
    assert notes(desk.store) == ["a", "b"]
    assert counts(desk.store)[:2] == (0, 0)


def test_what_needs_a_new_process_ends_the_worker(desk: Desk) -> None:
    class Broken(Exception):
        sqlstate = "XX001"  # the data is corrupt

    def broken() -> None:
        raise Broken

    [number] = fill(desk, "a")
    with working(desk.store, poison("a", how=broken)) as worker:
        worker.until(lambda: worker.said("runner in died"))
        worker.thread.join(30)
        assert isinstance(worker.failure, Broken)
        assert not worker.alive
    assert seen(desk.store, number).lease_until is None


def test_what_a_dead_worker_had_is_taken_up(desk: Desk) -> None:
    [number] = fill(desk, "a")
    with desk.store.begin() as connection:
        claim(connection, "in", 1, -1.0)
    assert take(desk.store) == []
    worker = Watched(desk.store, Scripted(noted))
    assert worker.turn()
    assert notes(desk.store) == ["a"]
    assert number not in {row.id for row in rows(desk.store)}


# Stopping and waking


def test_d3_a_stop_ends_after_the_entry_in_hand_and_gives_the_others_back(desk: Desk) -> None:
    numbers = fill(desk, "a", "b", "c", "d")
    hand, go_on = threading.Event(), threading.Event()

    def process(held: Claim) -> Outcome:
        if held.id == numbers[1]:
            hand.set()
            assert go_on.wait(30)
        return noted(held)

    with working(desk.store, process) as worker:
        assert hand.wait(30)
        worker.stop()
        go_on.set()
        worker.thread.join(30)
    assert notes(desk.store) == ["a", "b"]
    assert [row.id for row in rows(desk.store)] == numbers[2:]
    for number in numbers[2:]:
        entry = seen(desk.store, number)
        assert (entry.queue, entry.attempts, entry.lease_until) == ("in", 0, None)


def test_new_work_wakes_it_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 1000.0)
    with working(desk.store, noted) as worker:
        for number, each in enumerate("abc", 1):
            fill(desk, each)
            worker.wake()
            worker.until(lambda number=number: worker.commits == number)  # type: ignore[misc]
    assert notes(desk.store) == ["a", "b", "c"]


def test_a_stop_wakes_it_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "POLL", 1000.0)
    with working(desk.store, noted) as worker:
        fill(desk, "a")
        worker.wake()
        worker.until(lambda: worker.commits)
    assert not worker.alive


def test_it_looks_for_itself_when_nobody_wakes_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL", 0.01)
    with working(desk.store, noted) as worker:
        fill(desk, "a")
        worker.until(lambda: worker.commits == 1)
        fill(desk, "b")
        worker.until(lambda: worker.commits == 2)
    assert notes(desk.store) == ["a", "b"]


def test_more_than_one_batch_is_worked_off_at_one_call(
    desk: Desk, filled: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "POLL", 1000.0)
    monkeypatch.setattr(module, "BATCH", 3)
    monkeypatch.setattr(module, "COMMIT_SECONDS", 1000.0)
    fill(desk, *(f"{n}" for n in range(10)))
    with working(desk.store, noted) as worker:
        worker.until(lambda: worker.commits == 4)
    assert notes(desk.store) == [f"{n}" for n in range(10)]


def test_a_batch_whose_time_is_up_ends_with_what_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BATCH_SECONDS", 0.0)
    numbers = fill(desk, "a", "b", "c")
    worker = Watched(desk.store, Scripted(noted))
    assert worker.turn()
    assert notes(desk.store) == ["a"]
    assert [seen(desk.store, number).attempts for number in numbers[1:]] == [0, 0]
    while worker.turn():
        pass
    assert notes(desk.store) == ["a", "b", "c"]


def test_a_transaction_whose_time_is_up_ends_with_what_is_done(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "COMMIT_SECONDS", 0.0)
    fill(desk, "a", "b", "c")
    worker = Watched(desk.store, Scripted(noted))
    assert worker.turn()
    assert worker.commits == 3
    assert notes(desk.store) == ["a", "b", "c"]
    assert counts(desk.store).entries == 0


def test_two_workers_at_once_do_everything_once(spool: Store, desk: Desk) -> None:
    fill(desk, *(f"{n:02}" for n in range(30)))
    with working(spool, noted), working(spool, noted):
        eventually(lambda: counts(spool).entries == 0)
    assert sorted(notes(spool)) == [f"{n:02}" for n in range(30)]
