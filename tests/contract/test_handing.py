"""Handing on: new entries in the transaction that removes the old one, on both databases."""

import time
from hashlib import blake2b

import pytest
from sqlalchemy import event, text

from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.metadata import BOUNCES
from postroom.spool.orders import OUT, Order, order_of
from postroom.spool.queue import Claim, finish
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.desk import Desk, counts, rows
from tests.contract.posts import all_of, key_of, make_id
from tests.contract.queues import Filler, do, take

NOTE = Letter(b"Subject: note\r\n\r\nHello.\r\n", "ant-bounces@example.com")


def hand(store: Store, *handed: Handed) -> list[int]:
    with store.begin() as connection:
        return hand_on(connection, make_id, handed)


def one(store: Store, filled: Filler) -> Claim:
    """A post in a worker's hands."""
    filled("ant")
    [held] = take(store)
    return held


def test_a_new_message_is_an_entry_that_can_be_claimed_at_once(spool: Store) -> None:
    facts = {"original_size": 5, "version": 1}
    [number] = hand(spool, Handed(OUT, key_of(spool), facts, NOTE))
    [held] = take(spool, name=OUT)
    assert (held.id, held.raw, held.sender) == (number, NOTE.raw, NOTE.sender)
    assert (held.list_key, held.metadata, held.attempts) == (key_of(spool), facts, 1)
    [row] = all_of(spool, schema.message)
    assert bytes(row["digest"]) == blake2b(NOTE.raw, digest_size=32).digest()
    assert (row["size"], row["peer"], row["lhlo"]) == (len(NOTE.raw), "", "")
    assert abs(row["received_at"] - time.time()) < 60


def test_one_message_for_many_entries_is_stored_once(spool: Store) -> None:
    other = Letter(NOTE.raw, "")  # the sender is part of it
    numbers = hand(
        spool, *(Handed(OUT, None, {}, each) for each in (NOTE, other, Letter(*NOTE), NOTE))
    )
    assert len(set(numbers)) == 4
    found = {row.id: row for row in rows(spool)}
    assert [found[each].sender for each in numbers] == [NOTE.sender, "", NOTE.sender, NOTE.sender]
    assert counts(spool)[:2] == (4, 2)


def test_what_is_handed_on_as_it_came_shares_its_message(desk: Desk, filled: Filler) -> None:
    held = one(desk.store, filled)
    with desk.store.begin() as connection:
        hand_on(connection, make_id, [Handed(BOUNCES, held.list_key, {"event": "x"}, held.message)])
        finish(connection, [held])
    [row] = rows(desk.store)
    assert (row.queue, row.message, row.raw) == (BOUNCES, held.message, held.raw)
    [again] = take(desk.store, name=BOUNCES)
    do(desk.store, finish, [again])
    assert counts(desk.store)[:2] == (0, 0)


def test_d1_d7_if_the_removal_fails_nothing_was_handed_on(desk: Desk, filled: Filler) -> None:
    held = one(desk.store, filled)
    before = rows(desk.store)
    with pytest.raises(ZeroDivisionError), desk.store.begin() as connection:
        hand_on(connection, make_id, [Handed(OUT, held.list_key, {}, NOTE)])
        finish(connection, [held])
        raise ZeroDivisionError
    assert rows(desk.store) == before
    assert counts(desk.store)[:2] == (1, 1)


def test_nothing_to_hand_on_is_no_statement(spool: Store) -> None:
    statements: list[str] = []
    with spool.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        assert hand_on(connection, make_id, []) == []
    assert statements == []


def test_d20_any_number_of_entries_are_two_statements(spool: Store) -> None:
    statements: list[str] = []
    with spool.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        letters = [Letter(b"%d" % n, "") for n in range(200)]
        hand_on(connection, make_id, [Handed(OUT, None, {}, each) for each in letters])
    assert len(statements) == 2
    assert counts(spool)[:2] == (200, 200)


def test_the_same_message_twice_in_two_transactions_is_two(spool: Store) -> None:
    for _ in range(2):
        hand(spool, Handed(OUT, None, {}, NOTE))
    assert counts(spool)[:2] == (2, 2)


def test_octets_of_any_kind_are_stored_as_they_are(spool: Store) -> None:
    raw = bytes(range(256)) * 3
    hand(spool, Handed(OUT, None, {}, Letter(raw, "")))
    assert [row.raw for row in rows(spool)] == [raw]


# Orders


@pytest.mark.parametrize(
    "order",
    [
        Order("notice", ""),
        Order(
            "post",
            "ant-bounces@example.com",
            "<ant@example.org>",
            authors=("ann@example.org",),
            named=("bo@exämple.org",),
            verp=True,
            verp_key="Ke-_y",
            personal=True,
        ),
        Order("probe", "ant-bounces+abc@example.com", recipients=("ann@example.org",)),
        Order("owner", "x@example.com", recipients=("ann@example.org", "bo@example.org")),
    ],
)
def test_an_order_comes_back_as_it_was_given(spool: Store, order: Order) -> None:
    facts = order.metadata("ant@example.com", 7)
    hand(spool, Handed(OUT, None, facts, NOTE))
    [held] = take(spool, name=OUT)
    assert order_of(held.metadata) == order
    assert held.metadata["listname"] == "ant@example.com"
    assert (held.metadata["original_size"], held.metadata["version"]) == (7, 1)


def test_an_order_of_the_site_names_no_list() -> None:
    assert "listname" not in Order("notice", "").metadata("", 7)


@pytest.mark.parametrize(
    "facts",
    [{}, {"order": None}, {"order": {"kind": "riot", "sender": ""}}, {"order": {"kind": "post"}}],
)
def test_metadata_without_an_order_is_refused(facts: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        order_of(facts)


def test_an_entry_of_a_list_that_is_gone_is_refused_by_the_database(spool: Store) -> None:
    with spool.begin() as connection:
        connection.execute(text("DELETE FROM mailing_list WHERE list_name = 'bee'"))
    with pytest.raises(Exception, match=r"(?i)foreign key"):
        hand(spool, Handed(OUT, 999, {}, NOTE))
    assert counts(spool)[:2] == (0, 0)
