"""What one delivery leaves behind, and what it is answered."""

from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import Table, select

from postroom.lists.registry import add_domain, create_list
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.spool.metadata import Metadata
from postroom.spool.queue import claim
from postroom.store import schema
from postroom.store.direct import Direct
from postroom.store.direct import Row as Values
from postroom.store.engine import Store
from tests.contract.conftest import NewDesk
from tests.contract.desk import (
    ANNE,
    BART,
    NOTHING,
    OWNER,
    POST,
    Counts,
    Desk,
    counts,
    endpoints,
    envelope,
    make_lists,
    rows,
)

MANY_LISTS = 2000


class Counting(Direct):
    """Keeps what is asked of the database."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.asked: list[str] = []

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        self.asked.append(statement.split()[0])
        return super().execute(statement, parameters)

    def insert(self, table: Table, rows: Sequence[Values], unless_there: bool = False) -> int:
        self.asked.append(f"INSERT {table}")
        return super().insert(table, rows, unless_there)

    def commit(self) -> None:
        self.asked.append("COMMIT")
        super().commit()


@pytest.fixture
def asked(desk: Desk) -> list[str]:
    """What is asked of the database of the intake."""
    direct = desk.direct
    assert isinstance(direct, Counting)
    return direct.asked


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """An intake that tells what it asks of the database."""
    return new_desk(Counting)


def test_a_message_is_stored_once_whatever_the_number_of_recipients(desk: Desk) -> None:
    recipients = [f"{name}{sub}@example.com" for name in ("ant", "bee") for sub in ("", "-join")]
    assert desk.deliver(envelope(*recipients)) == [[250] * 4]
    assert counts(desk.store) == Counts(entries=4, messages=1, receipts=4)
    assert endpoints(desk.store) == [
        "ant@example.com/",
        "ant@example.com/join",
        "bee@example.com/",
        "bee@example.com/join",
    ]
    assert {row.raw for row in rows(desk.store)} == {POST}


def test_the_columns_of_message_and_entry_tell_where_it_came_from(desk: Desk) -> None:
    sent = envelope("ant@example.com")
    desk.deliver(sent)
    with desk.store.read() as connection:
        message = connection.execute(select(schema.message)).one()
        entry = connection.execute(select(schema.entry)).one()
        receipt = connection.execute(select(schema.receipt)).one()
    assert (message.sender, message.size, bytes(message.raw)) == (ANNE, len(POST), POST)
    assert (message.peer, message.lhlo) == ("192.0.2.1", "mx.example.org")
    assert message.received_at == sent.received_at == entry.available_at
    assert (entry.attempts, entry.lease, entry.lease_until, entry.last_error) == (0, *3 * [None])
    assert (receipt.entry, entry.message) == (entry.id, message.id)
    (stored,) = desk.stored
    assert stored.entries == (entry.id,)
    assert stored.draft.message == message.id


def test_one_entry_per_endpoint_however_it_was_named(desk: Desk) -> None:
    with desk.store.begin() as connection:
        add_domain(connection, "example.org", alias_of="example.com")
    assert desk.deliver(
        envelope(
            "ant@example.com",
            "ANT@Example.com",
            '"ant"@example.com',
            "ant@example.org",
            "ant@example.com",
            "ant-join@example.com",
            "ant-subscribe@example.com",
            "ant-leave@example.com",
            "Ant-UNSUBSCRIBE@example.org",
            "ant-confirm+x@example.com",
            "ant-confirm+X@example.com",
            "postmaster",
            "Postmaster@example.com",
            "postmaster@example.org",
        )
    ) == [[250] * 14]
    assert endpoints(desk.store) == [
        "/",
        "ant@example.com/",
        "ant@example.com/confirm",
        "ant@example.com/confirm",
        "ant@example.com/join",
        "ant@example.com/leave",
    ]
    assert counts(desk.store) == Counts(6, 1, 6)


def test_replies_come_in_the_order_of_the_recipients(desk: Desk) -> None:
    codes = desk.work(
        envelope(
            "no@example.com", "ant@example.com", "ant-no@example.com", "bee-owner@example.com"
        ),
        envelope("bee@example.com", "x@other.example", raw=b"another"),
    )
    assert codes == [
        [reply.NO_MAILBOX, reply.ACCEPTED, reply.NO_MAILBOX, reply.ACCEPTED],
        [reply.ACCEPTED, reply.NO_MAILBOX],
    ]
    assert endpoints(desk.store) == [
        "ant@example.com/",
        "bee@example.com/",
        "bee@example.com/owner",
    ]


def test_a_message_that_nobody_takes_is_not_stored(desk: Desk) -> None:
    assert desk.deliver(envelope("no@example.com", "ant@no.example")) == [[550, 550]]
    assert counts(desk.store) == NOTHING


def test_any_bytes_are_stored_as_they_came(desk: Desk) -> None:
    raws = [
        b"",
        b"\0\xff\r\n.\r\n\n\r",
        b"no header at all",
        b"\xe9: x\r\n\r\n\x80",
        b"a" * 300_000,
    ]
    assert desk.deliver(*(envelope("ant@example.com", raw=raw) for raw in raws)) == [[250]] * 5
    assert [row.raw for row in rows(desk.store)] == raws


@pytest.mark.parametrize(
    "sender", ["", '"a b"@EXAMPLE.org', "jörg@bücher.example", "a'b@x.example"]
)
def test_the_sender_is_stored_exactly(desk: Desk, sender: str) -> None:
    assert desk.deliver(envelope("ant@example.com", sender=sender)) == [[250]]
    (row,) = rows(desk.store)
    assert row.sender == sender


def test_the_batch_keeps_its_messages_apart_and_in_order(desk: Desk) -> None:
    batch = [envelope("ant@example.com", "bee@example.com", raw=b"%d" % n) for n in range(120)]
    assert desk.deliver(*batch) == [[250, 250]] * 120
    assert counts(desk.store) == Counts(240, 120, 240)
    assert [row.raw for row in rows(desk.store)] == [b"%d" % (n // 2) for n in range(240)]
    assert [stored.entries for stored in desk.stored] == [
        tuple(row.id for row in rows(desk.store) if row.raw == b"%d" % n) for n in range(120)
    ]


def test_a_list_made_a_moment_ago_takes_mail_and_one_removed_does_not(desk: Desk) -> None:
    new = envelope("new@example.com")
    assert desk.deliver(new) == [[550]]
    with desk.store.begin() as connection:
        create_list(connection, "new@example.com")
    assert desk.deliver(new) == [[250]]


# The metadata of the reference documents: name and value, queue, for each endpoint.
BASE: Metadata = {"_parsemsg": False, "original_size": len(POST), "version": 1}
LISTED = BASE | {"listname": "mylist@example.com"}
OWNERS: Metadata = {"to_owner": True, "envsender": OWNER}
DESCRIBED: dict[str, tuple[str, Metadata]] = {
    "mylist": ("in", LISTED | {"to_list": True}),
    "mylist-request": ("command", LISTED | {"subaddress": "request"}),
    "mylist-bounces": ("bounces", LISTED | {"subaddress": "bounces"}),
    "mylist-confirm": ("command", LISTED | {"subaddress": "confirm"}),
    "mylist-join": ("command", LISTED | {"subaddress": "join"}),
    "mylist-subscribe": ("command", LISTED | {"subaddress": "join"}),
    "mylist-leave": ("command", LISTED | {"subaddress": "leave"}),
    "mylist-unsubscribe": ("command", LISTED | {"subaddress": "leave"}),
    "mylist-owner": ("in", LISTED | {"subaddress": "owner"} | OWNERS),
    "postmaster": ("in", BASE | OWNERS),
}


def test_metadata_and_queue_are_those_of_the_reference(desk: Desk) -> None:
    make_lists(desk.store, "mylist@example.com")
    for number, local in enumerate(DESCRIBED):
        raw = POST[:-3] + b"%d\r\n" % number  # another message of the same size
        assert desk.deliver(envelope(f"{local}@example.com", raw=raw)) == [[250]]
    found = [(row.queue, row.metadata) for row in rows(desk.store)]
    assert found == list(DESCRIBED.values())
    # True is equal to 1, but a consumer is shown "True".
    assert [repr(sorted(facts.items())) for _, facts in found] == [
        repr(sorted(facts.items())) for _, facts in DESCRIBED.values()
    ]


@pytest.mark.parametrize(
    ("local", "detail"),
    [
        ("mylist-confirm+T0Ken", "T0Ken"),
        ("mylist-bounces+anne=example.org", "anne=example.org"),
        ("MYLIST-Subscribe+a+b-join", "a+b-join"),
        ("mylist-owner+é\u2028{}'\\", "é\u2028{}'\\"),
    ],
)
def test_a_detail_is_all_that_is_added_to_the_reference(
    desk: Desk, local: str, detail: str
) -> None:
    make_lists(desk.store, "mylist@example.com")
    box = Mailbox(local, "example.com")
    plain = envelope(f"{local.lower().partition('+')[0]}@example.com")
    with_detail = plain._replace(recipients=(box,))
    no_detail = plain._replace(recipients=(box._replace(local=f"{local.partition('+')[0]}+"),))
    assert desk.deliver(with_detail, no_detail) == [[250], [250]]
    queue, facts = DESCRIBED[local.lower().partition("+")[0]]
    assert [(row.queue, row.metadata) for row in rows(desk.store)] == [
        (queue, facts | {"detail": detail}),
        (queue, facts),
    ]


def test_d15_the_consumer_sees_one_x_mailfrom_with_the_envelope_sender(desk: Desk) -> None:
    raw = b"X-MailFrom: forged@example.org\r\nSubject: hi\r\nx-mailfrom:\r\n folded\r\n\r\nBody\r\n"
    desk.deliver(
        envelope("ant@example.com", sender=BART, raw=raw),
        envelope("ant-bounces@example.com", sender="", raw=raw),
    )
    with desk.store.begin() as connection:
        (post,) = claim(connection, "in", 10, 60.0)
        (bounce,) = claim(connection, "bounces", 10, 60.0)
    assert post.content() == b"Subject: hi\r\nX-MailFrom: bart@example.org\r\n\r\nBody\r\n"
    assert bounce.content() == b"Subject: hi\r\nX-MailFrom:\r\n\r\nBody\r\n"
    assert post.raw == raw


def test_d16_a_batch_is_one_transaction_of_four_steps(desk: Desk, asked: list[str]) -> None:
    batch = [
        envelope(*(f"ant-confirm+{n}.{m}@example.com" for m in range(25)), raw=b"%d" % n)
        for n in range(40)
    ]
    desk.deliver(*batch)
    began = [] if desk.store.is_sqlite else ["SELECT"]  # time limits
    once = ["SELECT", "INSERT receipt", "INSERT message", "INSERT entry", "COMMIT"]
    assert asked == began + once
    assert counts(desk.store) == Counts(1000, 40, 1000)


def test_d12_statements_do_not_grow_with_the_number_of_lists(desk: Desk, asked: list[str]) -> None:
    batch = [envelope("ant@example.com", "no@example.com", raw=b"%d" % n) for n in range(10)]
    assert desk.deliver(*batch) == 10 * [[250, 550]]
    few = asked.copy()
    asked.clear()
    make_lists(desk.store, *(f"list{number}@example.com" for number in range(MANY_LISTS)))
    batch = [envelope(f"list{n}@example.com", "no@example.com", raw=b"%d" % n) for n in range(10)]
    assert desk.deliver(*batch) == 10 * [[250, 550]]
    assert asked == few
