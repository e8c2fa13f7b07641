"""Courtesy: who is answered, how often somebody is told, which lists are due a summary."""

import time
from functools import partial

import msgspec
import pytest
from sqlalchemy import Connection, event, update

from postroom.lists import pending
from postroom.lists.audit import Change, write
from postroom.lists.pending import Request, Wanted
from postroom.lists.registry import create_list, find_list
from postroom.lists.settings import Bounces, ListSettings, Notices
from postroom.lists.subscription import Policy, State
from postroom.notices.courtesy import (
    DAY,
    KEPT,
    LOST_WITHIN,
    OWNERS,
    SETTLED,
    TELL_BOUNCES,
    TELL_HELD,
    TELL_REJECTED,
    TELL_REQUEST,
    Due,
    Lost,
    due_bounces,
    due_summaries,
    endpoints_among,
    forget,
    may_tell,
    unanswerable,
)
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.store.engine import Store
from postroom.store.schema import entry, mailing_list
from tests.contract.threads import overlap

NOW = 1_800_000_000.0
HOUR = 3600.0
ANNE = "anne@example.org"


@pytest.fixture
def ants(store: Store) -> int:
    """The key of a list."""
    with store.begin() as connection:
        return create_list(connection, "ants@example.com").key


@pytest.mark.parametrize(
    "sender",
    [ANNE, "no@example.org", "norma@example.org", "owner@example.org", "a-b@example.org"],
)
def test_a_person_is_answered(sender: str) -> None:
    assert unanswerable(sender, automatic=False, ours=False) == ""


@pytest.mark.parametrize(
    "sender",
    [
        "",
        "MAILER-DAEMON@example.org",
        "postmaster@example.org",
        "owner-bees@example.org",
        "bees-owner@example.org",
        "Bees-Request@example.org",
        "bees-bounces@example.org",
        "bees-bounces+anne=example.com@example.org",
        "bounce-123@example.org",
        "noreply@example.org",
        "no-reply@example.org",
        "do_not_reply@example.org",
        "DoNotReply+7@example.org",
        "shop-noreply@example.org",
        "listserv@example.org",
        "anne",
        "anne@",
        "an ne@example.org",
        "anne@example.org\r\nBcc: x",
    ],
)
def test_what_is_no_person_is_not_answered_and_it_says_why(sender: str) -> None:
    assert unanswerable(sender, automatic=False, ours=False)


def test_neither_programs_nor_our_own_endpoints_are_answered() -> None:
    assert "program" in unanswerable(ANNE, automatic=True, ours=False)
    assert "this site" in unanswerable(ANNE, automatic=False, ours=True)


def test_our_endpoints_are_told_from_others(store: Store, ants: int) -> None:
    asked = ["Ants@Example.com", "ants-owner@example.com", ANNE, "postmaster@example.com", "x", ""]
    with store.read() as connection:
        found = endpoints_among(connection, asked)
        assert endpoints_among(connection, []) == {}
    assert {each: end.list_key for each, end in found.items()} == {
        "Ants@Example.com": ants,
        "ants-owner@example.com": ants,
        "postmaster@example.com": None,
    }


def ask(store: Store, ants: int, email: str, now: float, kind: str = TELL_HELD) -> bool:
    with store.begin() as connection:
        return may_tell(connection, ants, kind, email, HOUR, now)


def test_somebody_is_told_once_in_an_interval(store: Store, ants: int) -> None:
    told = [ask(store, ants, ANNE, NOW + minute * 60) for minute in (0, 1, 59, 60, 61, 120)]
    assert told == [True, False, False, True, False, True]


def test_a_refusal_does_not_begin_the_interval_anew(store: Store, ants: int) -> None:
    assert ask(store, ants, ANNE, NOW)
    assert not any(ask(store, ants, ANNE, NOW + minute * 60) for minute in range(1, 60))
    assert ask(store, ants, ANNE, NOW + HOUR)


def test_each_list_kind_and_address_counts_for_itself(store: Store, ants: int) -> None:
    with store.begin() as connection:
        bees = create_list(connection, "bees@example.com").key
    assert ask(store, ants, ANNE, NOW)
    assert not ask(store, ants, "ANNE@Example.ORG", NOW)
    assert ask(store, bees, ANNE, NOW)
    assert ask(store, ants, ANNE, NOW, TELL_REJECTED)
    assert ask(store, ants, OWNERS, NOW)


def test_a_clock_that_was_set_back_silences_nobody(store: Store, ants: int) -> None:
    assert ask(store, ants, ANNE, NOW + 1000 * HOUR)
    assert [ask(store, ants, ANNE, NOW), ask(store, ants, ANNE, NOW)] == [True, False]


def test_without_an_interval_somebody_is_told_each_time(store: Store, ants: int) -> None:
    with store.begin() as connection:
        told = [may_tell(connection, ants, TELL_HELD, ANNE, 0.0, NOW) for _ in range(3)]
    assert told == [True] * 3


@pytest.mark.parametrize("before", [False, True])
def test_of_two_who_ask_at_once_one_may_tell(store: Store, ants: int, before: bool) -> None:
    if before:
        assert ask(store, ants, ANNE, NOW - 2 * HOUR)
    asks = partial(may_tell, list_key=ants, kind=TELL_HELD, email=ANNE, every=HOUR, now=NOW)
    first: list[bool] = []

    def ask_first(connection: Connection) -> None:
        first.append(asks(connection))

    second = overlap(store, ask_first, lambda connection: asks(connection))
    assert [*first, second.result()] == [True, False]


def test_what_is_rolled_back_was_not_told(store: Store, ants: int) -> None:
    with store.engine.connect() as connection:
        assert may_tell(connection, ants, TELL_HELD, ANNE, HOUR, NOW)
        connection.rollback()
    assert ask(store, ants, ANNE, NOW)


def test_old_notices_are_forgotten(store: Store, ants: int) -> None:
    ask(store, ants, ANNE, NOW)
    ask(store, ants, "bart@example.org", NOW + 1)
    with store.begin() as connection:
        assert forget(connection, NOW + 1 + KEPT) == 1
        assert forget(connection, NOW + 1 + KEPT) == 0


# Summaries


def hold(store: Store, ants: int, at: float) -> int:
    """An entry that was held at that time."""
    with store.begin() as connection:
        letter = Letter(b"x", ANNE)
        [number] = hand_on(connection, IdMaker(), [Handed("held", ants, {}, letter)])
        connection.execute(update(entry).where(entry.c.id == number).values(available_at=at))
    return number


def due(store: Store, now: float) -> list[Due]:
    statements: list[str] = []

    def count(connection: object, cursor: object, statement: str, *rest: object) -> None:
        statements.append(statement)

    event.listen(store.engine, "before_cursor_execute", count)
    try:
        with store.read() as connection:
            found = list(due_summaries(connection, now))
    finally:
        event.remove(store.engine, "before_cursor_execute", count)
    assert sum("FROM entry" in each for each in statements) == 1
    assert sum("FROM pending" in each for each in statements) == 1
    assert sum(each.lstrip().startswith("SELECT") for each in statements) == 2
    return found


def change(store: Store, ants: int, text: str) -> None:
    with store.begin() as connection:
        this = update(mailing_list).where(mailing_list.c.id == ants)
        connection.execute(this.values(settings=text))


def test_a_list_is_due_when_posts_came_since_and_the_interval_has_passed(
    store: Store, ants: int
) -> None:
    hold(store, ants, NOW)
    assert ask(store, ants, OWNERS, NOW)
    assert due(store, NOW + 5 * HOUR) == []  # its owners know of that one
    hold(store, ants, NOW + 10)
    hold(store, ants, NOW + 20)
    assert due(store, NOW + 3.9 * HOUR) == []
    [found] = due(store, NOW + 4 * HOUR)
    with store.read() as connection:
        ants_list = find_list(connection, "ants@example.com")
    assert found == Due(ants_list, Notices(), TELL_HELD, 3, NOW)
    assert found.every == 4 * HOUR


def test_a_list_whose_owners_were_never_told_is_due(store: Store, ants: int) -> None:
    hold(store, ants, NOW)
    assert [each.waiting for each in due(store, NOW)] == [1]


def test_a_list_without_held_posts_is_not_due(store: Store, ants: int) -> None:
    with store.begin() as connection:
        letter = Letter(b"x", ANNE)
        hand_on(connection, IdMaker(), [Handed("in", ants, {}, letter)])
    assert due(store, NOW + 1e9) == []


def test_notices_to_others_do_not_count_for_the_owners(store: Store, ants: int) -> None:
    hold(store, ants, NOW)
    ask(store, ants, ANNE, NOW)
    ask(store, ants, OWNERS, NOW, TELL_REJECTED)
    assert [each.waiting for each in due(store, NOW + 1)] == [1]


@pytest.mark.parametrize(
    ("notices", "after", "expected"),
    [
        (Notices(owners=False), 1000.0, 0),
        (Notices(owners_every=1.0), 0.9, 0),
        (Notices(owners_every=1.0), 1.0, 1),
        (Notices(owners_every=0.0), 0.0, 1),
    ],
)
def test_the_lists_settings_decide(
    store: Store, ants: int, notices: Notices, after: float, expected: int
) -> None:
    change(store, ants, msgspec.json.encode(ListSettings(notices=notices)).decode())
    ask(store, ants, OWNERS, NOW - 1)
    hold(store, ants, NOW)
    assert len(due(store, NOW - 1 + after * HOUR)) == expected


@pytest.mark.parametrize("text", ["", "{", "[]", '{"notices": {"owners": 7}}', '{"new": {}}'])
def test_settings_that_cannot_be_read_are_as_by_default(store: Store, ants: int, text: str) -> None:
    change(store, ants, text)
    hold(store, ants, NOW)
    [found] = due(store, NOW)
    assert found.every == 4 * HOUR


# Requests that wait for the owners


WEEK = 7 * 24 * HOUR


def moderated(
    store: Store, ants: int, at: float, email: str = ANNE, state: State = State.MODERATE
) -> Request:
    """A request that came into this state at that time."""
    policy = Policy.CONFIRM_THEN_MODERATE
    wanted = Wanted("join", email, "", {}, policy, state, email, "")
    with store.begin() as connection:
        return pending.ask(connection, IdMaker(), ants, wanted, WEEK, at)[0]


def due_requests(store: Store, now: float) -> list[Due]:
    return [each for each in due(store, now) if each.kind == TELL_REQUEST]


def test_a_list_is_due_when_requests_came_since_and_the_interval_has_passed(
    store: Store, ants: int
) -> None:
    moderated(store, ants, NOW)
    assert ask(store, ants, OWNERS, NOW, TELL_REQUEST)
    assert due(store, NOW + 5 * HOUR) == []  # its owners know of that one
    moderated(store, ants, NOW + 10, "bart@example.org")
    moderated(store, ants, NOW + 20, "cris@example.org")
    assert due(store, NOW + 3.9 * HOUR) == []
    [found] = due(store, NOW + 4 * HOUR)
    assert (found.kind, found.waiting, found.since) == (TELL_REQUEST, 3, NOW)
    assert found.list.key == ants


def test_a_request_counts_from_when_it_came_before_the_owners(store: Store, ants: int) -> None:
    request = moderated(store, ants, NOW, state=State.CONFIRM)
    assert ask(store, ants, OWNERS, NOW + 10, TELL_REQUEST)  # of another one
    assert due(store, NOW + 5 * HOUR) == []
    with store.begin() as connection:
        pending.move(connection, request, State.MODERATE, WEEK, NOW + 20)
    assert [each.waiting for each in due_requests(store, NOW + 5 * HOUR)] == [1]


@pytest.mark.parametrize("state", [State.CONFIRM, State.INVITED])
def test_requests_that_do_not_wait_for_the_owners_are_not_due(
    store: Store, ants: int, state: State
) -> None:
    moderated(store, ants, NOW, state=state)
    assert due(store, NOW + HOUR) == []


def test_a_request_that_has_expired_is_not_due(store: Store, ants: int) -> None:
    moderated(store, ants, NOW)
    assert due(store, NOW + WEEK) == []
    assert len(due(store, NOW + WEEK - 1)) == 1


def test_posts_and_requests_are_told_of_each_on_their_own(store: Store, ants: int) -> None:
    hold(store, ants, NOW)
    moderated(store, ants, NOW)
    assert [each.kind for each in due(store, NOW)] == [TELL_HELD, TELL_REQUEST]
    assert ask(store, ants, OWNERS, NOW)
    assert [each.kind for each in due(store, NOW)] == [TELL_REQUEST]


def test_owners_who_want_no_notices_get_none_of_requests(store: Store, ants: int) -> None:
    settings = ListSettings(notices=Notices(owners=False))
    change(store, ants, msgspec.json.encode(settings).decode())
    moderated(store, ants, NOW)
    assert due(store, NOW) == []


# Members who lost their posts because of bounces


def id_at(at: float) -> int:
    """An id that was made at that time (see `spool.ids`)."""
    return (int(at * 1000) - 1_577_836_800_000) << 22


def test_ids_are_made_as_these_tests_take_them_to_be() -> None:
    before = time.time() - 0.002
    assert id_at(before) < IdMaker()() < id_at(time.time() + 10)


def lose(
    store: Store,
    at: float,
    what: str = "stopped",
    by: str = "postroom",
    of: str = "ants.example.com",
) -> int:
    """A member lost their posts at that time; returns the id of the entry."""
    with store.begin() as connection:
        change = Change(of, what, ANNE, by, {"reason": "Full."})
        write(connection, lambda: id_at(at), [change], at)
    return id_at(at)


def lost(store: Store, now: float) -> list[tuple[int, int]]:
    """How many the owners are to be told of, and the first of them, for each list."""
    statements: list[str] = []
    with store.read() as connection:
        event.listen(connection, "before_cursor_execute", lambda *each: statements.append(each[2]))
        found = list(due_bounces(connection, now))
    assert sum(each.startswith("SELECT") for each in statements) == 1
    return [(each.number, each.first) for each in found]


SOON = NOW + SETTLED


def test_owners_are_told_once_a_day_of_what_happened_since(store: Store, ants: int) -> None:
    first = lose(store, NOW)
    with store.read() as connection:
        [found] = due_bounces(connection, SOON)
        this = find_list(connection, "ants@example.com")
    assert found == Lost(this, Notices(), 1, first)
    assert ask(store, ants, OWNERS, SOON, TELL_BOUNCES)
    assert lost(store, SOON + 2 * DAY) == []
    second = lose(store, NOW + 1)
    lose(store, NOW + 2)
    assert lost(store, SOON + DAY - 1) == []
    assert lost(store, SOON + DAY) == [(2, second)]


def test_what_is_not_settled_waits_and_is_not_missed(store: Store, ants: int) -> None:
    """Who did it may commit a while later than the time that stands there."""
    lose(store, NOW - SETTLED)
    assert lost(store, NOW) == [(1, id_at(NOW - SETTLED))]
    assert ask(store, ants, OWNERS, NOW, TELL_BOUNCES)
    late = lose(store, NOW - SETTLED + 0.5)
    lose(store, NOW + DAY - SETTLED + 0.5)
    assert lost(store, NOW + DAY) == [(1, late)]


@pytest.mark.parametrize(
    ("what", "by", "expected"),
    [
        ("stopped", "postroom", 1),
        ("removed", "postroom", 1),
        ("complained", "postroom", 1),
        ("removed", "root", 0),
        ("expired", "postroom", 0),
    ],
)
def test_only_what_bounces_do_is_told(
    store: Store, ants: int, what: str, by: str, expected: int
) -> None:
    lose(store, NOW, what, by)
    assert len(lost(store, SOON)) == expected


def test_each_list_is_told_of_its_own_and_one_that_is_gone_of_nothing(
    store: Store, ants: int
) -> None:
    with store.begin() as connection:
        create_list(connection, "bees@example.com")
    lose(store, NOW)
    lose(store, NOW + 1, of="bees.example.com")
    lose(store, NOW + 2, of="bees.example.com")
    lose(store, NOW + 3, of="gone.example.com")
    ask(store, ants, OWNERS, SOON, TELL_HELD)
    assert lost(store, SOON + 3) == [(1, id_at(NOW)), (2, id_at(NOW + 1))]
    ask(store, ants, OWNERS, SOON + 3, TELL_BOUNCES)
    assert lost(store, SOON + 3) == [(2, id_at(NOW + 1))]


def test_what_is_long_ago_is_not_told_any_more(store: Store, ants: int) -> None:
    assert LOST_WITHIN < KEPT  # who was told of it is known for longer
    lose(store, NOW)
    assert len(lost(store, NOW + LOST_WITHIN)) == 1
    assert lost(store, NOW + LOST_WITHIN + 1) == []
    assert lost(store, 0.0) == []


def test_a_clock_that_was_set_back_does_not_silence_the_summary(store: Store, ants: int) -> None:
    lose(store, NOW)
    assert ask(store, ants, OWNERS, NOW + 1000 * HOUR, TELL_BOUNCES)
    assert len(lost(store, SOON)) == 1


def test_owners_who_do_not_want_to_know_are_not_told_of_bounces(store: Store, ants: int) -> None:
    settings = ListSettings(bounces=Bounces(owners=False))
    change(store, ants, msgspec.json.encode(settings).decode())
    lose(store, NOW)
    assert lost(store, SOON) == []
    change(store, ants, "{never JSON")
    assert len(lost(store, SOON)) == 1
