"""Letters: the notices as they go out, octet for octet, and what strangers cannot do to them."""

import email
import email.policy
from collections.abc import Callable
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.base.settings import DEFAULT_OWNER
from postroom.notices import letters
from postroom.notices.letters import Failed
from postroom.notices.render import WIDTH
from postroom.spool.handing import Handed, Letter
from postroom.spool.ids import show
from postroom.spool.orders import Order, order_of
from tests.notices.house import ANTS, HEADER, NOW, POST, SITE_OWNER, house

GOLDEN = Path(__file__).parent / "golden"
STAFF = ("carla@example.net", "dan@example.com")
LINES = ["Dear ants,", "how do you cut a leaf?", "Anne"]
REASON = "Please write to help@example.com."
NOTICE = Failed("anne@example.org", b"Subject: Your post\r\n\r\n", "550 5.1.1 No such user")


def rejected() -> Handed:
    return letters.rejected(house(), ANTS, POST, HEADER, REASON, NOW)


def held_author() -> Handed:
    return letters.held_author(house(), ANTS, POST, NOW)


def held_owner() -> Handed:
    post = POST._replace(sender="anne+list@example.org")
    return letters.held_owner(house(), ANTS, post, LINES, STAFF, 4.0, NOW)


def held_summary() -> Handed:
    posts = [
        POST._replace(id=POST.id + n, subject=f"Leaf {n}", held_at=NOW - 3600 * n) for n in range(3)
    ]
    return letters.held_summary(house(), ANTS, posts, 12, NOW - 7200, STAFF, NOW)


def undeliverable() -> Handed:
    made = letters.undeliverable(house(), NOTICE, ANTS, NOW)
    assert made is not None
    return made


Make = Callable[[], Handed]
EVERY: list[Make] = [rejected, held_author, held_owner, held_summary, undeliverable]
each_notice = pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__)


def raw_of(handed: Handed) -> bytes:
    assert isinstance(handed.what, Letter)
    return handed.what.raw


def read(handed: Handed) -> EmailMessage:
    message = email.message_from_bytes(raw_of(handed), policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def text_of(handed: Handed) -> str:
    body = read(handed).get_body(("plain",))
    assert isinstance(body, EmailMessage)
    text: str = body.get_content()
    return text


@each_notice
def test_a_notice_is_the_golden_file_octet_for_octet(make: Make) -> None:
    golden = GOLDEN / f"{make.__name__}.eml"
    assert raw_of(make()) == golden.read_bytes()


@each_notice
def test_a_notice_is_marked_as_automatic_and_asks_for_no_answer(make: Make) -> None:
    message = read(make())
    answered = make in (rejected, held_author)
    assert message["Auto-Submitted"] == ("auto-replied" if answered else "auto-generated")
    assert message["X-Auto-Response-Suppress"] == "All"
    assert message["Message-ID"] == f"<{show(1)}@lists.example.com>"
    assert message["Date"].datetime.timestamp() == NOW
    assert message["In-Reply-To"] == ("<ant@example.org>" if answered else None)
    assert message.defects == []


@pytest.mark.parametrize(
    ("make", "sender", "recipients"),
    [
        (rejected, "", ("anne@example.org",)),
        (held_author, "", ("anne@example.org",)),
        (held_owner, SITE_OWNER, STAFF),
        (held_summary, SITE_OWNER, STAFF),
        (undeliverable, "", (SITE_OWNER,)),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_notice_is_an_order_with_the_right_envelope(
    make: Make, sender: str, recipients: tuple[str, ...]
) -> None:
    handed = make()
    assert (handed.queue, handed.list_key) == ("out", 7)
    assert isinstance(handed.what, Letter)
    assert handed.what.sender == sender
    assert handed.metadata["original_size"] == len(handed.what.raw)
    assert handed.metadata["listname"] == "ants@example.com"
    assert order_of(handed.metadata) == Order(
        "notice", sender, message_id=f"<{show(1)}@lists.example.com>", recipients=recipients
    )


def test_an_answer_goes_to_the_sender_of_the_envelope_whatever_the_message_says() -> None:
    post = POST._replace(sender="anne+list@example.org", author="victim@example.net")
    handed = letters.rejected(house(), ANTS, post, HEADER, REASON, NOW)
    assert order_of(handed.metadata).recipients == ("anne+list@example.org",)
    assert b"victim" not in raw_of(handed)


def test_a_rejection_holds_the_header_of_the_post_and_nothing_of_its_body() -> None:
    message = read(rejected())
    [beside] = message.iter_attachments()
    assert beside.get_content_type() == "text/rfc822-headers"
    assert beside.get_payload(decode=True) == HEADER.partition(b"\r\n\r\n")[0] + b"\r\n"
    assert b"The body." not in raw_of(rejected())


def test_a_huge_post_makes_a_small_notice() -> None:
    huge = POST._replace(subject="x" * 1_000_000, sentence="y " * 500_000, author="z" * 99_999)
    header = b"X-Long: " + b"x" * 10_000_000 + b"\r\n\r\n" + b"y" * 1_000_000
    lines = ["word " * 100_000] * 100
    assert len(raw_of(letters.rejected(house(), ANTS, huge, header, REASON, NOW))) < 20_000
    assert len(raw_of(letters.held_owner(house(), ANTS, huge, lines, STAFF, 4.0, NOW))) < 10_000
    every = [huge] * 1000
    summary = letters.held_summary(house(), ANTS, every, 1000, NOW, STAFF, NOW)
    assert len(raw_of(summary)) < 60_000
    assert "And 975 more." in text_of(summary)


HOSTILE = "x\r\nBcc: all@example.net\r\n\r\nBuy\x1b[2J\x00 \u202egnp \ud800 =?utf-8?q?=0ABcc:_x?="
NAMES = {
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "from",
    "to",
    "subject",
    "date",
    "message-id",
    "auto-submitted",
    "x-auto-response-suppress",
    "in-reply-to",
    "references",
}


@settings(max_examples=40, deadline=None)
@given(st.text(st.characters(), max_size=300) | st.just(HOSTILE), st.binary(max_size=300))
def test_a_hostile_post_adds_no_field_and_no_control(text: str, octets: bytes) -> None:
    post = POST._replace(subject=text, author=text, sentence=text, message_id=text)
    for handed in (
        letters.rejected(house(), ANTS, post, octets, text, NOW),
        letters.held_author(house(), ANTS, post, NOW),
        letters.held_owner(house(), ANTS, post, [text] * 3, STAFF, 4.0, NOW),
        letters.held_summary(house(), ANTS, [post], 1, NOW, STAFF, NOW),
        letters.undeliverable(house(), Failed("a@example.org", octets, text), ANTS, NOW),
    ):
        assert handed is not None
        raw = raw_of(handed)
        head = raw.partition(b"\r\n\r\n")[0].decode("ascii")
        assert head.replace("\r\n", "").isprintable()
        assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
        message = read(handed)
        names = [name.lower() for name, _ in message.items()]
        assert len(set(names)) == len(names)
        assert set(names) <= NAMES
        shown = text_of(handed).replace("\u200c", "").replace("\u200d", "")
        assert shown.replace("\r\n", "").replace("\n", "").isprintable()


@pytest.mark.parametrize("given", ["ant@example.org", "<a b@c>", "<a@b><c@d>", "<é@c>", "<x", ""])
def test_what_is_no_message_id_is_not_referred_to(given: str) -> None:
    message = read(letters.held_author(house(), ANTS, POST._replace(message_id=given), NOW))
    assert (message["In-Reply-To"], message["References"]) == (None, None)


def test_an_address_that_is_not_ascii_stands_as_it_is() -> None:
    post = POST._replace(sender="änne@exämple.org")
    handed = letters.held_author(house(), ANTS, post, NOW)
    assert "\r\nTo: änne@exämple.org\r\n".encode() in raw_of(handed)
    assert order_of(handed.metadata).recipients == ("änne@exämple.org",)


def test_a_notice_in_another_language_reads_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "held_author.txt").write_text(
        f"Subject: Über {{{{ list }}}}\n\n{'Grüße ' * 40}\n", encoding="utf-8"
    )
    handed = letters.held_author(house(str(tmp_path)), ANTS, POST, NOW)
    assert raw_of(handed).isascii()
    assert read(handed)["Subject"] == "Über ants@example.com"
    lines = text_of(handed).splitlines()
    assert " ".join(lines) == " ".join(["Grüße"] * 40)
    assert max(map(len, lines)) <= WIDTH


def test_a_post_without_subject_author_or_text_is_told_of() -> None:
    post = POST._replace(subject="", author="", sender="", message_id="", sentence="")
    handed = letters.held_owner(house(), ANTS, post, [], STAFF, 0.0, NOW)
    shown = text_of(handed)
    assert "Subject: (no subject)" in shown
    assert "From:    <>" in shown
    assert "no plain text" in shown
    assert "Reason:  nonmember" in shown
    assert "summary" not in shown


def test_a_notice_that_the_sites_owner_could_not_get_ends_there() -> None:
    failed = NOTICE._replace(recipient=SITE_OWNER.upper())
    assert letters.undeliverable(house(), failed, ANTS, NOW) is None


def test_a_site_without_an_owner_has_nobody_to_tell_of_failures() -> None:
    unnamed = house()._replace(owner=DEFAULT_OWNER)
    assert letters.undeliverable(unnamed, NOTICE, ANTS, NOW) is None


def test_a_site_notice_that_failed_belongs_to_no_list() -> None:
    handed = letters.undeliverable(house(), NOTICE, None, NOW)
    assert handed is not None
    assert handed.list_key is None
    assert "listname" not in handed.metadata
