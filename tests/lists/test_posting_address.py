"""Which addresses can be that of a list; no database is needed to tell."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.registry import ListError, posting_address
from postroom.mail.address import Mailbox


@pytest.mark.parametrize(
    ("text", "local", "domain"),
    [
        ("mylist@example.com", "mylist", "example.com"),
        ("  MyList@Example.COM ", "mylist", "example.com"),
        ('"mylist"@example.com', "mylist", "example.com"),
        ("join@example.com", "join", "example.com"),
        ("-join@example.com", "-join", "example.com"),
        ("c++@example.com", "c++", "example.com"),
        ("café@example.com", "café", "example.com"),
        ("a@lists.test", "a", "lists.test"),
        ("a@intranet", "a", "intranet"),
        ("a@bücher.example", "a", "bücher.example"),
        ("a@BÜCHER.example", "a", "bücher.example"),
        ("a@xn--bcher-kva.example", "a", "bücher.example"),
        ("n" * 64 + "@example.com", "n" * 64, "example.com"),
        ("é" * 32 + "@example.com", "é" * 32, "example.com"),
    ],
)
def test_what_can_be_a_list_is_folded(text: str, local: str, domain: str) -> None:
    assert posting_address(text) == Mailbox(local, domain)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no address"),
        ("mylist", "no domain"),
        ("@example.com", "no address"),
        ("a@@example.com", "no address"),
        ("Ants <a@example.com>", "no address"),
        ("a b@example.com", "no address"),
        ("a\n@example.com", "no address"),
        ("a@example.com\0", "no address"),
        ('"a b"@example.com', "Quoting"),
        ('""@example.com', "empty local part"),
        ("a..b@example.com", "two periods"),
        (".a@example.com", "start with a period"),
        ("../a@example.com", "start with a period"),
        ("a@example.com.", "end with a period"),
        ("a@exam_ple.com", "invalid characters"),
        ("a@[192.0.2.1]", "bracketed IP"),
        ("a@localhost", "special-use"),
        ("a@" + "d" * 64 + ".com", "too many|so many"),
        ("n" * 65 + "@example.com", "65 octets, at most 64"),
        ("é" * 33 + "@example.com", "66 octets, at most 64"),
        ("n" * 2000 + "@example.com", "too long"),
        ("my\u200blist@example.com", "ZERO WIDTH SPACE"),
        ("a@exa\u200bmple.com", "ZERO WIDTH SPACE"),
        ("\u202emylist@example.com", "RIGHT-TO-LEFT OVERRIDE"),
        ("\u212aelvin@example.com", "simpler form, use Kelvin"),
        ("grüße@example.com", "turn its name into 'grüsse', use that"),
        ("Ärger@example.com", "turn its name into 'ärger', use that"),
        ("cafe\u0301@example.com", "simpler form, use café"),
        ("postmaster@example.com", "site owner's"),
        ("PostMaster@example.com", "site owner's"),
        ('"postmaster"@example.com', "site owner's"),
    ],
)
def test_what_cannot_be_a_list_is_refused_with_one_line(text: str, reason: str) -> None:
    with pytest.raises(ListError, match=reason) as refused:
        posting_address(text)
    assert len(str(refused.value).splitlines()) == 1


@given(st.text(max_size=80) | st.text(max_size=20).map(lambda text: f"{text}@example.com"))
def test_any_text_is_an_address_or_refused_and_a_folded_one_stays(text: str) -> None:
    try:
        box = posting_address(text)
    except ListError:
        return
    assert posting_address(str(box)) == box
