"""Incoming: what becomes of posts and of mail for owners, on both databases."""

from typing import Any

import pytest
from sqlalchemy import Connection, event, select, text, update

from postroom.base.settings import DEFAULT_OWNER
from postroom.delivery.trace import trace
from postroom.mail.message import message_id
from postroom.posting.dns import Resolver
from postroom.spool import held as held_posts
from postroom.spool.care import requeue
from postroom.spool.ids import show
from postroom.spool.orders import Order
from postroom.spool.queue import ATTEMPTS, Lost
from postroom.spool.upkeep import remove_list
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.desk import ANNE
from tests.contract.queues import change, do, everything, seen
from tests.runners.ants import BODY, BOSS, NAME, RAW, Ants, site
from tests.runners.scripted import Gone

# Accepted


def test_a_members_post_goes_out_as_it_will_be_sent(ants: Ants) -> None:
    ants.join(ANNE, "bart@example.org")
    number = ants.post()
    assert set(ants.queues()) == {"out"}
    [(order, row)] = ants.orders()
    assert order == Order(
        kind="post",
        sender="ant-bounces@example.com",
        message_id=NAME,
        authors=(ANNE,),
        named=("ant@example.com",),
        verp=True,
        verp_key=ants.verp_key(),
    )
    assert (row.sender, row.metadata["listname"]) == (order.sender, "ant@example.com")
    assert row.metadata["original_size"] == len(row.raw)
    head, _, body = row.raw.partition(b"\r\n\r\n")
    assert body == BODY
    assert b"<ant.example.com>\r\n" in head.partition(b"\nList-Id: ")[2]
    assert b"\nSubject: Leaves\r\n" in head
    received, accepted = ants.steps()
    assert (received.what, received.list) == ("received", "ant@example.com")
    assert received.facts == {
        "peer": "192.0.2.1",
        "lhlo": "mx.example.org",
        "sender": ANNE,
        "size": len(RAW),
        "entry": show(number),
        "queue": "in",
    }
    assert accepted.what == "accepted"
    assert accepted.facts["handed_on"] == show(row.id)
    assert received.at <= accepted.at
    [line] = ants.worker.said("post accepted")
    assert (line["list"], line["message_id"]) == ("ant@example.com", NAME)
    assert ants.worker.commits == 1


def test_an_order_says_what_the_list_has_decided_on_sending(ants: Ants) -> None:
    ants.join(ANNE)
    ants.set(sending__personal="yes", sending__verp="no")
    ants.post()
    [(order, _)] = ants.orders()
    assert (order.personal, order.verp, order.verp_key) == (True, False, "")
    with ants.store.read() as connection:  # nothing was signed, so nothing was made
        assert connection.execute(select(schema.secret)).all() == []


def test_all_posts_of_a_list_have_the_key_of_that_list(ants: Ants) -> None:
    ants.join(ANNE)
    for number in range(2):
        ants.post(RAW.replace(b"leaf@", b"leaf%d@" % number))
    keys = {order.verp_key for order, _ in ants.orders()}
    assert keys == {ants.verp_key()} != {""}


def test_those_named_in_to_and_cc_are_known_to_the_order(ants: Ants) -> None:
    ants.join(ANNE)
    raw = RAW.replace(b"To: ", b"Cc: Bo@Example.ORG, cy@example.org\r\nTo: ")
    ants.post(raw)
    [(order, _)] = ants.orders()
    assert set(order.named) == {"ant@example.com", "bo@example.org", "cy@example.org"}


def test_a_seal_is_put_on_what_goes_out(ants: Ants) -> None:
    ants.join(ANNE)
    ants.come()
    ants.work(ants.worker_of(site(seal=lambda raw: b"ARC-Seal: x\r\n" + raw)))
    [(_, row)] = ants.orders()
    assert row.raw.startswith(b"ARC-Seal: x\r\n")
    assert row.metadata["original_size"] == len(row.raw)


@pytest.mark.parametrize("anonymous", [False, True])
def test_a_post_is_known_by_the_id_that_its_readers_see(ants: Ants, anonymous: bool) -> None:
    ants.join(ANNE)
    ants.set(headers__anonymous="yes" if anonymous else "no")
    ants.post(RAW if anonymous else RAW.replace(b"Message-ID: " + NAME.encode() + b"\r\n", b""))
    [(order, row)] = ants.orders()
    assert order.message_id == message_id(row.raw)
    assert order.message_id not in ("", NAME)
    [accepted] = ants.steps(order.message_id)
    assert (accepted.what, accepted.facts["handed_on"]) == ("accepted", show(row.id))
    assert accepted.facts["message_id"] == order.message_id
    with ants.store.read() as connection:
        found = trace(connection, order.message_id.strip("<>"))
        assert [(each.queue, each.kind) for each in found.waiting] == [("out", "post")]
        by_author = trace(connection, NAME)
    expected = ["received", "accepted"] if anonymous else []
    assert [each.what for each in by_author.steps] == expected
    assert [each.queue for each in by_author.waiting] == (["out"] if anonymous else [])


def test_dns_is_asked_while_no_transaction_is_open(ants: Ants) -> None:
    class Asking(Resolver):
        asked = 0

        def dmarc_policy(self, *arguments: Any, **_: Any) -> Any:
            with ants.store.begin() as connection:  # waits for ever for a lock of our own
                if not ants.store.is_sqlite:
                    connection.execute(
                        text("LOCK TABLE entry, message, step IN EXCLUSIVE MODE NOWAIT")
                    )
                assert connection.execute(select(schema.entry.c.lease)).scalar()
            Asking.asked += 1
            return "reject"

    ants.join(ANNE)
    ants.come()
    ants.work(ants.worker_of(site(resolver=Asking(offline=True))))
    assert Asking.asked
    [(_, row)] = ants.orders()
    assert b"\nFrom: Anne via " in b"\n" + row.raw


# Held


def test_a_strangers_post_is_held_and_those_who_decide_are_told(ants: Ants) -> None:
    ants.join("olga@example.net", role="owner")
    number = ants.post()
    assert set(ants.queues()) == {"held", "out"}
    [row] = ants.queues()["held"]
    assert (row.id, row.raw) == (number, RAW)
    assert row.metadata["reason"] == "nonmember"
    assert row.metadata["author"] == ANNE
    told = {order.recipients for order, _ in ants.orders()}
    assert ("olga@example.net",) in told
    assert {order.kind for order, _ in ants.orders()} == {"notice"}
    received, held = ants.steps()
    assert (received.what, held.what) == ("received", "held")
    assert held.facts["reason"] == "nonmember"
    assert held.facts["sentence"] == row.metadata["sentence"]
    assert held.facts["told"] == len(told)
    assert seen(ants.store, number).attempts == 0
    assert ants.worker.said("post held")


def test_many_held_posts_are_one_notice_to_the_owners(ants: Ants) -> None:
    ants.join("olga@example.net", role="owner")
    for n in range(5):
        ants.come(RAW.replace(b"leaf@", b"leaf%d@" % n), sender=f"s{n}@example.org")
    ants.work()
    assert len(ants.queues()["held"]) == 5
    to_owners = [order for order, _ in ants.orders() if order.recipients == ("olga@example.net",)]
    assert len(to_owners) == 1


def test_d6_two_held_posts_with_one_message_id_are_two(ants: Ants) -> None:
    ants.come(RAW.replace(b"One leaf", b"My secret"))
    ants.come(RAW.replace(b"One leaf", b"Her reply"))
    ants.work()
    assert [b"My secret" in row.raw for row in ants.queues()["held"]] == [True, False]
    one, two = (row.id for row in ants.queues()["held"])
    do(ants.store, held_posts.accept, two, "olga@example.net")
    ants.work()
    [row] = [row for order, row in ants.orders() if order.kind == "post"]
    assert b"Her reply" in row.raw and b"My secret" not in row.raw
    assert [row.id for row in ants.queues()["held"]] == [one]


def test_what_a_moderator_accepts_goes_out_though_the_rules_would_hold_it(ants: Ants) -> None:
    ants.set(posting__emergency="yes")
    number = ants.post()
    assert ants.queues()["held"]
    do(ants.store, held_posts.accept, number, "olga@example.net")
    ants.work()
    assert "held" not in ants.queues() and "in" not in ants.queues()
    [(order, row)] = [each for each in ants.orders() if each[0].kind == "post"]
    assert row.raw.endswith(b"\r\n\r\n" + BODY)
    assert order.verp_key == ants.verp_key()
    assert ants.steps_named() == ["received", "held", "accepted"]
    assert ants.steps()[-1].facts["reason"] == "approved"
    assert ants.steps()[-1].facts["sentence"] == "A moderator accepted it."


# Rejected and discarded


def test_a_post_that_is_rejected_leaves_a_notice_to_its_author(ants: Ants) -> None:
    ants.set(posting__nonmembers="reject")
    ants.post()
    assert set(ants.queues()) == {"out"}
    [(order, row)] = ants.orders()
    assert (order.kind, order.sender, order.recipients) == ("notice", "", (ANNE,))
    assert b"\nAuto-Submitted: auto-" in row.raw
    assert ants.steps_named() == ["received", "rejected"]
    assert ants.steps()[-1].facts["told"] == "the author"
    assert ants.worker.said("post rejected")[0]["reason"] == "nonmember"


@pytest.mark.parametrize(
    ("sender", "more"),
    [
        ("", b""),
        ("mailer-daemon@example.org", b""),
        (ANNE, b"Auto-Submitted: auto-replied\r\n"),
        (ANNE, b"Precedence: bulk\r\n"),
        ("bee@example.com", b""),
    ],
)
@pytest.mark.parametrize("rule", ["banned", "nonmembers"])
def test_nobody_is_told_who_did_not_write_it_by_hand(
    ants: Ants, sender: str, more: bytes, rule: str
) -> None:
    if rule == "banned":
        ants.set(posting__banned=ANNE)
    else:
        ants.set(posting__nonmembers="reject")
    ants.post(more + RAW, sender)
    assert ants.queues() == {}
    _, ended = ants.steps()
    assert ended.what in ("rejected", "discarded")
    assert ended.facts.get("told") != "the author"


def test_a_post_that_is_discarded_leaves_a_step_and_a_line(ants: Ants) -> None:
    ants.set(posting__nonmembers="discard")
    ants.post()
    assert ants.queues() == {}
    assert ants.steps_named() == ["received", "discarded"]
    assert ants.worker.said("post discarded")[0]["reason"] == "nonmember"


def test_fault_30_what_has_been_here_is_discarded(ants: Ants) -> None:
    ants.join(ANNE, "bart@example.org")
    ants.post()
    [(_, row)] = ants.orders()
    ants.come(row.raw)
    ants.work()
    assert len(ants.orders()) == 1
    assert ants.worker.said("post discarded")[0]["reason"] == "loop"


# For owners


def test_mail_for_the_owners_goes_to_owners_and_moderators(ants: Ants) -> None:
    ants.join("olga@example.net", role="owner")
    ants.join("mo@example.net", role="moderator")
    ants.join(ANNE)
    ants.post(to="ant-owner")
    [(order, row)] = ants.orders()
    assert (order.kind, set(order.recipients)) == ("owner", {"olga@example.net", "mo@example.net"})
    assert row.raw.endswith(RAW)
    received, step = ants.steps()
    assert (received.what, received.list) == ("received", "ant@example.com")
    assert (step.what, step.list) == ("passed to the owners", "ant@example.com")
    assert (step.facts["recipients"], step.facts["handed_on"]) == (2, show(row.id))


@pytest.mark.parametrize("to", ["ant-owner", "postmaster"])
def test_where_there_is_no_owner_the_sites_gets_it(ants: Ants, to: str) -> None:
    ants.post(to=to)
    [(order, _)] = ants.orders()
    assert order.recipients == (BOSS,)


@pytest.mark.parametrize("to", ["ant-owner", "postmaster"])
def test_mail_for_owners_who_are_nobody_is_put_aside_and_not_lost(ants: Ants, to: str) -> None:
    number = ants.come(to=to)
    nobody = ants.worker_of(site(DEFAULT_OWNER))
    ants.work(nobody)
    [row] = ants.queues()["shunt"]
    assert (row.id, row.raw) == (number, RAW)
    error = seen(ants.store, number).last_error
    assert error is not None and "site.owner" in error
    do(ants.store, requeue, number)
    ants.work()
    assert [order.recipients for order, _ in ants.orders()] == [(BOSS,)]


def test_mail_for_owners_that_comes_back_ends(ants: Ants) -> None:
    ants.join("olga@example.net", role="owner")
    ants.post(to="ant-owner")
    [(_, row)] = ants.orders()
    ants.post(row.raw, to="ant-owner")
    assert len(ants.orders()) == 1
    assert ants.steps_named() == ["received", "passed to the owners", "received", "discarded"]


def test_mail_for_the_owners_is_not_judged(ants: Ants) -> None:
    ants.set(posting__emergency="yes", posting__banned=ANNE)
    ants.post(b"no header at all", to="ant-owner")
    [(order, row)] = ants.orders()
    assert order.kind == "owner"
    assert row.raw.endswith(b"no header at all")


# What has nowhere to go


def test_a_post_whose_list_is_not_known_any_more_is_put_aside_not_lost(ants: Ants) -> None:
    number = ants.come()
    change(ants.store, number, list=None)
    ants.work()
    [row] = ants.queues()["shunt"]
    assert (row.id, row.raw) == (number, RAW)
    error = seen(ants.store, number).last_error
    assert error is not None and "removed" in error
    [line] = ants.worker.said("shunted")
    assert (line["level"], line["queue"], line["entry"]) == ("error", "in", show(number))
    assert "removed" in line["reason"]


def test_a_list_that_is_removed_between_the_decision_and_its_deed_loses_nothing(
    ants: Ants,
) -> None:
    ants.join(ANNE)
    number = ants.come()

    class Late(Resolver):
        def dmarc_policy(self, *arguments: Any, **_: Any) -> Any:
            do(ants.store, remove_list, "ant@example.com", True)
            return "none"

    with pytest.raises(Lost):  # it was taken out of our hands
        ants.work(ants.worker_of(site(resolver=Late(offline=True))))
    assert [row.id for row in ants.queues()["shunt"]] == [number]
    assert "out" not in ants.queues()


def test_a_list_whose_settings_cannot_be_read_keeps_its_posts_and_holds_up_no_other(
    ants: Ants,
) -> None:
    with ants.store.begin() as connection:
        this = schema.mailing_list.c.list_name == "bee"
        connection.execute(update(schema.mailing_list).where(this).values(settings="{never JSON"))
    ants.join(ANNE)
    bad = ants.come(to="bee")
    ants.post()
    assert len(ants.orders()) == 1
    entry = seen(ants.store, bad)
    assert (entry.queue, entry.attempts) == ("in", 1)
    change(ants.store, bad, attempts=ATTEMPTS - 1, available_at=0.0)
    ants.work()
    assert seen(ants.store, bad).queue == "shunt"


# One transaction


@pytest.mark.parametrize("members", ["accept", "hold", "reject", "discard"])
def test_d1_d7_a_commit_that_fails_leaves_the_entry_and_nothing_else(
    ants: Ants, members: str
) -> None:
    ants.join(ANNE)
    ants.join("olga@example.net", role="owner")
    ants.set(posting__members=members)
    number = ants.come()
    before = state(ants.store)
    armed, fails = True, False

    @event.listens_for(ants.store.engine, "before_cursor_execute")
    def watch(connection: Connection, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal fails
        fails = fails or (armed and statement.startswith("INSERT INTO step"))

    @event.listens_for(ants.store.engine, "commit")
    def refuse(connection: Connection) -> None:
        nonlocal armed, fails
        if fails:
            armed = fails = False
            raise Gone

    with pytest.raises(Gone):
        ants.worker.turn()
    assert state(ants.store) == before
    assert seen(ants.store, number).attempts == 0
    ants.work()
    assert ants.steps_named()[0] == "received"
    assert len(ants.steps()) == 2
    wanted = {"accept": {"out"}, "hold": {"held", "out"}, "reject": {"out"}, "discard": set()}
    assert set(ants.queues()) == wanted[members]


def state(store: Store) -> list[object]:
    """All that a runner may change."""
    with store.read() as connection:
        return [
            [row[:5] for row in everything(store)],
            connection.execute(select(schema.message.c.id)).all(),
            connection.execute(select(schema.step)).all(),
            connection.execute(select(schema.notified)).all(),
        ]


def test_d20_a_post_costs_as_many_statements_whatever_the_members(ants: Ants) -> None:
    made: list[int] = []
    statements = 0
    ants.verp_key()  # the first post of a site makes its secret

    @event.listens_for(ants.store.engine, "before_cursor_execute")
    def count(*_: Any) -> None:
        nonlocal statements
        statements += 1

    ants.worker.turn()
    for many in (10, 1000):
        ants.join(ANNE, *(f"p{n}@example.net" for n in range(many)))
        ants.come(RAW.replace(b"leaf@", b"leaf%d@" % many))
        statements = 0
        ants.worker.turn()
        made.append(statements)
    assert made[0] == made[1] < 40
