"""Mail for owners: the same octets below one marker, to people, and never in circles."""

import pytest

from postroom.mail.loops import MOST_RECEIVED
from postroom.notices.letters import Stopped, for_owners
from postroom.spool.handing import Handed, Letter
from postroom.spool.orders import order_of
from tests.notices.house import SITE_OWNER

RAW = b"Received: from a\r\nFrom: anne@example.org\r\nMessage-ID: <q>\r\n\r\n\xffHelp\r\n.\n"
FACTS = {"listname": "ants@example.com", "to_owner": True, "envsender": SITE_OWNER}
POSTMASTER = {"to_owner": True, "envsender": SITE_OWNER}
STAFF = ["Carla@example.net", "dan@example.com"]


def send(
    raw: bytes = RAW,
    sender: str = "anne@example.org",
    recipients: list[str] = STAFF,
    ours: tuple[str, ...] = (),
    facts: dict[str, object] = FACTS,
) -> Handed | Stopped:
    key = 7 if "listname" in facts else None
    return for_owners(raw, sender, facts, key, recipients, ours, SITE_OWNER)


def sent(**changes: object) -> Handed:
    handed = send(**changes)  # type: ignore[arg-type]
    assert isinstance(handed, Handed), handed
    return handed


def test_the_message_goes_on_untouched_below_the_marker() -> None:
    handed = sent()
    assert (handed.queue, handed.list_key) == ("out", 7)
    assert handed.what == Letter(b"X-Postroom-Loop: ants-owner@example.com\r\n" + RAW, SITE_OWNER)
    assert handed.metadata["original_size"] == len(handed.what.raw)
    order = order_of(handed.metadata)
    assert (order.kind, order.recipients, order.message_id) == ("owner", tuple(STAFF), "<q>")


def test_bounces_come_to_the_sites_owner_but_those_of_bounces_to_nobody() -> None:
    assert order_of(sent().metadata).sender == SITE_OWNER
    assert order_of(sent(sender="").metadata).sender == ""


def test_without_owners_it_goes_to_the_sites_owner() -> None:
    assert order_of(sent(recipients=[]).metadata).recipients == (SITE_OWNER,)


def test_postmasters_mail_goes_to_the_sites_owner() -> None:
    handed = sent(facts=POSTMASTER, recipients=[])
    assert handed.list_key is None
    assert "listname" not in handed.metadata
    assert isinstance(handed.what, Letter)
    assert handed.what.raw.startswith(b"X-Postroom-Loop: boss@example.com\r\n")
    assert order_of(handed.metadata).recipients == (SITE_OWNER,)


def test_somebody_who_is_owner_and_moderator_gets_it_once() -> None:
    people = ["carla@example.net", "dan@example.com", "CARLA@example.NET"]
    assert order_of(sent(recipients=people).metadata).recipients == tuple(people[:2])


@pytest.mark.parametrize(
    "marker",
    [
        b"X-Postroom-Loop: ants-owner@example.com",
        b"x-postroom-loop:ANTS-OWNER@EXAMPLE.COM",
        b"X-Postroom-Loop: bees-owner@example.com\r\nX-Postroom-Loop:\r\n ants-owner@example.com",
    ],
)
def test_what_was_here_before_is_stopped(marker: bytes) -> None:
    found = send(marker + b"\r\n" + RAW)
    assert isinstance(found, Stopped)
    assert found.reason == "loop"
    assert "ants-owner@example.com" in found.sentence


def test_what_was_at_another_list_goes_on() -> None:
    assert sent(raw=b"X-Postroom-Loop: bees-owner@example.com\r\n" + RAW)


def test_a_marker_in_the_body_stops_nothing() -> None:
    assert sent(raw=RAW + b"X-Postroom-Loop: ants-owner@example.com\r\n")


def test_too_many_received_fields_are_a_loop() -> None:
    assert sent(raw=b"Received: x\r\n" * (MOST_RECEIVED - 1) + RAW)
    found = send(b"Received: x\r\n" * MOST_RECEIVED + RAW)
    assert isinstance(found, Stopped)
    assert "51 Received fields" in found.sentence


def test_a_recipient_who_is_the_list_itself_is_left_out() -> None:
    people = ["ants@example.com", *STAFF]
    handed = sent(recipients=people, ours=("ANTS@example.com",))
    assert order_of(handed.metadata).recipients == tuple(STAFF)


def test_if_nobody_else_is_left_the_sites_owner_gets_it() -> None:
    handed = sent(recipients=["ants@example.com"], ours=("ants@example.com",))
    assert order_of(handed.metadata).recipients == (SITE_OWNER,)


def test_if_all_lead_back_it_is_stopped_and_says_so() -> None:
    found = send(facts=POSTMASTER, recipients=[], ours=(SITE_OWNER,))
    assert isinstance(found, Stopped)
    assert found.sentence == f"all who get mail for {SITE_OWNER} are that address itself"


@pytest.mark.parametrize("raw", [b"", b"\r\n", b"\xff\x00", b"no header\r\n", b"A" * 100_000])
def test_any_octets_go_on(raw: bytes) -> None:
    handed = sent(raw=raw)
    assert isinstance(handed.what, Letter)
    assert handed.what.raw.endswith(raw)
