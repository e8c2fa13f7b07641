"""The audit log: who changed what, written with what it tells of, on both databases."""

import time

import pytest
from sqlalchemy import event, update

from postroom.lists.audit import Change, Entry, changes_of, purge_audit, since, write
from postroom.lists.registry import create_list, delete_list, find_list
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.posts import make_id

ANTS, BEES = "ants.example.com", "bees.example.com"


def change(what: str, email: str = "anne@example.org", of: str = ANTS, **facts: object) -> Change:
    return Change(of, what, email, "olga@example.org", facts)


def put(store: Store, *changes: Change, now: float | None = 1.0) -> None:
    with store.begin() as connection:
        write(connection, make_id, changes, now)


def story(
    store: Store, of: str = ANTS, email: str | None = None, limit: int | None = None
) -> list[str]:
    with store.read() as connection:
        found = changes_of(connection, of, email, *([] if limit is None else [limit]))
        return [each.what for each in found]


def test_what_was_written_comes_back_in_its_order(store: Store) -> None:
    first = change("joined", how="mail", nested={"ü": None})
    second = Change(ANTS, "settings", "", "root", {"names": ["a", "b"]})
    put(store, first, second, now=2.0)
    put(store, change("left"), now=2.0)
    with store.read() as connection:
        found = list(changes_of(connection, ANTS))
    assert found[:2] == [Entry(2.0, *first), Entry(2.0, *second)]
    assert [each.what for each in found] == ["joined", "settings", "left"]


def test_the_time_is_now_unless_it_is_given(store: Store) -> None:
    before = time.time()
    put(store, change("joined"), now=None)
    with store.read() as connection:
        (found,) = changes_of(connection, ANTS)
    assert before <= found.at <= time.time()


def test_the_newest_are_shown_oldest_first(store: Store) -> None:
    put(store, *(change(f"{number}") for number in range(5)))
    assert story(store, limit=2) == ["3", "4"]
    assert story(store, limit=9) == ["0", "1", "2", "3", "4"]


def test_what_concerns_one_address_is_found_however_it_is_written(store: Store) -> None:
    put(
        store,
        change("joined", "Anne@Example.org"),
        change("joined", "bart@example.org"),
        change("left", "anne@example.org"),
        change("settings", ""),
        change("added", of=BEES),
    )
    assert story(store, email="ANNE@example.ORG") == ["joined", "left"]
    assert story(store, email="anne@example.org", limit=1) == ["left"]
    assert story(store, email="") == ["settings"]
    assert story(store, BEES) == ["added"]
    for text in ("nobody@example.org", "\0", "\udc80", "a" * 10_000):
        assert "joined" not in story(store, email=text)


def test_what_somebody_did_since_is_found_in_its_order(store: Store) -> None:
    numbers = iter(range(10, 90, 10))
    did = Change(ANTS, "stopped", "anne@example.org", "postroom", {"reason": "Full."})
    with store.begin() as connection:
        for each in (
            did,
            did._replace(what="removed"),
            did._replace(list_id=BEES),
            did._replace(by="root"),
            did._replace(what="joined"),
            did._replace(email="bart@example.org"),
            did._replace(what="removed", email="cris@example.org"),
        ):
            write(connection, lambda: next(numbers), [each], 5.0)

    def found(first: int, limit: int = 9) -> list[Entry]:
        with store.read() as connection:
            wanted = ("stopped", "removed")
            return list(since(connection, ANTS, first, wanted, "postroom", limit))

    assert [each.email[:4] for each in found(0)] == ["anne", "anne", "bart", "cris"]
    assert found(0)[0] == Entry(5.0, *did)
    assert [each.email[:4] for each in found(20)] == ["anne", "bart", "cris"]
    assert [each.email[:4] for each in found(21)] == ["bart", "cris"]
    assert [each.email[:4] for each in found(11, 2)] == ["anne", "bart"]
    assert found(71) == []


def test_any_number_of_changes_is_one_statement_and_none_is_none(store: Store) -> None:
    statements: list[str] = []
    with store.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        write(connection, make_id, [])
        assert statements == []
        write(connection, make_id, [change("joined") for _ in range(50)])
    assert len(statements) == 1
    assert len(story(store)) == 50


def test_d1_a_change_that_was_not_committed_is_not_there(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), store.begin() as connection:
        write(connection, make_id, [change("joined")])
        raise ZeroDivisionError
    assert story(store) == []


@pytest.mark.parametrize("facts", ["{never JSON", "[1]", '{"a":' * 5000, ""])
def test_an_entry_that_is_damaged_hides_no_other(store: Store, facts: str) -> None:
    put(store, change("joined"), change("changed"), change("left"))
    with store.begin() as connection:
        which = update(schema.audit).where(schema.audit.c.what == "changed")
        connection.execute(which.values(facts=facts))
    with store.read() as connection:
        found = list(changes_of(connection, ANTS))
    assert [each.what for each in found] == ["joined", "changed", "left"]
    assert found[1].facts == {"unreadable": facts}


def test_old_entries_are_forgotten_oldest_first_and_some_at_a_time(store: Store) -> None:
    for number in range(1, 8):
        put(store, change(f"{number}"), now=float(number))
    forgotten: list[int] = []
    while not forgotten or forgotten[-1]:
        with store.begin() as connection:
            forgotten.append(purge_audit(connection, 6.0, 2))
        if len(forgotten) == 1:
            assert story(store) == ["3", "4", "5", "6", "7"]
    assert forgotten == [2, 2, 1, 0]
    assert story(store) == ["6", "7"]


def test_entries_outlive_their_list(store: Store) -> None:
    with store.begin() as connection:
        create_list(connection, "ants@example.com")
    put(store, change("joined"))
    with store.begin() as connection:
        delete_list(connection, find_list(connection, "ants@example.com").key)
    assert story(store) == ["joined"]
