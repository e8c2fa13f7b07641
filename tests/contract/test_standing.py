"""Standings, on both databases: saved, found, due, listed, forgotten, and by two at once."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event, select, text, update

from postroom.bounces import standing
from postroom.bounces.scoring import Standing, State
from postroom.bounces.standing import Due, Known, known, save
from postroom.lists.pending import new_token
from postroom.lists.registry import delete_list
from postroom.lists.roster import (
    CHUNK,
    Member,
    Role,
    add_members,
    change_member,
    find_member,
    remove_members,
)
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.desk import make_lists
from tests.contract.posts import join, key_of
from tests.contract.threads import at_once, overlap

ANN, BO, CY = "ann@example.org", "bo@example.org", "cy@example.org"
NOW = 1_767_225_600.0
DAY = 86_400.0
SOME = Standing(
    State.COUNTING, 1.5, 20_454, NOW, "5.1.1", "550 no such ü", NOW - 60, 0, NOW + 7 * DAY
)
PROBED = SOME._replace(state=State.PROBING)
OFF = SOME._replace(state=State.OFF, warned=2)


def found(store: Store, *emails: str, name: str = "ant") -> dict[str, Known]:
    """What is known of addresses."""
    key = key_of(store, name)
    with store.begin() as connection:
        return known(connection, key, emails)


def member_of(store: Store, email: str = ANN, name: str = "ant") -> Member:
    key = key_of(store, name)
    with store.read() as connection:
        return find_member(connection, key, email)


def put(store: Store, email: str = ANN, what: Standing = SOME, name: str = "ant") -> Member:
    """Save what is known of a member; returns them."""
    member = member_of(store, email, name)
    with store.begin() as connection:
        save(connection, {member.key: what})
    return member


def rows(store: Store) -> list[tuple[Any, ...]]:
    """All rows, by member."""
    with store.read() as connection:
        every = select(schema.bounce).order_by(schema.bounce.c.member)
        return [tuple(row) for row in connection.execute(every)]


def damage(store: Store, member: Member, **columns: object) -> None:
    with store.begin() as connection:
        this = update(schema.bounce).where(schema.bounce.c.member == member.key)
        connection.execute(this.values(**columns))


def those_due(store: Store, now: float = NOW, limit: int = 10) -> list[Due]:
    with store.begin() as connection:
        return standing.due(connection, now, limit)


def shown(store: Store, key: int | None = None, limit: int = 10) -> list[tuple[str, str]]:
    """Who is listed, and for which list."""
    with store.read() as connection:
        listed = standing.listed(connection, key, limit)
        return [(member.email, of) for of, member, _ in listed]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that is executed meanwhile."""
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


# What is known


def test_a_standing_comes_back_as_it_was_saved(spool: Store) -> None:
    join(spool, "Ann@Example.org", BO)
    member = put(spool)
    assert found(spool, "ANN@example.ORG", BO, CY) == {
        ANN: Known(member, SOME),
        BO: Known(member_of(spool, BO), None),
    }
    assert isinstance(found(spool, ANN)[ANN].standing, Standing)
    [there] = found(spool, ANN).values()
    assert there.standing is not None
    assert isinstance(there.standing.state, State)
    with spool.read() as connection:
        assert standing.standings(connection, [member.key, -1]) == {member.key: SOME}
        assert standing.standings(connection, []) == {}


def test_only_members_are_known_and_only_those_of_the_list(spool: Store) -> None:
    join(spool, ANN)
    join(spool, BO, name="bee")
    with spool.begin() as connection:
        others: tuple[Role, ...] = ("owner", "moderator", "nonmember")
        for role in others:
            add_members(connection, key_of(spool), [(CY, "")], role)
        add_members(connection, key_of(spool), [(ANN, "")], "owner")
    assert {email: each.member.role for email, each in found(spool, ANN, BO, CY).items()} == {
        ANN: "member"
    }


@pytest.mark.parametrize("email", ["", "\0", "\udc80@example.org", "x" * 100_000, "' OR 1=1 --"])
def test_any_text_may_be_asked_for(spool: Store, email: str) -> None:
    join(spool, ANN)
    assert list(found(spool, email, ANN)) == [ANN]


def test_what_is_saved_replaces_what_was_known_but_not_the_token(spool: Store) -> None:
    join(spool, ANN, BO)
    member, token = put(spool), new_token()
    with spool.begin() as connection:
        standing.set_token(connection, member.key, token)
    other = Standing(State.OFF, 5.0, 20_460, NOW + 1, "", "", NOW + 2, 3, NOW + 4)
    put(spool, ANN, other)
    put(spool, BO)
    assert rows(spool) == [
        (member.key, *other[:8], token, other.next_at),
        (member_of(spool, BO).key, *SOME[:8], None, SOME.next_at),
    ]
    with spool.begin() as connection:
        save(connection, {})
    assert len(rows(spool)) == 2


def test_who_is_forgotten_is_like_one_whose_mail_never_came_back(spool: Store) -> None:
    join(spool, ANN, BO)
    ann, bo = put(spool), put(spool, BO)
    with spool.begin() as connection:
        standing.forget(connection, [])
        standing.forget(connection, [ann.key, ann.key, -1])
    assert found(spool, ANN, BO) == {ANN: Known(ann, None), BO: Known(bo, SOME)}


def test_a_reset_turns_on_what_bounces_turned_off_and_nothing_else(spool: Store) -> None:
    for email, delivery in ((ANN, "bounces"), (BO, "user"), (CY, "on")):
        join(spool, email, delivery=delivery)
        put(spool, email)
    join(spool, "dee@example.org", delivery="bounces")
    every = [member_of(spool, email).key for email in (ANN, BO, CY)]
    with spool.begin() as connection:
        standing.reset(connection, every)
    assert rows(spool) == []
    there = found(spool, ANN, BO, CY, "dee@example.org")
    assert [each.member.delivery for each in there.values()] == ["on", "user", "on", "bounces"]


# Tokens


def test_a_probe_that_came_back_is_known_by_its_token(spool: Store) -> None:
    join(spool, ANN, BO)
    join(spool, CY, name="bee")
    ann, token = put(spool, ANN, PROBED), new_token()
    put(spool, BO)
    with spool.begin() as connection:
        standing.set_token(connection, ann.key, token)
        for written in (token, token.upper()):
            assert standing.by_token(connection, key_of(spool), written) == (ann, PROBED)
        for other in (new_token(), token[:-1], token + "a", f" {token}", "", "ſ" + token[1:]):
            assert standing.by_token(connection, key_of(spool), other) is None
        assert standing.by_token(connection, key_of(spool, "bee"), token) is None
        newer = new_token()
        standing.set_token(connection, ann.key, newer)
        assert standing.by_token(connection, key_of(spool), token) is None
        assert standing.by_token(connection, key_of(spool), newer) == (ann, PROBED)


@given(st.text(max_size=40))
def test_any_text_is_no_token(text: str) -> None:
    class Nothing:
        def execute(self, statement: object) -> "Nothing":
            assert text.isascii()
            assert len(text) == 26
            return self

        def first(self) -> None:
            return None

    nothing: Any = Nothing()
    assert standing.by_token(nothing, 1, text) is None


# Those whose time has come


def test_those_whose_time_has_come_are_due_longest_ago_first(spool: Store) -> None:
    join(spool, ANN, BO, CY, "dee@example.org")
    join(spool, ANN, name="bee")
    here, there = key_of(spool), key_of(spool, "bee")
    soon = PROBED._replace(next_at=NOW)
    late, later = OFF._replace(next_at=NOW - 5), SOME._replace(next_at=NOW - 9)
    ann, bo, bee = put(spool, ANN, soon), put(spool, BO, later), put(spool, ANN, late, "bee")
    put(spool, CY, SOME._replace(next_at=NOW + 0.5))
    assert those_due(spool) == [Due(here, bo, later), Due(there, bee, late), Due(here, ann, soon)]
    assert those_due(spool, limit=1) == [Due(here, bo, later)]
    assert those_due(spool, NOW - 10) == []


def test_of_two_who_look_for_what_is_due_each_has_other_rows(spool: Store) -> None:
    join(spool, ANN, BO)
    for email, ago in ((ANN, 2), (BO, 1)):
        put(spool, email, SOME._replace(next_at=NOW - ago))
    taken: list[str] = []

    def take(connection: Connection) -> list[str]:
        mine = [each.member for each in standing.due(connection, NOW, 1)]
        standing.forget(connection, [each.key for each in mine])
        return [each.email for each in mine]

    other = overlap(spool, lambda connection: taken.extend(take(connection)), take)
    assert (taken, other.result()) == ([ANN], [BO])


def test_whom_somebody_else_works_on_is_not_waited_for(spool: Store) -> None:
    if spool.is_sqlite:
        return  # there is one writer
    join(spool, ANN, BO, CY)
    for email in (ANN, BO, CY):
        put(spool, email, SOME._replace(next_at=NOW))
    with spool.begin() as moving, spool.begin() as counting, spool.begin() as third:
        third.execute(text("SET LOCAL lock_timeout = '10s'"))
        assert len(standing.due(moving, NOW, 1)) == 1
        known(counting, key_of(spool), [CY])
        assert [each.member.email for each in standing.due(third, NOW, 9)] == [BO]


# Those whose mail comes back


def test_whose_mail_comes_back_is_listed_the_last_bounce_first(spool: Store) -> None:
    join(spool, ANN, BO, CY)
    join(spool, ANN, name="bee")
    for email, after in ((ANN, 1), (BO, 3)):
        put(spool, email, SOME._replace(bounced_at=NOW + after))
    put(spool, ANN, OFF._replace(bounced_at=NOW + 2), "bee")
    ant, bee = "ant@example.com", "bee@example.com"
    assert shown(spool) == [(BO, ant), (ANN, bee), (ANN, ant)]
    assert shown(spool, limit=2) == [(BO, ant), (ANN, bee)]
    assert shown(spool, key_of(spool)) == [(BO, ant), (ANN, ant)]
    assert shown(spool, key_of(spool, "bee")) == [(ANN, bee)]
    with spool.read() as connection:
        [(_, member, what)] = standing.listed(connection, key_of(spool, "bee"))
    assert (member, what) == (member_of(spool, ANN, "bee"), OFF._replace(bounced_at=NOW + 2))


# What cannot be read


@pytest.mark.parametrize("state", ["sleeping", "", "fine", "gone", "COUNTING"])
def test_a_row_in_a_state_that_nobody_is_in_stands_for_nothing(spool: Store, state: str) -> None:
    join(spool, ANN, BO)
    ann, bo, token = put(spool), put(spool, BO, SOME._replace(next_at=NOW)), new_token()
    damage(spool, ann, state=state, token=token, next_at=NOW - 9)
    assert found(spool, ANN) == {ANN: Known(ann, None)}
    # It is nobody else's concern, even if it were the first of few.
    assert [each.member for each in those_due(spool, limit=1)] == [bo]
    assert [email for email, _ in shown(spool, limit=1)] == [BO]
    with spool.begin() as connection:
        assert standing.by_token(connection, key_of(spool), token) is None
        assert standing.standings(connection, [ann.key]) == {}
    put(spool)
    assert found(spool, ANN)[ANN].standing == SOME


@pytest.mark.parametrize("column", ["score", "counted_on", "bounced_at", "since", "warned"])
def test_a_number_that_is_none_stands_for_nothing(sqlite_store: Store, column: str) -> None:
    make_lists(sqlite_store, "ant@example.com")
    join(sqlite_store, ANN)
    ann = put(sqlite_store, ANN, SOME._replace(next_at=NOW))
    with sqlite_store.begin() as connection:
        connection.execute(text(f"UPDATE bounce SET {column} = 'much'"))
    assert found(sqlite_store, ANN) == {ANN: Known(ann, None)}
    assert (those_due(sqlite_store), shown(sqlite_store)) == ([], [])


def test_a_number_that_is_not_finite_stands_for_nothing(spool: Store) -> None:
    join(spool, ANN)
    ann = put(spool)
    damage(spool, ann, score=float("inf"))
    assert found(spool, ANN) == {ANN: Known(ann, None)}
    assert shown(spool) == []


# Those who leave


def test_what_is_known_goes_with_the_membership(spool: Store) -> None:
    join(spool, ANN, BO)
    join(spool, ANN, CY, name="bee")
    put(spool, ANN)
    put(spool, BO)
    at_bee = put(spool, ANN, OFF, "bee")
    cy = put(spool, CY, OFF, "bee")
    with spool.begin() as connection:
        assert remove_members(connection, key_of(spool), [ANN]) == (1, [])
    assert [row[0] for row in rows(spool)] == [
        member_of(spool, BO).key,
        *sorted((at_bee.key, cy.key)),
    ]
    with spool.begin() as connection:
        delete_list(connection, key_of(spool, "bee"))
    assert [row[0] for row in rows(spool)] == [member_of(spool, BO).key]
    join(spool, ANN)
    assert found(spool, ANN)[ANN].standing is None


def test_who_is_to_get_posts_again_is_like_one_whose_mail_never_came_back(spool: Store) -> None:
    join(spool, ANN, BO, delivery="bounces")
    join(spool, ANN, name="bee")
    put(spool, ANN, OFF)
    bo, bee = put(spool, BO, OFF), put(spool, ANN, OFF, "bee")
    with spool.begin() as connection:
        key = key_of(spool)
        add_members(connection, key, [(ANN, "")], "owner")
        change_member(connection, key, ANN, "owner", delivery="on")
        change_member(connection, key, ANN, ack=True, mode="digest", name="Ann")
        change_member(connection, key, ANN, delivery="admin")
        change_member(connection, key, ANN, delivery="bounces")
    assert len(rows(spool)) == 3
    with spool.begin() as connection:
        assert change_member(connection, key, ANN, delivery="on").delivery == "on"
    assert sorted(row[0] for row in rows(spool)) == sorted((bo.key, bee.key))


# Several at once


def test_who_counts_sees_what_the_one_before_has_counted(spool: Store) -> None:
    emails = [f"p{each}@example.org" for each in range(20)]
    join(spool, *emails)
    key = key_of(spool)

    def count(order: list[str]) -> None:
        with spool.begin() as connection:
            there = known(connection, key, order)
            after = {
                each.member.key: (each.standing or SOME._replace(score=0.0))
                for each in there.values()
            }
            save(
                connection,
                {key: each._replace(score=each.score + 1) for key, each in after.items()},
            )

    at_once([partial(count, order) for order in (emails, emails[::-1]) * 4])
    assert {each.standing.score for each in found(spool, *emails).values() if each.standing} == {8}


def test_who_looks_for_a_member_that_is_being_changed_finds_what_they_are_then(
    spool: Store,
) -> None:
    join(spool, ANN)
    ann, old, new = put(spool, ANN, PROBED), new_token(), new_token()
    with spool.begin() as connection:
        standing.set_token(connection, ann.key, old)

    def turn_off(connection: Connection) -> None:
        standing.by_token(connection, key_of(spool), old)
        save(connection, {ann.key: OFF})

    by_old = partial(standing.by_token, list_key=key_of(spool), token=old)
    assert overlap(spool, turn_off, by_old).result() == (ann, OFF)

    def probe_again(connection: Connection) -> None:
        known(connection, key_of(spool), [ANN])
        standing.set_token(connection, ann.key, new)

    assert overlap(spool, probe_again, by_old).result() is None

    def reset(connection: Connection) -> None:
        known(connection, key_of(spool), [ANN])
        standing.forget(connection, [ann.key])

    by_new = partial(standing.by_token, list_key=key_of(spool), token=new)
    assert overlap(spool, reset, by_new).result() is None


def test_who_leaves_while_they_are_counted_leaves_nothing_behind(spool: Store) -> None:
    join(spool, ANN)
    ann = member_of(spool)

    def count(connection: Connection) -> None:
        known(connection, key_of(spool), [ANN])
        save(connection, {ann.key: SOME})

    def leave(connection: Connection) -> tuple[int, list[str]]:
        return remove_members(connection, key_of(spool), [ANN])

    assert overlap(spool, count, leave).result() == (1, [])
    assert rows(spool) == []


def test_who_has_just_left_is_not_known(spool: Store) -> None:
    join(spool, ANN, BO)

    def leave(connection: Connection) -> None:
        remove_members(connection, key_of(spool), [ANN])

    answer = overlap(spool, leave, partial(known, list_key=key_of(spool), emails=[ANN, BO]))
    assert list(answer.result()) == [BO]


# Statements


def test_d20_statements_grow_with_thousands_of_members_only(
    spool: Store, statements: list[str]
) -> None:
    many = 2 * CHUNK + 1
    join(spool, *(f"p{each}@example.org" for each in range(many)))
    emails = [f"P{each}@example.org" for each in range(many)]
    counted: list[list[int]] = []
    for number in (1, CHUNK, many):
        with spool.begin() as connection:
            key = key_of(spool)
            there = known(connection, key, emails[:number])
            keys = [each.member.key for each in there.values()]
            assert len(keys) == number
            ends = OFF._replace(next_at=NOW)
            acts: list[Callable[[], object]] = [
                partial(known, connection, key, emails[:number]),
                partial(save, connection, dict.fromkeys(keys, ends)),
                partial(standing.standings, connection, keys),
                partial(standing.due, connection, NOW, number),
                lambda: list(standing.listed(connection)),
                partial(standing.reset, connection, keys),
                partial(standing.forget, connection, keys),
            ]
            counted.append([])
            for act in acts:
                statements.clear()
                act()
                counted[-1].append(len(statements))
    assert counted == [[2, 1, 1, 1, 1, 2, 1], [2, 1, 1, 1, 1, 2, 1], [6, 1, 3, 1, 1, 6, 3]]
