"""The courier: what becomes of each recipient, whatever the mail server does."""

import pytest
from sqlalchemy import update

from postroom.delivery.policy import Limits
from postroom.spool.ids import show
from postroom.store import schema
from tests.delivery.office import LIST, RAW, SENDER, Office, mails, people
from tests.delivery.servers import (
    DROP,
    TAKE_AND_DROP,
    Hook,
    MailServer,
    at,
    at_most,
    at_recipient,
    refusing,
    times,
)
from tests.wire.harness import both_loops, run

pytestmark = pytest.mark.usefixtures("brisk")
DAY = 86_400.0
FAR = Limits(3600.0, 14_400.0)  # nobody is due again before the test is over


@both_loops
def test_everybody_gets_a_post_once_and_what_was_done_can_be_read(
    office: Office, loop: str
) -> None:
    office.join(*people(10))

    async def test() -> None:
        with MailServer() as server:
            async with office.working(server):
                number = office.post()
                await office.done(number)
        [taken] = server.taken
        assert (taken.sender, taken.content) == (SENDER, RAW)
        assert sorted(taken.recipients) == sorted(people(10))
        assert len(office.of(number, "sent")) == 10
        assert {each.attempts for each in office.recipients(number)} == {1}
        assert office.transactions(number) == [(10, "250 2.0.0 Taken")]
        entry = show(number)
        assert office.steps() == [
            ("expanded", {"kind": "post", "recipients": 10, "entry": entry}),
            ("done", {"kind": "post", "sent": 10}),
        ]
        [said] = office.said("delivered")
        assert (said["entry"], said["sent"]) == (entry, 10)

    run(loop, test)


def test_a_post_to_nobody_is_done(office: Office) -> None:
    async def test() -> None:
        with MailServer() as server:
            async with office.working(server):
                await office.done(office.post())
        assert server.taken == []

    run("asyncio", test)


@pytest.mark.parametrize(
    "trouble",
    [
        at_recipient(5, "421 4.3.2 Bye"),
        at_recipient(5, DROP),
        at("MAIL", "421 4.3.2 Bye"),
        at("DATA", "421 4.3.2 Bye"),
        at("DATA", DROP),
        at("END", "421 4.3.2 Bye"),
    ],
)
def test_d2_a_server_that_leaves_in_the_middle_costs_nobody_anything(
    any_office: Office, trouble: Hook
) -> None:
    office = any_office
    office.join(*people(10))

    async def test() -> None:
        with MailServer(times(2, trouble)) as server:
            async with office.working(server, connections=1):
                number = office.post()
                await office.done(number)
        assert mails(server) == sorted(people(10))
        assert {each.attempts for each in office.recipients(number)} == {1}
        assert office.facts("bounces") == office.facts("shunt") == []

    run("asyncio", test)


def test_who_was_refused_by_name_before_a_421_is_refused_and_the_rest_get_it(
    office: Office,
) -> None:
    office.join(*people(10))
    late = times(1, at("DATA", "421 4.3.2 Bye"))

    async def test() -> None:
        with MailServer(late, refusing({"p3@example.net": "550 5.1.1 No such user"})) as server:
            async with office.working(server):
                number = office.post()
                await office.done(number)
        assert mails(server) == sorted({*people(10)} - {"p3@example.net"})
        assert office.of(number, "refused") == {"p3"}
        assert len(office.facts("bounces")) == 1

    run("asyncio", test)


def test_d5_who_is_deferred_waits_longer_each_time_and_alone(any_office: Office) -> None:
    office = any_office
    office.join(*people(4))
    later = refusing({f"p{n}@example.net": "451 4.2.0 Greylisted" for n in (2, 4)})
    waits: list[float] = []

    async def test() -> None:
        with MailServer(later) as server:
            number = office.post()
            for attempt in range(1, 5):
                async with office.working(server, limits=FAR):
                    await office.put_off(number)
                one, two, _, four = office.recipients(number)
                assert (one.attempts, two.attempts, four.attempts) == (1, attempt, attempt)
                assert (one.state, two.state, two.reply) == (
                    "sent",
                    "pending",
                    "451 4.2.0 Greylisted",
                )
                assert two.next_at is not None and two.at is not None
                assert two.next_at == four.next_at  # they were refused together
                waits.append(two.next_at - two.at)
                entry = office.entry(number)
                assert entry is not None
                assert (entry.queue, entry.attempts, entry.last_error) == ("out", 0, None)
                assert abs(entry.available_at - two.next_at) < 1.0
                office.make_due(number)
            server.hooks.clear()
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert mails(server) == sorted(people(4))
        most = [3600.0, 7200.0, 14_400.0, 14_400.0]
        assert all(half / 2 <= wait <= half for wait, half in zip(waits, most, strict=True))
        assert waits[2] != waits[3], "no jitter"

    run("asyncio", test)


def test_d5_who_is_deferred_for_too_long_bounces_with_the_last_reply(office: Office) -> None:
    office.join(*people(3))
    later = refusing({"p2@example.net": "451 4.2.0 Greylisted"})

    async def test() -> None:
        with MailServer(times(1, at("MAIL", "451 4.3.0 Later")), later) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            with office.writing() as connection:
                connection.execute(update(schema.post).values(created_at=0.0))
            office.make_due(number)
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert mails(server) == ["p1@example.net", "p3@example.net"]
        [facts] = office.facts("bounces")
        [refused] = facts["refused"]
        assert refused["email"] == "p2@example.net"
        assert refused["reply"].startswith("Given up after ")
        assert refused["reply"].endswith(" days: 451 4.2.0 Greylisted")
        assert office.of(number, "refused") == {"p2"}

    run("asyncio", test)


def test_d5_who_is_not_due_before_the_end_bounces_when_it_comes(any_office: Office) -> None:
    office = any_office
    office.join(*people(3))
    later = refusing({"p2@example.net": "451 4.2.0 Greylisted"})

    async def test() -> None:
        with MailServer(later) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            with office.writing() as connection:
                connection.execute(update(schema.post).values(created_at=0.0))
            office.change(number, available_at=0.0, retried_at=None)
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert len(server.taken) == 1
        [facts] = office.facts("bounces")
        [refused] = facts["refused"]
        assert (refused["email"], refused["about"]) == ("p2@example.net", "message")
        assert refused["reply"] == "not delivered in time; last: 451 4.2.0 Greylisted"
        assert office.of(number, "refused") == {"p2"}

    run("asyncio", test)


def test_refusals_of_one_commit_are_one_bounce_that_says_all(any_office: Office) -> None:
    office = any_office
    office.join(*people(6))
    bad = {
        "p2@example.net": "550 5.1.1 No such user",
        "p5@example.net": "552 5.2.2 Mailbox full",
        "p6@example.net": "451 4.2.0 Later",
    }

    async def test() -> None:
        with MailServer(refusing(bad)) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
        [facts] = office.facts("bounces")
        assert (facts["event"], facts["listname"]) == ("refused", LIST)
        assert facts["message_id"] == "<ant@example.org>"
        told = [(each["email"], each["reply"], each["about"]) for each in facts["refused"]]
        assert told == [
            ("p2@example.net", "550 5.1.1 No such user", "recipient"),
            ("p5@example.net", "552 5.2.2 Mailbox full", "recipient"),
        ]
        numbers = office.look(schema.member.select())
        assert {each["member"] for each in facts["refused"]} < {row.id for row in numbers}
        found = office.look(schema.message.select().order_by(schema.message.c.id))
        assert bytes(found[-1].raw).rstrip() == RAW.partition(b"\r\n\r\n")[0], "its header"

    run("asyncio", test)


def test_who_is_refused_with_the_message_bounces_about_the_message(office: Office) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer(at("END", "554 5.6.0 Not here")) as server:
            number = office.post()
            async with office.working(server):
                await office.done(number)
        [facts] = office.facts("bounces")
        assert len(facts["refused"]) == 3
        assert {each["about"] for each in facts["refused"]} == {"message"}

    run("asyncio", test)


@pytest.mark.parametrize(
    "hook",
    [
        at("MAIL", "530 5.7.0 Authentication required"),
        at("RCPT", "554 5.7.1 Relay access denied"),
        at("DATA", "503 5.5.1 Not now"),
    ],
)
def test_a_server_that_does_not_want_us_costs_no_member_anything(
    office: Office, hook: Hook
) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer(hook) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            assert office.of(number, "pending") == {"p1", "p2", "p3"}
            assert office.facts("bounces") == []
            assert office.said("mail server refuses us")[0]["recipients"] == 3
            server.hooks.clear()
            office.make_due(number)
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert mails(server) == sorted(people(3))

    run("asyncio", test)


@both_loops
def test_a_server_that_is_down_is_waited_for_and_counts_against_nobody(
    office: Office, loop: str
) -> None:
    office.join(*people(10))

    async def test() -> None:
        with MailServer() as server:
            server.stop()
            async with office.working(server, recipients=5):
                number = office.post()
                await office.until(lambda: len(office.said("mail server")) > 2)
                assert len(office.of(number, "pending")) == 10
                server.start()
                await office.done(number)
        assert mails(server) == sorted(people(10))
        assert {each.attempts for each in office.recipients(number)} == {1}
        assert [many for many, _ in office.transactions(number)] == [5, 5]

    run(loop, test)


def test_what_is_lost_after_the_dot_is_tried_later_and_counted(office: Office) -> None:
    office.join(*people(3))

    async def test() -> None:
        with MailServer(times(1, at("END", TAKE_AND_DROP))) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            assert [each.attempts for each in office.recipients(number)] == [1, 1, 1]
            assert office.of(number, "pending") == {"p1", "p2", "p3"}
            office.make_due(number)
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert [each.attempts for each in office.recipients(number)] == [2, 2, 2]
        assert mails(server) == sorted(people(3) * 2)  # who can know?

    run("asyncio", test)


def test_a_server_that_takes_few_recipients_gets_more_transactions(office: Office) -> None:
    office.join(*people(10))

    async def test() -> None:
        with MailServer(at_most(3)) as server:
            number = office.post()
            async with office.working(server, connections=1):
                await office.done(number)
        assert [len(taken.recipients) for taken in server.taken] == [3, 3, 3, 1]
        assert mails(server) == sorted(people(10))
        assert {each.attempts for each in office.recipients(number)} == {1}
        asked = [said.number for said in server.heard("RCPT")]
        assert max(asked[10:]) == 3, "it learns nothing"

    run("asyncio", test)


def test_replies_of_all_kinds_in_one_transaction_are_kept_apart(any_office: Office) -> None:
    office = any_office
    office.join(*people(12))
    bad = {
        "p2@example.net": "550 5.1.1 No such user",
        "p4@example.net": "451 4.2.0 Greylisted",
        "p7@example.net": "450 4.2.1 Busy",
        "p8@example.net": "551 5.1.6 Gone away",
    }

    async def test() -> None:
        with MailServer(refusing(bad)) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
            assert office.of(number, "refused") == {"p2", "p8"}
            assert office.of(number, "pending") == {"p4", "p7"}
            replies = {each.email: each.reply for each in office.recipients(number) if each.reply}
            assert replies == bad
            server.hooks.clear()
            office.make_due(number)
            async with office.working(server, limits=FAR):
                await office.done(number)
        assert mails(server) == sorted(
            {*people(12)} - {"p2@example.net", "p8@example.net"},
        )
        attempts = {each.email: each.attempts for each in office.recipients(number)}
        assert [attempts[each] for each in people(12)] == [1, 1, 1, 2, 1, 1, 2] + [1] * 5
        assert [many for many, _ in office.transactions(number)] == [12, 2]
        assert office.of(number, "refused") == {"p2", "p8"}

    run("asyncio", test)


def test_who_is_due_again_in_a_moment_is_waited_for(office: Office) -> None:
    office.join(*people(3))
    later = times(3, at("RCPT", "451 4.2.0 Later"))

    async def test() -> None:
        with MailServer(later) as server:
            number = office.post()
            async with office.working(server, limits=Limits(0.01, 0.01)):
                await office.done(number)
        assert mails(server) == sorted(people(3))
        assert {each.attempts for each in office.recipients(number)} == {2}

    run("asyncio", test)
