"""The ledger: who gets a post, and what became of each, on both databases."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import Connection, event, update

from postroom.delivery.care import abandon, hasten, purge
from postroom.delivery.ledger import (
    EXPIRED,
    Record,
    Told,
    bounce,
    counts,
    done,
    due,
    expire,
    gone,
    known,
    leave_out,
    next_due,
    record,
)
from postroom.lists.roster import change_member, remove_members
from postroom.spool.handing import hand_on
from postroom.spool.metadata import BOUNCES
from postroom.spool.orders import Order
from postroom.spool.queue import Claim, finish
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.desk import make_lists, rows
from tests.contract.posts import (
    ANT,
    HEADER,
    SENDER,
    Line,
    all_of,
    expanded,
    join,
    key_of,
    ledger_of,
    make_id,
    post,
    states,
    those_due,
)
from tests.contract.queues import do

FIVE = [f"p{n}@example.net" for n in range(1, 6)]
OK = "250 2.0.0 Taken"


def a_record(
    server: str, at: float, reply: str, reached: Sequence[int], told: Sequence[Told] = ()
) -> Record:
    return Record(make_id(), server, at, reply, reached, told)


def write(store: Store, held: Claim, *records: Record) -> None:
    with store.begin() as connection:
        record(connection, held.id, records)


def under_way(store: Store, *emails: str) -> Claim:
    """A post to these members, expanded."""
    join(store, *emails)
    held = post(store)
    expanded(store, held)
    return held


def number_of(store: Store, held: Claim, email: str) -> int:
    return next(each.n for each in ledger_of(store, held) if each.email == email)


def told(store: Store, held: Claim, email: str, reply: str, again_at: float | None) -> Told:
    return Told(number_of(store, held, email), email, None, reply, again_at)


# Who gets it


def test_members_who_want_mail_get_a_post_in_the_order_of_domains(spool: Store) -> None:
    join(spool, "zoe@b.example", "ann@c.example", "bo@a.example", "cy@b.example")
    join(spool, "off@a.example", delivery="user")
    join(spool, "bounced@a.example", delivery="bounces")
    join(spool, "barred@a.example", delivery="admin")
    join(spool, "bee@a.example", name="bee")
    held = post(spool)
    before = time.time()
    made = expanded(spool, held)
    assert (made.recipients, made.new) == (4, True)
    assert abs(made.created_at - before) < 60
    lines = ledger_of(spool, held)
    assert [each.n for each in lines] == [1, 2, 3, 4]
    assert [each.email.partition("@")[2] for each in lines] == [
        "a.example",
        "b.example",
        "b.example",
        "c.example",
    ]
    assert {each[2:] for each in lines} == {("pending", 0, 0.0, None)}
    [row] = all_of(spool, schema.post)
    assert row == {
        "id": held.id,
        "list": key_of(spool),
        "message_id": "<ant@example.org>",
        "created_at": made.created_at,
        "recipients": 4,
        "done_at": None,
    }


@pytest.mark.parametrize("role", ["owner", "moderator", "nonmember"])
def test_others_who_are_known_to_a_list_get_no_post(spool: Store, role: str) -> None:
    join(spool, "ann@example.org")
    with spool.begin() as connection:
        connection.execute(update(schema.member).values(role=role))
    held = post(spool)
    assert expanded(spool, held).recipients == 0
    assert ledger_of(spool, held) == []


def test_who_does_not_want_their_own_posts_or_duplicates_gets_none(spool: Store) -> None:
    join(spool, "Own@example.net", "named@example.net", own_posts=0, duplicates=0)
    join(spool, "author@example.net", "to@example.net", "other@example.net")
    order = Order(
        "post",
        SENDER,
        authors=("own@example.net", "author@example.net"),
        named=("named@example.net", "to@example.net"),
    )
    held = post(spool, order)
    assert expanded(spool, held, order).recipients == 3
    assert set(states(spool, held)) == {
        "author@example.net",
        "to@example.net",
        "other@example.net",
    }


def test_own_posts_are_no_duplicates_and_duplicates_no_own_posts(spool: Store) -> None:
    join(spool, "ann@example.net", own_posts=0)
    join(spool, "bo@example.net", duplicates=0)
    order = Order("post", SENDER, authors=("bo@example.net",), named=("ann@example.net",))
    held = post(spool, order)
    expanded(spool, held, order)
    assert set(states(spool, held)) == {"ann@example.net", "bo@example.net"}


@pytest.mark.parametrize("kind", ["owner", "notice"])
def test_what_names_its_recipients_goes_to_them_once_and_to_no_member(
    spool: Store, kind: Any
) -> None:
    join(spool, *FIVE)
    order = Order(kind, "", recipients=("z@b.example", "a@C.example", "b@a.example", "z@b.example"))
    held = post(spool, order)
    assert expanded(spool, held, order).recipients == 3
    assert [(each.n, each.email) for each in ledger_of(spool, held)] == [
        (1, "b@a.example"),
        (2, "z@b.example"),
        (3, "a@C.example"),
    ]
    assert {row.member for row in those_due(spool, held)} == {None}


def test_an_order_to_nobody_is_expanded_too(spool: Store) -> None:
    order = Order("notice", "")
    held = post(spool, order)
    made = [expanded(spool, held, order), expanded(spool, held, order)]
    assert [(each.recipients, each.new) for each in made] == [(0, True), (0, False)]


def test_a_second_expansion_does_nothing(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    write(spool, held, a_record("mx:25", 1.0, OK, [2]))
    before = ledger_of(spool, held)
    join(spool, "late@example.net")
    again = expanded(spool, held)
    assert (again.recipients, again.new) == (5, False)
    assert ledger_of(spool, held) == before


def test_d20_recipients_are_expanded_in_as_many_statements_whatever_their_number(
    spool: Store,
) -> None:
    made: list[int] = []
    statements = 0

    @event.listens_for(spool.engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        nonlocal statements
        statements += 1

    for many in (10, 1000):
        join(spool, *(f"p{n}@example.net" for n in range(many)))
        held = post(spool)
        statements = 0
        assert expanded(spool, held).recipients == many
        made.append(statements)
    assert made[0] == made[1] < 8


# Whose turn it is


def test_who_is_due_is_read_in_order_a_window_at_a_time(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    rows = those_due(spool, held)
    assert [row.n for row in rows] == [1, 2, 3, 4, 5]
    assert sorted(row.email for row in rows) == FIVE
    assert all(row.there and row.attempts == 0 and row.member for row in rows)
    assert those_due(spool, held, after=1, limit=2) == rows[1:3]
    assert those_due(spool, held, after=5) == []


def test_only_those_who_are_pending_and_due_have_their_turn(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    one, two, three, four, five = (each.email for each in ledger_of(spool, held))
    soon = time.time() + 1000
    write(
        spool,
        held,
        a_record(
            "mx:25",
            1.0,
            OK,
            [1],
            [
                told(spool, held, two, "451 Later", soon),
                told(spool, held, three, "550 No", None),
                told(spool, held, four, "451 Later", 1.0),
            ],
        ),
    )
    assert [(row.email, row.attempts) for row in those_due(spool, held)] == [(four, 1), (five, 0)]
    assert one not in {row.email for row in those_due(spool, held)}


def test_domains_can_be_passed_over(spool: Store) -> None:
    join(spool, "a@one.example", "b@ONE.example", "c@two.example", "d@sub.one.example")
    join(spool, "e@xone.example")
    held = post(spool)
    expanded(spool, held)
    left = {row.email for row in those_due(spool, held, without=["one.example"])}
    assert left == {"c@two.example", "d@sub.one.example", "e@xone.example"}
    left = {row.email for row in those_due(spool, held, without=["on_.example", "two.example"])}
    assert len(left) == 4
    assert "c@two.example" not in left


def test_a_domain_is_passed_over_in_unicode_and_in_a_labels(spool: Store) -> None:
    join(spool, "a@b\u00fccher.example", "b@xn--bcher-kva.example", "c@two.example")
    held = post(spool)
    expanded(spool, held)
    left = {row.email for row in those_due(spool, held, without=["b\u00fccher.example"])}
    assert left == {"c@two.example"}


@pytest.mark.parametrize("how", ["left", "off", "another role"])
def test_who_does_not_want_it_any_more_is_not_there(spool: Store, how: str) -> None:
    held = under_way(spool, *FIVE)
    with spool.begin() as connection:
        key = key_of(spool)
        if how == "left":
            remove_members(connection, key, ["p3@example.net"])
        elif how == "off":
            change_member(connection, key, "p3@example.net", delivery="user")
        else:
            number = number_of(spool, held, "p3@example.net")
            who = those_due(spool, held)[number - 1].member
            which = update(schema.member).where(schema.member.c.id == who)
            connection.execute(which.values(role="nonmember"))
    there = {row.email: row.there for row in those_due(spool, held)}
    assert [each for each in FIVE if not there[each]] == ["p3@example.net"]


def test_who_left_between_two_recipients_is_found(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    emails = [each.email for each in ledger_of(spool, held)]
    write(spool, held, a_record("mx:25", 1.0, OK, [2]))
    with spool.begin() as connection:
        remove_members(connection, key_of(spool), emails[:4])
        found = [gone(connection, held, *span) for span in ((1, 5), (3, 5), (5, 5))]
    assert found == [[1, 3, 4], [3, 4], []]


def test_who_joins_after_another_left_does_not_get_the_others_mail(spool: Store) -> None:
    """SQLite gives the row id of the last member again."""
    held = under_way(spool, *FIVE)
    last = ledger_of(spool, held)[-1].email
    with spool.begin() as connection:
        remove_members(connection, key_of(spool), FIVE)
    join(spool, "new@example.net", "late@example.net")
    assert {row.there for row in those_due(spool, held)} == {False}
    join(spool, last, name="bee")
    assert {row.there for row in those_due(spool, held)} == {False}


def test_what_was_written_down_is_known(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    one, two = (a_record("mx:25", 1.0, OK, [n]) for n in (1, 2))
    write(spool, held, one)
    with spool.read() as connection:
        assert known(connection, [one.id, two.id]) == {one.id}
        assert known(connection, []) == set()


def test_who_left_is_left_out_and_who_was_reached_before_is_not_touched(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    write(spool, held, a_record("mx:25", 1.0, OK, [2]))
    do(spool, leave_out, held, [2, 3, 5])
    do(spool, leave_out, held, [])
    found = [each.state for each in ledger_of(spool, held)]
    assert found == ["pending", "sent", "gone", "pending", "gone"]
    with spool.read() as connection:
        assert counts(connection, held.id) == {"pending": 2, "sent": 1, "gone": 2}


# What became of it


def test_a_transaction_is_written_down_with_all_it_reached(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    other = post(spool)
    expanded(spool, other)
    write(spool, held, a_record("mx:25", 7.0, OK, [1, 2, 3]))
    lines = ledger_of(spool, held)
    assert [each[2:] for each in lines[:3]] == [("sent", 1, None, None)] * 3
    assert [each.state for each in lines[3:]] == ["pending"] * 2
    assert set(states(spool, other).values()) == {"pending"}
    [row] = all_of(spool, schema.transmission)
    assert (row["post"], row["at"], row["server"]) == (held.id, 7.0, "mx:25")
    assert (row["recipients"], row["reply"]) == (3, OK)
    mine = [each for each in all_of(spool, schema.delivery) if each["transmission"] == row["id"]]
    assert sorted((each["post"], each["n"]) for each in mine) == [(held.id, n) for n in (1, 2, 3)]


@pytest.mark.parametrize("reached", [[1, 3, 4], [2], [1, 5], [1, 2, 3, 4, 5], []])
def test_whoever_was_reached_is_written_down_and_nobody_else(
    spool: Store, reached: list[int]
) -> None:
    held = under_way(spool, *FIVE)
    write(spool, held, a_record("mx:25", 1.0, OK, reached))
    sent = [each.n for each in ledger_of(spool, held) if each.state == "sent"]
    assert sent == reached
    with spool.read() as connection:
        found = counts(connection, held.id)
    assert found.get("sent", 0) == len(reached)


def test_many_who_are_not_next_to_each_other_are_one_statement(spool: Store) -> None:
    held = under_way(spool, *(f"p{n}@example.net" for n in range(1200)))
    statements: list[str] = []
    event.listen(spool.engine, "before_cursor_execute", lambda *given: statements.append(given[2]))
    write(spool, held, a_record("mx:25", 1.0, OK, list(range(1, 1201, 2))))
    assert sum(each.startswith("UPDATE") for each in statements) == 1
    with spool.read() as connection:
        assert counts(connection, held.id) == {"pending": 600, "sent": 600}


def test_several_transactions_are_written_down_together(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    late = told(spool, held, ledger_of(spool, held)[4].email, "451 Later", 9.0)
    write(
        spool,
        held,
        a_record("one:25", 1.0, OK, [1, 2]),
        a_record("two:25", 2.0, OK, [3]),
        a_record("two:25", 3.0, OK, [4], [late]),
    )
    assert [each.state for each in ledger_of(spool, held)] == ["sent"] * 4 + ["pending"]
    servers = {row["id"]: row["server"] for row in all_of(spool, schema.transmission)}
    by = {row["n"]: servers[row["transmission"]] for row in all_of(spool, schema.delivery)}
    assert by == {1: "one:25", 2: "one:25", 3: "two:25", 4: "two:25", 5: "two:25"}


def test_what_each_was_told_is_kept(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    one, two, *_ = (each.email for each in ledger_of(spool, held))
    first = [
        told(spool, held, one, "451 Greylisted", 500.0),
        told(spool, held, two, "550 No such user", None),
    ]
    write(spool, held, a_record("mx:25", 1.0, OK, [4], first))
    lines = ledger_of(spool, held)
    assert lines[0] == Line(1, one, "pending", 1, 500.0, "451 Greylisted")
    assert lines[1] == Line(2, two, "refused", 1, None, "550 No such user")
    write(spool, held, a_record("mx:25", 2.0, OK, [1]))
    assert ledger_of(spool, held)[0] == Line(1, one, "sent", 2, None, None)


def test_who_was_reached_is_never_pending_or_refused_again(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    write(spool, held, a_record("mx:25", 1.0, OK, [1, 2, 3, 4, 5]))
    before = ledger_of(spool, held)
    late = [told(spool, held, each, "451 Later", 1.0) for each in FIVE[:2]]
    gone = [told(spool, held, each, "550 No", None) for each in FIVE[2:4]]
    write(spool, held, a_record("mx:25", 2.0, OK, [5], [*late, *gone]))
    do(spool, leave_out, held, [1, 2, 3])
    assert ledger_of(spool, held) == before
    with spool.begin() as connection:
        assert expire(connection, make_id, held, 100) == []


def test_what_is_written_down_vanishes_with_its_transaction(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    before = ledger_of(spool, held)
    with pytest.raises(ZeroDivisionError), spool.begin() as connection:
        late = told(spool, held, FIVE[0], "550 No", None)
        record(connection, held.id, [a_record("mx:25", 1.0, OK, [1, 3], [late])])
        hand_on(connection, make_id, [bounce(held, Order("post", SENDER), [late])])
        raise ZeroDivisionError
    assert ledger_of(spool, held) == before
    assert all_of(spool, schema.transmission) == []
    assert [each.queue for each in rows(spool)] == ["out"]


# The end of it


def test_who_is_still_pending_is_given_up_some_at_a_time(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    one, two, *_ = (each.email for each in ledger_of(spool, held))
    late = told(spool, held, two, "451 Greylisted", time.time() + 1000)
    write(spool, held, a_record("mx:25", 1.0, OK, [1], [late]))
    given_up: list[Told] = []
    for many in (3, 1, 0):
        with spool.begin() as connection:
            given_up += (found := expire(connection, make_id, held, 3))
        assert len(found) == many
    replies = {each.email: each.reply for each in given_up}
    assert one not in replies
    assert replies.pop(two) == f"{EXPIRED}; last: 451 Greylisted"
    assert set(replies.values()) == {f"{EXPIRED}; last: no answer"}
    assert all(each.member and each.again_at is None for each in given_up)
    assert states(spool, held) == {one: "sent"} | {each.email: "refused" for each in given_up}


def test_it_is_known_when_the_next_one_is_due(spool: Store) -> None:
    held = under_way(spool, *FIVE[:3])
    emails = [each.email for each in ledger_of(spool, held)]
    at: list[float | None] = []

    def look() -> None:
        with spool.read() as connection:
            at.append(next_due(connection, held.id))

    look()
    soon = time.time() + 600
    waits = [soon + 100, soon]
    later = [
        told(spool, held, each, "451", wait) for each, wait in zip(emails, waits, strict=False)
    ]
    write(spool, held, a_record("mx:25", 1.0, OK, [3], later))
    look()
    with spool.begin() as connection:  # a clock was wrong by a month
        first = update(schema.delivery).where(schema.delivery.c.n == 1)
        connection.execute(first.values(next_at=soon + 30 * 86_400))
    look()
    write(spool, held, a_record("mx:25", 1.0, OK, [1, 2]))
    look()
    assert at == [0.0, soon, 0.0, None]


def test_a_bounce_tells_of_all_who_were_refused_and_shows_the_header(
    spool: Store,
) -> None:
    held = under_way(spool, *FIVE)
    refused = [
        Told(1, "p1@example.net", 41, "550 5.1.1 No such user", None, "recipient"),
        Told(2, "p2@example.net", 42, "554 5.6.0 No", None, "message"),
    ]
    with spool.begin() as connection:
        handed = bounce(held, Order("post", SENDER, "<ant@example.org>"), refused)
        hand_on(connection, make_id, [handed])
        finish(connection, [held])
    [row] = rows(spool)
    assert row.queue == BOUNCES
    assert row.raw.rstrip() == HEADER.rstrip()
    assert row.metadata == {
        "event": "refused",
        "listname": ANT,
        "version": 1,
        "message_id": "<ant@example.org>",
        "refused": [
            {
                "email": "p1@example.net",
                "member": 41,
                "reply": "550 5.1.1 No such user",
                "about": "recipient",
            },
            {
                "email": "p2@example.net",
                "member": 42,
                "reply": "554 5.6.0 No",
                "about": "message",
            },
        ],
    }


def test_posts_that_were_done_long_ago_are_forgotten_a_part_at_a_time(spool: Store) -> None:
    old, new, open_one = (under_way(spool, *FIVE) for _ in range(3))
    for held in (old, new):
        write(spool, held, a_record("mx:25", 1.0, OK, [1, 2, 3, 4, 5]))
        do(spool, done, held.id)
        do(spool, finish, [held])
    with spool.begin() as connection:
        which = update(schema.post).where(schema.post.c.id == old.id)
        connection.execute(which.values(done_at=100.0))
    forgotten: list[int] = []
    while not forgotten or forgotten[-1]:
        with spool.begin() as connection:
            forgotten.append(purge(connection, 200.0, 2))
        assert len(forgotten) < 10
    assert forgotten == [2, 2, 1, 1, 0]
    left = {new.id, open_one.id}
    assert {row["id"] for row in all_of(spool, schema.post)} == left
    assert {row["post"] for row in all_of(spool, schema.delivery)} == left
    assert {row["post"] for row in all_of(spool, schema.transmission)} == {new.id}


def test_a_post_that_was_left_over_is_forgotten_and_one_that_waits_is_not(spool: Store) -> None:
    left, waits = under_way(spool, *FIVE), under_way(spool, *FIVE)
    with spool.begin() as connection:
        connection.execute(update(schema.post).values(created_at=100.0))
    do(spool, finish, [left])
    for _ in range(4):
        do(spool, purge, 200.0, 10)
    assert {row["id"] for row in all_of(spool, schema.post)} == {waits.id}
    assert {row["post"] for row in all_of(spool, schema.delivery)} == {waits.id}


def test_who_waits_is_due_at_once_if_an_operator_says_so(spool: Store) -> None:
    held = under_way(spool, *FIVE)
    later = [told(spool, held, each, "451 Later", time.time() + 900) for each in FIVE[:2]]
    first = number_of(spool, held, FIVE[2])
    write(spool, held, a_record("mx:25", 1.0, OK, [first], later))
    assert len(those_due(spool, held)) == 2
    do(spool, hasten, held.id)
    assert {row.email for row in those_due(spool, held)} == {*FIVE} - {FIVE[2]}
    assert states(spool, held)[FIVE[2]] == "sent"


def test_nobody_else_gets_a_post_that_is_given_up(spool: Store) -> None:
    held, other = under_way(spool, *FIVE), under_way(spool, *FIVE)
    write(spool, held, a_record("mx:25", 1.0, OK, [1, 2]))
    do(spool, abandon, held.id)
    with spool.read() as connection:
        assert counts(connection, held.id) == {"sent": 2, "gone": 3}
        assert counts(connection, other.id) == {"pending": 5}
    finished = {row["id"]: row["done_at"] for row in all_of(spool, schema.post)}
    assert finished[held.id] and finished[other.id] is None


def test_a_post_to_nobody_is_forgotten_too(spool: Store) -> None:
    held = post(spool)
    expanded(spool, held)
    do(spool, done, held.id)
    forgotten = []
    for _ in range(2):
        with spool.begin() as connection:
            forgotten.append(purge(connection, time.time() + 1000, 2))
    assert forgotten == [1, 0]


@pytest.mark.parametrize(
    "look",
    [
        lambda connection, held: due(connection, held, 0, 10),
        lambda connection, held: next_due(connection, held.id),
        lambda connection, held: purge(connection, 1.0, 10),
        lambda connection, held: record(
            connection, held.id, [a_record("mx:25", 1.0, OK, [1, 3, 5])]
        ),
    ],
)
def test_d20_no_other_posts_rows_are_read(
    sqlite_store: Store, look: Callable[[Connection, Claim], object]
) -> None:
    make_lists(sqlite_store, ANT)
    held = under_way(sqlite_store, *FIVE)
    plans: list[str] = []

    @event.listens_for(sqlite_store.engine, "before_cursor_execute")
    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            one = parameters[0] if isinstance(parameters, list) else parameters
            found = cursor.execute(f"EXPLAIN QUERY PLAN {statement}", one).fetchall()
            plans.extend(row[3] for row in found)

    with sqlite_store.begin() as connection:
        look(connection, held)
    assert plans
    assert [each for each in plans if each.startswith("SCAN delivery")] == []
