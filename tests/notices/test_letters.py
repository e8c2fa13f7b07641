"""Letters: the notices as they go out, octet for octet, and what strangers cannot do to them."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.base.settings import DEFAULT_OWNER
from postroom.notices import letters
from postroom.notices.letters import Failed
from postroom.notices.render import NAMES, WIDTH
from postroom.spool.ids import show
from postroom.spool.orders import Order, order_of
from tests.notices.every import (
    EVERY,
    FAILED,
    HELD_TOKEN,
    HOSTILE,
    REASON,
    STAFF,
    TOKEN,
    assert_harmless,
    raw_of,
    read,
    rejected,
    text_of,
)
from tests.notices.house import ANNE, ANTS, HEADER, NOW, POST, SITE_OWNER, house

GOLDEN = Path(__file__).parent / "golden"
TO_STAFF = {
    "held_owner",
    "held_summary",
    "request_owner",
    "request_summary",
    "member_change",
    "bounce_summary",
    "mass_bounce",
}
# What answers a message that came a moment ago, and says to which one.
REFERS = {"rejected", "held_author", "reply", "acknowledged"}
REPLIED = REFERS | {"confirm_join", "confirm_leave", "confirm_change"}
CONFIRM = f"ants-confirm+{TOKEN}@example.com"
REQUEST = "ants-request@example.com"
# Where an answer goes, of those where it does not go to the owners.
ANSWERED_AT = {
    "held_owner": f"ants-confirm+{HELD_TOKEN}@example.com",
    "held_summary": REQUEST,
    "undeliverable": SITE_OWNER,
    "confirm_join": CONFIRM,
    "confirm_leave": CONFIRM,
    "confirm_change": CONFIRM,
    "invitation": CONFIRM,
    "request_owner": CONFIRM,
    "request_summary": REQUEST,
    "reply": REQUEST,
    "turned_off": CONFIRM,
}
each_notice = pytest.mark.parametrize("name", EVERY)


def test_every_template_is_used() -> None:
    assert list(EVERY) == list(NAMES)


@each_notice
def test_a_notice_is_the_golden_file_octet_for_octet(name: str) -> None:
    assert raw_of(EVERY[name](house(), "en")) == (GOLDEN / f"{name}.eml").read_bytes()


@each_notice
def test_a_notice_in_german_is_the_golden_file(name: str) -> None:
    made = EVERY[name](house(), "de")
    shown = f"Subject: {read(made)['Subject']}\n\n{text_of(made)}".replace("\r\n", "\n")
    assert shown == (GOLDEN / "de" / f"{name}.txt").read_text(encoding="utf-8")


@each_notice
def test_a_notice_is_marked_as_automatic_and_asks_for_no_answer(name: str) -> None:
    message = read(EVERY[name](house(), "en"))
    assert message["Auto-Submitted"] == ("auto-replied" if name in REPLIED else "auto-generated")
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Message-ID"] == f"<{show(1)}@lists.example.com>"
    assert message["Date"].datetime.timestamp() == NOW
    assert message["In-Reply-To"] == ("<ant@example.org>" if name in REFERS else None)
    assert message.defects == []


@each_notice
def test_an_answer_goes_where_it_is_understood(name: str) -> None:
    message = read(EVERY[name](house(), "en"))
    expected = ANSWERED_AT.get(name, "ants-owner@example.com")
    assert (message["Reply-To"] or message["From"]) == expected


@each_notice
def test_a_notice_is_an_order_with_the_right_envelope(name: str) -> None:
    handed = EVERY[name](house(), "en")
    assert (handed.queue, handed.list_key) == ("out", 7)
    sender = SITE_OWNER if name in TO_STAFF else ""
    if name == "probe":
        sender = f"ants-bounces+{TOKEN}@example.com"
    recipients: tuple[str, ...] = (SITE_OWNER,) if name == "undeliverable" else (ANNE,)
    if name in TO_STAFF:
        recipients = STAFF
    raw = raw_of(handed)
    assert handed.metadata["original_size"] == len(raw)
    assert handed.metadata["listname"] == "ants@example.com"
    assert order_of(handed.metadata) == Order(
        "probe" if name == "probe" else "notice",
        sender,
        message_id=f"<{show(1)}@lists.example.com>",
        recipients=recipients,
    )


def test_an_answer_goes_to_the_sender_of_the_envelope_whatever_the_message_says() -> None:
    post = POST._replace(sender="anne+list@example.org", author="victim@example.net")
    handed = letters.rejected(house(), ANTS, post, HEADER, REASON, "en", NOW)
    assert order_of(handed.metadata).recipients == ("anne+list@example.org",)
    assert b"victim" not in raw_of(handed)


def test_a_rejection_holds_the_header_of_the_post_and_nothing_of_its_body() -> None:
    message = read(rejected(house(), "en"))
    [beside] = message.iter_attachments()
    assert beside.get_content_type() == "text/rfc822-headers"
    assert beside.get_payload(decode=True) == HEADER.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert b"The body." not in raw_of(rejected(house(), "en"))


def test_a_huge_post_makes_a_small_notice() -> None:
    huge = POST._replace(subject="x" * 1_000_000, sentence="y " * 500_000, author="z" * 99_999)
    header = b"X-Long: " + b"x" * 10_000_000 + b"\r\n\r\n" + b"y" * 1_000_000
    lines = ["word " * 100_000] * 100
    assert len(raw_of(letters.rejected(house(), ANTS, huge, header, REASON, "en", NOW))) < 20_000
    shown = letters.held_owner(house(), ANTS, huge, HELD_TOKEN, lines, STAFF, 4.0, "en", NOW)
    assert len(raw_of(shown)) < 10_000
    every = [(huge, HELD_TOKEN)] * 1000
    summary = letters.held_summary(house(), ANTS, every, 1000, NOW, STAFF, "en", NOW)
    assert len(raw_of(summary)) < 60_000
    assert "And 975 more." in text_of(summary)


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=300) | st.just(HOSTILE), st.binary(max_size=300))
def test_a_hostile_post_adds_no_field_and_no_control(text: str, octets: bytes) -> None:
    post = POST._replace(subject=text, author=text, sentence=text, message_id=text)
    for handed in (
        letters.rejected(house(), ANTS, post, octets, text, "en", NOW),
        letters.held_author(house(), ANTS, post, "en", NOW),
        letters.held_owner(house(), ANTS, post, HELD_TOKEN, [text] * 3, STAFF, 4.0, "en", NOW),
        letters.held_summary(house(), ANTS, [(post, HELD_TOKEN)], 1, NOW, STAFF, "en", NOW),
        letters.undeliverable(house(), Failed("a@example.org", octets, text), ANTS, NOW),
    ):
        assert handed is not None
        assert_harmless(handed)


@pytest.mark.parametrize("given", ["ant@example.org", "<a b@c>", "<a@b><c@d>", "<é@c>", "<x", ""])
def test_what_is_no_message_id_is_not_referred_to(given: str) -> None:
    message = read(letters.held_author(house(), ANTS, POST._replace(message_id=given), "en", NOW))
    assert (message["In-Reply-To"], message["References"]) == (None, None)


def test_an_address_that_is_not_ascii_stands_as_it_is() -> None:
    post = POST._replace(sender="änne@exämple.org")
    handed = letters.held_author(house(), ANTS, post, "en", NOW)
    assert "\r\nTo: änne@exämple.org\r\n".encode() in raw_of(handed)
    assert order_of(handed.metadata).recipients == ("änne@exämple.org",)


def test_a_notice_in_another_language_reads_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "held_author.txt").write_text(
        f"Subject: Über {{{{ list }}}}\n\n{'Grüße ' * 40}\n", encoding="utf-8"
    )
    handed = letters.held_author(house(str(tmp_path)), ANTS, POST, "en", NOW)
    assert raw_of(handed).isascii()
    assert read(handed)["Subject"] == "Über ants@example.com"
    lines = text_of(handed).splitlines()
    assert " ".join(lines) == " ".join(["Grüße"] * 40)
    assert max(map(len, lines)) <= WIDTH


def test_a_post_without_subject_author_or_text_is_told_of() -> None:
    post = POST._replace(subject="", author="", sender="", message_id="", sentence="")
    handed = letters.held_owner(house(), ANTS, post, HELD_TOKEN, [], STAFF, 0.0, "en", NOW)
    shown = text_of(handed)
    assert "Subject: (no subject)" in shown
    assert "From:    <>" in shown
    assert "no plain text" in shown
    assert "Reason:  nonmember" in shown
    assert "summary" not in shown


def test_a_notice_that_the_sites_owner_could_not_get_ends_there() -> None:
    failed = FAILED._replace(recipient=SITE_OWNER.upper())
    assert letters.undeliverable(house(), failed, ANTS, NOW) is None


def test_a_site_without_an_owner_has_nobody_to_tell_of_failures() -> None:
    unnamed = house()._replace(owner=DEFAULT_OWNER)
    assert letters.undeliverable(unnamed, FAILED, ANTS, NOW) is None


def test_a_site_notice_that_failed_belongs_to_no_list() -> None:
    handed = letters.undeliverable(house(), FAILED, None, NOW)
    assert handed is not None
    assert handed.list_key is None
    assert "listname" not in handed.metadata


@pytest.mark.parametrize(("length", "fits"), [(16, True), (17, False), (64, False)])
def test_the_token_of_a_post_stands_in_the_address_where_it_has_room(
    length: int, fits: bool
) -> None:
    name = "a" * length
    long = ANTS._replace(posting_address=f"{name}@example.com")
    handed = letters.held_owner(house(), long, POST, HELD_TOKEN, [], STAFF, 4.0, "en", NOW)
    shown, reply_to = text_of(handed), read(handed)["Reply-To"]
    if fits:
        assert reply_to == f"{name}-confirm+{HELD_TOKEN}@example.com"
        assert len(reply_to.partition("@")[0]) <= 64
        assert "    accept\n    reject REASON\n    discard\n" in shown.replace("\r", "")
    else:
        assert reply_to == f"{name}-request@example.com"
        assert f"    reject {HELD_TOKEN} REASON" in shown
    assert f"    accept {HELD_TOKEN}" in shown
