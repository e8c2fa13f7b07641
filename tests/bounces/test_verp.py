"""What a bounce address names, and whether we made it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.bounces.verp import read_detail
from postroom.delivery.verp import tagged, verp_sender
from postroom.lists.keys import verp_key, verp_tag
from postroom.lists.roster import same_address
from postroom.mail.address import ascii_domain

KEY = verp_key(b"s" * 32, "ants.example.com")
OTHER = verp_key(b"s" * 32, "bees.example.com")
ANN = "ann@example.org"


def detail(email: str, tag: str) -> str:
    """What stands behind `ants-bounces+`, as delivery makes it."""
    sender = verp_sender(tagged("ants-bounces@example.com", tag), ascii_domain(email))
    return sender.removeprefix("ants-bounces+").removesuffix("@example.com")


@pytest.mark.parametrize(
    "email",
    [
        ANN,
        "a+b=c+d@example.org",
        "abcdefgh+x@example.org",
        "änn@exämple.org",
        '"a b"@example.org',
        "ann@[192.0.2.1]",
    ],
)
def test_what_was_made_for_an_address_proves_it(email: str) -> None:
    folded = same_address(email)
    assert read_detail(detail(email, verp_tag(KEY, folded)), KEY) == (folded, "own")
    assert read_detail(detail(email, verp_tag(KEY)), KEY) == (folded, "shared")


def test_the_shared_tag_alone_names_nobody() -> None:
    assert read_detail(verp_tag(KEY), KEY) == ("", "shared")


def test_the_case_in_which_it_comes_back_does_not_matter() -> None:
    assert read_detail(detail(ANN, verp_tag(KEY, ANN)).upper(), KEY) == (ANN, "own")


def test_quotes_may_be_lost_on_the_way() -> None:
    folded = '"a b"@example.org'
    assert read_detail(f"{verp_tag(KEY, folded)}+a b=example.org", KEY) == (folded, "own")


def test_without_a_tag_it_proves_nothing() -> None:
    assert read_detail("ann=example.org", KEY) == (ANN, "none")
    assert read_detail("a+b=c=example.org", KEY) == ("a+b=c@example.org", "none")


@pytest.mark.parametrize("tag", [verp_tag(OTHER, ANN), verp_tag(KEY, "bart@example.org"), "a" * 8])
def test_a_tag_of_another_is_none(tag: str) -> None:
    _, proof = read_detail(detail(ANN, tag), KEY)
    assert proof == "none"


def test_without_a_key_nothing_is_proved() -> None:
    assert read_detail(detail(ANN, verp_tag("", ANN)), "")[1] == "none"


@pytest.mark.parametrize("text", ["", "+", "=", "ann", "ann=", "=example.org", "x" * 2000 + "=b.c"])
def test_what_names_nobody(text: str) -> None:
    assert read_detail(text, KEY) == ("", "none")


@given(st.text(), st.sampled_from(["", KEY]))
def test_any_text_will_do(text: str, key: str) -> None:
    email, proof = read_detail(text, key)
    assert proof == "none"
    assert same_address(email) == email


@given(st.emails())
def test_any_address_is_read_again(email: str) -> None:
    folded = same_address(email)
    assert read_detail(detail(email, verp_tag(KEY, folded)), KEY) == (folded, "own")
