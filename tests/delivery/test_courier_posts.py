"""The courier and its posts: turns, members who leave, VERP, limits, posts that are poison."""

import asyncio
import json
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, event

from postroom.delivery import active as active_module
from postroom.delivery import courier as courier_module
from postroom.delivery import docket as docket_module
from postroom.delivery import ledger
from postroom.delivery.destinations import Limit
from postroom.delivery.ledger import Told
from postroom.delivery.policy import Limits
from postroom.lists.roster import change_member, remove_members
from postroom.spool.handing import Handed, Letter
from postroom.spool.metadata import BOUNCES
from postroom.spool.orders import Order
from postroom.spool.queue import ATTEMPTS, Claim
from postroom.spool.upkeep import remove_list
from postroom.store import schema
from tests.delivery.office import LIST, RAW, SENDER, Office, mails, people
from tests.delivery.servers import HOLD, OFFERS, MailServer, Said, at, refusing, times
from tests.wire.harness import run

pytestmark = pytest.mark.usefixtures("brisk")
FAR = Limits(3600.0, 14_400.0)


def leave(office: Office, email: str) -> None:
    with office.writing() as connection:
        remove_members(connection, office.key, [email])


def switch_off(office: Office, email: str) -> None:
    with office.writing() as connection:
        change_member(connection, office.key, email, delivery="user")


# Turns


def test_posts_have_turns_so_a_small_one_is_done_before_a_large_one(office: Office) -> None:
    office.join(*people(60))

    async def test() -> None:
        with MailServer() as server:
            large, small = office.post(), office.notice("ann@example.org", "bo@example.org")
            async with office.working(server, recipients=1, connections=1):
                await office.done(large, small)
        order = [taken.recipients[0] for taken in server.taken]
        assert max(order.index("ann@example.org"), order.index("bo@example.org")) < 30

    run("asyncio", test)


def test_many_posts_do_not_wait_for_the_next_look(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than are under way at once; and told of, not looked for."""
    monkeypatch.setattr(courier_module, "POLL", 1000.0)

    async def test() -> None:
        with MailServer() as server:
            async with office.working(server) as courier:
                await office.done(office.notice("ann@example.org"))
                numbers = [office.notice(each) for each in people(50)]
                courier.wake()
                await office.done(*numbers)
        assert mails(server) == sorted(["ann@example.org", *people(50)])

    run("asyncio", test)


# Members who leave


@pytest.mark.parametrize("go", [leave, switch_off])
def test_who_leaves_before_the_next_attempt_does_not_get_it(any_office: Office, go: Any) -> None:
    office = any_office
    office.join(*people(3))

    async def test() -> None:
        with MailServer(times(3, at("RCPT", "451 4.2.0 Later"))) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            go(office, "p2@example.net")
            office.make_due(number)
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert mails(server) == ["p1@example.net", "p3@example.net"]
        assert office.of(number, "gone") == {"p2"}
        assert office.steps()[-1] == ("done", {"kind": "post", "sent": 2, "gone": 1})

    run("asyncio", test)


def test_who_leaves_while_a_large_post_goes_out_does_not_get_it(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docket_module, "WINDOW", 5)
    monkeypatch.setattr(active_module, "LOW", 1)
    office.join(*people(20))
    held = times(1, at("END", HOLD))

    async def test() -> None:
        with MailServer(held) as server:
            number = office.post()
            async with office.working(server, recipients=5, connections=1):
                await asyncio.to_thread(server.wait_until, lambda: server.heard("END"))
                one, two = (each.email for each in office.recipients(number)[-2:])
                leave(office, one)
                switch_off(office, two)
                server.release()
                await office.done(number)
        assert mails(server) == sorted({*people(20)} - {one, two})
        states = [each.state for each in office.recipients(number)]
        assert states == ["sent"] * 18 + ["gone"] * 2

    run("asyncio", test)


# VERP and personal mode


def own_text(held: Claim) -> Any:
    return lambda email: held.raw + f"This is for {email}.\r\n".encode()


def test_in_personal_mode_everybody_gets_their_own(office: Office) -> None:
    office.join(*people(5))

    async def test() -> None:
        with MailServer(offers=(*OFFERS, "XVERP")) as server:
            number = office.post(personal=True, verp=True)
            async with office.working(server, personal=own_text):
                await office.done(number)
        assert mails(server) == sorted(people(5))
        for taken in server.taken:
            [email] = taken.recipients
            assert taken.content == RAW + f"This is for {email}.\r\n".encode()
            assert taken.sender == f"ants-bounces+{email.replace('@', '=')}@example.com"

    run("asyncio", test)


def test_what_is_not_personal_is_not_made_for_each(office: Office) -> None:
    office.join(*people(5))

    async def test() -> None:
        with MailServer() as server:
            async with office.working(server, personal=own_text):
                await office.done(office.post(verp=True))
        assert [(taken.sender, taken.content) for taken in server.taken] == [(SENDER, RAW)]

    run("asyncio", test)


@pytest.mark.parametrize(("verp", "share"), [(True, 1.0), (True, 0.0), (False, 1.0)])
def test_a_server_with_xverp_is_told_of_it_once_for_all(
    office: Office, verp: bool, share: float
) -> None:
    office.join(*people(5))

    async def test() -> None:
        with MailServer(offers=(*OFFERS, "XVERP")) as server:
            async with office.working(server, share=share):
                await office.done(office.post(verp=verp))
        [taken] = server.taken
        assert taken.sender == SENDER
        assert ("XVERP=+=" in taken.parameters) == verp

    run("asyncio", test)


def test_without_xverp_a_share_of_the_members_get_a_sender_of_their_own(office: Office) -> None:
    office.join(*people(200))

    async def test() -> None:
        with MailServer() as server:
            async with office.working(server, share=0.2):
                await office.done(office.post(verp=True))
        assert mails(server) == sorted(people(200))
        single = [taken for taken in server.taken if taken.sender != SENDER]
        assert 20 <= len(single) <= 60
        for taken in single:
            local = taken.recipients[0].replace("@", "=")
            assert taken.sender == f"ants-bounces+{local}@example.com"
        assert sum(taken.sender == SENDER for taken in server.taken) == 2

    run("asyncio", test)


def test_a_notice_has_no_sender_whatever_the_share(office: Office) -> None:
    async def test() -> None:
        with MailServer() as server:
            async with office.working(server, share=1.0):
                await office.done(office.notice("ann@example.org", "bo@example.org"))
        [taken] = server.taken
        assert (taken.sender, taken.parameters[0][:5]) == ("", "SIZE=")

    run("asyncio", test)


# Limits of destinations


def test_a_limit_of_connections_is_kept_and_stalls_nobody_else(office: Office) -> None:
    slow = [f"s{n}@slow.example" for n in range(3)]
    office.join(*people(20), *slow)
    open_now: list[int] = []

    def hold(said: Said) -> Any:
        if said.verb == "RCPT" and said.address.endswith("@slow.example"):
            open_now.append(said.connection)
            return HOLD
        return None

    async def test() -> None:
        with MailServer(hold) as server:
            number = office.post()
            places = {"SLOW.example": Limit(connections=1)}
            async with office.working(server, recipients=1, places=places):
                await office.until(lambda: len(office.of(number, "sent")) == 20)
                await asyncio.to_thread(server.wait_until, lambda: open_now)
                assert len(open_now) == 1
                assert len(office.of(number, "pending")) == 3
                server.release()
                await office.done(number)
        assert mails(server) == sorted([*people(20), *slow])

    run("asyncio", test)


def test_a_limit_per_minute_is_kept_and_stalls_nobody_else(office: Office) -> None:
    office.join(*people(20), *(f"s{n}@slow.example" for n in range(5)))

    async def test() -> None:
        with MailServer() as server:
            number = office.post()
            places = {"slow.example": Limit(per_minute=2)}
            async with office.working(server, places=places):
                await office.until(lambda: len(office.of(number, "sent")) == 22)
                other = office.notice("ann@example.org")
                await office.done(other)
            assert office.of(number, "pending") == {"s2", "s3", "s4"}
            assert {each.attempts for each in office.recipients(number)} == {0, 1}
            sizes = Counter(len(taken.recipients) for taken in server.taken)
            assert sizes == {20: 1, 2: 1, 1: 1}, "a limited domain has transactions of its own"

    run("asyncio", test)


# Poison


@pytest.mark.parametrize("facts", ['{"version": 1}', '{"order": {"kind": "riot"}}'])
def test_a_post_with_an_order_that_makes_no_sense_is_tried_again_while_others_flow(
    any_office: Office, facts: str
) -> None:
    office = any_office
    office.join(*people(3))

    async def test() -> None:
        with MailServer() as server:
            poison = office.post()
            office.change(poison, metadata=facts)
            async with office.working(server):
                await office.done(office.post())
                await office.put_off(poison)
            entry = office.entry(poison)
            assert entry is not None and entry.last_error is not None
            assert (entry.queue, entry.attempts) == ("out", 1)
            assert entry.last_error.startswith("Traceback")
            office.change(poison, attempts=4, available_at=0.0)
            async with office.working(server):
                await office.until(lambda: office.facts("shunt"))
            [shunted] = office.facts("shunt")
            assert shunted == json.loads(facts) | {"shunted_from": "out"}
        assert mails(server) == sorted(people(3))

    run("asyncio", test)


def test_a_post_that_ended_its_process_too_often_is_put_aside(office: Office) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer() as server:
            number = office.post()
            office.change(number, attempts=ATTEMPTS)
            async with office.working(server):
                await office.until(lambda: office.facts("shunt"))
        entry = office.entry(number)
        assert entry is not None and entry.last_error is not None
        assert "5 attempts ended with the process that made them" in entry.last_error
        assert server.taken == []

    run("asyncio", test)


def test_a_post_that_waits_and_is_stopped_often_is_not_put_aside(office: Office) -> None:
    office.join(*people(2))

    async def test() -> None:
        with MailServer(refusing({"p2@example.net": "451 4.2.0 Later"})) as server:
            number = office.post()
            for _ in range(ATTEMPTS + 2):
                async with office.working(server, limits=FAR):
                    await office.put_off(number)
                office.make_due(number)
            server.hooks.clear()
            async with office.working(server):
                await office.done(number)
        assert mails(server) == sorted(people(2))

    run("asyncio", test)


def test_an_error_that_no_database_can_store_ends_no_courier(any_office: Office) -> None:
    office = any_office

    def defect(held: Claim) -> Any:
        raise ValueError("\x00 \udcff")

    async def test() -> None:
        with MailServer() as server:
            poison = office.post(personal=True)
            async with office.working(server, personal=defect):
                await office.done(office.notice("ann@example.org"))
                await office.put_off(poison)

    run("asyncio", test)


def test_a_notice_that_is_refused_is_told_to_whom_it_concerns(office: Office) -> None:
    def report(connection: Connection, held: Claim, told: Told) -> Handed | None:
        raw = f"{told.email}: {told.reply}".encode()
        return Handed(BOUNCES, None, {"version": 1}, Letter(raw, ""))

    async def test() -> None:
        with MailServer(refusing({"ann@example.org": "550 5.1.1 No such user"})) as server:
            number = office.notice("ann@example.org", "bo@example.org")
            async with office.working(server, undeliverable=report):
                await office.done(number)
        rows = office.look(schema.message.select().with_only_columns(schema.message.c.raw))
        assert bytes(rows[-1][0]) == b"ann@example.org: 550 5.1.1 No such user"
        assert office.facts("bounces") == [{"version": 1}]
        assert mails(server) == ["bo@example.org"]

    run("asyncio", test)


def test_a_list_that_is_removed_while_its_post_goes_out_does_not_stop_the_courier(
    any_office: Office,
) -> None:
    office = any_office
    office.join(*people(3))
    bad = refusing({"p2@example.net": "550 5.1.1 No such user"})

    async def test() -> None:
        with MailServer(times(1, at("DATA", HOLD)), bad) as server:
            number = office.post()
            async with office.working(server):
                await asyncio.to_thread(server.wait_until, lambda: server.heard("DATA"))
                with office.writing() as connection:
                    remove_list(connection, LIST, force=True)
                server.release()
                await office.until(lambda: len(office.of(number, "sent")) == 2)
                other = Order("notice", "", "", ("ann@example.org",))
                await office.done(office.order(other, ours=False))
        assert mails(server) == ["ann@example.org", "p1@example.net", "p3@example.net"]

    run("asyncio", test)


def test_a_post_that_cannot_be_written_down_is_let_go_of_alone(
    any_office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    office = any_office
    office.join(*people(3))
    real = ledger.record

    async def test() -> None:
        with MailServer() as server:
            poison = office.post()

            def record(connection: Any, number: int, records: Any) -> None:
                real(connection, number, records)
                if number == poison:
                    raise ValueError("cannot be written")

            monkeypatch.setattr(ledger, "record", record)
            async with office.working(server):
                await office.put_off(poison)
                others = [office.notice(each) for each in people(9)]
                await office.done(*others)
            entry = office.entry(poison)
            assert entry is not None and entry.last_error is not None
            assert "cannot be written" in entry.last_error
            assert office.of(poison, "sent") == set()

    run("asyncio", test)


# Cost


def test_d20_the_statements_of_a_post_do_not_grow_with_its_members(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[tuple[int, int, int]] = []
    statements = 0

    @event.listens_for(office.store.engine, "before_cursor_execute")
    def count(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        nonlocal statements
        statements += not statement.startswith(("BEGIN", "SAVEPOINT", "RELEASE"))

    async def cost(members: int, before: int) -> int:
        nonlocal statements
        office.join(*people(members)[before:])
        with MailServer() as server:
            async with office.working(server, recipients=100, connections=1) as courier:
                await office.done(office.notice("ann@example.org"))
                number = office.post()
                statements = 0
                courier.wake()
                await office.done(number)
        assert len(mails(server)) == members + 1
        return statements

    async def test() -> None:
        before = 0
        for members in (100, 1000, 3000):
            many = await cost(members, before)
            counts.append((members, members // 100, many))
            before = members

    monkeypatch.setattr(courier_module, "POLL", 1000.0)
    run("asyncio", test)
    # Three for each transaction: its row, those it reached, and whether the post is still ours.
    # Two for each window of members.
    fixed = [many - 3 * transactions for _, transactions, many in counts]
    assert max(fixed) - min(fixed) <= 6, counts
    assert max(fixed) < 30, counts
