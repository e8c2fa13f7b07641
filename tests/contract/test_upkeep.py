"""Lists that are renamed or removed while mail waits for them."""

import json
from functools import partial

import pytest
from msgspec import structs

from postroom.lists.registry import ListError, create_list, find_list
from postroom.spool.care import requeue
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT, Order, order_of
from postroom.spool.queue import Lost, QueueError, finish, shunt
from postroom.spool.upkeep import remove_list, rename_list
from tests.contract.desk import ANNE, Counts, Desk, counts, endpoints, envelope, rows
from tests.contract.queues import Filler, change, do, everything, seen, take


def test_entries_that_wait_follow_a_renamed_list(desk: Desk, filled: Filler) -> None:
    filled("ant", "ant-confirm+x", "bee", "postmaster", "ant-owner", "ant-bounces")
    (held,) = take(desk.store, name="bounces")
    before = {row.id: row.metadata for row in rows(desk.store)}
    do(desk.store, rename_list, "ant@example.com", "Wasp@New.example")
    for row in rows(desk.store):
        expected = before[row.id]
        if expected.get("listname") == "ant@example.com":
            expected |= {"listname": "wasp@new.example"}
        assert row.metadata == expected
    assert sum(row.metadata.get("listname") == "wasp@new.example" for row in rows(desk.store)) == 4
    do(desk.store, finish, [held])  # a worker keeps what it holds
    assert desk.deliver(envelope("ant@example.com", "wasp@new.example")) == [[550, 250]]


def test_a_rename_that_is_refused_leaves_the_entries_alone(desk: Desk, filled: Filler) -> None:
    filled("ant")
    before = everything(desk.store)
    with pytest.raises(ListError, match="exists already"):
        do(desk.store, rename_list, "ant@example.com", "bee@example.com")
    assert everything(desk.store) == before


def test_d17_unreadable_metadata_does_not_hinder_a_rename(desk: Desk, filled: Filler) -> None:
    one, two = filled("ant", "ant-join")
    change(desk.store, one, metadata="{")
    do(desk.store, rename_list, "ant@example.com", "wasp@example.com")
    assert seen(desk.store, one).metadata == "{"
    assert seen(desk.store, one).list == "wasp@example.com"
    assert json.loads(seen(desk.store, two).metadata)["listname"] == "wasp@example.com"


def test_a_shunted_entry_of_a_renamed_list_goes_back_to_it(desk: Desk, filled: Filler) -> None:
    (number,) = filled("ant")
    (held,) = take(desk.store)
    do(desk.store, shunt, held, "Traceback")
    do(desk.store, rename_list, "ant@example.com", "wasp@example.com")
    do(desk.store, requeue, number)
    (again,) = take(desk.store)
    assert again.metadata == held.metadata | {"listname": "wasp@example.com"}


TOKEN = "abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize(
    ("sender", "renamed"),
    [
        ("ant-bounces@example.com", "wasp-bounces@new.example"),
        (f"ant-bounces+{TOKEN}@example.com", f"wasp-bounces+{TOKEN}@new.example"),  # a probe
        (f"ant-bounces+{TOKEN}@bee.example", f"ant-bounces+{TOKEN}@bee.example"),
        ("ant-bouncesome@example.com", "ant-bouncesome@example.com"),
        ("big-ant-bounces@example.com", "big-ant-bounces@example.com"),
        ("boss@example.com", "boss@example.com"),
        ("", ""),
    ],
)
def test_bounces_of_what_is_on_its_way_out_find_the_renamed_list(
    desk: Desk, sender: str, renamed: str
) -> None:
    order = Order("probe", sender, message_id="<leaf@example.org>", recipients=(ANNE,), verp=True)
    with desk.store.begin() as connection:
        key = find_list(connection, "ant@example.com").key
        facts = order.metadata("ant@example.com", 1)
        hand_on(connection, IdMaker(), [Handed(OUT, key, facts, Letter(b"x", sender))])
    do(desk.store, rename_list, "ant@example.com", "Wasp@New.example")
    [found] = [order_of(row.metadata) for row in rows(desk.store)]
    assert found == structs.replace(order, sender=renamed)


def test_a_list_whose_name_has_a_plus_keeps_the_bounces_of_what_is_on_its_way_out(
    desk: Desk,
) -> None:
    with desk.store.begin() as connection:
        key = create_list(connection, "ant+cat@example.com").key
        facts = Order("probe", f"ant+cat-bounces+{TOKEN}@example.com").metadata("", 1)
        hand_on(connection, IdMaker(), [Handed(OUT, key, facts, Letter(b"x", ""))])
    do(desk.store, rename_list, "ant+cat@example.com", "wasp@example.com")
    [found] = [order_of(row.metadata) for row in rows(desk.store)]
    assert found.sender == f"wasp-bounces+{TOKEN}@example.com"


def test_a_list_that_mail_waits_for_is_not_removed(desk: Desk, filled: Filler) -> None:
    filled("ant", "ant-join", "bee")
    take(desk.store, name="command")  # in a worker's hands: it waits too
    before = everything(desk.store)
    with pytest.raises(ListError) as refused:
        do(desk.store, remove_list, "ant@example.com", False)
    assert str(refused.value) == (
        "list ant@example.com has 2 entries waiting: let them be worked off, or use --force to "
        "put them into the shunt queue"
    )
    assert everything(desk.store) == before
    assert desk.deliver(envelope("ant@example.com")) == [[250]]


def test_a_list_that_nothing_waits_for_is_removed(desk: Desk, filled: Filler) -> None:
    filled("ant", "bee")
    held = [each for each in take(desk.store) if each.metadata["listname"] == "ant@example.com"]
    do(desk.store, finish, held)
    with desk.store.begin() as connection:
        assert remove_list(connection, "Ant@example.com", force=False) == 0
    assert desk.deliver(envelope("ant@example.com", "bee-join@example.com")) == [[550, 250]]
    with pytest.raises(ListError, match="does not exist"):
        do(desk.store, remove_list, "ant@example.com", True)


def test_of_a_list_removed_by_force_mail_goes_to_shunt_and_never_vanishes(
    desk: Desk, filled: Filler
) -> None:
    one, two, other, broken = filled("ant", "ant-join", "bee", "ant-owner")
    change(desk.store, broken, metadata="{")
    (held,) = take(desk.store, name="command")
    with desk.store.begin() as connection:
        assert remove_list(connection, "ant@example.com", force=True) == 3
    assert counts(desk.store) == Counts(4, 4, 4)
    assert seen(desk.store, other).queue == "in"
    for number, was in ((one, "in"), (two, "command"), (broken, "in")):
        found = seen(desk.store, number)
        assert (found.queue, found.list, found.lease_until) == ("shunt", None, None)
        assert found.last_error == "list ant@example.com was removed"
        assert json.loads(found.metadata)["shunted_from"] == was
    for number in (one, two):
        assert json.loads(seen(desk.store, number).metadata)["listname"] == "ant@example.com"
        with pytest.raises(QueueError) as refused:
            do(desk.store, requeue, number)
        assert str(refused.value) == ("list ant@example.com was removed: it has nowhere to go")
    with pytest.raises(QueueError, match="cannot be read"):
        do(desk.store, requeue, broken)
    with pytest.raises(Lost):
        do(desk.store, finish, [held])


def test_mail_of_a_removed_list_stays_aside_when_the_list_is_made_again(
    desk: Desk, filled: Filler
) -> None:
    (number,) = filled("ant")
    do(desk.store, partial(remove_list, address="ant@example.com", force=True))
    with desk.store.begin() as connection:
        again = create_list(connection, "ant@example.com")
    with desk.store.read() as connection:
        assert find_list(connection, "ant@example.com") == again
    assert seen(desk.store, number).list is None
    assert desk.deliver(envelope("ant-join@example.com")) == [[250]]
    assert endpoints(desk.store) == ["ant@example.com/", "ant@example.com/join"]


def test_an_entry_of_the_site_owner_comes_back_from_shunt(desk: Desk, filled: Filler) -> None:
    filled("postmaster")
    (held,) = take(desk.store)
    do(desk.store, shunt, held, "Traceback")
    do(desk.store, requeue, held.id)
    assert [again.metadata for again in take(desk.store)] == [held.metadata]
