"""The message that goes out: golden files, and what holds for any bytes."""

import email
import email.policy
import re
from email.message import EmailMessage
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.lists.settings import Dmarc, Headers, Posting
from postroom.mail.fields import take_apart
from postroom.posting.cook import CookInput, cook
from postroom.posting.munge import Policy
from postroom.posting.own import endpoint, mailto
from postroom.posting.personal import Personal
from tests.posting.kitchen import golden, order

GOLDENS: dict[str, dict[str, Any]] = {
    "usual": {"headers": Headers(subject_prefix="[ants] ")},
    "full": {
        "headers": Headers(
            subject_prefix="[ants] ",
            reply_to="both",
            archive_url="https://lists.example.com/archive/ants",
            footer="$list: $address ($list_id)\nLeave: $unsubscribe",
        )
    },
    "announce": {"posting": Posting(announce_only=True)},
    "munged": {"policy": "reject"},
    "munged-to-list": {"policy": "quarantine", "headers": Headers(reply_to="list")},
    "wrapped": {"policy": "reject", "dmarc": Dmarc(mitigation="wrap")},
    "wrapped-footer": {
        "policy": "reject",
        "dmarc": Dmarc(mitigation="wrap"),
        "headers": Headers(footer="Leave: $unsubscribe"),
    },
    "anonymous": {"headers": Headers(anonymous=True, reply_to="list")},
}
OURS = [
    "List-Id",
    "List-Post",
    "List-Help",
    "List-Subscribe",
    "List-Unsubscribe",
    "List-Owner",
    "Precedence",
    "Sender",
    "From",
    "Date",
    "Message-ID",
]
# What messages, and those who forge them, are made of.
_names = st.sampled_from(
    [
        *OURS,
        "list-id",
        "LIST-POST",
        "Subject",
        "Reply-To",
        "To",
        "Cc",
        "X-Postroom-Loop",
        "Content-Type",
        "Content-Transfer-Encoding",
        "Bcc",
        "Received",
        "List-Archive",
        "X-Original-From",
    ]
)
_values = st.one_of(
    st.sampled_from(
        [
            "ann@example.org",
            "Ann <ann@example.org>, Bob <bob@example.net>",
            "undisclosed: ;",
            "<>",
            "=?utf-8?q?a=0D=0AList-Id:_=3Cforged=3E?=",
            "=?utf-8?q?Ann=0D=0ABcc:_x=40y?= <ann@example.org>",
            '"Ann\x0bList-Id: <x>" <ann@example.org>',
            "multipart/mixed; boundary=b",
            "text/plain; charset=utf-8",
            "ants.lists.example.com",
            "Re: [ants]",
            "x\x00y",
            "",
        ]
    ),
    st.text(max_size=30),
)
_ends = st.sampled_from(["\r\n", "\r\n", "\n", "\r", "\r\n ", "\n\t"])
_lines = st.one_of(
    st.builds("{}: {}{}".format, _names, _values, _ends),
    st.builds("{}{}".format, _values, _ends),
    st.sampled_from(["From ann Fri Nov 20\n", " continued\r\n", ": x\r\n", "Name : x\n"]),
)
_heads = st.lists(_lines, max_size=12).map(lambda lines: "".join(lines).encode("utf-8", "replace"))
_bodies = st.one_of(st.binary(max_size=80), st.just(b"\r\n--b\r\n\r\nx\r\n--b--\r\n"))
messages = st.one_of(
    st.builds(lambda head, body: head + b"\r\n" + body, _heads, _bodies),
    st.builds(bytes.__add__, _heads, _bodies),
    st.binary(max_size=100),
)
_policies: st.SearchStrategy[Policy | None] = st.sampled_from(["none", "reject", None])
_headers = st.builds(
    Headers,
    subject_prefix=st.sampled_from(["", "[ants]", "[Grüße\n\rX: y]"]),
    reply_to=st.sampled_from(["author", "list", "both", "address"]),
    reply_to_address=st.sampled_from(["", "x@example.org", "x\r\nBcc: y@z"]),
    anonymous=st.booleans(),
)


def read(raw: bytes) -> EmailMessage:
    return email.message_from_bytes(raw, policy=email.policy.default)


@pytest.mark.parametrize("name", GOLDENS)
def test_a_post_goes_out_as_the_golden_file_says(name: str) -> None:
    raw = golden("plain.eml")
    assert cook(raw, order(raw, **GOLDENS[name])).raw == golden(f"plain.{name}.eml")


@given(messages, _headers, _policies)
@settings(max_examples=300)
def test_any_bytes_keep_their_body_and_get_each_field_of_ours_once(
    raw: bytes, headers: Headers, policy: Policy | None
) -> None:
    hostile = order(raw, headers=headers, policy=policy)
    cooked = cook(raw, hostile)
    assert cooked == cook(raw, hostile)
    assert cooked.raw.endswith(re.sub(rb"\A(?:\r\n|\r|\n)", b"", take_apart(raw).rest))
    shown = email.message_from_bytes(cooked.raw)
    names = [name.lower() for name, _ in shown.items()]
    fields = [each.name for each in take_apart(cooked.raw).fields]
    assert sorted(names) == sorted(fields)
    repeatable = {"from", "date", "message-id"}
    for name in OURS:
        assert fields.count(name.lower()) == 1 or name.lower() in repeatable
        assert name.lower() in fields
    assert "bcc" not in fields
    loops = [each.value for each in take_apart(cooked.raw).all("x-postroom-loop")]
    assert loops.count(b"ants.lists.example.com") == 1


@given(messages, _headers, _policies)
def test_fields_of_others_are_those_that_came(
    raw: bytes, headers: Headers, policy: Policy | None
) -> None:
    """Whatever goes out under a name that is none of ours stood there, octet for octet."""
    came = {each.raw.rstrip() for each in take_apart(raw).fields}
    changed = {name.lower() for name in OURS} | {
        "received",
        "reply-to",
        "cc",
        "to",
        "subject",
        "x-original-from",
        "x-postroom-loop",
        "list-archive",
        "mime-version",
    }
    for each in take_apart(cook(raw, order(raw, headers=headers, policy=policy)).raw).fields:
        assert each.name in changed or each.raw.rstrip() in came


@given(st.text(), st.text(), st.text(), st.text())
def test_no_text_of_ours_makes_a_field_of_its_own(
    name: str, prefix: str, url: str, lhlo: str
) -> None:
    raw = b"From: ann@example.org\r\nSubject: x\r\n\r\nbody"
    headers = Headers(subject_prefix=prefix, archive_url=url)
    hostile = order(raw, headers=headers)._replace(
        display_name=name, lhlo=lhlo, peer=lhlo, entry_id=lhlo
    )
    plain = cook(raw, order(raw, headers=Headers(archive_url="x" if url.strip() else "")))
    names = [each.name for each in take_apart(cook(raw, hostile).raw).fields]
    assert sorted(names) == sorted(each.name for each in take_apart(plain.raw).fields)


@pytest.mark.parametrize(
    "name",
    [*OURS[:8], "List-Archive", "List-Unsubscribe-Post"],
)
def test_fields_of_other_lists_are_replaced_and_never_go_out(name: str) -> None:
    raw = f"From: a@b\r\n{name}: other\r\n{name.upper()}: another\r\n\r\n".encode()
    cooked = cook(raw, order(raw))
    assert b"other" not in cooked.raw
    assert "removed: list fields and Sender of others" in cooked.notes


def test_a_header_line_that_is_no_field_does_not_divide_the_header() -> None:
    raw = b"From ann Fri Nov 20\n continued\nFrom: ann@example.org\nFrom bob Fri\nX: y\n\nbody\n"
    cooked = cook(raw, order(raw))
    assert read(cooked.raw)["X"] == "y"
    assert b"From ann" not in cooked.raw and b"continued" not in cooked.raw
    assert "removed from the header: lines that are no fields" in cooked.notes


def test_a_field_that_ends_in_cr_alone_does_not_swallow_the_next() -> None:
    raw = b"From: ann@example.org\rSubject: x\r\rbody"
    cooked = cook(raw, order(raw)).raw
    assert b"From: ann@example.org\r\nSubject: x\r\n" in cooked
    assert cooked.endswith(b"\r\n\r\nbody")


def test_what_a_message_must_have_is_added_and_the_same_each_time() -> None:
    raw = b"\r\nbody"
    cooked = cook(raw, order(raw))
    message = read(cooked.raw)
    assert message["From"] == "ants@lists.example.com"
    assert message["Date"] == "Fri, 20 Nov 2026 09:54:42 +0000"
    assert message["Message-ID"] == "<0ca67e92d7f5b000@lists.example.com>"
    assert "added, because there was none: From, Date, Message-ID" in cooked.notes
    assert cooked.raw == cook(raw, order(raw)).raw


def test_a_subject_of_a_megabyte_and_nuls_stay_one_field() -> None:
    raw = b"From: a@b.example\r\nSubject: " + b"x\x00" * 500_000 + b"\r\n\r\nbody"
    cooked = cook(raw, order(raw, headers=Headers(subject_prefix="[ants]"))).raw
    assert b"\r\nSubject: [ants]\r\n x\x00x\x00" in cooked
    assert len(take_apart(cooked).all("subject")) == 1


def test_the_loop_markers_of_other_lists_stay_but_ours_is_there_once() -> None:
    raw = b"X-Postroom-Loop: a.example\nX-Postroom-Loop: ants.lists.example.com\n\n"
    for dmarc in (Dmarc(), Dmarc(always=True), Dmarc(always=True, mitigation="wrap")):
        cooked = take_apart(cook(raw, order(raw, dmarc=dmarc)).raw)
        values = [each.value for each in cooked.all("x-postroom-loop")]
        assert values == [b"a.example", b"ants.lists.example.com"]


def test_what_was_changed_is_said() -> None:
    raw = golden("plain.eml").replace(b"Subject:", b"Approved: ABCD-EFGH-IJKL-MNOP\r\nSubject:")
    cooked = cook(raw, order(raw, approval="ABCD-EFGH-IJKL-MNOP", **GOLDENS["full"]))
    assert cooked.notes == (
        "removed: the moderator token",
        "removed: requests for receipts",
        "removed: blind recipients",
        "removed: traces of the delivery to the list",
        "Reply-To: the author and the list",
        "subject: Re: [ants] hello",
        "footer added to the text",
        "removed: list fields and Sender of others",
    )


def test_a_post_that_needs_no_change_says_nothing() -> None:
    raw = b"From: a@b.example\r\nDate: x\r\nMessage-ID: <1@b>\r\nSubject: x\r\n\r\nbody"
    assert cook(raw, order(raw)).notes == ()


@pytest.mark.parametrize("where", ["in a field", "in the first line"])
def test_a_moderator_token_does_not_go_out(where: str) -> None:
    head = b"From: ann@example.org\r\n"
    raw = (
        head + b"X-Approve: abcd-efgh-ijkl-mnop\r\n\r\nHello.\r\n"
        if where == "in a field"
        else head + b"\r\n\r\n approved: abcd-efgh-ijkl-mnop \r\nHello.\r\n"
    )
    cooked = cook(raw, order(raw, approval="abcd-efgh-ijkl-mnop")).raw
    assert b"abcd-efgh-ijkl-mnop" not in cooked
    assert cooked.endswith(b"\r\nHello.\r\n")


def test_a_list_in_unicode_is_spelled_in_ascii_where_it_must_be() -> None:
    given = CookInput(
        list_id="gr\u00fc\u00dfe.b\u00fccher.example",
        posting_address="gr\u00fc\u00dfe@b\u00fccher.example",
        display_name="Gr\u00fc\u00dfe",
        settings=order(b"").settings,
        hostname="lists.example.com",
        now=0.0,
    )
    parts = take_apart(cook(b"From: a@b\n\n", given).raw)
    values = {each.name: each.value for each in parts.fields}
    assert values["list-id"].endswith(b" <xn--gre-6ka8l.xn--bcher-kva.example>")
    assert values["list-post"] == b"<mailto:gr%C3%BC%C3%9Fe@xn--bcher-kva.example>"
    assert values["sender"] == "gr\u00fc\u00dfe-bounces@xn--bcher-kva.example".encode()
    assert values["x-postroom-loop"] == b"xn--gre-6ka8l.xn--bcher-kva.example"


def test_an_address_that_needs_quotes_is_escaped_in_a_link() -> None:
    box = endpoint('"a b"@lists.example.com', "leave")
    assert str(box) == '"a b-leave"@lists.example.com'
    assert mailto(box) == "mailto:a%20b-leave@lists.example.com"


def test_an_archive_link_cannot_leave_its_brackets() -> None:
    raw = b"From: a@b\n\n"
    headers = Headers(archive_url="https://x.example/>, <https://evil.example")
    value = take_apart(cook(raw, order(raw, headers=headers)).raw).first("list-archive")
    assert value and value.value == b"<https://x.example/%3E,%20%3Chttps://evil.example>"


URL, MAIL = "https://lists.example.com/u/t0ken", "mailto:ants-leave+t0ken@lists.example.com"


def test_a_personal_message_differs_in_the_way_out_alone() -> None:
    raw = golden("plain.eml")
    cooked = cook(raw, order(raw)).raw
    mine = Personal(cooked).message(URL, MAIL)
    shared = b"List-Unsubscribe: <mailto:ants-leave@lists.example.com>\r\n"
    own = (
        f"List-Unsubscribe: <{URL}>,\r\n <{MAIL}>\r\n"
        "List-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
    ).encode()
    assert mine == cooked.replace(shared, own)


@given(messages, st.text(), st.text())
def test_personal_messages_have_one_way_out_whatever_the_links(
    raw: bytes, url: str, mail: str
) -> None:
    cooked = cook(raw, order(raw)).raw
    parts = take_apart(Personal(cooked).message(url, mail))
    assert len(parts.all("list-unsubscribe")) == len(parts.all("list-unsubscribe-post")) == 1
    others = parts.without(["list-unsubscribe", "list-unsubscribe-post"])
    assert others == take_apart(cooked).without(["list-unsubscribe"])


@pytest.mark.parametrize("hostile", [f"{URL}\r\nBcc: x@y.example", f"{URL}>\n\nbody", "\r\n \x00<"])
def test_a_link_cannot_make_a_field(hostile: str) -> None:
    cooked = cook(b"From: a@b\r\n\r\nbody", order(b"")).raw
    expected = [each.name for each in take_apart(Personal(cooked).message(URL, MAIL)).fields]
    for mine in (Personal(cooked).message(hostile, MAIL), Personal(cooked).message(URL, hostile)):
        assert [each.name for each in take_apart(mine).fields] == expected
        assert mine.count(b"<") == Personal(cooked).message(URL, MAIL).count(b"<")


def test_a_message_without_the_field_gets_it_and_keeps_its_body() -> None:
    mine = Personal(b"Subject: x\n\nList-Unsubscribe: no field\n").message(URL, MAIL)
    assert mine.startswith(b"Subject: x\nList-Unsubscribe: <https://")
    assert mine.endswith(b"=One-Click\r\n\nList-Unsubscribe: no field\n")
