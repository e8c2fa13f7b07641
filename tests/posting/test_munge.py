"""Whose name a post bears, and where replies go."""

import email
import email.policy
from email.message import EmailMessage
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.settings import Dmarc, Headers
from postroom.mail.address import Mailbox
from postroom.mail.fields import Field, Parts, take_apart
from postroom.posting.cook import cook
from postroom.posting.munge import (
    KEPT,
    MOST_AUTHORS,
    Policy,
    Poster,
    authors_of,
    from_list,
    mitigation,
    munged,
    with_replies,
)
from postroom.reading.post import Author
from tests.posting.kitchen import golden, order

ReplyTo = Literal["author", "list", "both", "address"]
ANN, BOB = Author("Ann Lee", "ann@example.org"), Author("", "bob@mail.example.org")
BOX = Mailbox("ants", "lists.example.com")


def read(raw: bytes) -> EmailMessage:
    return email.message_from_bytes(raw, policy=email.policy.default)


def values(parts: Parts, name: str) -> list[str]:
    return [each.value.decode() for each in parts.all(name)]


@pytest.mark.parametrize(
    ("dmarc", "policy", "authors", "fields", "what"),
    [
        (Dmarc(), "none", [ANN], 1, "none"),
        (Dmarc(), "quarantine", [ANN], 1, "munge"),
        (Dmarc(), "reject", [ANN], 1, "munge"),
        (Dmarc(), None, [ANN], 1, "munge"),  # DNS does not answer: better than to lose it
        (Dmarc(), None, [], 1, "none"),  # nobody whose policy it could be
        (Dmarc(), "none", [ANN], 2, "munge"),
        (Dmarc(mitigation="wrap"), "reject", [ANN], 1, "wrap"),
        (Dmarc(mitigation="none"), "reject", [ANN], 2, "none"),
        (Dmarc(mitigation="none", always=True), "reject", [ANN], 1, "none"),
        (Dmarc(always=True), "none", [ANN], 1, "munge"),
        (Dmarc(always=True, mitigation="wrap"), "none", [], 0, "wrap"),
        (Dmarc(exempt=("ann@example.org",)), "reject", [ANN], 1, "none"),
        (Dmarc(exempt=(" ANN@example.ORG ",)), "reject", [ANN], 1, "none"),
        (Dmarc(exempt=("@example.org",)), "reject", [ANN], 1, "none"),
        (Dmarc(exempt=("@example.org",), always=True), "reject", [ANN], 1, "none"),
        (Dmarc(exempt=("@example.org",)), "reject", [BOB], 1, "munge"),  # a subdomain
        (Dmarc(exempt=("@mail.example.org",)), "reject", [BOB], 1, "none"),
        (Dmarc(exempt=("@example.org",)), "reject", [ANN, BOB], 1, "munge"),
        (Dmarc(exempt=("example.org", "org", "@org")), "reject", [ANN], 1, "munge"),
        (Dmarc(exempt=("@",)), "reject", [], 1, "munge"),
    ],
)
def test_what_is_done_about_dmarc(
    dmarc: Dmarc, policy: Policy | None, authors: list[Author], fields: int, what: str
) -> None:
    found, why = mitigation(dmarc, policy, authors, fields)
    assert found == what
    assert why or what == "none"


@pytest.mark.parametrize(
    ("authors", "shown"),
    [
        ([ANN], "Ann Lee via Ants <ants@lists.example.com>"),
        ([BOB], "bob via Ants <ants@lists.example.com>"),
        ([ANN, BOB], "Ann Lee and others via Ants <ants@lists.example.com>"),
        ([], "Ants <ants@lists.example.com>"),
        ([Author('A "x" <b@c>', "a@b")], '"A \\"x\\" <b@c> via Ants" <ants@lists.example.com>'),
        ([Author("x" * 500, "a@b")], "x" * 100 + " via Ants <ants@lists.example.com>"),
    ],
)
def test_from_names_the_author_and_the_list(authors: list[Author], shown: str) -> None:
    assert from_list(Poster(tuple(authors), BOX, "Ants")).value.decode() == shown


def test_a_name_beyond_ascii_reads_as_it_is() -> None:
    raw = from_list(Poster((Author("Änne, die", "a@b.example"),), BOX, "Ämeisen")).raw
    address = read(raw)["From"].addresses[0]
    assert (address.display_name, address.addr_spec) == (
        "Änne, die via Ämeisen",
        "ants@lists.example.com",
    )


@pytest.mark.parametrize(
    "value",
    [
        b"undisclosed: ;",
        b"friends: Ann <ann@example.org>, bob@example.org;",
        b"",
        b"<>",
        b"no address",
        b"((((" * 1000,
        b'"never closed',
        b"\xff\xfe\x00",
        b"=?utf-8?q?Ann=0D=0ABcc:_x=40y=2Ez?= <ann@example.org>",
        b"ann@example.org" + b", bob@example.org" * 20_000,
        b"x" * 1_000_000,
    ],
)
def test_any_from_can_be_munged_and_is_kept(value: bytes) -> None:
    raw = b"From: " + value + b"\r\nFrom: second@example.net\r\nX-Original-From: old\r\n\r\nbody"
    cooked = cook(raw, order(raw, policy="reject"))
    parts = take_apart(cooked.raw)
    assert len(parts.all("from")) == 1
    assert b"<ants@lists.example.com>" in parts.all("from")[0].value
    assert [each.raw for each in parts.all("x-original-from")] == [
        b"X-Original-From: " + value + b"\r\n",
        b"X-Original-From: second@example.net\r\n",
    ]
    assert not parts.all("bcc")
    assert cooked.raw.endswith(b"\r\n\r\nbody")


def test_without_from_the_list_stands_there_alone() -> None:
    parts = munged(take_apart(b"Subject: x\n\n"), Poster((), BOX, "Ants"))
    assert values(parts, "from") == ["Ants <ants@lists.example.com>"]
    assert not parts.all("x-original-from")


def test_the_authors_are_those_in_all_from_fields_each_once() -> None:
    raw = b"From: Ann Lee <ann@example.org>, ANN@example.org\nfrom: bob@mail.example.org\n\n"
    assert authors_of(take_apart(raw).fields) == (ANN, BOB)


LIST = "Ants <ants@lists.example.com>"
ASKED = "Office <office@example.org>"


@pytest.mark.parametrize(
    ("policy", "moved", "asked", "reply_to", "cc"),
    [
        ("author", False, "", [], []),
        ("author", False, ASKED, [ASKED], []),
        ("author", True, "", ["Ann Lee <ann@example.org>"], []),
        ("author", True, ASKED, [ASKED], []),
        ("list", False, "", [LIST], []),
        ("list", False, ASKED, [LIST], []),
        ("list", True, "", [LIST], ["Ann Lee <ann@example.org>"]),
        ("both", False, "", [f"Ann Lee <ann@example.org>, {LIST}"], []),
        ("both", True, "", [f"Ann Lee <ann@example.org>, {LIST}"], []),
        ("both", True, ASKED, [f"{LIST}, {ASKED}"], []),
        ("address", False, ASKED, ["help@example.com"], []),
        ("address", True, "", ["help@example.com"], ["Ann Lee <ann@example.org>"]),
    ],
)
def test_where_replies_go(
    policy: ReplyTo, moved: bool, asked: str, reply_to: list[str], cc: list[str]
) -> None:
    raw = f"Reply-To: {asked}\r\n\r\n" if asked else "\r\n"
    headers = Headers(reply_to=policy, reply_to_address="help@example.com")
    poster = Poster((ANN,), BOX, "Ants")
    parts, said = with_replies(take_apart(raw.encode()), headers, poster, moved)
    assert values(parts, "reply-to") == reply_to
    assert values(parts, "cc") == cc
    assert bool(said) == (reply_to != ([asked] if asked else []))


@pytest.mark.parametrize("address", ["", "no address", "x@y\r\nBcc: z@y", "a@b>, <c@d"])
def test_a_reply_address_that_is_none_is_the_list(address: str) -> None:
    headers = Headers(reply_to="address", reply_to_address=address)
    parts, _ = with_replies(take_apart(b"\r\n"), headers, Poster((), BOX, "Ants"), False)
    assert values(parts, "reply-to") == [LIST]


def test_several_reply_to_fields_become_one() -> None:
    raw = b"Reply-To:\r\nReply-To: a@example.org\r\nReply-To: b@example.org\r\n\r\n"
    parts, _ = with_replies(
        take_apart(raw), Headers(reply_to="both"), Poster((), BOX, "Ants"), True
    )
    assert values(parts, "reply-to") == [f"{LIST}, a@example.org"]


def test_the_author_is_put_before_those_in_cc_whose_bytes_stay() -> None:
    raw = b"Cc: (un\xffclosed\r\n\tcarl@example.net\r\nCc: dora@example.net\r\n\r\n"
    poster = Poster((ANN,), BOX, "Ants")
    parts, _ = with_replies(take_apart(raw), Headers(reply_to="list"), poster, True)
    assert [each.raw for each in parts.all("cc")] == [
        b"Cc: Ann Lee <ann@example.org>,\r\n (un\xffclosed\r\n\tcarl@example.net\r\n",
        b"Cc: dora@example.net\r\n",
    ]


@pytest.mark.parametrize("name", ["To", "CC"])
def test_an_author_who_is_named_already_is_not_named_twice(name: str) -> None:
    raw = f"{name}: x@example.net, ANN <Ann@Example.org>\r\n\r\n".encode()
    poster = Poster((ANN,), BOX, "Ants")
    parts, _ = with_replies(take_apart(raw), Headers(reply_to="list"), poster, True)
    assert parts.without(["reply-to"]) == take_apart(raw)


def test_an_author_who_has_no_address_is_not_named() -> None:
    poster = Poster((Author("x", "a@b\u2028c"), Author("y", "z")), BOX, "Ants")
    parts, said = with_replies(take_apart(b"\r\n"), Headers(), poster, True)
    assert (parts, said) == (take_apart(b"\r\n"), "")


def test_no_more_authors_are_named_than_fit_a_field() -> None:
    many = tuple(Author("", f"a{n}@example.org") for n in range(100))
    parts, _ = with_replies(take_apart(b"\r\n"), Headers(), Poster(many, BOX, "Ants"), True)
    assert values(parts, "reply-to")[0].count("@") == MOST_AUTHORS


def test_a_wrapped_post_is_inside_octet_for_octet() -> None:
    raw = b"From: ann@example.org\r\nSubject: x\r\nX-Y:  odd \r\n\r\n\xffbody\x00"
    cooked = cook(raw, order(raw, policy="reject", dmarc=Dmarc(mitigation="wrap")))
    assert cooked.raw.endswith(b"\r\n\r\n" + raw)
    outer = read(cooked.raw)
    assert outer.get_content_type() == "message/rfc822"
    assert outer["Content-Transfer-Encoding"] == "8bit"
    assert outer["From"] == "ann via Ants <ants@lists.example.com>"
    assert outer["Reply-To"] == "ann@example.org"
    assert outer["Subject"] == "x"


def test_what_must_not_go_out_is_not_inside_a_wrapped_post_either() -> None:
    raw = golden("plain.eml").replace(b"Subject:", b"Approved: ABCD-EFGH-IJKL-MNOP\r\nSubject:")
    wrap = Dmarc(mitigation="wrap", always=True)
    cooked = cook(raw, order(raw, dmarc=wrap, approval="ABCD-EFGH-IJKL-MNOP")).raw
    for secret in (b"ABCD", b"secret@example.org", b"Disposition-Notif", b"Return-Path"):
        assert secret not in cooked


def test_nothing_on_an_anonymous_post_tells_the_author() -> None:
    raw = golden("plain.eml").replace(b"X-Folded", b"X-Originating-IP")
    cooked = cook(raw, order(raw, headers=Headers(anonymous=True), policy="reject")).raw
    head = cooked[: cooked.index(b"\r\n\r\n")]
    for trace in (b"nn", b"mail.example.org", b"bob", b"+0100", b"Some Program", b"mx.example.com"):
        assert trace not in head.replace(b"ants", b"")
    assert b"\r\nMessage-ID: <0ca67e92d7f5b000@lists.example.com>" in head


@given(st.lists(st.tuples(st.text("abcXYZ-", min_size=1, max_size=12), st.text(max_size=20))))
def test_only_what_is_on_the_list_of_kept_fields_goes_out_anonymous(
    fields: list[tuple[str, str]],
) -> None:
    lines = [f"{name}: {' '.join(value.split())}\r\n" for name, value in fields]
    raw = "".join(lines).encode("utf-8", "replace") + b"\r\nbody"
    own = cook(b"\r\n", order(b"", headers=Headers(anonymous=True))).raw
    allowed = {each.name for each in take_apart(own).fields} | set(KEPT)
    cooked = take_apart(cook(raw, order(raw, headers=Headers(anonymous=True))).raw)
    assert all(e.name in allowed or e.name.startswith("content-") for e in cooked.fields)


@pytest.mark.parametrize(
    ("policy", "reply_to"),
    [("author", []), ("list", [LIST]), ("both", [LIST]), ("address", ["help@example.com"])],
)
def test_replies_to_an_anonymous_post_never_go_to_the_author(
    policy: ReplyTo, reply_to: list[str]
) -> None:
    raw = b"From: ann@example.org\r\nReply-To: ann@example.org\r\n\r\n"
    headers = Headers(
        anonymous=True,
        reply_to=policy,
        reply_to_address="help@example.com",
    )
    parts = take_apart(cook(raw, order(raw, headers=headers)).raw)
    assert values(parts, "reply-to") == reply_to
    assert not parts.all("cc")


def test_the_value_of_from_moves_as_it_stands() -> None:
    parts = munged(Parts((Field("from", b"FROM:a@b\r\n"),), b"\r\n"), Poster((), BOX, "Ants"))
    assert parts.all("x-original-from")[0].raw == b"X-Original-From:a@b\r\n"
