"""Where is my message? What is found of one, on both databases."""

import time

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import delete, event, insert, update

from postroom.delivery import ledger
from postroom.delivery import trace as module
from postroom.delivery.ledger import GONE, PENDING, REFUSED, SENT, Record, Told
from postroom.delivery.trace import Recipient, Trace, Waiting, recipients, trace
from postroom.spool import ids
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.held import hold
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import encode
from postroom.spool.orders import OUT, Order
from postroom.spool.queue import shunt
from postroom.spool.steps import Step, write
from postroom.store.engine import Store
from postroom.store.schema import delivery, mailing_list, post, transmission
from tests.contract.desk import ANNE, Desk, envelope
from tests.contract.queues import change, do, take

NAME = "<fly@example.org>"
RAW = b"Subject: hello\r\nMessage-ID: %b\r\n\r\nHello.\r\n"
MADE = 1_800_000_000.0
make_id = IdMaker()


def look(store: Store, text: str = NAME) -> Trace:
    with store.read() as connection:
        return trace(connection, text)


def deliver(desk: Desk, *locals_: str, name: str = NAME) -> None:
    """A message comes in over LMTP."""
    to = [f"{local}@example.com" for local in locals_]
    desk.deliver(envelope(*to, raw=RAW % name.encode()))


def only(store: Store, text: str = NAME) -> Waiting:
    [found] = look(store, text).waiting
    return found


def step(what: str, at: float, name: str = NAME, **facts: object) -> Step:
    return Step(name, at, "ant@example.com", what, facts)


def make_post(store: Store, states: list[int], list_key: int | None = 1) -> int:
    """A post with a recipient in each of these states; returns its id."""
    number = make_id()
    with store.begin() as connection:
        connection.execute(
            insert(post).values(
                id=number,
                list=list_key,
                message_id=NAME,
                created_at=MADE,
                recipients=len(states),
            )
        )
        if states:
            rows = [
                {
                    "post": number,
                    "n": n,
                    "email": f"m{n}@example.org",
                    "state": state,
                    "attempts": 0,
                    "next_at": 0.0 if state == PENDING else None,
                }
                for n, state in enumerate(states, 1)
            ]
            connection.execute(insert(delivery), rows)
    return number


def transmit(store: Store, number: int, n: int, attempts: int, own: str | None) -> None:
    """A recipient was part of a transaction with the mail server; `own` is what it was told."""
    with store.begin() as connection:
        by = make_id()
        connection.execute(
            insert(transmission).values(
                id=by, post=number, at=MADE + 9, server="mx:25", recipients=1, reply="250 Ok"
            )
        )
        which = (delivery.c.post == number) & (delivery.c.n == n)
        values = {"transmission": by, "attempts": attempts, "reply": own}
        assert connection.execute(update(delivery).where(which).values(values)).rowcount == 1


def everyone(store: Store, number: int, state: str | None = None) -> list[Recipient]:
    return list(recipients(store, number, state))


def test_of_a_message_that_never_came_nothing_is_known(spool: Store) -> None:
    found = look(spool)
    assert (bool(found), found) == (False, Trace([], [], [], True))


@pytest.mark.parametrize("kept", [NAME, "fly@example.org"])
@pytest.mark.parametrize("asked", [NAME, "fly@example.org", " <fly@example.org>\n"])
def test_brackets_make_no_difference(spool: Store, desk: Desk, kept: str, asked: str) -> None:
    with spool.begin() as connection:
        write(connection, make_id, [step("received", MADE, kept)])
    deliver(desk, "ant", name=kept)
    found = look(spool, asked)
    assert [each.what for each in found.steps] == ["received"]
    assert [each.queue for each in found.waiting] == ["in"]


def test_a_long_message_id_is_found_though_its_end_is_not_kept(spool: Store, desk: Desk) -> None:
    long = f"<{'x' * 300}@example.org>"
    deliver(desk, "ant", name=long)
    assert only(spool, long) == only(spool, long[1:-1])


def test_steps_come_in_the_order_of_time(spool: Store) -> None:
    with spool.begin() as connection:
        others = step("decided", MADE + 1, "<bee@example.org>")
        told = [step("expanded", MADE + 2, recipients=3), step("received", MADE), others]
        write(connection, make_id, told)
    assert [(each.what, each.facts) for each in look(spool).steps] == [
        ("received", {}),
        ("expanded", {"recipients": 3}),
    ]


def test_steps_that_were_written_with_and_without_brackets_are_one_story(spool: Store) -> None:
    with spool.begin() as connection:
        bare = NAME.strip("<>")
        told = [step("b", MADE + 1, bare), step("c", MADE + 2), step("a", MADE)]
        write(connection, make_id, told)
    assert [each.what for each in look(spool).steps] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("local", "queue"), [("ant", "in"), ("ant-join", "command"), ("ant-bounces", "bounces")]
)
def test_what_waits_is_found_by_the_header_of_its_message(
    spool: Store, desk: Desk, local: str, queue: str
) -> None:
    began = time.time()
    deliver(desk, local)
    deliver(desk, "ant", "bee-owner", name="<wasp@example.org>")
    found = only(spool)
    assert (found.queue, found.list, found.sender) == (queue, "ant@example.com", ANNE)
    assert (found.peer, found.lhlo) == ("192.0.2.1", "mx.example.org")
    assert began <= found.received_at <= time.time()
    assert (found.attempts, found.lease_until, found.kind, found.reason) == (0, None, "", "")


def test_mail_of_the_site_owner_has_no_list(spool: Store, desk: Desk) -> None:
    deliver(desk, "postmaster")
    assert only(spool).list == ""


def test_each_entry_of_a_message_is_shown(spool: Store, desk: Desk) -> None:
    deliver(desk, "ant", "bee", "bee-join")
    found = look(spool).waiting
    assert [(each.queue, each.list) for each in found] == [
        ("in", "ant@example.com"),
        ("in", "bee@example.com"),
        ("command", "bee@example.com"),
    ]


def test_what_is_held_says_why(spool: Store, desk: Desk) -> None:
    deliver(desk, "ant")
    [claim] = take(spool)
    do(spool, hold, claim, "nonmember", "Its author is no member.", ANNE)
    found = only(spool)
    assert (found.queue, found.reason) == ("held", "Its author is no member.")


def test_what_was_set_aside_says_why(spool: Store, desk: Desk) -> None:
    deliver(desk, "ant")
    [claim] = take(spool)
    assert only(spool).lease_until is not None
    do(spool, shunt, claim, "Traceback\nValueError: bad fly")
    found = only(spool)
    assert (found.queue, found.attempts) == ("shunt", 1)
    assert found.last_error.endswith("bad fly")


def test_what_goes_out_is_found_by_the_message_that_it_began_with(spool: Store) -> None:
    order = Order("notice", "", NAME, recipients=(ANNE,))
    notice = Letter(RAW % b"<notice@example.com>", "")
    bounce = {"event": "refused", "message_id": NAME, "version": 1}
    handed = [
        Handed(OUT, 1, order.metadata("ant@example.com", 9), notice),
        Handed("bounces", 1, bounce, Letter(b"\r\n", "")),
    ]
    with spool.begin() as connection:
        hand_on(connection, make_id, handed)
    found = look(spool).waiting
    assert sorted((each.queue, each.kind, each.peer) for each in found) == [
        ("bounces", "", ""),
        ("out", "notice", ""),
    ]


@pytest.mark.parametrize("facts", ["no JSON", '{"order": 5}', '{"order": {"message_id": []}}'])
def test_an_entry_that_cannot_be_read_hides_no_other(spool: Store, desk: Desk, facts: str) -> None:
    deliver(desk, "ant")
    deliver(desk, "bee")
    [first, second] = look(spool).waiting
    change(spool, first.id, metadata=facts)
    assert [each.id for each in look(spool).waiting] == [first.id, second.id]


def test_only_the_newest_entries_are_looked_at_and_that_is_said(
    spool: Store, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEWEST", 2)
    deliver(desk, "ant")
    deliver(desk, "ant", name="<wasp@example.org>")
    assert (len(look(spool).waiting), look(spool).complete) == (1, True)
    deliver(desk, "ant", name="<bee@example.org>")
    assert look(spool) == Trace([], [], [], False)
    assert only(spool, "<bee@example.org>").queue == "in"


def test_of_large_messages_fewer_are_looked_at_but_always_one(
    spool: Store, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_OCTETS", 10)
    deliver(desk, "ant")
    assert (only(spool).queue, look(spool).complete) == ("in", True)
    deliver(desk, "ant", name="<bee@example.org>")
    assert look(spool) == Trace([], [], [], False)
    assert only(spool, "<bee@example.org>").queue == "in"


def test_a_post_counts_its_recipients_and_knows_what_kind_it_is(spool: Store) -> None:
    states = [SENT, SENT, PENDING, REFUSED, GONE, SENT]
    first, second = make_post(spool, states), make_post(spool, [], list_key=None)
    with spool.begin() as connection:
        told = step("expanded", MADE, kind="post", entry=ids.show(first))
        write(connection, make_id, [told])
    [one, other] = look(spool).posts
    assert (one.id, one.list, one.kind, one.recipients) == (first, "ant@example.com", "post", 6)
    assert one.states == {"pending": 1, "sent": 3, "refused": 1, "gone": 1}
    assert (one.created_at, one.done_at) == (MADE, None)
    assert (other.id, other.list, other.kind, sum(other.states.values())) == (second, "", "", 0)


def test_a_post_outlives_its_list(spool: Store) -> None:
    make_post(spool, [SENT])
    with spool.begin() as connection:
        connection.execute(delete(mailing_list).where(mailing_list.c.id == 1))
    assert [each.list for each in look(spool).posts] == [""]


def test_a_recipient_has_its_own_reply_or_that_of_its_transaction(spool: Store) -> None:
    number = make_post(spool, [PENDING, SENT, REFUSED, SENT])
    transmit(spool, number, 2, 1, None)
    transmit(spool, number, 3, 1, "550 5.1.1 No such user")
    transmit(spool, number, 4, 2, "451 4.7.1 Greylisted")  # at the first attempt
    assert everyone(spool, number) == [
        Recipient(1, "m1@example.org", "pending", 0, 0.0, "", None, ""),
        Recipient(2, "m2@example.org", "sent", 1, None, "250 Ok", MADE + 9, "mx:25"),
        Recipient(
            3, "m3@example.org", "refused", 1, None, "550 5.1.1 No such user", MADE + 9, "mx:25"
        ),
        Recipient(4, "m4@example.org", "sent", 2, None, "250 Ok", MADE + 9, "mx:25"),
    ]


@pytest.mark.parametrize("number", [0, 1, 3, 4, 5])
def test_all_pages_have_everyone_once_in_order(
    spool: Store, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    make_post(spool, [SENT] * 3)  # another one
    which = make_post(spool, [SENT, REFUSED] * number)
    assert [each.n for each in everyone(spool, which)] == list(range(1, 2 * number + 1))
    refused = [each.n for each in everyone(spool, which, "refused")]
    assert refused == list(range(2, 2 * number + 1, 2))


def test_no_page_is_read_before_its_time_and_no_view_is_held(
    spool: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE", 2)
    number = make_post(spool, [SENT] * 6)
    asked = []
    event.listen(spool.engine, "before_cursor_execute", lambda *about: asked.append(about[2]))
    coming = recipients(spool, number)
    assert [next(coming).n, next(coming).n] == [1, 2]
    assert len([each for each in asked if "FROM delivery" in each]) == 1
    change_last = update(delivery).where(delivery.c.n == 6).values(state=REFUSED)
    with spool.begin() as connection:
        connection.execute(change_last)
    assert [each.state for each in coming] == ["sent", "sent", "sent", "refused"]


def test_a_look_reads_no_table_from_end_to_end(sqlite_store: Store) -> None:
    with sqlite_store.read() as connection:
        asked: list[tuple[str, tuple[object, ...]]] = []
        event.listen(
            connection, "before_cursor_execute", lambda *about: asked.append((about[2], about[3]))
        )
        trace(connection, NAME)
        module._page(connection, 1, 0, None)
        plans = [
            row[3]
            for statement, values in list(asked)
            for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)
        ]
    assert len(plans) > 10
    tables = {"entry", "message", "step", "post", "delivery", "transmission"}
    assert not [plan for plan in plans if plan.split()[0] == "SCAN" and plan.split()[1] in tables]


def test_an_entry_whose_message_is_lost_is_no_obstacle(sqlite_store: Store) -> None:
    order = encode(Order("post", ANNE, NAME).metadata("ant@example.com", 9))
    behind = sqlite.connect(str(sqlite_store.path))  # foreign keys are not looked at
    behind.execute(
        "INSERT INTO entry (id, queue, message, metadata, available_at) "
        "VALUES (5, 'out', 99, ?, 1234.5)",
        (order,),
    )
    behind.commit()
    behind.close()
    found = only(sqlite_store)
    assert (found.kind, found.sender, found.size, found.received_at) == ("post", "", 0, 1234.5)


def test_what_delivery_wrote_down_is_what_is_shown(spool: Store) -> None:
    people = ("anne@a.example", "bart@b.example", "cora@c.example")
    order = Order("owner", "", NAME, recipients=people)
    letter = Letter(RAW % NAME.encode(), "")
    with spool.begin() as connection:
        metadata = order.metadata("ant@example.com", 9)
        hand_on(connection, make_id, [Handed(OUT, 1, metadata, letter)])
    [claim] = take(spool, name=OUT)
    refused = Told(2, people[1], None, "550 5.1.1 No such user", None)
    later = Told(3, people[2], None, "451 4.7.1 Later", MADE + 60)
    with spool.begin() as connection:
        ledger.expand(connection, claim, order)
        told = Record(make_id(), "mx:25", MADE, "250 Ok", [1], [refused, later])
        ledger.record(connection, claim.id, [told])
    found = look(spool)
    assert [(each.id, each.kind) for each in found.waiting] == [(claim.id, "owner")]
    assert [each.states for each in found.posts] == [
        {"pending": 1, "sent": 1, "refused": 1, "gone": 0}
    ]
    common = (MADE, "mx:25")
    assert everyone(spool, claim.id) == [
        Recipient(1, people[0], "sent", 1, None, "250 Ok", *common),
        Recipient(2, people[1], "refused", 1, None, "550 5.1.1 No such user", *common),
        Recipient(3, people[2], "pending", 1, MADE + 60, "451 4.7.1 Later", *common),
    ]
