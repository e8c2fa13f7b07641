"""Workers, operators and the intake at the same entries at once."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import Connection, text

from postroom.lists.registry import ListError
from postroom.spool.care import remove, requeue
from postroom.spool.queue import Lost, QueueError, claim, finish, mend, shunt
from postroom.spool.upkeep import remove_list, rename_list
from postroom.store.direct import Direct
from postroom.store.engine import Store
from tests.contract.conftest import NewDesk
from tests.contract.desk import NOTHING, Counts, Desk, counts, envelope, rows
from tests.contract.queues import Filler, do, seen, take
from tests.contract.threads import at_once, await_lock, overlap


def test_claims_at_once_never_give_an_entry_twice(desk: Desk, filled: Filler) -> None:
    numbers = filled(*(f"ant-owner+{number}" for number in range(120)))

    def drain(limit: int) -> list[int]:
        taken: list[int] = []
        while held := take(desk.store, limit):
            assert len(held) <= limit
            taken += [each.id for each in held]
        return taken

    shares = at_once([partial(drain, limit) for limit in (3, 4, 5)])
    assert sorted(number for share in shares for number in share) == numbers


def test_a_claim_that_is_not_committed_hides_only_what_it_took(desk: Desk, filled: Filler) -> None:
    numbers = filled("ant", "bee", "ant-owner")
    with desk.store.begin() as connection:
        claim(connection, "in", 2, 60.0)
        if not desk.store.is_sqlite:  # there another could not even begin
            with desk.store.begin() as other:
                other.execute(text("SET LOCAL lock_timeout = '1s'"))  # if it waited: for ever
                assert [held.id for held in claim(other, "in", 2, -1.0)] == [numbers[2]]
                mend(other, "in")
    assert [held.id for held in take(desk.store)] == [numbers[2]]
    assert [seen(desk.store, number).attempts for number in numbers[:2]] == [1, 1]


def test_two_workers_who_finish_the_last_entries_of_a_message_leave_no_orphan(
    desk: Desk,
) -> None:
    desk.deliver(envelope("ant@example.com", "bee@example.com"))
    (one,), (two,) = take(desk.store, 1), take(desk.store, 1)
    outcome = overlap(desk.store, partial(finish, claims=[one]), partial(finish, claims=[two]))
    assert outcome.exception() is None
    assert counts(desk.store)[:2] == NOTHING[:2]


def test_workers_with_crossed_messages_do_not_lock_each_other_out(desk: Desk) -> None:
    desk.deliver(
        *(envelope("ant@example.com", "bee-join@example.com", raw=b"%d" % n) for n in range(99))
    )
    posts, joins = take(desk.store), take(desk.store, name="command")
    works = [partial(do, desk.store, finish, held) for held in (posts, joins[::-1])]
    assert at_once(works) == [None, None]
    assert counts(desk.store) == Counts(0, 0, 2 * 99)


def test_an_operator_and_a_worker_who_remove_the_last_entries_leave_no_orphan(
    desk: Desk,
) -> None:
    desk.deliver(envelope("ant@example.com", "bee@example.com"))
    (held,) = take(desk.store, 1)
    other = rows(desk.store)[1].id
    outcome = overlap(desk.store, partial(finish, claims=[held]), partial(remove, number=other))
    assert outcome.exception() is None
    assert counts(desk.store)[:2] == NOTHING[:2]


def test_two_operators_who_delete_the_last_entries_leave_no_orphan(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com", "bee@example.com"))
    one, two = (partial(remove, number=row.id) for row in rows(desk.store))
    assert overlap(desk.store, one, two).exception() is None
    assert counts(desk.store)[:2] == NOTHING[:2]


@pytest.mark.parametrize("action", [remove, requeue])
def test_an_entry_that_is_claimed_meanwhile_is_left_to_its_worker(
    desk: Desk, filled: Filler, action: Callable[[Connection, int], None]
) -> None:
    (number,) = filled("ant")
    outcome = overlap(
        desk.store,
        lambda connection: claim(connection, "in", 1, 60.0),
        lambda connection: action(connection, number),
    )
    with pytest.raises(QueueError, match="a runner is working on it"):
        outcome.result()
    assert seen(desk.store, number).attempts == 1


def test_the_same_entry_deleted_twice_is_there_once(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    outcome = overlap(desk.store, partial(remove, number=number), partial(remove, number=number))
    with pytest.raises(QueueError, match="no such entry"):
        outcome.result()


def test_a_stalled_worker_cannot_shunt_what_another_claims_meanwhile(
    desk: Desk, filled: Filler
) -> None:
    (number,) = filled("ant")
    (stalled,) = take(desk.store, lease=-1.0)

    def take_over(connection: Connection) -> None:
        mend(connection, "in")
        assert [held.id for held in claim(connection, "in", 1, 60.0)] == [number]

    outcome = overlap(
        desk.store, take_over, lambda connection: shunt(connection, stalled, "Traceback")
    )
    with pytest.raises(Lost):
        outcome.result()
    found = seen(desk.store, number)
    assert (found.queue, found.attempts, found.last_error) == ("in", 2, None)
    assert found.lease_until is not None


def test_an_entry_that_is_shunted_while_its_list_is_renamed_remembers_both(
    desk: Desk, filled: Filler
) -> None:
    filled("ant-join")
    (held,) = take(desk.store, name="command")
    outcome = overlap(
        desk.store,
        lambda connection: shunt(connection, held, "Traceback"),
        lambda connection: rename_list(connection, "ant@example.com", "wasp@example.com"),
    )
    assert outcome.exception() is None
    (row,) = rows(desk.store)
    assert row.queue == "shunt"
    assert row.metadata["shunted_from"] == "command"
    assert row.metadata["listname"] == "wasp@example.com"


class Watched(Direct):
    """Does something else before it commits."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.meanwhile: Callable[[], None] = lambda: None

    def commit(self) -> None:
        self.meanwhile()
        super().commit()


@pytest.mark.parametrize("force", [False, True])
def test_a_list_is_not_removed_from_under_mail_that_is_being_accepted(
    new_desk: NewDesk, force: bool
) -> None:
    desk = new_desk(Watched)
    direct = desk.direct
    assert isinstance(direct, Watched)
    outcomes: list[Future[int]] = []

    def remove_ant() -> int:
        with desk.store.begin() as connection:
            return remove_list(connection, "ant@example.com", force)

    with ThreadPoolExecutor(1) as pool:

        def meanwhile() -> None:
            outcomes.append(pool.submit(remove_ant))
            await_lock(desk.store, outcomes[0])

        direct.meanwhile = meanwhile
        assert desk.deliver(envelope("ant@example.com")) == [[250]]
    (row,) = rows(desk.store)
    if force:
        assert outcomes[0].result() == 1
        assert (row.queue, row.metadata["shunted_from"]) == ("shunt", "in")
    else:
        with pytest.raises(ListError, match="has 1 entries waiting"):
            outcomes[0].result()
        assert row.queue == "in"
