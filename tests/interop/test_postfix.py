"""Postfix as the client, over a unix socket: what only it does, and the hardest it can be hit."""

import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from postroom.testing.site import Site
from tests.integration.mail import LIST, depth, new_message
from tests.integration.sites import Sites
from tests.interop.mail import (
    ANNE,
    Since,
    arrived,
    hand_in,
    kill_and_restart,
    ledger,
    listening_at,
    message_id,
    unix_socket,
    until,
    wait_for_depth,
)
from tests.interop.postfix import Postfix


class Pair(NamedTuple):
    """A server and the Postfix that delivers to it."""

    site: Site
    postfix: Postfix


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Both of them running."""
    with unix_socket() as place, Sites() as made:
        site = listening_at(made, place, LIST)
        with Postfix({"example.com": place}) as postfix:
            yield Pair(site, postfix)


def test_a_message_of_its_sendmail_command_arrives(pair: Pair) -> None:
    raw = new_message()
    pair.postfix.submit(ANNE, ["mylist-join@example.com"], raw)
    [entry] = arrived(pair.site, pair.postfix, message_id(raw))
    assert entry.where == (LIST, "join", "")
    assert entry.raw.startswith(b"Received: by mta.example.net (Postfix")


def test_a_consumer_is_shown_the_envelope_sender_below_what_postfix_added(pair: Pair) -> None:
    raw = new_message("Good morning.")
    hand_in(pair.postfix, [LIST], raw)
    [entry] = arrived(pair.site, pair.postfix, message_id(raw))
    assert entry.raw.startswith(b"Received: from ")
    assert b"\r\nX-MailFrom: anne@example.org\r\n\r\nGood" in entry.content


def test_a_message_for_nobody_at_all_is_bounced(pair: Pair) -> None:
    log = Since(pair.postfix)
    hand_in(pair.postfix, ["nobody@example.com"], new_message())
    line = log.line(pair.postfix.says_bounced("nobody@example.com"))
    assert "in reply to end of DATA command" in line


def test_dots_and_long_lines_and_octets_beyond_ascii_arrive_as_they_are(pair: Pair) -> None:
    body = b".\r\n..\r\n.x\r\n" + b"y" * 998 + b"\r\n" + bytes(range(128, 256)) + b"\r\n.\r\n"
    raw = new_message() + body
    hand_in(pair.postfix, [LIST], raw, options=["BODY=8BITMIME"])
    [entry] = arrived(pair.site, pair.postfix, message_id(raw))
    assert entry.raw.endswith(b"Hello.\r\n" + body)


def test_more_recipients_than_it_puts_into_one_transaction_all_arrive(pair: Pair) -> None:
    raw = new_message()
    recipients = [f"mylist-confirm+{number}@example.com" for number in range(120)]
    hand_in(pair.postfix, recipients, raw)
    found = arrived(pair.site, pair.postfix, message_id(raw), 120)
    assert {each.where[2] for each in found} == {str(number) for number in range(120)}


def test_a_server_that_is_killed_in_mid_stream_gets_every_message_once(pair: Pair) -> None:
    site, postfix = pair
    messages = [new_message(size=random.randint(200, 40_000)) for _ in range(300)]
    before = depth(site.store)
    with ThreadPoolExecutor(8) as threads:
        handed_in = [threads.submit(hand_in, postfix, [LIST], raw) for raw in messages]
        for part, goal in ("door", 40), ("intake", 90), ("everything", 150):
            wait_for_depth(site, postfix, before + goal)
            kill_and_restart(site, part)
        for each in handed_in:
            each.result()
    wait_for_depth(site, postfix, before + len(messages))
    until(postfix, lambda: not postfix.waiting(), "nothing left to deliver")
    ids = Counter(map(message_id, messages))
    assert ledger(site, ids) == ids
