"""A retry is not a second post: what counts as the same, and for how long."""

import time

import pytest
from sqlalchemy import delete, insert, select, update

from postroom.lists.registry import rename_list
from postroom.spool.queue import claim, finish
from postroom.spool.receipts import STEP, most_to_purge, purge_receipts
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.conftest import NewDesk
from tests.contract.desk import ANNE, BART, POST, Counts, Desk, counts, endpoints, envelope, rows

DAY = 86_400.0


def test_a_message_that_comes_again_is_answered_alike_and_queued_once(desk: Desk) -> None:
    sent = envelope("ant@example.com", "no@example.com", "bee-join@example.com")
    first = desk.work(sent)
    assert desk.work(sent) == first
    assert desk.work(sent, sent) == [*first, *first]
    assert counts(desk.store) == Counts(2, 1, 2)
    assert [(len(stored.entries), stored.again) for stored in desk.stored] == [
        (2, 0),
        (0, 2),
        (0, 2),
        (0, 2),
    ]


def test_it_is_known_again_after_its_entry_is_done_and_by_another_process(
    desk: Desk, new_desk: NewDesk
) -> None:
    sent = envelope("ant@example.com")
    desk.deliver(sent)
    with desk.store.begin() as connection:
        finish(connection, claim(connection, "in", 1, 60.0))
    assert new_desk().deliver(sent) == desk.deliver(sent) == [[250]]
    assert counts(desk.store) == Counts(0, 0, 1)


@pytest.mark.parametrize(
    "again",
    [
        b"Return-Path: <anne@example.org>\r\n" + POST,
        b"Envelope-To: ant@example.com\r\nDelivery-Date: Mon, 1 Jan 2029\r\n" + POST,
        b"Delivered-To: ant@example.com\r\nX-Original-To: ant@example.org\r\n" + POST,
        b"DELIVERY-DATE: Mon,\r\n\t1 Jan 2029\r\n 12:00:00 +0000\r\n" + POST,
        POST.replace(b"Subject", b"envelope-to: a@example.com\r\nSubject"),
    ],
)
def test_what_a_delivering_agent_adds_anew_makes_no_difference(desk: Desk, again: bytes) -> None:
    first = b"Return-Path: <>\r\nDelivery-Date: Sun, 31 Dec 2028\r\n" + POST
    sent = [envelope("ant@example.com", raw=raw) for raw in (first, again, POST)]
    assert [desk.deliver(each) for each in sent] == 3 * [[[250]]]
    assert [row.raw for row in rows(desk.store)] == [first]


@pytest.mark.parametrize(
    ("sender", "recipient", "raw"),
    [
        (BART, "ant@example.com", POST),
        ("", "ant@example.com", POST),
        ("Anne@example.org", "ant@example.com", POST),
        (ANNE, "bee@example.com", POST),
        (ANNE, "ant-join@example.com", POST),
        (ANNE, "ant-owner@example.com", POST),
        (ANNE, "postmaster@example.com", POST),
        (ANNE, "ant@example.com", POST + b"."),
        (ANNE, "ant@example.com", POST[:-2] + b"\n"),
        (ANNE, "ant@example.com", b"Received: from here\r\n" + POST),
        (ANNE, "ant@example.com", POST + b"Delivery-Date: in the body\r\n"),
        (ANNE, "ant@example.com", POST.replace(b"hello", b"Hello")),
    ],
)
def test_another_sender_endpoint_or_message_is_another_delivery(
    desk: Desk, sender: str, recipient: str, raw: bytes
) -> None:
    assert desk.deliver(envelope("ant@example.com")) == [[250]]
    assert desk.deliver(envelope(recipient, sender=sender, raw=raw)) == [[250]]
    assert counts(desk.store) == Counts(2, 2, 2)


def test_details_are_different_endpoints(desk: Desk) -> None:
    for detail in ("x", "X", "y", ""):
        desk.deliver(envelope(f"ant-confirm+{detail}@example.com"))
    assert counts(desk.store).entries == 4


def test_d6_another_body_under_the_same_message_id_is_another_message(desk: Desk) -> None:
    secret = b"Message-ID: <one>\r\n\r\nThe first body.\r\n"
    other = b"Message-ID: <one>\r\n\r\nThe second body.\r\n"
    desk.deliver(envelope("ant@example.com", raw=secret))
    desk.deliver(envelope("ant@example.com", sender=BART, raw=other))
    assert desk.deliver(envelope("ant@example.com", raw=other)) == [[250]]
    assert [(row.sender, row.raw) for row in rows(desk.store)] == [
        (ANNE, secret),
        (BART, other),
        (ANNE, other),
    ]


def test_of_a_resend_only_what_is_new_is_queued(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com", "bee@example.com"))
    again = envelope("bee@example.com", "ant-owner@example.com", "no@example.com")
    assert desk.deliver(again) == [[250, 250, 550]]
    assert endpoints(desk.store) == [
        "ant@example.com/",
        "ant@example.com/owner",
        "bee@example.com/",
    ]
    assert counts(desk.store) == Counts(3, 2, 3)
    assert (len(desk.stored[-1].entries), desk.stored[-1].again) == (1, 1)


def test_duplicates_within_a_batch_are_queued_once(desk: Desk) -> None:
    batch = [
        envelope("ant@example.com"),
        envelope("ant@example.com", "bee@example.com"),
        envelope("bee@example.com", "BEE@example.com", "no@example.com"),
        envelope("ant@example.com", sender=BART),
        envelope("ant@example.com", raw=b"Delivered-To: x\r\n" + POST),
    ]
    assert desk.deliver(*batch) == [[250], [250, 250], [250, 250, 550], [250], [250]]
    assert [(row.endpoint, row.sender) for row in rows(desk.store)] == [
        ("ant@example.com/", ANNE),
        ("bee@example.com/", ANNE),
        ("ant@example.com/", BART),
    ]
    assert counts(desk.store) == Counts(3, 3, 3)  # no message without an entry
    assert [stored.again for stored in desk.stored] == [0, 1, 1, 0, 1]


def test_a_batch_of_thousands_that_comes_again_is_known_again(desk: Desk) -> None:
    def batch(new: int) -> list[list[int] | None]:
        return desk.deliver(
            *(
                envelope(*(f"ant-confirm+{m}@example.com" for m in range(500)), raw=b"%d" % n)
                for n in (1, 2, new)
            )
        )

    assert batch(3) == batch(4) == batch(3) == 3 * [500 * [250]]
    assert counts(desk.store) == Counts(2000, 4, 2000)


def test_a_renamed_list_knows_what_it_had(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com"))
    with desk.store.begin() as connection:
        rename_list(connection, "ant@example.com", "wasp@example.com")
    assert desk.deliver(envelope("wasp@example.com", "wasp-join@example.com")) == [[250, 250]]
    assert counts(desk.store).entries == 2


def test_without_its_receipt_a_message_is_new(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com"))
    with desk.store.begin() as connection:
        connection.execute(delete(schema.receipt))
    desk.deliver(envelope("ant@example.com"))
    assert counts(desk.store) == Counts(2, 2, 1)


# Purging


def fill(store: Store, *ages: float) -> None:
    """Receipts of these ages in seconds, the oldest id first."""
    now = time.time()
    with store.begin() as connection:
        connection.execute(
            insert(schema.receipt),
            [
                {"entry": number, "key": b"%d" % number, "accepted_at": now - age}
                for number, age in enumerate(ages)
            ],
        )


def left(store: Store) -> list[int]:
    with store.read() as connection:
        return list(connection.scalars(select(schema.receipt.c.entry).order_by("entry")))


def purge(store: Store, most: int = STEP, ahead: float = 0.0) -> int:
    """Purge by a clock that is so many seconds ahead."""
    with store.begin() as connection:
        return purge_receipts(connection, time.time() + ahead - 5 * DAY, most)


def test_only_old_receipts_are_purged(store: Store) -> None:
    fill(store, 9 * DAY, 5.01 * DAY, 4.99 * DAY, 1.0, 0.0, -DAY)
    assert purge(store) == 2
    assert left(store) == [2, 3, 4, 5]
    assert purge(store) == 0


def test_fresh_receipts_among_old_ones_stay_and_are_not_in_the_way(store: Store) -> None:
    fill(store, 9 * DAY, 0.0, -DAY, 9 * DAY, 9 * DAY)
    assert purge(store, most=2) == 2
    assert left(store) == [1, 2, 4]
    assert purge(store, most=2) == 1
    assert left(store) == [1, 2]


def test_receipts_are_purged_in_steps(store: Store) -> None:
    fill(store, *([9 * DAY] * (2 * STEP + 5)), 0.0)
    assert [purge(store) for _ in range(4)] == [STEP, STEP, 5, 0]
    assert left(store) == [2 * STEP + 5]


def test_nothing_is_purged_of_nothing(store: Store) -> None:
    assert purge(store) == 0


def test_fault_35_a_clock_a_year_ahead_purges_no_more_than_mail_allows(store: Store) -> None:
    fill(store, *(4 * DAY - number for number in range(500)))
    year = 365 * DAY
    assert most_to_purge(0) == 0  # the first look of a process that was just started
    assert purge(store, most_to_purge(0), year) == 0
    assert purge(store, most_to_purge(3), year) == 6
    assert left(store) == list(range(6, 500))  # the oldest went
    assert purge(store, most_to_purge(3)) == 0  # the clock was set right


def test_old_receipts_come_to_an_end_although_few_are_purged_at_a_time() -> None:
    there, written, looks = 10_000, 10, 0
    while there > written:
        there += written - most_to_purge(written)
        looks += 1
    assert looks == 999
    assert most_to_purge(10**9) == STEP  # a lock must not be held for long


def test_after_the_purge_a_message_is_new_and_waiting_entries_stay(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com"), envelope("bee@example.com"))
    with desk.store.begin() as connection:
        old = schema.receipt.c.entry == rows(desk.store)[0].id
        connection.execute(
            update(schema.receipt).where(old).values(accepted_at=time.time() - 6 * DAY)
        )
    assert purge(desk.store) == 1
    assert endpoints(desk.store) == ["ant@example.com/", "bee@example.com/"]
    assert desk.deliver(envelope("ant@example.com", "bee@example.com")) == [[250, 250]]
    assert endpoints(desk.store) == ["ant@example.com/", "ant@example.com/", "bee@example.com/"]
