"""What the intake counts."""

import time
from collections.abc import Iterator, Sequence

import pytest

from postroom.lists import registry
from postroom.lists.endpoint import Endpoint
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.spool.trouble import Trouble
from postroom.store.direct import Direct
from postroom.store.engine import Store
from postroom.watch.counts import ENDPOINTS, TROUBLES, CountedWriter, Counts, kind_of, name_of
from postroom.watch.figures import Tally

TROUBLE = {
    "damaged": Trouble("", reply.LOCAL_ERROR, unhealthy=True, unknown=True),
    "outcome_unknown": Trouble("", reply.LOCAL_ERROR, retry=True, unknown=True),
    "no_room": Trouble("", reply.NO_ROOM),
    "busy": Trouble("", reply.LOCAL_ERROR, retry=True),
    "one_envelope": Trouble("", reply.LOCAL_ERROR, one_envelope=True),
    "unavailable": Trouble("", reply.LOCAL_ERROR),
}


class Desk:
    """A writer on a database with the list ants@example.com."""

    def __init__(self, store: Store) -> None:
        with store.begin() as connection:
            registry.create_list(connection, "ants@example.com")
        self.counts = Counts()
        self.direct = Direct(store)
        self.writer = CountedWriter(self.direct, "owner@example.com", self.counts)

    def store(self, *messages: Sequence[str], left: float = 60.0) -> Tally:
        """One batch with a message for each group of recipients; what is counted then."""
        drafts = []
        for to in messages:
            boxes = tuple(Mailbox(*each.split("@")) for each in to)
            raw = f"\r\nfor {' '.join(to)}\r\n".encode()
            envelope = Envelope("anne@example.org", boxes, raw, Peer("127.0.0.1:5"), time.time())
            drafts.append(self.writer.draft(envelope, time.monotonic() + left))
        self.writer.commit(drafts)
        return self.counts.tally(None)


@pytest.fixture
def desk(sqlite_store: Store) -> Iterator[Desk]:
    made = Desk(sqlite_store)
    yield made
    made.direct.close()


def test_a_batch_is_counted_with_its_size_and_its_time(desk: Desk) -> None:
    found = desk.store(["ants@example.com"], ["ants-join@example.com"], ["nope@example.com"])
    assert found.batches.total == 3
    assert sum(found.batches.counts) == sum(found.commits.counts) == 1
    assert found.commits.total > 0
    assert desk.store(["ants-owner@example.com"]).batches.total == 4


def test_a_message_that_nobody_gets_is_not_stored(desk: Desk) -> None:
    found = desk.store(["ants@example.com"], ["nope@example.com"])
    assert (found.messages, found.octets) == (1, len(b"\r\nfor ants@example.com\r\n"))
    assert found.recipients["unknown"] == 1


def test_every_recipient_is_counted_by_what_it_was(desk: Desk) -> None:
    kinds = ["join", "leave", "confirm", "request", "owner", "bounces", "subscribe"]
    to = [f"ants-{kind}@example.com" for kind in kinds]
    found = desk.store(["ants@example.com", *to, "postmaster@example.com"], ["a@example.com"])
    assert found.recipients == dict.fromkeys(ENDPOINTS, 1) | {"join": 2}


def test_what_came_again_is_counted_and_not_as_stored(desk: Desk) -> None:
    desk.store(["ants@example.com", "ants-join@example.com"])
    found = desk.store(["ants@example.com", "ants-join@example.com"])
    assert (found.messages, found.again) == (1, 2)


def test_a_batch_that_was_not_stored_is_not_counted(desk: Desk) -> None:
    with pytest.raises(Trouble):
        desk.store(["ants@example.com"], left=-1.0)
    found = desk.counts.tally(None)
    assert (sum(found.batches.counts), found.messages, found.recipients["post"]) == (0, 0, 0)


def test_all_that_can_be_counted_is_there_from_the_start() -> None:
    found = Counts().tally(None)
    assert found.recipients == dict.fromkeys(ENDPOINTS, 0)
    assert found.troubles == dict.fromkeys(TROUBLES, 0)


@pytest.mark.parametrize("name", TROUBLES)
def test_each_trouble_has_its_name(name: str) -> None:
    counts = Counts()
    counts.troubled(TROUBLE[name])
    assert name_of(TROUBLE[name]) == name
    assert counts.tally(None).troubles == dict.fromkeys(TROUBLES, 0) | {name: 1}


def test_a_failure_lasts_until_something_is_stored(desk: Desk) -> None:
    desk.counts.troubled(Trouble("database is locked", reply.LOCAL_ERROR, retry=True))
    assert desk.counts.tally(None).failed == "database is locked"
    assert desk.store(["ants@example.com"]).failed == ""


def test_one_bad_envelope_is_no_failure_of_the_database() -> None:
    counts = Counts()
    counts.troubled(Trouble("no such text", reply.LOCAL_ERROR, one_envelope=True))
    assert counts.tally(None).failed == ""


@pytest.mark.parametrize(
    ("endpoint", "kind"),
    [
        (None, "unknown"),
        (Endpoint(None, "", "", "", ""), "site_owner"),
        (Endpoint(1, "ants", "ants", "", ""), "post"),
        (Endpoint(1, "ants", "ants", "owner", ""), "owner"),
    ],
)
def test_an_endpoint_has_one_kind(endpoint: Endpoint | None, kind: str) -> None:
    assert kind_of(endpoint) == kind
    assert kind in ENDPOINTS
