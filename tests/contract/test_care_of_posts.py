"""Posts that operators, upkeep or another clock meddle with, and workers who lost one, on both
databases."""

import time
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from postroom.delivery.care import abandon, hasten, purge
from postroom.delivery.ledger import (
    FURTHEST,
    Record,
    counts,
    due,
    expire,
    gone,
    leave_out,
    next_due,
    record,
)
from postroom.spool.care import remove, requeue
from postroom.spool.orders import OUT
from postroom.spool.queue import Claim, QueueError, put_off, shunt, still_ours
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.posts import (
    all_of,
    expanded,
    join,
    ledger_of,
    make_id,
    post,
    those_due,
)
from tests.contract.queues import change, do, seen, take

FIVE = [f"p{n}@example.net" for n in range(1, 6)]
HOUR, DAY = 3600.0, 86_400.0
YEAR = 365 * DAY


@pytest.fixture
def held(spool: Store) -> Claim:
    """A post to five members, expanded; the first has got it, nobody else is due for an hour."""
    join(spool, *FIVE)
    claim = post(spool)
    expanded(spool, claim)
    reached = Record(make_id(), "mx:25", time.time(), "250 2.0.0 Taken", [1])
    do(spool, record, claim.id, [reached])
    wait(spool, time.time() + HOUR)
    return claim


def wait(store: Store, until: float) -> None:
    """All who are pending wait until then."""
    waits = schema.delivery.c.next_at.is_not(None)
    with store.begin() as connection:
        connection.execute(update(schema.delivery).where(waits).values(next_at=until))


def forget(store: Store, older_than: float) -> None:
    """Upkeep, to the end."""
    forgotten = 1
    while forgotten:
        with store.begin() as connection:
            forgotten = purge(connection, older_than, 2)


# Operators


@pytest.mark.parametrize("where", ["put off", "put aside"])
def test_a_retry_makes_a_post_due_and_whoever_waits_for_it(
    spool: Store, held: Claim, where: str
) -> None:
    assert those_due(spool, held) == []
    if where == "put off":
        do(spool, put_off, held, HOUR, None)
    else:
        do(spool, shunt, held, "Traceback")
    assert take(spool, name=OUT) == []
    do(spool, requeue, held.id)
    do(spool, hasten, held.id)
    [again] = take(spool, name=OUT)
    assert again.id == held.id
    assert [row.n for row in those_due(spool, again)] == [2, 3, 4, 5]
    assert ledger_of(spool, held)[0].state == "sent"


def test_a_retry_of_one_post_leaves_the_others(spool: Store, held: Claim) -> None:
    other = post(spool)
    expanded(spool, other)
    wait(spool, time.time() + HOUR)
    do(spool, hasten, held.id)
    assert len(those_due(spool, held)) == 4
    assert those_due(spool, other) == []


@pytest.mark.parametrize("where", ["put off", "put aside"])
def test_a_post_that_was_deleted_is_over_for_everybody_and_forgotten_in_time(
    spool: Store, held: Claim, where: str
) -> None:
    if where == "put off":
        do(spool, put_off, held, HOUR, None)
    else:
        do(spool, shunt, held, "Traceback")
    before = time.time()
    do(spool, remove, held.id)
    do(spool, abandon, held.id)
    with spool.read() as connection:
        assert counts(connection, held.id) == {"sent": 1, "gone": 4}
        assert next_due(connection, held.id) is None
    [row] = all_of(spool, schema.post)
    assert before <= row["done_at"] <= time.time()
    forget(spool, before)
    assert len(all_of(spool, schema.delivery)) == 5, "it was forgotten too soon"
    forget(spool, time.time() + 1.0)
    for table in schema.post, schema.delivery, schema.transmission:
        assert all_of(spool, table) == []


def test_what_is_in_a_workers_hands_is_neither_retried_nor_deleted(
    spool: Store, held: Claim
) -> None:
    before = ledger_of(spool, held)
    for entry, rows in (requeue, hasten), (remove, abandon):
        with pytest.raises(QueueError), spool.begin() as connection:
            rows(connection, held.id)
            entry(connection, held.id)
    assert ledger_of(spool, held) == before
    assert seen(spool, held.id).lease_until is not None


def test_care_for_an_entry_that_is_no_post_changes_nothing(spool: Store, held: Claim) -> None:
    before = ledger_of(spool, held)
    for care in hasten, abandon:
        do(spool, care, make_id())
    assert ledger_of(spool, held) == before
    assert [row["done_at"] for row in all_of(spool, schema.post)] == [None]


# Upkeep


def test_a_post_without_an_entry_is_not_forgotten_before_its_time(
    spool: Store, held: Claim
) -> None:
    do(spool, shunt, held, "Traceback")
    do(spool, remove, held.id)  # and nothing was done for its recipients
    forget(spool, time.time() - HOUR)
    assert len(all_of(spool, schema.delivery)) == 5
    forget(spool, time.time() + HOUR)
    for table in schema.post, schema.delivery, schema.transmission:
        assert all_of(spool, table) == []


@pytest.mark.parametrize("queue", [OUT, "shunt"])
def test_a_post_whose_entry_waits_anywhere_is_never_forgotten(
    spool: Store, held: Claim, queue: str
) -> None:
    change(spool, held.id, queue=queue)
    forget(spool, time.time() + YEAR)
    assert len(all_of(spool, schema.delivery)) == 5
    assert len(all_of(spool, schema.post)) == 1


# Clocks


@pytest.mark.parametrize(
    ("ahead", "is_due"), [(HOUR, False), (FURTHEST - HOUR, False), (YEAR, True)]
)
def test_who_waits_longer_than_anybody_may_was_put_off_by_another_clock(
    spool: Store, held: Claim, ahead: float, is_due: bool
) -> None:
    until = time.time() + ahead
    wait(spool, until)
    assert [row.n for row in those_due(spool, held)] == ([2, 3, 4, 5] if is_due else [])
    with spool.read() as connection:
        assert next_due(connection, held.id) == (0.0 if is_due else until)


def test_a_post_from_the_future_begins_now(spool: Store, held: Claim) -> None:
    with spool.begin() as connection:
        connection.execute(update(schema.post).values(created_at=time.time() + YEAR))
    before = time.time()
    made = expanded(spool, held)
    assert before <= made.created_at <= time.time()
    with spool.begin() as connection:
        connection.execute(update(schema.post).values(created_at=before - HOUR))
    assert expanded(spool, held).created_at == before - HOUR


# Leases


def test_whoever_lost_a_post_changes_none_of_its_recipients(spool: Store, held: Claim) -> None:
    lost = held._replace(lease="lost")
    wait(spool, 0.0)
    before = ledger_of(spool, held)

    def tries(connection: Connection) -> list[Any]:
        leave_out(connection, lost, [2, 3])
        return [*due(connection, lost, 0, 10), *expire(connection, make_id, lost, 10)]

    with spool.begin() as connection:
        assert tries(connection) == []
    assert ledger_of(spool, held) == before
    assert len(all_of(spool, schema.transmission)) == 1
    with spool.begin() as connection:
        leave_out(connection, held, [2])
        assert [row.n for row in due(connection, held, 0, 10)] == [3, 4, 5]
        assert [each.n for each in expire(connection, make_id, held, 10)] == [3, 4, 5]


def test_whoever_lost_a_post_finds_all_of_its_recipients_gone(spool: Store, held: Claim) -> None:
    with spool.read() as connection:
        assert gone(connection, held, 1, 5) == []
        assert gone(connection, held._replace(lease="lost"), 1, 5) == [2, 3, 4, 5]


def of(held: Claim) -> tuple[int, str]:
    return held.id, held.lease


@pytest.mark.parametrize("since", ["claimed by another", "freed", "deleted"])
def test_of_several_posts_those_that_are_still_ours_are_known(
    spool: Store, held: Claim, since: str
) -> None:
    other = post(spool)
    then: dict[str, Callable[[], None]] = {
        "claimed by another": lambda: change(spool, held.id, lease="another's"),
        "freed": lambda: change(spool, held.id, lease=None, lease_until=None),
        "deleted": lambda: do(spool, _delete, held.id),
    }
    with spool.read() as connection:
        assert still_ours(connection, [held, other]) == {of(held), of(other)}
    then[since]()
    with spool.read() as connection:
        assert still_ours(connection, [held, other]) == {of(other)}
        assert still_ours(connection, []) == set()


def test_of_two_claims_of_one_post_the_last_one_holds(spool: Store, held: Claim) -> None:
    before = held._replace(lease="lost")
    with spool.read() as connection:
        assert still_ours(connection, [before, held]) == {of(held)}
        assert still_ours(connection, [held, before]) == {of(held)}


def _delete(connection: Connection, number: int) -> None:
    connection.execute(schema.entry.delete().where(schema.entry.c.id == number))


# Row ids


def test_a_row_id_that_is_given_again_is_another_member(spool: Store, held: Claim) -> None:
    """Of the same list or of another, with an address that the post never had."""
    wait(spool, 0.0)
    [last] = [row for row in those_due(spool, held) if row.n == 5]
    assert last.there
    with spool.begin() as connection:
        address = insert_address(connection, "new@example.org")
        this = schema.member.c.id == last.member
        connection.execute(update(schema.member).where(this).values(address=address))
    assert [row.there for row in those_due(spool, held)] == [True, True, True, False]
    with spool.begin() as connection:
        assert gone(connection, held, 1, 5) == [5]
    join(spool, FIVE[0], name="bee")
    [bee] = [row["id"] for row in all_of(spool, schema.member) if row["list"] != held.list_key]
    with spool.begin() as connection:
        own = (schema.delivery.c.post == held.id) & (schema.delivery.c.n == 2)
        values = {"member": bee, "email": FIVE[0]}
        connection.execute(update(schema.delivery).where(own).values(values))
    assert [row.there for row in those_due(spool, held)] == [False, True, True, False]


def insert_address(connection: Connection, email: str) -> int:
    """The row id of a new address."""
    values = {"email": email, "folded": email, "domain": email.partition("@")[2]}
    connection.execute(schema.address.insert().values(values))
    found = select(schema.address.c.id).where(schema.address.c.email == email)
    return int(connection.scalar(found) or 0)
