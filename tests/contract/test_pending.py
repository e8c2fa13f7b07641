"""Requests that wait, on both databases: made, found, moved, ended, and by two at once."""

import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, func, select, text, update

from postroom.lists import pending
from postroom.lists.pending import Gone, Request, Wanted, ask, by_token, find, new_token
from postroom.lists.registry import ListError, delete_list, find_list
from postroom.lists.subscription import Policy, State
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.posts import key_of, make_id
from tests.contract.threads import at_once, overlap

ANNE = Wanted(
    "join",
    "Anne@example.org",
    "Anne Lee",
    {"mode": "digest", "ü": "\0\n"},
    Policy.CONFIRM_THEN_MODERATE,
    State.CONFIRM,
    "Anne@example.org",
    "192.0.2.1",
)
NOW = 1_767_225_600.0
WEEK = 604_800.0


def asked(
    store: Store, wanted: Wanted = ANNE, now: float = NOW, after: float = WEEK, name: str = "ant"
) -> tuple[Request, bool]:
    """Ask in a transaction."""
    key = key_of(store, name)
    with store.begin() as connection:
        return ask(connection, make_id, key, wanted, after, now)


def known(store: Store, token: str, now: float = NOW) -> Request | None:
    """Look a token up in a transaction."""
    with store.begin() as connection:
        return by_token(connection, token, now)


def moved(store: Store, request: Request, state: State = State.MODERATE) -> Request:
    """Move a request in a transaction."""
    with store.begin() as connection:
        return pending.move(connection, request, state, WEEK, NOW + 5)


def ended(store: Store, request: Request) -> None:
    """End a request in a transaction."""
    with store.begin() as connection:
        pending.end(connection, request)


def waits(store: Store, key: int | None = None, limit: int = 10) -> list[tuple[str, str]]:
    """Who waits, and for which list."""
    with store.read() as connection:
        return [(each.email, of) for each, of in pending.waiting(connection, key, limit)]


def rows(store: Store) -> int:
    """How many requests there are."""
    with store.read() as connection:
        return connection.scalar(select(func.count()).select_from(schema.pending)) or 0


def damage(store: Store, request: Request, **columns: str) -> None:
    """Write what is no request."""
    with store.begin() as connection:
        this = update(schema.pending).where(schema.pending.c.id == request.id)
        connection.execute(this.values(**columns))


# Asking


def test_a_request_comes_back_as_it_was_asked(spool: Store) -> None:
    made, is_new = asked(spool)
    assert is_new
    assert made == Request(
        made.id,
        key_of(spool),
        *ANNE[:6],
        made.token,
        *ANNE[6:],
        created_at=NOW,
        told_at=NOW,
        expires_at=NOW + WEEK,
    )
    assert known(spool, made.token) == made
    assert isinstance(made.policy, Policy)
    assert isinstance(made.state, State)
    with spool.read() as connection:
        assert find(connection, made.id) == made


def test_a_second_request_finds_the_first_and_changes_nothing(spool: Store) -> None:
    first, _ = asked(spool)
    again = ANNE._replace(email="ANNE@example.org", name="Eve", state=State.MODERATE, source="")
    assert asked(spool, again, NOW + 60) == (first, False)
    assert rows(spool) == 1


def test_another_list_action_or_address_is_another_request(spool: Store) -> None:
    first, _ = asked(spool)
    others = [
        asked(spool, name="bee"),
        asked(spool, ANNE._replace(action="leave")),
        asked(spool, ANNE._replace(email="bart@example.org")),
    ]
    assert all(is_new for _, is_new in others)
    assert len({first.token, *(each.token for each, _ in others)}) == 4


def test_a_request_that_has_expired_makes_room_for_a_new_one(spool: Store) -> None:
    first, _ = asked(spool, after=60.0)
    assert asked(spool, now=NOW + 59) == (first, False)
    second, is_new = asked(spool, now=NOW + 60)
    assert is_new
    assert (second.created_at, second.expires_at) == (NOW + 60, NOW + 60 + WEEK)
    assert second.id != first.id
    assert known(spool, first.token) is None
    assert rows(spool) == 1


@pytest.mark.parametrize("email", ["", "anne", "anne@", "@example.org", "a b@example.org"])
def test_who_has_no_address_is_refused_in_a_sentence(spool: Store, email: str) -> None:
    with pytest.raises(ListError, match="is no address"):
        asked(spool, ANNE._replace(email=email))
    assert rows(spool) == 0


# Tokens


def test_tokens_are_random_and_fit_into_an_address() -> None:
    tokens = {new_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"[a-z2-7]{26}", each) for each in tokens)
    assert all(len({each[place] for each in tokens}) > 2 for each in tokens for place in range(26))


def test_a_token_is_read_in_any_case_and_with_blanks_around_it(spool: Store) -> None:
    made, _ = asked(spool)
    for written in (made.token.upper(), f" {made.token}\n", made.token.title()):
        assert known(spool, written) == made
    for written in ("", made.token[:-1], made.token + "a", f"{made.token} x", "ſ" + made.token[1:]):
        assert known(spool, written) is None


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Za-z2-7]{26}\Z"))
def test_any_text_is_no_token(text: str) -> None:
    class Nothing:
        def execute(self, statement: object) -> "Nothing":
            assert re.fullmatch(r"[A-Za-z2-7]{26}", text.strip(), re.ASCII)
            return self

        def first(self) -> None:
            return None

    nothing: Any = Nothing()
    assert by_token(nothing, text, NOW) is None


@pytest.mark.parametrize("text", ["\0" * 26, "\udc80" * 26, "'; DROP TABLE pending; --", "a" * 26])
def test_what_a_database_cannot_take_is_no_token(spool: Store, text: str) -> None:
    assert known(spool, text) is None


def test_a_token_ends_with_its_request(spool: Store) -> None:
    made, _ = asked(spool, after=60.0)
    assert known(spool, made.token, NOW + 59) == made
    assert known(spool, made.token, NOW + 60) is None


# Moving


def test_a_move_gives_another_token_and_the_old_one_is_good_for_nothing(
    spool: Store,
) -> None:
    made, _ = asked(spool)
    there = moved(spool, made)
    assert there.token != made.token
    assert there == made._replace(
        state=State.MODERATE, token=there.token, told_at=NOW + 5, expires_at=NOW + 5 + WEEK
    )
    assert known(spool, there.token) == there
    assert known(spool, made.token) is None


def test_to_renew_replaces_what_is_asked_for_but_not_by_whom_and_what_for(
    spool: Store,
) -> None:
    made, _ = asked(spool)
    wanted = Wanted(
        "leave", "eve@example.org", "Ann", {"ack": "yes"}, Policy.OPEN, State.INVITED, "olga", ""
    )
    with spool.begin() as connection:
        renewed = pending.renew(connection, made, wanted, 60.0, NOW + 5)
    assert renewed.token != made.token
    assert renewed == made._replace(
        name="Ann",
        changes={"ack": "yes"},
        policy=Policy.OPEN,
        state=State.INVITED,
        asked_by="olga",
        source="",
        token=renewed.token,
        told_at=NOW + 5,
        expires_at=NOW + 65,
    )
    assert known(spool, renewed.token) == renewed


def test_to_tell_again_changes_nothing_but_when(spool: Store) -> None:
    made, _ = asked(spool)
    with spool.begin() as connection:
        again = pending.told(connection, made, NOW + 5)
    assert again == made._replace(told_at=NOW + 5)
    assert known(spool, made.token) == again


def test_what_has_ended_is_gone(spool: Store) -> None:
    made, _ = asked(spool)
    ended(spool, made)
    assert rows(spool) == 0
    assert known(spool, made.token) is None
    with spool.read() as connection, pytest.raises(ListError) as refused:
        find(connection, made.id)
    assert str(refused.value) == (
        f"there is no request {made.id:016x}: it was answered, it has expired, or it never was"
    )


@pytest.mark.parametrize("other", ["moved", "renewed", "ended"])
@pytest.mark.parametrize("mine", ["move", "renew", "told", "end"])
def test_what_somebody_else_was_faster_with_is_left_as_it_is(
    spool: Store, other: str, mine: str
) -> None:
    made, _ = asked(spool)
    with spool.begin() as connection:
        if other == "moved":
            pending.move(connection, made, State.MODERATE, WEEK, NOW)
        elif other == "renewed":
            pending.renew(connection, made, ANNE, WEEK, NOW)
        else:
            pending.end(connection, made)
    before = everything(spool)
    acts: dict[str, Callable[[Connection, Request], object]] = {
        "move": partial(pending.move, state=State.MODERATE, expire_after=WEEK, now=NOW),
        "renew": partial(pending.renew, wanted=ANNE, expire_after=WEEK, now=NOW),
        "told": partial(pending.told, now=NOW),
        "end": pending.end,
    }
    with pytest.raises(Gone) as gone, spool.begin() as connection:
        acts[mine](connection, made)
    assert str(gone.value) == (
        "somebody else has answered this request meanwhile, or it was asked anew"
    )
    assert everything(spool) == before


def everything(store: Store) -> list[tuple[Any, ...]]:
    """All there is."""
    with store.read() as connection:
        return [tuple(row) for row in connection.execute(select(schema.pending))]


# Several at once


def test_of_those_who_ask_at_once_one_makes_the_request(spool: Store) -> None:
    answers = at_once([partial(asked, spool)] * 4)
    assert sorted(is_new for _, is_new in answers) == [False, False, False, True]
    assert len({request.token for request, _ in answers}) == 1


@pytest.mark.parametrize("first_ends", ["moved", "ended", "expired and asked anew"])
def test_of_two_who_answer_at_once_one_does(spool: Store, first_ends: str) -> None:
    made, _ = asked(spool, after=60.0)

    def first(connection: Connection) -> None:
        if first_ends == "moved":
            pending.move(connection, made, State.MODERATE, WEEK, NOW)
        elif first_ends == "ended":
            pending.end(connection, made)
        else:
            ask(connection, make_id, made.list_key, ANNE, WEEK, NOW + 60)

    def second(connection: Connection) -> None:
        pending.end(connection, made)

    answer = overlap(spool, first, second)
    assert isinstance(answer.exception(), Gone)


def test_who_looks_up_a_token_that_is_being_used_finds_it_used(spool: Store) -> None:
    made, _ = asked(spool)

    def first(connection: Connection) -> None:
        found = by_token(connection, made.token, NOW)
        assert found is not None
        pending.end(connection, found)

    answer = overlap(spool, first, partial(by_token, token=made.token, now=NOW))
    assert answer.result() is None


def test_who_asks_again_finds_what_waits_as_it_is_when_others_have_ended(
    spool: Store,
) -> None:
    made, _ = asked(spool)
    there: list[Request] = []

    def first(connection: Connection) -> None:
        there.append(pending.move(connection, made, State.MODERATE, WEEK, NOW))

    def second(connection: Connection) -> tuple[Request, bool]:
        return ask(connection, make_id, made.list_key, ANNE, WEEK, NOW)

    assert overlap(spool, first, second).result() == (there[0], False)


def test_what_was_found_waiting_stays_until_the_one_who_asked_is_done(spool: Store) -> None:
    made, _ = asked(spool)

    def first(connection: Connection) -> None:
        found, is_new = ask(connection, make_id, made.list_key, ANNE, WEEK, NOW)
        assert not is_new
        pending.told(connection, found, NOW + 9)

    def second(connection: Connection) -> Request | None:
        return by_token(connection, made.token, NOW)

    assert overlap(spool, first, second).result() == made._replace(told_at=NOW + 9)


# Those who wait


def test_those_who_wait_are_shown_oldest_first_with_their_list(spool: Store) -> None:
    now = time.time()
    asked(spool, ANNE._replace(email="two@example.org"), now - 20)
    asked(spool, ANNE._replace(email="one@example.org"), now - 30, name="bee")
    asked(spool, ANNE._replace(email="gone@example.org"), now - 40, 30.0)
    asked(spool, ANNE._replace(email="three@example.org"), now - 10)
    ants, bees = "ant@example.com", "bee@example.com"
    everyone = [("one@example.org", bees), ("two@example.org", ants), ("three@example.org", ants)]
    assert waits(spool) == everyone
    assert waits(spool, limit=2) == everyone[:2]
    assert waits(spool, key_of(spool)) == everyone[1:]
    assert waits(spool, 4711) == []


def test_what_has_expired_is_removed_and_told_of_oldest_first(spool: Store) -> None:
    for number in range(5):
        asked(spool, ANNE._replace(email=f"{number}@example.org"), after=60.0 - number)
    asked(spool, ANNE._replace(email="stays@example.org"), after=61.0, name="bee")

    def expired(limit: int) -> list[tuple[str, str]]:
        with spool.begin() as connection:
            found = pending.expire(connection, NOW + 60, limit)
        return [(each.email, list_id) for each, list_id in found]

    ants = "ant.example.com"
    assert expired(3) == [(f"{number}@example.org", ants) for number in (4, 3, 2)]
    assert expired(3) == [("1@example.org", ants), ("0@example.org", ants)]
    assert expired(3) == []
    assert rows(spool) == 1


def test_what_somebody_answers_at_its_last_moment_does_not_expire(spool: Store) -> None:
    made, _ = asked(spool, after=60.0)

    def first(connection: Connection) -> None:
        found = by_token(connection, made.token, NOW + 59)
        assert found is not None
        pending.move(connection, found, State.MODERATE, WEEK, NOW + 59)

    answer = overlap(spool, first, partial(pending.expire, now=NOW + 60, limit=10))
    assert answer.result() == []
    assert rows(spool) == 1


def test_requests_end_with_their_list(spool: Store) -> None:
    asked(spool)
    other, _ = asked(spool, name="bee")
    with spool.begin() as connection:
        delete_list(connection, find_list(connection, "ant@example.com").key)
    assert rows(spool) == 1
    assert known(spool, other.token) == other


# What cannot be read


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("policy", "anything-goes"),
        ("state", "nowhere"),
        ("action", "dance"),
        ("changes", "{"),
        ("changes", '{"mode": 1}'),
        ("changes", "[" * 5000),
    ],
)
def test_a_request_that_cannot_be_read_is_named_hides_no_other_and_expires(
    spool: Store, column: str, value: str
) -> None:
    now = time.time()
    made, _ = asked(spool, now=now)
    asked(spool, ANNE._replace(email="bart@example.org"), now=now)
    damage(spool, made, **{column: value})
    with pytest.raises(ListError, match=f"^the request {made.id:016x} cannot be read: "):
        known(spool, made.token, now)
    with spool.read() as connection, pytest.raises(ListError, match="cannot be read"):
        find(connection, made.id)
    assert waits(spool) == [("bart@example.org", "ant@example.com")]
    with spool.begin() as connection:
        gone = pending.expire(connection, now + WEEK, 10)
    assert [each.email for each, _ in gone] == ["bart@example.org"]
    assert rows(spool) == 0


def test_what_cannot_be_read_makes_room_for_who_asks_again(spool: Store) -> None:
    made, _ = asked(spool)
    damage(spool, made, state="nowhere")
    again, fresh = asked(spool)
    assert fresh
    assert again.state is made.state
    assert again.token != made.token


@pytest.mark.parametrize("used", ["taken", "left"])
def test_upkeep_waits_for_nobody(spool: Store, used: str) -> None:
    """What a command has in hand is left; what nobody has is not."""
    asked(spool, ANNE._replace(email="bart@example.org"), after=60.0)
    made, _ = asked(spool, after=60.0)
    if spool.is_sqlite:
        return  # there is one writer

    with spool.begin() as busy:
        if used == "taken":
            by_token(busy, made.token, NOW)
        with spool.begin() as connection:
            connection.execute(text("SET LOCAL lock_timeout = '10s'"))
            gone = [each.email for each, _ in pending.expire(connection, NOW + 60, 10)]
    assert gone == ["bart@example.org"] + ["Anne@example.org"] * (used == "left")
