"""Outgoing: what delivery is told of lists, on both databases."""

import re

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
