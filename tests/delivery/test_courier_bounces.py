"""The courier and what will bounce: tags in the envelope senders of posts, and probes."""

from typing import Any

import pytest
from sqlalchemy import Connection, select, update

from postroom.delivery.ledger import Told
from postroom.delivery.policy import Limits
from postroom.delivery.verp import XVERP
from postroom.lists.keys import verp_key, verp_tag
from postroom.mail.message import header_end
from postroom.spool.handing import Handed
from postroom.spool.orders import Order
from postroom.spool.queue import Claim
from postroom.spool.upkeep import remove_list
from postroom.store import schema
from tests.delivery.office import LIST, RAW, Office, mails, people
from tests.delivery.servers import OFFERS, MailServer, at, refusing
from tests.wire.harness import run

pytestmark = pytest.mark.usefixtures("brisk")
FAR = Limits(3600.0, 14_400.0)  # nobody is due again before the test is over
KEY = verp_key(bytes(range(32)), "ants.example.com")
ANN, TOKEN = "Ann@example.org", "abcdefghijklmnopqrstuvwxyz"
PROBE = Order("probe", f"c++-bounces+{TOKEN}@example.com", "<probe@example.com>", (ANN,))


def nobody_is_told(connection: Connection, held: Claim, told: Told) -> Handed | None:
    raise AssertionError(f"the site's owner hears of {told.email}")


# Tags


def test_who_has_a_transaction_alone_has_a_tag_alone_and_others_share_one(office: Office) -> None:
    office.join(ANN, *people(200))

    async def test() -> None:
        with MailServer() as server:
            async with office.working(server, share=0.2):
                await office.done(office.post(verp=True, verp_key=KEY))
        assert mails(server) == sorted([ANN, *people(200)])
        shared = f"ants-bounces+{verp_tag(KEY)}@example.com"
        single = [taken for taken in server.taken if taken.sender != shared]
        assert 20 <= len(single) <= 60
        for taken in single:
            [email] = taken.recipients
            tag = verp_tag(KEY, email.lower())
            named = email.replace("@", "=")
            assert taken.sender == f"ants-bounces+{tag}+{named}@example.com"

    run("asyncio", test)


def test_in_personal_mode_the_tag_is_that_of_the_address_in_whatever_case(office: Office) -> None:
    office.join(ANN)

    async def test() -> None:
        with MailServer(offers=(*OFFERS, "XVERP")) as server:
            async with office.working(server):
                await office.done(office.post(personal=True, verp=True, verp_key=KEY))
        [taken] = server.taken
        tag = verp_tag(KEY, "ann@example.org")
        assert taken.sender == f"ants-bounces+{tag}+Ann=example.org@example.com"
        assert XVERP not in taken.parameters

    run("asyncio", test)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_server_with_xverp_gets_the_tag_that_all_share_and_adds_the_names(
    office: Office, share: float
) -> None:
    office.join(*people(5))

    async def test() -> None:
        with MailServer(offers=(*OFFERS, "XVERP")) as server:
            async with office.working(server, share=share):
                await office.done(office.post(verp=True, verp_key=KEY))
        [taken] = server.taken
        assert taken.sender == f"ants-bounces+{verp_tag(KEY)}@example.com"
        assert XVERP in taken.parameters

    run("asyncio", test)


def test_a_server_without_xverp_gets_the_shared_tag_and_no_names(
    office: Office,
) -> None:
    office.join(*people(40))

    async def test() -> None:
        with MailServer() as plain, MailServer(offers=(*OFFERS, "XVERP")) as naming:
            for server in (plain, naming):
                async with office.working(server):
                    await office.done(office.post(verp=True, verp_key=KEY))
        shared = [f"ants-bounces+{verp_tag(KEY)}@example.com"]
        assert [taken.sender for taken in plain.taken] == shared
        assert [taken.sender for taken in naming.taken] == shared
        assert not any(XVERP in taken.parameters for taken in plain.taken)
        assert all(XVERP in taken.parameters for taken in naming.taken)

    run("asyncio", test)


# Probes


def test_a_probe_goes_out_with_its_token_in_the_sender(office: Office) -> None:
    async def test() -> None:
        with MailServer(offers=(*OFFERS, "XVERP")) as server:
            async with office.working(server, share=1.0):
                number = office.order(PROBE)
                await office.done(number)
        [taken] = server.taken
        assert (taken.sender, taken.recipients) == (PROBE.sender, (ANN,))
        assert XVERP not in taken.parameters
        assert office.of(number, "sent") == {"Ann"}
        assert office.facts("bounces") == []

    run("asyncio", test)


def test_a_probe_that_is_refused_for_good_is_an_entry_with_its_token(any_office: Office) -> None:
    office = any_office

    async def test() -> None:
        with MailServer(refusing({ANN: "550 5.1.1 No such user"})) as server:
            async with office.working(server, undeliverable=nobody_is_told):
                await office.done(office.order(PROBE))
        [facts] = office.facts("bounces")
        assert facts == {
            "event": "refused",
            "listname": LIST,
            "version": 1,
            "message_id": "<probe@example.com>",
            "refused": [
                {
                    "email": ANN,
                    "member": None,
                    "reply": "550 5.1.1 No such user",
                    "about": "recipient",
                }
            ],
            "token": TOKEN,
        }
        this = schema.entry.c
        [(key,)] = office.look(select(this.list).where(this.queue == "bounces"))
        assert key == office.key
        [(raw,)] = office.look(select(schema.message.c.raw))
        assert bytes(raw).rstrip() == RAW[: header_end(RAW)].rstrip()

    run("asyncio", test)


def test_a_probe_whose_time_ran_out_is_an_entry_with_its_token(any_office: Office) -> None:
    office = any_office

    async def test() -> None:
        with MailServer(refusing({ANN: "451 4.2.0 Greylisted"})) as server:
            number = office.order(PROBE)
            async with office.working(server, limits=FAR, undeliverable=nobody_is_told):
                await office.put_off(number)
            assert office.facts("bounces") == []
            with office.writing() as connection:
                connection.execute(update(schema.post).values(created_at=0.0))
            office.change(number, available_at=0.0, retried_at=None)
            async with office.working(server, limits=FAR, undeliverable=nobody_is_told):
                await office.done(number)
        [facts] = office.facts("bounces")
        [refused] = facts["refused"]
        assert (facts["token"], refused["email"]) == (TOKEN, ANN)
        assert refused["reply"] == "not delivered in time; last: 451 4.2.0 Greylisted"

    run("asyncio", test)


@pytest.mark.parametrize("kind", ["notice", "owner"])
def test_what_is_no_probe_is_told_to_the_sites_owner_whatever_its_sender(
    office: Office, kind: Any
) -> None:
    told: list[str] = []

    def note(connection: Connection, held: Claim, refused: Told) -> Handed | None:
        told.append(refused.email)
        return None

    async def test() -> None:
        with MailServer(at("RCPT", "550 5.1.1 No such user")) as server:
            async with office.working(server, undeliverable=note):
                await office.done(office.order(Order(kind, PROBE.sender, "<x@y.z>", (ANN,))))
        assert told == [ANN]
        assert office.facts("bounces") == []

    run("asyncio", test)


def test_a_refused_post_has_no_token(office: Office) -> None:
    office.join(ANN)

    async def test() -> None:
        with MailServer(at("RCPT", "550 5.1.1 No such user")) as server:
            async with office.working(server):
                await office.done(office.post(verp=True, verp_key=KEY))
        [facts] = office.facts("bounces")
        assert "token" not in facts

    run("asyncio", test)


def test_a_probe_of_a_list_that_was_removed_meanwhile_stops_nobody(any_office: Office) -> None:
    office = any_office

    async def test() -> None:
        with MailServer(at("RCPT", "550 5.1.1 No such user")) as server:
            number = office.order(PROBE)
            with office.writing() as connection:
                remove_list(connection, LIST, force=True)
            office.change(number, queue="out", lease=None)  # taken out of `shunt` again
            async with office.working(server, undeliverable=nobody_is_told):
                await office.done(number)
        [facts] = office.facts("bounces")
        assert facts["token"] == TOKEN

    run("asyncio", test)
