"""VERP: senders that name the recipient, and who gets one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.delivery.verp import is_chosen, verp_sender
from postroom.mail.address import ascii_domain
from postroom.spool.ids import IdMaker


@pytest.mark.parametrize(
    ("sender", "recipient", "made"),
    [
        ("ants-bounces@example.com", "ann@example.org", "ants-bounces+ann=example.org@example.com"),
        (
            "ants-bounces@example.com",
            "a+b=c@example.org",
            "ants-bounces+a+b=c=example.org@example.com",
        ),
        ("ants-bounces@example.com", "ann@EXAMPLE.org", "ants-bounces+ann=EXAMPLE.org@example.com"),
        ("ants@x.example", "änn@exämple.org", "ants+änn=exämple.org@x.example"),
        (
            "ants@x.example",
            ascii_domain("ann@ex\u00e4mple.org"),
            "ants+ann=xn--exmple-cua.org@x.example",
        ),
        ("", "ann@example.org", ""),
    ],
)
def test_a_sender_names_the_recipient(sender: str, recipient: str, made: str) -> None:
    assert verp_sender(sender, recipient) == made


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("first", [1, 10_000_000])
def test_about_the_share_is_chosen_of_every_post(share: float, first: int) -> None:
    ids = IdMaker()
    for post in (ids(), ids(), 1):
        chosen = sum(is_chosen(member, post, share) for member in range(first, first + 10_000))
        assert abs(chosen / 10_000 - share) < 0.02


@given(st.integers(0, 2**63), st.integers(0, 2**63))
def test_a_share_of_nothing_is_nobody_and_of_all_everybody(member: int, post: int) -> None:
    assert not is_chosen(member, post, 0.0)
    assert is_chosen(member, post, 1.0)


def test_who_is_no_member_is_not_chosen() -> None:
    assert not is_chosen(None, 4096, 1.0)


@given(st.integers(0, 2**63), st.integers(0, 2**63), st.floats(0, 1))
def test_the_same_member_of_the_same_post_is_chosen_again(
    member: int, post: int, share: float
) -> None:
    assert is_chosen(member, post, share) == is_chosen(member, post, share)


def test_from_post_to_post_it_is_others_and_in_time_everybody() -> None:
    ids = IdMaker()
    often = dict.fromkeys(range(1, 1001), 0)
    for _ in range(200):
        post = ids()
        for member in often:
            often[member] += is_chosen(member, post, 0.1)
    assert min(often.values()) > 0
    assert max(often.values()) < 100
