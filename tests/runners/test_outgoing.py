"""Outgoing: what delivery is told of lists, on both databases."""

import re

import pytest

from postroom.delivery.ledger import Told
from postroom.lists.keys import read_unsubscribe_token, site_secret
from postroom.lists.registry import create_list, rename_list
from postroom.runners.outgoing import Outgoing
from postroom.spool import queue
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.orders import OUT, Order
from postroom.store.engine import Store
from tests.runners.ants import site

RAW = b"From: a@b.org\r\nList-Unsubscribe: <mailto:x@y.org>\r\n\r\nHello.\r\n"


def test_the_unsubscribe_page_of_a_list_in_unicode_is_a_url(store: Store) -> None:
    with store.begin() as connection:
        create_list(connection, "a+b@b\u00fccher.example")
        made = rename_list(connection, "a+b@b\u00fccher.example", "ants@b\u00fccher.example")
        order = Order("post", "ants-bounces@b\u00fccher.example", personal=True)
        facts = order.metadata(made.posting_address, len(RAW))
        hand_on(connection, IdMaker(), [Handed(OUT, made.key, facts, Letter(RAW, order.sender))])
        [held] = queue.claim(connection, OUT, 1, 60.0)
        secret = site_secret(connection)
    assert not made.list_id.isascii()
    message = Outgoing(store, site().house, "https://lists.example.com/").personal(held)
    assert message is not None
    head = message("ann@example.org").partition(b"\r\n\r\n")[0].replace(b"\r\n ", b"")
    [page] = re.findall(rb"<(https://[^>]*)>", head)
    place, _, token = page.decode().rpartition("/")
    assert place == "https://lists.example.com/unsubscribe/a%2Bb.xn--bcher-kva.example"
    assert read_unsubscribe_token(secret, made.list_id, token) == "ann@example.org"


@pytest.mark.parametrize("of_a_list", [True, False])
def test_a_notice_that_failed_is_told_to_the_site_s_owner_but_not_the_owner_s_own(
    store: Store, of_a_list: bool
) -> None:
    outgoing = Outgoing(store, site().house, "")
    with store.begin() as connection:
        made = create_list(connection, "ants@example.com")
        order = Order("notice", "", recipients=("ann@example.org",))
        facts, key = order.metadata(made.posting_address, len(RAW)), made.key if of_a_list else None
        hand_on(connection, IdMaker(), [Handed(OUT, key, facts, Letter(RAW, ""))])
        [held] = queue.claim(connection, OUT, 1, 60.0)
        told = Told(1, "ann@example.org", None, "550 5.1.1 No such user", None)
        report = outgoing.undeliverable(connection, held, told)
        own = told._replace(email=outgoing.house.owner)
        assert outgoing.undeliverable(connection, held, own) is None
    assert report is not None
    assert isinstance(report.what, Letter)
    assert (report.list_key, report.what.sender) == (key, "")
    assert b"550 5.1.1 No such user" in report.what.raw
    assert (b"ants@example.com" in report.what.raw) is of_a_list
