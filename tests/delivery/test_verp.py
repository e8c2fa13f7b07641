"""VERP: senders that name the recipient, and who gets one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.bounces.verp import read_detail
from postroom.delivery.verp import is_chosen, sender_of, tagged, verp_sender
from postroom.lists.endpoint import readings
from postroom.lists.keys import verp_key, verp_tag
from postroom.lists.roster import same_address
from postroom.mail.address import ascii_domain, fold
from postroom.spool.ids import IdMaker
from postroom.spool.orders import Order

KEY = verp_key(bytes(range(32)), "ants.example.com")
ANN, SHARED = verp_tag(KEY, "ann@exämple.org"), verp_tag(KEY)


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


@pytest.mark.parametrize(
    ("sender", "made"),
    [
        ("ants-bounces@example.com", "ants-bounces+abcdefgh@example.com"),
        ("ants@exämple.org", "ants+abcdefgh@exämple.org"),
        ("", ""),
    ],
)
def test_a_sender_has_a_tag(sender: str, made: str) -> None:
    assert tagged(sender, "abcdefgh") == made


@pytest.mark.parametrize(
    ("verp", "key", "one", "local"),
    [
        (True, KEY, "Ann@exämple.org", f"ants+{ANN}+Ann=xn--exmple-cua.org"),
        (True, "", "Ann@exämple.org", "ants+Ann=xn--exmple-cua.org"),
        (True, KEY, "", f"ants+{SHARED}"),
        (True, "", "", "ants"),
        (False, KEY, "Ann@exämple.org", "ants"),
        (False, KEY, "", "ants"),
    ],
)
def test_a_tag_stands_before_the_name_whoever_puts_that_there(
    verp: bool, key: str, one: str, local: str
) -> None:
    order = Order("post", "ants@grüße.example", verp=verp, verp_key=key)
    assert sender_of(order, one) == f"{local}@xn--gre-6ka8l.example"


@given(
    st.text("aB9+=._-ä", min_size=1, max_size=20),
    st.sampled_from(["example.org", "Example.ORG", "exämple.org", "a.b.example", "[192.0.2.1]"]),
    st.booleans(),
)
def test_what_a_sender_names_is_read_back_and_proved(user: str, host: str, xverp: bool) -> None:
    email = f"{user}@{host}"
    order = Order("post", "ants-bounces@example.com", verp=True, verp_key=KEY)
    sender = sender_of(order, "" if xverp else email)
    if xverp:
        sender = verp_sender(sender, ascii_domain(email))  # as a mail server does
    local, _, _ = sender.rpartition("@")
    found = list(readings(local, fold(local)))
    [detail] = [each.detail for each in found if each[:2] == ("ants", "bounces")]
    proof = "shared" if xverp else "own"
    assert read_detail(detail, KEY) == (same_address(email), proof)
    assert read_detail(detail, verp_key(bytes(32), "ants.example.com"))[1] == "none"


@pytest.mark.parametrize("one", ["", "ann@example.org"])
def test_the_null_sender_stays_what_it_is(one: str) -> None:
    assert sender_of(Order("notice", "", verp=True, verp_key=KEY), one) == ""


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
