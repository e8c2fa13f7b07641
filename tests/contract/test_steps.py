"""Steps: what became of a message, written with what they tell of, on both databases."""

import pytest
from sqlalchemy import event, update

from postroom.spool import steps as module
from postroom.spool.steps import Step, purge_steps, steps_of, write
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.posts import make_id

NAME = "<ant@example.org>"


def step(what: str, at: float, name: str = NAME, **facts: object) -> Step:
    return Step(name, at, "ant@example.com", what, facts)


def put(store: Store, *steps: Step) -> None:
    with store.begin() as connection:
        write(connection, make_id, steps)


def story(store: Store, name: str = NAME) -> list[str]:
    with store.read() as connection:
        return [each.what for each in steps_of(connection, name)]


def test_steps_come_back_as_they_were_written_in_the_order_of_time(spool: Store) -> None:
    told = [
        step("received", 1.0, peer="192.0.2.1", size=7),
        step("accepted", 2.5, changed=["a", "b"], nested={"ü": None}),
        step("done", 9.0),
    ]
    put(spool, told[2], told[0])
    put(spool, told[1], step("other", 1.0, name="<bee@example.org>"))
    with spool.read() as connection:
        assert list(steps_of(connection, NAME)) == told


def test_steps_at_the_same_time_are_in_the_order_of_their_writing(spool: Store) -> None:
    names = [f"step {n}" for n in range(20)]
    put(spool, *(step(each, 1.0) for each in names))
    assert story(spool) == names


def test_messages_without_a_message_id_are_kept_together(spool: Store) -> None:
    put(spool, step("received", 1.0, name=""), step("received", 2.0, name=""))
    assert story(spool, "") == ["received", "received"]
    assert story(spool) == []


def test_any_number_of_steps_is_one_statement_and_none_is_none(spool: Store) -> None:
    statements: list[str] = []
    with spool.begin() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        write(connection, make_id, [])
        assert statements == []
        write(connection, make_id, [step("x", 1.0) for _ in range(50)])
    assert len(statements) == 1


def test_d1_a_step_of_what_was_not_committed_is_not_there(spool: Store) -> None:
    with pytest.raises(ZeroDivisionError), spool.begin() as connection:
        write(connection, make_id, [step("accepted", 1.0)])
        raise ZeroDivisionError
    assert story(spool) == []


def test_a_step_that_is_damaged_hides_no_other(spool: Store) -> None:
    put(spool, step("received", 1.0), step("accepted", 2.0, a=1), step("done", 3.0))
    with spool.begin() as connection:
        which = update(schema.step).where(schema.step.c.what == "accepted")
        connection.execute(which.values(facts="{never JSON"))
    assert story(spool) == ["received", "accepted", "done"]


def test_old_steps_are_forgotten_oldest_first_and_some_at_a_time(
    spool: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEP", 2)
    put(spool, *(step(f"{n}", float(n)) for n in range(1, 8)))
    forgotten: list[int] = []
    while not forgotten or forgotten[-1]:
        with spool.begin() as connection:
            forgotten.append(purge_steps(connection, 6.0))
        if len(forgotten) == 1:
            assert story(spool) == ["3", "4", "5", "6", "7"]
    assert forgotten == [2, 2, 1, 0]
    assert story(spool) == ["6", "7"]


def test_a_step_whose_facts_are_text_of_any_kind_is_stored(spool: Store) -> None:
    odd = 'tab\tquote"nul\\0 émoji 🐜 line\nend'
    put(spool, step("received", 1.0, subject=odd))
    with spool.read() as connection:
        assert [each.facts for each in steps_of(connection, NAME)] == [{"subject": odd}]


def test_steps_outlive_everything_they_tell_of(spool: Store) -> None:
    put(spool, step("done", 1.0))
    with spool.begin() as connection:
        connection.execute(schema.mailing_list.delete())
    assert story(spool) == ["done"]
