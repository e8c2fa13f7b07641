"""Reading a post: what is found in it, and that nothing in it can do harm."""

import base64
import os
import sys
from collections.abc import Callable
from encodings.aliases import aliases
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.reading import post as reading
from postroom.reading.post import Post, mailboxes, read

ANNE = "anne@example.org"


def header(*lines: str) -> bytes:
    return "".join(f"{line}\r\n" for line in lines).encode() + b"\r\nHello.\r\n"


def post(*lines: str, sender: str = ANNE) -> Post:
    return read(header(*lines), sender)


def addresses(text: str) -> list[str]:
    return [each.address for each in mailboxes(text)[0]]


def test_an_ordinary_post_is_read() -> None:
    raw = header(
        "Received: from a by b",
        "Received: from c by d",
        "Message-ID: <ant@example.org>",
        "From: Anne Ant <Anne@Example.ORG>",
        "To: Ants <ants@example.com>, bart@example.net",
        "Cc: cris@example.net",
        "Subject: =?utf-8?q?K=C3=A4se?= and",
        "\tmore",
    )
    found = read(raw, "Anne+lists@example.org")
    assert found.sender == "Anne+lists@example.org"
    assert found.authors == (ANNE,)
    assert found.senders == (ANNE, "anne+lists@example.org")
    assert found.author_name == "Anne Ant"
    assert (found.to, found.cc) == (
        ("ants@example.com", "bart@example.net"),
        ("cris@example.net",),
    )
    assert found.recipients == 3
    assert found.message_id == "<ant@example.org>"
    assert found.subject == "Käse and more"
    assert found.size == len(raw)
    assert found.received == 2
    assert found.first_lines == ("Hello.",)
    assert not (found.automatic or found.report or found.is_reply or found.header_cut)


def test_d27_a_message_without_any_header_is_read() -> None:
    for raw in (b"", b"\r\n", b"no header", b"\r\n\r\nbody"):
        found = read(raw, "")
        assert (found.authors, found.senders, found.to, found.recipients) == ((), (), (), 0)
        assert (found.subject, found.message_id, found.approval) == ("", "", "")


def test_several_from_fields_and_several_addresses_are_all_authors() -> None:
    found = post("From: a@example.org, B <B@example.org>", "From: c@example.org", sender="b@x.org")
    assert found.authors == ("a@example.org", "b@example.org", "c@example.org")
    assert found.senders == (*found.authors, "b@x.org")


def test_who_is_author_and_envelope_sender_is_one_sender() -> None:
    assert post("From: <ANNE@example.org>", sender="Anne@EXAMPLE.org").senders == (ANNE,)


def test_the_null_sender_speaks_for_nobody() -> None:
    assert post(f"From: {ANNE}", sender="").senders == (ANNE,)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("anne@example.org", [ANNE]),
        ("<anne@example.org>", [ANNE]),
        ("Anne <anne@example.org>", [ANNE]),
        ('"Ant, Anne" <anne@example.org>', [ANNE]),
        (r'"a \" <b@example.net> \\" <anne@example.org>', [ANNE]),
        ("anne@example.org (Anne (the <x@example.net>) Ant)", [ANNE]),
        ("anne@example.org ((Anne) <x@example.net>)", [ANNE]),
        ("(one, two@example.net) anne@example.org", [ANNE]),
        (r"(\) x@example.net) anne@example.org", [ANNE]),
        ("<@a.example,@b.example:anne@example.org>", [ANNE]),
        ("< anne @ example.org >", [ANNE]),
        ('"anne ant"@example.org', ['"anne ant"@example.org']),
        ('<"anne ant"@example.org>', ['"anne ant"@example.org']),
        ("friends: anne@example.org, Bart <bart@example.net>;", [ANNE, "bart@example.net"]),
        ("undisclosed-recipients:;", []),
        ("Anne Ant anne@example.org", [ANNE]),
        ("a@example.net <anne@example.org>", [ANNE]),
        ("anne@xn--exmple-cua.org", ["anne@exämple.org"]),
        (", ,anne@example.org;,", [ANNE]),
        ("root", []),
        ('"anne@example.org"', [ANNE]),
        ("=?utf-8?q?anne=40example.org?=", []),
        ('"Anne <anne@example.org>', [ANNE]),
        ("(Anne <anne@example.org>", [ANNE]),
        ("<anne@example.org", [ANNE]),
        ("anne@example.org\x00", []),
    ],
)
def test_addresses_are_found_however_they_are_written(text: str, expected: list[str]) -> None:
    assert addresses(text) == expected


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Anne Ant <anne@example.org>", "Anne Ant"),
        (r'"Anne \"Queen\" Ant" <anne@example.org>', 'Anne "Queen" Ant'),
        ("anne@example.org (Anne Ant)", "Anne Ant"),
        ("friends: Anne Ant <anne@example.org>;", "Anne Ant"),
        ("=?utf-8?b?w4RubmU=?= <anne@example.org>", "Änne"),
        ("=?utf-8?q?a=0D=0ABcc=3A_x=00?= <anne@example.org>", "a Bcc: x"),
        ("anne@example.org", ""),
    ],
)
def test_the_authors_name_is_on_one_line_and_can_be_printed(text: str, name: str) -> None:
    assert mailboxes(text)[0][0].name == name


def test_recipients_that_cannot_be_read_are_counted() -> None:
    found = post("To: a@example.org, what is this, ,", "Cc: x: b, c;", "Cc: d")
    assert (found.to, found.recipients) == (("a@example.org",), 5)


def test_a_post_that_was_sent_on_names_whom_it_was_sent_on_to() -> None:
    found = post("To: a@example.org", "Resent-To: b@example.org", "Resent-Cc: c@example.org")
    assert found.to == ("a@example.org", "b@example.org")
    assert found.cc == ("c@example.org",)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("<Ants.Example.COM>", "ants.example.com"),
        ("All about <ants> <ants.example.com>", "ants.example.com"),
        ("ants.example.com", "ants.example.com"),
        ("<", "<"),
        ("", ""),
    ],
)
def test_list_ids_are_what_stands_in_brackets(value: str, expected: str) -> None:
    assert post(f"List-Id: {value}").list_ids == (expected,)


def test_the_loop_marker_of_ours_is_read_folded() -> None:
    assert post("X-Postroom-Loop: Ants@Example.com").loops == ("ants@example.com",)


@pytest.mark.parametrize("name", ["Approved", "Approve", "X-Approved", "x-approve"])
def test_the_moderator_token_is_found_in_the_header(name: str) -> None:
    assert post(f"{name}:  abcd-EFGH-ijkl-2345 ").approval == "abcd-EFGH-ijkl-2345"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Approved: ABCDefghIJKL2345", "ABCDefghIJKL2345"),
        ("approve:ABCD-EFGH-IJKL-2345", "ABCD-EFGH-IJKL-2345"),
        ("Approved: ABCD EFGH - IJKL 2345", "ABCD EFGH - IJKL 2345"),
        ("Approved: ABCD-EFGH-IJKL-2345 thanks", ""),
        ("Approved: two words", ""),
        ("Approved:", ""),
        ("I Approved: ABCD-EFGH-IJKL-2345", ""),
    ],
)
def test_the_moderator_token_is_found_in_the_first_line_of_the_text(
    line: str, expected: str
) -> None:
    assert read(b"A: 1\r\n\r\n\r\n" + line.encode() + b"\r\nmore", ANNE).approval == expected
    assert read(b"A: 1\r\n\r\nHello\r\n" + line.encode(), ANNE).approval == ""


def test_the_header_goes_before_the_text_for_the_moderator_token() -> None:
    raw = b"Approved: ABCD-EFGH-IJKL-MNOP\r\n\r\nApproved: PONM-LKJI-HGFE-DCBA"
    assert read(raw, ANNE).approval == "ABCD-EFGH-IJKL-MNOP"


@pytest.mark.parametrize(
    "field", ["Approved:", "X-Approved: no", "Approve: yes\r\nApproved: by me"]
)
def test_a_field_that_holds_no_token_does_not_hide_the_one_in_the_text(field: str) -> None:
    raw = field.encode() + b"\r\n\r\nApproved: ABCD-EFGH-IJKL-MNOP\r\n"
    assert read(raw, ANNE).approval == "ABCD-EFGH-IJKL-MNOP"
    both = b"Approved: x\r\n" + field.encode() + b"\r\nX-Approve: PONM-LKJI-HGFE-DCBA\r\n\r\nHi"
    assert read(both, ANNE).approval == "PONM-LKJI-HGFE-DCBA"


NESTED = (
    b"Content-Type: multipart/mixed; boundary=one\r\n\r\nApproved: no\r\n--one\r\n"
    b'Content-Type: multipart/alternative;\r\n boundary="t w"\r\n\r\n'
    b"--t w\r\nContent-Type: text/html\r\n\r\n<p>html\r\n"
    b"--t w\r\nContent-Type: text/plain\r\n\r\nplain\r\n--t w--\r\n--one--\r\n"
)


def test_the_first_lines_are_those_of_the_first_text_part() -> None:
    assert read(NESTED, ANNE).first_lines == ("plain",)


@pytest.mark.parametrize(
    ("head", "body"),
    [
        ("", "Grüße\r\n\r\nzwei".encode()),
        ("Content-Type: text/plain; charset=iso-8859-1", "Grüße\r\n zwei ".encode("latin-1")),
        ("Content-Type: text/plain; charset=no-such", "Grüße\nzwei".encode()),
        ("Content-Type: text/plain; charset=idna", "Grüße\nzwei".encode()),
        ("Content-Type: text/plain; charset=hex", "Grüße\nzwei".encode()),
        ("Content-Type: text/plain; charset=rot13", "Grüße\nzwei".encode()),
        ("Content-Type: text/plain; charset=unicode_escape", "Grüße\nzwei".encode()),
        ("Content-Type: text/plain; charset=Raw-Unicode-Escape", "Grüße\nzwei".encode()),
        ("Content-Transfer-Encoding: base64", base64.encodebytes("Grüße\nzwei".encode())),
        ("Content-Transfer-Encoding: BASE64", b"R3LDvMOfZQp6d2VpA"),
        ("Content-Transfer-Encoding: quoted-printable", b"Gr=C3=BC=\r\n=C3=9Fe\r\nzwei"),
    ],
)
def test_text_is_decoded_as_far_as_it_can_be(head: str, body: bytes) -> None:
    lines = read(head.encode() + b"\r\n\r\n" + body, ANNE).first_lines
    assert lines == ("Grüße", "zwei")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("codec", sorted({*aliases.values(), "unicode_escape", "undefined"}))
def test_whatever_codec_a_sender_names_nothing_is_raised_or_warned_of(codec: str) -> None:
    hostile = rb"Approved: \d\N{x}\u12 +A- =zz begin 666 x" + bytes(range(256))
    head = f"Subject: =?{codec}?q?=5Cd=FF?=\r\nContent-Type: text/plain; charset={codec}\r\n\r\n"
    found = read(head.encode() + hostile, ANNE)
    assert all(line.isprintable() for line in (found.subject, *found.first_lines))


@pytest.mark.parametrize(
    "raw",
    [
        b"Content-Type: text/html\r\n\r\ntext",
        b"Content-Type: multipart/mixed\r\n\r\ntext",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--y\r\n\r\ntext",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: a/b\r\n\r\ntext",
        b"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n"
        b"Content-Disposition: attachment\r\n\r\ntext",
        b"Content-Type: text/plain\r\nContent-Type: text/html\r\n\r\ntext",
    ],
)
def test_without_a_text_part_there_are_no_lines(raw: bytes) -> None:
    assert read(raw, ANNE).first_lines == ()


def test_few_and_short_lines_are_kept_of_a_long_text() -> None:
    found = read(b"\r\n" + b"word " * 200 + b"\r\n" + b"line\r\n" * 100_000, ANNE)
    assert len(found.first_lines) == reading.LINES
    assert max(map(len, found.first_lines)) == reading.LINE


@pytest.mark.parametrize(
    ("line", "sender"),
    [
        ("Subject: bounce", ""),
        ("Auto-Submitted: auto-replied (vacation)", ANNE),
        ("auto-submitted: Auto-Generated; x", ANNE),
        ("Precedence: BULK", ANNE),
        ("Precedence: list", ANNE),
        ("Precedence: junk", ANNE),
        ("List-Id: <bees.example.com>", ANNE),
        ("List-Unsubscribe: <mailto:x@example.com>", ANNE),
        ("X-Auto-Response-Suppress: OOF, AutoReply", ANNE),
        ("From: MAILER-DAEMON@example.org", ANNE),
        ("From: x@example.org", "postmaster@example.org"),
        ("From: x@example.org", "bees-bounces+anne=example.org@example.net"),
        ("From: x@example.org", "bees-request@example.net"),
        ("From: x@example.org", "owner-bees@example.net"),
        ("From: no-reply@example.org", ANNE),
        ("Content-Type: multipart/report; boundary=x", ANNE),
    ],
)
def test_what_must_not_be_answered_is_automatic(line: str, sender: str) -> None:
    assert post(line, sender=sender).automatic


@pytest.mark.parametrize(
    "line",
    [
        "Auto-Submitted: no",
        "Auto-Submitted: NO (really)",
        "Precedence: normal",
        "X-Auto-Response-Suppress: None",
        "From: Mailer Daemon <anne@example.org>",
        "Urgent: yes",
        "Content-Type: multipart/mixed; boundary=report",
    ],
)
def test_what_a_person_sent_is_not_automatic(line: str) -> None:
    assert not post(line).automatic


@pytest.mark.parametrize("name", ["In-Reply-To", "References"])
def test_a_reply_is_known_by_what_it_refers_to(name: str) -> None:
    assert post(f"{name}: <ant@example.org>").is_reply


PIECES = [
    b"From: ", b"To:", b"Cc: ", b"Subject:", b"List-Id: <", b"Content-Type: multipart/mixed;",
    b" boundary=x", b"--x", b"Content-Transfer-Encoding: base64", b"Content-Type: text/plain;",
    b"charset=", b"utf-16", b"punycode", b"undefined", b"Approved:", b"Auto-Submitted:",
    b"=?utf-8?q?=0D=0A?=", b"=?x?b?", b"?=", b'"', b"(", b")", b"<", b">", b"@", b"\\", b",", b":",
    b";", b"anne@example.org", b"xn--", b"\xff\xfe", "ä".encode(), b"\x00", b"\r\n", b"\n", b"\r",
    b"\r\n\r\n", b" ", b"\t",
]  # fmt: skip
messages = st.one_of(st.binary(), st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join))


@given(messages, st.sampled_from(["", ANNE, "nonsense", "a@b@c", '"']))
def test_d26_any_bytes_can_be_read_and_what_is_shown_is_one_line(raw: bytes, sender: str) -> None:
    found = read(raw, sender)
    assert found.size == len(raw)
    texts = (found.subject, found.author_name, found.message_id, found.approval)
    for text in (*texts, *found.first_lines, *found.loops, *found.list_ids, *found.senders):
        assert text.isprintable()
        text.encode()


def work(call: Callable[[], object]) -> int:
    """How many lines of Python are executed."""
    done = 0

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal done
        done += 1
        return local

    before = sys.gettrace()
    sys.settrace(local)
    try:
        call()
    finally:
        sys.settrace(before)
    return done


SHAPES: dict[str, Callable[[int], bytes]] = {
    "addresses": lambda n: b"To: " + b"a@example.org, " * n + b"\r\n\r\n",
    "folded addresses": lambda n: b"To: x" + b",\r\n a@example.org" * n + b"\r\n\r\n",
    "comments": lambda n: b"From: " + b"(" * n + b")" * n + b"a@example.org\r\n\r\n",
    "open comments": lambda n: b"From: " + b"(a@b " * n,
    "quotes": lambda n: b"From: " + b'"' * (2 * n + 1) + b" <a@b>\r\n\r\n",
    "angles": lambda n: b"From: " + b"<" * n + b"a@b" + b">" * n + b"\r\n\r\n",
    "escapes": lambda n: b"From: " + b"\\" * n + b'"' + b'\\"' * n + b"\r\n\r\n",
    "fields": lambda n: b"a:\n" * n + b"\n",
    "list-ids": lambda n: b"List-Id: <x>\n" * n + b"\n",
    "subject": lambda n: b"Subject: " + b"=?utf-8?q?x" * n + b"\r\n\r\n",
    "parameters": lambda n: b"Content-Type: text/plain" + b"; a*0=x" * n + b"\r\n\r\nx",
    "parts": lambda n: b"Content-Type: multipart/mixed; boundary=x\n\n" + b"--x\n\n" * n,
    "nested": lambda n: b"Content-Type: multipart/mixed; boundary=x\n\n--x\n" * n,
    "lines": lambda n: b"\r\n" + b"x\r\n" * n,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_d25_twice_as_much_is_no_more_than_twice_the_work(shape: str) -> None:
    make = SHAPES[shape]
    once, twice = (work(lambda n=n: read(make(n), ANNE)) for n in (400, 800))  # type: ignore[misc]
    assert twice < 2.1 * once


@pytest.mark.parametrize("shape", SHAPES)
def test_d25_what_is_larger_than_a_post_can_be_is_read_to_a_bound(shape: str) -> None:
    # Anything but linear work would not end: this is a hundred times what the test above reads.
    assert read(SHAPES[shape](60_000), ANNE).size > 60_000


def test_d25_of_a_header_of_fifty_megabytes_the_first_is_read() -> None:
    raw = b"From: anne@example.org\r\n" + b"X-Odd: " + b"x" * 50_000_000 + b"\r\n\r\nbody"
    found = read(raw, ANNE)
    assert (found.authors, found.size, found.header_cut) == ((ANNE,), len(raw), True)


def test_a_hundred_thousand_recipients_are_too_many_for_any_limit() -> None:
    raw = b"To: " + b"a@example.org,\r\n " * 100_000 + b"\r\n\r\nbody"
    assert read(raw, ANNE).recipients > 60_000


def test_only_so_many_authors_are_looked_up() -> None:
    authors = ", ".join(f"a{n}@example.org" for n in range(1000))
    assert len(post(f"From: {authors}").senders) == reading.AUTHORS + 1


def test_random_bytes_of_some_size_are_read() -> None:
    raw = os.urandom(300_000)
    assert read(raw, "").size == 300_000
