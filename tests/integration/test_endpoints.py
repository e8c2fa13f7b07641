"""From LMTP to the queues: who is refused and when, and what a consumer is told.

Every test runs against both modes of `refuse_unknown` where it matters.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import pytest

from postroom.lists import registry
from postroom.lmtp.client import LMTPClient, LMTPReply
from postroom.store.engine import Store
from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    SENDER,
    Queued,
    begin_data,
    create_lists,
    deliver,
    depth,
    end_data,
    new_message,
    queued,
)
from tests.integration.sites import Sites

UNKNOWN = "nobody@example.com"


@pytest.fixture(scope="module", params=["after-data", "at-rcpt"])
def both(request: pytest.FixtureRequest) -> Iterator[Site]:
    """A running server, once in each mode."""
    with Sites() as made:
        yield made.start(LIST, "mylist-owner@example.net", LMTP__REFUSE_UNKNOWN=request.param)


@pytest.fixture(scope="module")
def after_data() -> Iterator[Site]:
    """A running server with the settings that a new site has."""
    with Sites() as made:
        yield made.start(LIST)


@pytest.fixture(scope="module")
def at_rcpt() -> Iterator[Site]:
    """A running server that refuses at RCPT."""
    with Sites() as made:
        yield made.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")


class Took(NamedTuple):
    """What a transaction gave: a reply per recipient wherever it came, and new entries."""

    replies: list[LMTPReply]
    entries: list[Queued]


def send(
    site: Site, recipients: Sequence[str], raw: bytes, sender: str = SENDER, options: str = ""
) -> Took:
    """A transaction in which recipients may be refused at RCPT or after the data."""
    before = {each.id for each in queued(site.store)}
    with site.client() as client:
        client.lhlo("client.example.org")
        assert client.mail(sender, options.split()).code == 250
        replies = [client.rcpt(each) for each in recipients]
        wanted = [number for number, reply in enumerate(replies) if reply.accepted]
        if wanted:
            assert client.docmd("DATA").code == 354
            for number, answer in zip(wanted, end_data(client, raw, len(wanted)), strict=True):
                replies[number] = answer
    return Took(replies, [each for each in queued(site.store) if each.id not in before])


POST: dict[str, Any] = {"to_list": True}
OWNER: dict[str, Any] = {"to_owner": True, "envsender": "changeme@example.com"}
ENDPOINTS: list[tuple[str, str, dict[str, Any]]] = [
    ("mylist", "in", POST),
    ("MyList", "in", POST),
    ('"mylist"', "in", POST),
    ("mylist-owner", "in", OWNER | {"subaddress": "owner"}),
    ("mylist-request", "command", {"subaddress": "request"}),
    ("mylist-confirm", "command", {"subaddress": "confirm"}),
    ("mylist-confirm+AbC123", "command", {"subaddress": "confirm", "detail": "AbC123"}),
    ("mylist-join", "command", {"subaddress": "join"}),
    ("mylist-subscribe", "command", {"subaddress": "join"}),
    ("MYLIST-SUBSCRIBE", "command", {"subaddress": "join"}),
    ("mylist-leave", "command", {"subaddress": "leave"}),
    ("mylist-unsubscribe", "command", {"subaddress": "leave"}),
    ("mylist-bounces", "bounces", {"subaddress": "bounces"}),
    (
        "mylist-bounces+anne=example.org",
        "bounces",
        {"subaddress": "bounces", "detail": "anne=example.org"},
    ),
    (
        "mylist-bounces+xhyt6utl+anne=example.org",
        "bounces",
        {"subaddress": "bounces", "detail": "xhyt6utl+anne=example.org"},
    ),
]


@pytest.mark.parametrize(("local", "queue", "facts"), ENDPOINTS, ids=[e[0] for e in ENDPOINTS])
def test_each_endpoint_has_its_queue_and_metadata(
    both: Site, local: str, queue: str, facts: dict[str, Any]
) -> None:
    raw = new_message()
    took = send(both, [f"{local}@example.com"], raw)
    assert took.replies == [ACCEPTED]
    [entry] = took.entries
    assert entry.queue == queue
    assert entry.metadata == facts | {
        "_parsemsg": False,
        "listname": LIST,
        "original_size": len(raw),
        "version": 1,
    }
    headers, _, body = raw.partition(b"\r\n\r\n")
    assert entry.content == headers + b"\r\nX-MailFrom: anne@example.org\r\n\r\n" + body


@pytest.mark.parametrize(
    "address", ["postmaster", "PostMaster", "postmaster@example.com", "POSTMASTER@Example.COM"]
)
def test_postmaster_is_the_site_owner(both: Site, address: str) -> None:
    raw = new_message()
    took = send(both, [address], raw)
    assert took.replies == [ACCEPTED]
    [entry] = took.entries
    assert entry.queue == "in"
    assert entry.metadata == OWNER | {
        "_parsemsg": False,
        "original_size": len(raw),
        "version": 1,
    }


@pytest.mark.parametrize(
    "address",
    [
        UNKNOWN,
        "mylist-bogus@example.com",
        "mylist@example.org",
        "postmaster@example.org",
        "mylist+detail@example.com",
        "-join@example.com",
    ],
)
def test_what_is_no_endpoint_is_refused(both: Site, address: str) -> None:
    took = send(both, [address], new_message())
    assert took.replies == [NO_MAILBOX]
    assert took.replies[0].enhanced_code == "5.1.1"
    assert took.entries == []


def test_valid_and_unknown_recipients_each_get_their_own_reply(both: Site) -> None:
    recipients = [UNKNOWN, LIST, "mylist-bogus@example.com", "mylist-join@example.com"]
    took = send(both, recipients, new_message())
    assert took.replies == [NO_MAILBOX, ACCEPTED, NO_MAILBOX, ACCEPTED]
    assert [each.queue for each in took.entries] == ["in", "command"]


def test_the_same_recipient_twice_is_two_replies_and_one_entry(both: Site) -> None:
    took = send(both, [LIST, "MYLIST@example.com"], new_message())
    assert took.replies == [ACCEPTED, ACCEPTED]
    assert len(took.entries) == 1


def test_a_list_named_like_a_sub_address_wins_over_it(both: Site) -> None:
    [entry] = send(both, ["mylist-owner@example.net"], new_message()).entries
    assert entry.metadata["to_list"] is True
    [entry] = send(both, ["mylist-owner-join@example.net"], new_message()).entries
    assert entry.where == ("mylist-owner@example.net", "join", "")


def test_the_null_sender_is_taken(both: Site) -> None:
    took = send(both, ["mylist-bounces@example.com"], new_message(), sender="")
    [entry] = took.entries
    assert entry.sender == ""
    assert b"\r\nX-MailFrom:\r\n\r\n" in entry.content


def test_any_octets_are_stored_as_they_came(both: Site) -> None:
    every = bytes(range(256)).replace(b"\r", b"").replace(b"\n", b"")
    body = every * 20 + b"\rbare\nline\n.\nends\r\r.\r" + every
    raw = new_message() + body + b"\r\n"
    [entry] = send(both, [LIST], raw).entries
    assert entry.raw == raw


def test_a_message_that_comes_again_is_answered_alike_and_queued_once(both: Site) -> None:
    raw = new_message()
    assert len(send(both, [LIST], raw).entries) == 1
    assert send(both, [LIST], raw) == ([ACCEPTED], [])
    both_lists = send(both, [LIST, UNKNOWN, "mylist-request@example.com"], raw)
    assert both_lists.replies == [ACCEPTED, NO_MAILBOX, ACCEPTED]
    assert [each.queue for each in both_lists.entries] == ["command"]
    assert len(send(both, [LIST], raw, sender="bob@example.org").entries) == 1


def test_addresses_beyond_ascii(both: Site) -> None:
    took = send(
        both,
        ["mylist-confirm+grüße@example.com", "ünknown@example.com"],
        new_message(),
        sender="änne@exämple.org",
        options="SMTPUTF8 BODY=8BITMIME",
    )
    assert took.replies == [ACCEPTED, NO_MAILBOX]
    [entry] = took.entries
    assert entry.where == (LIST, "confirm", "grüße")
    assert "X-MailFrom: änne@exämple.org\r\n".encode() in entry.content


def test_addresses_beyond_ascii_need_smtputf8(both: Site) -> None:
    with both.client() as client:
        client.lhlo()
        assert client.mail("änne@example.org").code == 553
        client.mail(SENDER)
        assert client.rcpt("mylist-confirm+grüße@example.com").code == 553


def test_a_list_that_was_made_a_moment_ago_is_found(both: Site) -> None:
    address = f"new-{both.port}@example.com"
    assert send(both, [address], new_message()).replies == [NO_MAILBOX]
    create_lists(both.store, address)
    assert send(both, [address], new_message()).replies == [ACCEPTED]


def test_a_domain_that_is_an_alias_reaches_the_same_lists(both: Site) -> None:
    alias(both.store, f"alias-{both.port}.example")
    [entry] = send(both, [f"mylist-leave@alias-{both.port}.example"], new_message()).entries
    assert entry.where == (LIST, "leave", "")


def alias(store: Store, host: str) -> None:
    with store.begin() as connection:
        registry.add_domain(connection, host, "example.com")


def pipelined(client: LMTPClient, octets: bytes, replies: int) -> list[int]:
    """Send `octets` in one piece; the codes of the replies to it."""
    assert client.sock is not None
    client.sock.sendall(octets)
    return [client.getreply().code for _ in range(replies)]


COMMANDS = (
    b"MAIL FROM:<anne@example.org> SIZE=100\r\nRCPT TO:<mylist@example.com>\r\n"
    b"RCPT TO:<nobody@example.com>\r\nRCPT TO:<mylist-join@example.com>\r\nDATA\r\n"
)


def test_after_data_a_pipelined_group_ends_with_a_reply_for_everybody(after_data: Site) -> None:
    with after_data.client() as client:
        client.lhlo()
        assert pipelined(client, COMMANDS, 5) == [250, 250, 250, 250, 354]
        end = new_message() + b".\r\nQUIT\r\n"
        assert pipelined(client, end, 4) == [250, 550, 250, 221]


def test_at_rcpt_a_pipelined_group_ends_with_a_reply_for_those_accepted(at_rcpt: Site) -> None:
    with at_rcpt.client() as client:
        client.lhlo()
        assert pipelined(client, COMMANDS, 5) == [250, 250, 550, 250, 354]
        end = new_message() + b".\r\nQUIT\r\n"
        assert pipelined(client, end, 3) == [250, 250, 221]


def test_at_rcpt_data_is_refused_when_nobody_was_accepted(at_rcpt: Site) -> None:
    with at_rcpt.client() as client:
        client.lhlo()
        none = b"MAIL FROM:<>\r\nRCPT TO:<nobody@example.com>\r\nDATA\r\nRSET\r\n"
        assert pipelined(client, none, 4) == [250, 550, 503, 250]
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]


def test_after_data_nobody_accepted_is_a_550_for_each(after_data: Site) -> None:
    with after_data.client() as client:
        assert deliver(client, [UNKNOWN, UNKNOWN], new_message()) == [NO_MAILBOX] * 2
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]


@pytest.mark.parametrize(
    ("recipient", "mode", "code"),
    [(LIST, "after_data", 250), (LIST, "at_rcpt", 250), (UNKNOWN, "at_rcpt", 550)],
)
def test_a_probe_leaves_nothing_behind(
    request: pytest.FixtureRequest, recipient: str, mode: str, code: int
) -> None:
    site: Site = request.getfixturevalue(mode)
    before = depth(site.store)
    with site.client() as client:
        client.lhlo()
        probe = f"MAIL FROM:<>\r\nRCPT TO:<{recipient}>\r\nRSET\r\nQUIT\r\n".encode()
        assert pipelined(client, probe, 4) == [250, code, 250, 221]
    assert depth(site.store) == before


def test_a_thousand_recipients_in_one_transaction(both: Site) -> None:
    recipients = [f"mylist-confirm+{number}@example.com" for number in range(1000)]
    took = send(both, [*recipients, LIST], new_message())
    assert took.replies[:1000] == [ACCEPTED] * 1000
    assert took.replies[1000].code == 452
    assert took.replies[1000].enhanced_code == "4.5.3"
    assert [each.where[2] for each in took.entries] == [str(number) for number in range(1000)]


def test_a_message_of_exactly_the_limit_is_taken_and_one_octet_more_is_not(sites: Sites) -> None:
    limit = 300_000
    site = sites.start(LIST, LMTP__MAX_MESSAGE_SIZE=str(limit))
    largest = new_message(size=limit)
    dots = largest[:-100].replace(b"\r\n0", b"\r\n.") + largest[-100:]
    assert len(dots) == limit and b"\r\n." in dots
    with site.client() as client:
        assert deliver(client, [LIST, LIST], largest) == [ACCEPTED] * 2
        for reply in deliver(client, [LIST, LIST], new_message(size=limit + 1)):
            assert (reply.code, reply.enhanced_code) == (552, "5.3.4")
        begin_data(client, [LIST])  # what dot-stuffing adds does not count
        assert end_data(client, dots.replace(b"\r\n.", b"\r\n.."), 1) == [ACCEPTED]
        assert client.mail(SENDER, [f"SIZE={limit + 1}"]).code == 552
        assert client.mail(SENDER, [f"SIZE={limit}"]).code == 250
    assert [each.raw for each in queued(site.store)] == [largest, dots]
