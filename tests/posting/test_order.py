"""What a post is cooked with: whose policy is asked for, and when."""

import pytest

from postroom.lists.settings import Dmarc, Headers, ListSettings
from postroom.mail.fields import take_apart
from postroom.posting.cook import cook
from postroom.posting.decision import ListFacts, Membership, SenderFacts
from postroom.posting.dns import Resolver
from postroom.posting.munge import Policy
from postroom.posting.order import order_for, policy_for
from postroom.posting.rules import decide
from postroom.reading.post import read
from tests.posting.kitchen import NOW
from tests.posting.test_dns import NameServer, server

__all__ = ["server"]  # the fixture
AUTHORS = ("anne@strict.example", "bo@plain.example")


@pytest.fixture
def resolver(server: NameServer) -> Resolver:
    server.publish("strict.example", "v=DMARC1; p=reject")
    return Resolver(nameservers=[server.place])


@pytest.mark.parametrize(
    ("dmarc", "policy", "asked"),
    [
        (Dmarc(), "reject", {"strict", "plain"}),
        (Dmarc(exempt=("anne@strict.example",)), "none", {"plain"}),
        (Dmarc(exempt=("@Strict.example", "bo@plain.example")), "none", set()),
        (Dmarc(always=True), "none", set()),
        (Dmarc(mitigation="none"), "none", set()),
    ],
)
def test_only_those_are_asked_about_whose_policy_matters(
    server: NameServer, resolver: Resolver, dmarc: Dmarc, policy: Policy, asked: set[str]
) -> None:
    assert policy_for(resolver, ListSettings(dmarc=dmarc), AUTHORS) == policy
    own = {name.split(".")[1] for name in server.asked if name.count(".") == 3}
    assert own == asked


def test_an_anonymous_list_and_a_post_without_authors_ask_nothing(
    server: NameServer, resolver: Resolver
) -> None:
    anonymous = ListSettings(headers=Headers(anonymous=True))
    assert policy_for(resolver, anonymous, AUTHORS) == "none"
    assert policy_for(resolver, ListSettings(), ()) == "none"
    assert not server.asked


def test_what_can_be_found_out_of_nobody_is_not_known() -> None:
    nowhere = Resolver(timeout=0.1, nameservers=["127.0.0.1:1"])
    assert policy_for(nowhere, ListSettings(), AUTHORS) is None


@pytest.mark.parametrize("kept", ["list-id", "x-postroom-loop"])
@pytest.mark.parametrize("dmarc", [Dmarc(), Dmarc(always=True), Dmarc("wrap", always=True)])
def test_d30_what_a_list_in_unicode_has_sent_is_known_when_it_comes_back(
    kept: str, dmarc: Dmarc
) -> None:
    host = "b\u00fccher.example"
    this = ListFacts(f"ants@{host}", f"ants.{host}", "Ants", ListSettings(dmarc=dmarc))
    raw = b"From: Anne <anne@example.org>\r\nTo: ants@xn--bcher-kva.example\r\n\r\nHello.\r\n"
    member = SenderFacts((Membership("anne@example.org", "member"),))
    post = read(raw, "anne@example.org")
    assert decide(this, post, member)[:2] == ("accept", "accepted")
    cooked = take_apart(cook(raw, order_for(this, post, host, "none", NOW)).raw)
    assert cooked.all(kept)
    gone = {"list-id", "x-postroom-loop"} - {kept}
    back = read(cooked.without(gone).joined(), "anne@example.org")
    assert decide(this, back, member)[:2] == ("discard", "loop")
    bare = read(cooked.without({*gone, kept}).joined(), "ants-bounces@xn--bcher-kva.example")
    assert decide(this, bare, member)[:2] == ("discard", "loop")


def test_the_order_holds_what_is_known_of_list_and_post() -> None:
    raw = b"Approved: ABCD-EFGH-IJKL-MNOP\r\nFrom: Anne <anne@example.org>\r\n\r\nHello.\r\n"
    settings = ListSettings(headers=Headers(subject_prefix="[ants] "))
    this = ListFacts("ants@example.com", "ants.example.com", "Ants", settings)
    order = order_for(this, read(raw, ""), "lists.example.com", "reject", NOW)
    assert [each.address for each in order.authors] == ["anne@example.org"]
    assert (order.approval, order.policy) == ("ABCD-EFGH-IJKL-MNOP", "reject")
    raw = cook(raw, order).raw
    assert b"From: Anne via Ants <ants@example.com>" in raw
    assert b"Subject: [ants] " in raw
    assert b"List-Id: Ants <ants.example.com>" in raw
    assert b"by lists.example.com with LMTP" in raw
    assert b"ABCD-EFGH-IJKL-MNOP" not in raw
