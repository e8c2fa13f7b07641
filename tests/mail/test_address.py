"""Mailboxes: reading, writing, folding."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.address import (
    MAX_PATH,
    AddressError,
    Mailbox,
    ascii_domain,
    ascii_name,
    fold,
    is_person,
    parse_mailbox,
)

_plain = st.characters(exclude_categories=["Cs"], exclude_characters="\x7f", min_codepoint=32)
_atoms = st.text("abcXYZ019.-_+=#é\u212a", min_size=1, max_size=20)
domains = st.one_of(st.just(""), _atoms, _atoms.map(lambda text: f"[{text}]"))
mailboxes = st.builds(Mailbox, st.one_of(_atoms, st.text(_plain, min_size=1)), domains)


@given(mailboxes)
def test_a_mailbox_written_and_read_is_the_same(box: Mailbox) -> None:
    assert parse_mailbox(str(box)) == (box, str(box))


@given(mailboxes, st.lists(_atoms, min_size=1, max_size=3))
def test_a_source_route_is_dropped(box: Mailbox, relays: list[str]) -> None:
    route = ",".join(f"@{relay}" for relay in relays)
    assert parse_mailbox(f"{route}:{box}") == (box, str(box))


@given(st.one_of(st.text(), st.text('ab@."\\<>[]:,; \0\r\n')))
def test_any_text_is_a_mailbox_or_an_address_error(text: str) -> None:
    try:
        box, exact = parse_mailbox(text)
    except AddressError as error:
        assert str(error)
    else:
        assert box.local and text.endswith(exact)
        assert parse_mailbox(str(box))[0] == box


@pytest.mark.parametrize(
    ("text", "local", "written"),
    [
        ('"anne"@example.com', "anne", "anne@example.com"),
        (r'"\a\n\n\e"@example.com', "anne", "anne@example.com"),
        ('"a b"@example.com', "a b", '"a b"@example.com'),
        (r'"a\"b\\"@example.com', 'a"b\\', r'"a\"b\\"@example.com'),
        ('"a@b"@example.com', "a@b", '"a@b"@example.com'),
        ('"@relay:a"@example.com', "@relay:a", '"@relay:a"@example.com'),
    ],
)
def test_quoting_is_undone_and_done_again_only_where_needed(
    text: str, local: str, written: str
) -> None:
    box, exact = parse_mailbox(text)
    assert box == Mailbox(local, "example.com")
    assert str(box) == written
    assert exact == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        '""',
        '""@example.com',
        "@example.com",
        "anne@",
        "anne@@example.com",
        "an ne@example.com",
        '"anne@example.com',
        '"anne"x@example.com',
        "anne@example.com>",
        "anne\0@example.com",
        "anne@exam\nple.com",
        "@relay:",
        "@relay,anne@example.com",
        "anne\\@example.com",
        "anne@[192.0.2.1",
    ],
)
def test_what_is_no_mailbox_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_mailbox(text)


def test_a_path_is_bounded_but_generous() -> None:
    longest = "x" * (MAX_PATH - len("@example.com")) + "@example.com"
    assert parse_mailbox(longest)[0].domain == "example.com"
    with pytest.raises(AddressError, match="too long"):
        parse_mailbox("x" + longest)


@pytest.mark.parametrize("sign", ["\u212a", "\u0130", "\u017f", "\uff21", "\u00c4", "\u1e9e"])
def test_no_look_alike_folds_to_an_ascii_letter(sign: str) -> None:
    assert fold(sign) == sign
    assert fold(f"A{sign}Z") == f"a{sign}z"


@given(st.text())
def test_folding_lowers_the_ascii_letters_and_nothing_else(text: str) -> None:
    assert fold(text) == "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in text)


def test_a_name_in_unicode_is_written_in_a_labels_and_reads_as_itself_again() -> None:
    name = ascii_name("b\u00fccher.example")
    assert name == "xn--bcher-kva.example"
    assert name.encode().decode("idna") == "b\u00fccher.example"
    assert ascii_name("plain.example") == "plain.example"


@pytest.mark.parametrize(
    ("address", "written"),
    [
        ("ann@b\u00fccher.example", "ann@xn--bcher-kva.example"),
        ('"a@b"@b\u00fccher.example', '"a@b"@xn--bcher-kva.example'),
        ("\u00e4nn@b\u00fccher.example", "\u00e4nn@xn--bcher-kva.example"),
        ("\u00e4nn@example.com", "\u00e4nn@example.com"),
        ("Ann@Example.com", "Ann@Example.com"),
        ("\u00e4nn", "\u00e4nn"),
        ("", ""),
    ],
)
def test_of_an_address_the_domain_alone_is_written_in_a_labels(address: str, written: str) -> None:
    assert ascii_domain(address) == written


@given(st.text(), st.text())
def test_any_domain_becomes_ascii(local: str, domain: str) -> None:
    assert ascii_domain(f"{local}@{domain}".replace(" ", "")).rpartition("@")[2].isascii()


@pytest.mark.parametrize(
    "local",
    [
        "MAILER-DAEMON",
        "mail-daemon",
        "postmaster",
        "owner-ants",
        "Ants-Owner",
        "ants-request",
        "ants-bounces",
        "ants-bounces+ann=example.org",
        "bounce-1",
        "noreply",
        "do_not_reply+7",
        "shop-no-reply",
        "listserv",
        "majordomo",
        "autoresponder",
        "nobody",
    ],
)
def test_a_program_is_told_by_its_local_part(local: str) -> None:
    assert not is_person(local)


@pytest.mark.parametrize("local", ["ann", "no", "norma", "owner", "a-b", "reply", "request", ""])
def test_a_person_may_be_called_anything_else(local: str) -> None:
    assert is_person(local)
