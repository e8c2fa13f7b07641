"""Domains in Unicode: what goes over the wire has A-labels, what is stored has not."""

from collections.abc import Callable

import pytest

from postroom.delivery.verp import XVERP
from postroom.spool.orders import Order
from tests.delivery.office import RAW, Office
from tests.delivery.servers import OFFERS, MailServer
from tests.wire.harness import run

pytestmark = pytest.mark.usefixtures("brisk")
OLD = tuple(each for each in OFFERS if each != "SMTPUTF8")  # what such a server offers
ANN, BO = "ann@b\u00fccher.example", "bo@example.net"
ANN_SENT = "ann@xn--bcher-kva.example"
FROM, FROM_SENT = "ants-bounces@gr\u00fc\u00dfe.example", "ants-bounces@xn--gre-6ka8l.example"


def test_a_server_without_smtputf8_takes_mail_for_and_from_domains_in_unicode(
    office: Office,
) -> None:
    office.join(ANN, BO)

    async def test() -> None:
        with MailServer(offers=OLD) as server:
            async with office.working(server):
                number = office.order(Order("post", FROM, "<ant@example.org>"))
                await office.done(number)
        [taken] = server.taken
        assert (taken.sender, sorted(taken.recipients)) == (FROM_SENT, [ANN_SENT, BO])
        assert "SMTPUTF8" not in taken.parameters
        assert {(each.email, each.state) for each in office.recipients(number)} == {
            (ANN, "sent"),
            (BO, "sent"),
        }

    run("asyncio", test)


def test_a_sender_that_names_such_a_recipient_needs_no_smtputf8(office: Office) -> None:
    office.join(ANN)

    async def test() -> None:
        with MailServer(offers=OLD) as server:
            async with office.working(server, share=1.0):
                number = office.order(Order("post", FROM, "<ant@example.org>", verp=True))
                await office.done(number)
        [taken] = server.taken
        named = "ants-bounces+ann=xn--bcher-kva.example@xn--gre-6ka8l.example"
        assert (taken.sender, taken.recipients) == (named, (ANN_SENT,))

    run("asyncio", test)


def test_a_server_with_xverp_is_given_names_that_it_can_put_into_the_sender(
    office: Office,
) -> None:
    office.join(ANN, BO)

    async def test() -> None:
        with MailServer(offers=(*OLD, "XVERP")) as server:
            async with office.working(server, share=1.0):
                number = office.order(Order("post", FROM, "<ant@example.org>", verp=True))
                await office.done(number)
        [taken] = server.taken
        assert sorted(taken.recipients) == [ANN_SENT, BO]
        assert (taken.sender, taken.parameters[-1]) == (FROM_SENT, XVERP)

    run("asyncio", test)


def test_what_is_made_for_one_is_made_for_the_address_that_is_stored(office: Office) -> None:
    office.join(ANN)
    asked = []

    def personal(email: str) -> bytes:
        asked.append(email)
        return RAW

    def make(held: object) -> Callable[[str], bytes]:
        return personal

    async def test() -> None:
        with MailServer(offers=OLD) as server:
            async with office.working(server, personal=make):
                await office.done(office.post(personal=True))
        assert [each.recipients for each in server.taken] == [(ANN_SENT,)]
        assert asked == [ANN]

    run("asyncio", test)


def test_a_local_part_in_unicode_cannot_be_written_otherwise(office: Office) -> None:
    office.join("\u00e4nn@b\u00fccher.example")

    async def test() -> None:
        with MailServer(offers=OLD) as server:
            async with office.working(server):
                number = office.post()
                await office.done(number)
        assert server.taken == []
        [found] = office.recipients(number)
        assert found.state == "refused"
        assert "needs SMTPUTF8" in str(found.reply)

    run("asyncio", test)
