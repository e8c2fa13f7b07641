"""The rules: each by itself, the chain, and that any post is decided."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.preferences import check
from postroom.lists.settings import Action, ListSettings, Posting
from postroom.posting import rules
from postroom.posting.administrivia import command_in
from postroom.posting.decision import (
    SEVERITY,
    Decision,
    Hit,
    ListFacts,
    Membership,
    SenderFacts,
)
from postroom.posting.rules import CHAIN, decide, examine, not_used
from postroom.reading.post import HEADER, Post, read
from tests.reading.test_post import messages

ANNE = "anne@example.org"
GOOD = ("From: Anne <anne@example.org>", "To: ants@example.com", "Subject: Hello")
MEMBER = SenderFacts((Membership(ANNE, "member"),))
STRANGER = SenderFacts()


def this(list_id: str = "ants.example.com", **posting: Any) -> ListFacts:
    return ListFacts(
        "ants@example.com",
        list_id,
        "Ants",
        ListSettings(posting=Posting(**posting)),
        ("ants@example.net",),
    )


def post(*lines: str, sender: str = ANNE, body: str = "Hello.", without: str = "") -> Post:
    """A good post, with these lines in its header, and without one of its own."""
    kept = [each for each in GOOD if not (without and each.startswith(without))]
    head = "".join(f"{line}\r\n" for line in (*lines, *kept))
    return read(f"{head}\r\n{body}\r\n".encode(), sender)


def facts(*rows: tuple[str, str, Action | None], approved: bool = False) -> SenderFacts:
    return SenderFacts(tuple(Membership(*row) for row in rows), approved)


def outcome(here: ListFacts, what: Post, known: SenderFacts = MEMBER) -> tuple[str, str]:
    decision = decide(here, what, known)
    return decision.action, decision.reason


def test_a_post_of_a_member_is_accepted() -> None:
    decision = decide(this(), post(), MEMBER)
    assert decision == Decision(
        "accept", "accepted", "The post goes out to ants@example.com.", hits=()
    )


# What this list has sent, or what goes round.


@pytest.mark.parametrize(
    "line",
    [
        "List-Id: Ants <ants.example.com>",
        "List-Id: <ANTS.Example.Com>",
        "List-Id: <bees.example.com>\r\nList-Id: <ants.example.com>",
        "X-Postroom-Loop: ants.example.com",
    ],
)
def test_d30_what_has_been_through_the_list_is_discarded(line: str) -> None:
    decision = decide(this(), post(line), MEMBER)
    assert (decision.action, decision.reason) == ("discard", "loop")
    assert decision.sentence.startswith("The post goes in circles: it has been through ants@")


def test_a_loop_is_known_by_a_list_id_in_a_labels() -> None:
    line = "List-Id: <ants.xn--exmple-cua.org>"
    assert outcome(this("ants.exämple.org"), post(line)) == ("discard", "loop")


def test_d29_the_list_id_of_another_list_is_data() -> None:
    lines = ("List-Id: <bees.example.com>", "X-Postroom-Loop: bees.example.com", "X-List: ants")
    assert outcome(this(), post(*lines)) == ("accept", "accepted")


@pytest.mark.parametrize(
    "sender",
    [
        "ants-bounces@example.com",
        "Ants-Bounces+a=b@Example.com",
        "ants-bounces+abcdefgh@example.com",
        "ants-bounces+abcdefgh+Ann+x=y=example.org@example.com",
        "ants-bounces+abcdefghijklmnopqrstuvwxyz@example.com",
    ],
)
def test_what_the_list_sent_itself_is_discarded(sender: str) -> None:
    decision = decide(this(), post(sender=sender), MEMBER)
    assert (decision.action, decision.reason) == ("discard", "loop")
    assert "sent it itself" in decision.sentence


@pytest.mark.parametrize("sender", ["bees-bounces@example.com", "ants-bouncesx@example.com"])
def test_what_others_sent_is_no_loop(sender: str) -> None:
    assert outcome(this(), post(sender=sender)) == ("accept", "accepted")


@pytest.mark.parametrize(("hops", "reason"), [(50, "accepted"), (51, "loop")])
def test_d30_after_more_than_fifty_servers_it_ends(hops: int, reason: str) -> None:
    assert decide(this(), post(*["Received: x"] * hops), MEMBER).reason == reason


def test_a_loop_goes_before_the_moderators_token() -> None:
    here = post("List-Id: <ants.example.com>")
    assert outcome(this(), here, facts(approved=True)) == ("discard", "loop")


# Who is banned.


@pytest.mark.parametrize(
    ("line", "hit"),
    [
        ("anne@example.org", True),
        ("ANNE@Example.org", True),
        ("ann@example.org", False),
        ("@example.org", True),
        ("@Org", True),
        ("@xample.org", False),
        ("@mail.example.org", False),
        ("^a.*@example\\.", True),
        ("^ANNE@", True),
        ("^nne@", False),
        ("^(", False),
    ],
)
def test_the_banned_are_rejected(line: str, hit: bool) -> None:
    expected = ("reject", "banned") if hit else ("accept", "accepted")
    assert outcome(this(banned=(line,)), post()) == expected


def test_a_ban_on_a_domain_holds_below_it() -> None:
    here = post("From: x@deep.mail.example.net", without="From")
    assert outcome(this(banned=("@example.net",)), here) == ("reject", "banned")


def test_a_domain_is_banned_however_it_is_written() -> None:
    here = post("From: x@exämple.org", without="From")
    assert outcome(this(banned=("@xn--exmple-cua.org",)), here) == ("reject", "banned")


@pytest.mark.parametrize("sender", ["anne@example.org", "mallory@example.net"])
def test_any_author_and_the_envelope_sender_may_be_the_banned_one(sender: str) -> None:
    line = "From: bart@example.net" if sender != ANNE else "From: mallory@example.net"
    here = post(line, sender=sender)
    assert outcome(this(banned=("mallory@example.net",)), here) == ("reject", "banned")


def test_a_ban_says_to_whom_to_write() -> None:
    decision = decide(this(banned=(ANNE,)), post(), MEMBER)
    assert decision.sentence == (
        "anne@example.org may not post to ants@example.com. "
        "If that is a mistake, write to ants-owner@example.com."
    )


def test_a_ban_goes_before_the_moderators_token() -> None:
    here = this(banned=(ANNE,))
    assert outcome(here, post(), facts(approved=True)) == ("reject", "banned")


@pytest.mark.parametrize("line", ["Auto-Submitted: auto-generated", "Precedence: bulk"])
def test_programs_are_not_told_that_they_are_rejected(line: str) -> None:
    decision = decide(this(banned=(ANNE,)), post(line), MEMBER)
    assert (decision.action, decision.reason) == ("discard", "banned")
    assert decision.sentence.endswith("Nobody is told: it was sent by a program.")


def test_d31_the_null_sender_is_never_told_anything() -> None:
    here = this(nonmembers="reject")
    assert outcome(here, post(sender=""), STRANGER) == ("discard", "nonmember")


# The moderators' token, and the emergency.


def test_the_moderators_token_lets_a_post_through_all_but_loops_and_bans() -> None:
    here = this(emergency=True, announce_only=True, max_size=1, max_recipients=1)
    found = post("Cc: a@b.org, c@d.org", sender="x@example.net", without="To")
    assert outcome(here, found, facts(approved=True)) == ("accept", "approved")
    assert outcome(here, found, STRANGER) == ("hold", "emergency")


def test_a_moderators_command_lets_a_post_through_and_the_sentence_says_so() -> None:
    here, accepted = this(emergency=True, max_size=1), STRANGER._replace(accepted=True)
    decision = decide(here, post(), accepted)
    assert decision[:3] == ("accept", "approved", "A moderator accepted it.")
    assert decide(here, post(), facts(approved=True)).sentence.startswith(
        "The post holds the moderators' token"
    )
    assert outcome(this(banned=(ANNE,)), post(), accepted) == ("reject", "banned")
    loop = post("List-Id: Ants <ants.example.com>")
    assert outcome(here, loop, accepted) == ("discard", "loop")


def test_in_an_emergency_everything_is_held() -> None:
    here = this(emergency=True, members="discard")
    for role in ("member", "owner", "moderator", "nonmember"):
        assert outcome(here, post(), facts((ANNE, role, "accept"))) == ("hold", "emergency")


# No sender.


def test_d31_a_post_without_author_and_sender_is_held() -> None:
    assert outcome(this(), post(sender="", without="From"), STRANGER) == ("hold", "no-sender")


@pytest.mark.parametrize(
    "line",
    [
        "Content-Type: multipart/report; report-type=delivery-status; boundary=x",
        "Auto-Submitted: auto-replied",
        "From: Mailer-Daemon@example.org",
        "From: postmaster@example.org",
    ],
)
def test_d31_a_bounce_to_the_list_is_discarded(line: str) -> None:
    found = post(line, sender="", without="From")
    assert outcome(this(), found, STRANGER) == ("discard", "no-sender")


def test_d31_the_null_sender_with_an_author_is_a_post() -> None:
    assert outcome(this(), post(sender="")) == ("accept", "accepted")


def test_d27_a_post_without_author_is_its_envelope_senders() -> None:
    assert outcome(this(), post(without="From")) == ("accept", "accepted")


def test_an_automatic_answer_that_says_whose_it_is_waits() -> None:
    reply = post("Auto-Submitted: Auto-Replied (vacation)")
    assert outcome(this(), reply) == ("hold", "automatic")
    assert outcome(this(), reply, facts((ANNE, "owner", None))) == ("hold", "automatic")
    assert outcome(this(), reply, facts(approved=True)) == ("accept", "approved")
    strict = this(nonmembers="reject")
    assert outcome(strict, reply, STRANGER) == ("discard", "nonmember")


@pytest.mark.parametrize("value", ["auto-generated", "no", "auto-notified"])
def test_what_programs_send_on_their_own_account_goes_on(value: str) -> None:
    assert outcome(this(), post(f"Auto-Submitted: {value}")) == ("accept", "accepted")


# Header patterns.


@pytest.mark.parametrize("action", ["hold", "reject", "discard"])
def test_a_suspicious_header_has_the_action_that_its_line_says(action: str) -> None:
    here = this(suspicious=(f"{action} X-Spam-Flag: ^yes$",))
    assert outcome(here, post("x-spam-flag: YES")) == (action, "suspicious")
    assert outcome(here, post("x-spam-flag: yes, no")) == ("accept", "accepted")


def test_the_first_suspicion_decides() -> None:
    here = this(suspicious=("accept Subject: urgent hello", "reject Subject: hello"))
    assert outcome(here, post()) == ("reject", "suspicious")
    urgent = post("Subject: Urgent hello", without="Subject")
    assert outcome(here, urgent) == ("accept", "accepted")


def test_a_suspicion_that_accepts_does_not_let_a_stranger_in() -> None:
    here = this(suspicious=("accept X-Friend: yes",))
    assert outcome(here, post("X-Friend: yes"), STRANGER) == ("hold", "nonmember")


def test_a_suspicion_looks_at_what_people_read_and_at_each_such_field() -> None:
    here = this(suspicious=("hold Subject: käse",))
    found = post("Subject: =?utf-8?q?K=C3=A4se?=")
    assert outcome(here, found) == ("hold", "suspicious")


def test_what_cannot_be_read_of_the_settings_takes_no_part_and_is_told() -> None:
    lines = ("hold Subject: (", "hold Subject", "hold Subject: (a+)+b", "hold X-Odd: yes")
    here = this(suspicious=lines, banned=("^(", "x@y.org"), also_known_as=("^[",))
    assert outcome(here, post()) == ("accept", "accepted")
    assert outcome(here, post("X-Odd: yes")) == ("hold", "suspicious")
    told = not_used(here.settings.posting)
    assert [each.partition(":")[0] for each in told] == [
        "posting.banned", "posting.also_known_as", *["posting.suspicious"] * 3
    ]  # fmt: skip
    assert "'^('" in told[0]
    assert not_used(Posting(banned=("^x", "y@z.org"), suspicious=("hold A: b",))) == []


def test_d19_odd_headers_never_matter() -> None:
    odd = ("Urgent: yes", "X-Mailer: x", ": nameless", "Priority: \x00", "To-: x", "X: " * 999)
    assert decide(this(), post(*odd), MEMBER) == decide(this(), post(), MEMBER)


# Size, recipients, the list's name.


def test_a_post_that_is_too_big_is_held() -> None:
    size = post().size
    assert outcome(this(max_size=size), post()) == ("accept", "accepted")
    assert outcome(this(max_size=0), post()) == ("accept", "accepted")
    decision = decide(this(max_size=100), post(body="x" * 3_200_000), MEMBER)
    assert (decision.action, decision.reason) == ("hold", "too-big")
    assert decision.sentence == (
        "The post has 3.2 MB, more than the 100 octets that are allowed, so a moderator looks "
        "at the post first. A link in place of an attachment helps."
    )


def test_d25_a_post_whose_header_is_too_long_to_be_read_is_held() -> None:
    found = post(f"X-Odd: {'x' * HEADER}")
    assert outcome(this(max_size=0), found) == ("hold", "too-big")


@pytest.mark.parametrize(
    ("most", "reason"), [(4, "accepted"), (3, "too-many-recipients"), (0, "accepted")]
)
def test_posts_with_too_many_recipients_are_held(most: int, reason: str) -> None:
    found = post("To: a@b.org, c@d.org", "Cc: e@f.org")
    assert decide(this(max_recipients=most), found, MEMBER).reason == reason


@pytest.mark.parametrize(
    ("line", "known_as", "named"),
    [
        ("To: ANTS@Example.com", (), True),
        ("Cc: Ants <ants@example.com>", (), True),
        ("To: ants@example.net", (), True),  # at a domain that is an alias
        ("Resent-To: ants@example.com", (), True),
        ("To: undisclosed-recipients:;", (), False),
        ("To: ants-owner@example.com", (), False),
        ("To: all@example.com", (), False),
        ("To: all@example.com", ("All@example.com",), True),
        ("To: all@example.com", ("^.*@example\\.com$",), True),
        ("To: all@example.com", ("^.*@example\\.org$", "^("), False),
        ("Bcc: ants@example.com", (), False),
    ],
)
def test_a_post_must_name_the_list(line: str, known_as: tuple[str, ...], named: bool) -> None:
    found = post(line, without="To")
    expected = ("accept", "accepted") if named else ("hold", "not-named")
    assert outcome(this(also_known_as=known_as), found) == expected
    assert outcome(this(require_named=False), found) == ("accept", "accepted")


def test_hostile_addresses_and_fields_are_matched_within_bounds() -> None:
    # A pattern that anybody might write. Without bounds this would take minutes.
    pattern = "^.*-.*@nowhere$"
    here = this(
        banned=(pattern,),
        also_known_as=(pattern,),
        suspicious=(f"hold X-Odd: {pattern}",),
        max_recipients=0,
    )
    check(here.settings)
    many = [f"{'-' * 900}{n}@example.org" for n in range(500)]
    found = post(f"To: {', '.join(many)}", f"From: {', '.join(many)}", without="To")
    assert outcome(here, found) == ("hold", "not-named")
    odd = post(*["X-Odd: " + "-" * 500] * 1500)
    assert outcome(here, odd) == ("accept", "accepted")


# Administrivia.


@pytest.mark.parametrize(
    ("subject", "lines", "is_reply", "command"),
    [
        ("unsubscribe", (), False, "unsubscribe"),
        ("Please unsubscribe me from this mailing list!", (), False, "unsubscribe"),
        ("UNSUBSCRIBE anne@example.org", ("Thanks", "Anne"), False, "unsubscribe"),
        ("hello", ("subscribe",), False, "subscribe"),
        ("Re: ants", ("unsubscribe", "> a", "> b"), True, "unsubscribe"),
        ("Re: ants", ("> a", "unsubscribe"), True, "unsubscribe"),
        ("hello", ("unsubscribe", "--", "Anne", "Ant", "a", "b", "c", "d"), False, "unsubscribe"),
        ("help", (), False, "help"),
        ("", ("help",), False, "help"),
        ("stop", ("stop",), False, "stop"),
        ("remove me", (), False, "remove me"),
        ("please remove me from the list.", (), False, "please remove me"),
        ("help", ("Can anybody tell me how?",), False, ""),
        ("Leave", ("I am away until Monday.",), False, ""),
        ("hello", ("help",), False, ""),
        ("shall we go on?", ("stop",), True, ""),
        ("help", (), True, ""),
        ("unsubscribe", ("Sure, like that.",), True, ""),
        ("How do I unsubscribe?", (), False, ""),
        ("unsubscribe", ("a", "b", "c", "d", "e", "f"), False, ""),
        ("subscribe to my newsletter", (), False, ""),
        ("unsubscribe" + "!" * 200, (), False, ""),
        ("", (), False, ""),
    ],
)
def test_only_what_is_nothing_but_a_command_is_one(
    subject: str, lines: tuple[str, ...], is_reply: bool, command: str
) -> None:
    assert command_in(subject, lines, is_reply) == command


def test_a_command_to_the_list_is_held() -> None:
    found = post("Subject: unsubscribe", body="")
    decision = decide(this(), found, MEMBER)
    assert (decision.action, decision.reason) == ("hold", "administrivia")
    assert '("unsubscribe")' in decision.sentence
    assert decision.sentence.endswith("Commands go to ants-request@example.com.")
    assert outcome(this(administrivia=False), found) == ("accept", "accepted")


# Who may post.


@pytest.mark.parametrize(
    ("role", "moderation", "expected"),
    [
        ("owner", None, ("accept", "accepted")),
        ("moderator", None, ("accept", "accepted")),
        ("member", "accept", ("accept", "accepted")),
        ("member", None, ("reject", "announce-only")),
        ("member", "hold", ("reject", "announce-only")),
        ("nonmember", "accept", ("reject", "announce-only")),
    ],
)
def test_on_an_announce_only_list_few_may_post(
    role: str, moderation: Action | None, expected: tuple[str, str]
) -> None:
    here = this(announce_only=True)
    assert outcome(here, post(), facts((ANNE, role, moderation))) == expected


@pytest.mark.parametrize("default", SEVERITY)
@pytest.mark.parametrize("own", [None, *SEVERITY])
def test_a_members_own_action_goes_before_the_lists(default: Action, own: Action | None) -> None:
    action = own or default
    reason = "accepted" if action == "accept" else "member-moderated"
    found = outcome(this(members=default), post(), facts((ANNE, "member", own)))
    assert found == (action, reason)


@pytest.mark.parametrize("default", SEVERITY)
@pytest.mark.parametrize("own", [None, *SEVERITY])
def test_a_nonmembers_own_action_goes_before_the_lists(default: Action, own: Action | None) -> None:
    action = own or default
    reason = "accepted" if action == "accept" else "nonmember"
    known = facts((ANNE, "nonmember", own))
    assert outcome(this(nonmembers=default), post(), known) == (action, reason)


@pytest.mark.parametrize("role", ["owner", "moderator"])
def test_owners_and_moderators_are_not_moderated_but_held_to_the_other_rules(role: str) -> None:
    known = facts((ANNE, role, None), (ANNE, "member", "discard"))
    here = this(members="reject", nonmembers="reject", announce_only=True)
    assert outcome(here, post(), known) == ("accept", "accepted")
    assert outcome(this(max_size=1), post(), known) == ("hold", "too-big")


def test_one_sender_who_is_a_member_makes_it_a_members_post() -> None:
    known = facts(("x@example.net", "nonmember", "discard"), (ANNE, "member", None))
    assert outcome(this(), post(), known) == ("accept", "accepted")


def test_of_several_members_the_strictest_action_holds() -> None:
    known = facts((ANNE, "member", "accept"), ("b@example.net", "member", "reject"))
    assert outcome(this(), post(), known) == ("reject", "member-moderated")


def test_sentences_say_who_is_meant_and_what_to_do() -> None:
    rejected = decide(this(nonmembers="reject"), post(), STRANGER).sentence
    assert rejected == (
        "anne@example.org is not a member of ants@example.com, so the post was not sent out. "
        "If that is a mistake, write to ants-owner@example.com."
    )
    held = decide(this(members="hold"), post(), MEMBER).sentence
    assert held == (
        "Posts of members to ants@example.com are moderated, so a moderator looks at the post "
        "first."
    )
    own = decide(this(), post(), facts((ANNE, "member", "hold"))).sentence
    assert own.startswith("Posts of anne@example.org to ants@example.com are moderated")


# The chain.


def test_all_that_is_to_be_said_is_kept_and_the_strictest_decides() -> None:
    here = this(nonmembers="discard", max_size=10)
    decision = decide(here, post(without="To"), STRANGER)
    assert [hit.rule for hit in decision.hits] == ["too-big", "not-named", "nonmember"]
    assert (decision.action, decision.reason) == ("discard", "nonmember")


def test_of_equals_the_first_decides() -> None:
    assert outcome(this(max_size=10), post(without="To"), STRANGER) == ("hold", "too-big")


def test_each_rule_is_examined_and_named_as_what_it_finds() -> None:
    here = this(emergency=True, max_size=1, max_recipients=1, banned=(ANNE,), announce_only=True)
    found = post("List-Id: <ants.example.com>", "To: a@b.org, c@d.org", body="x")
    looked = examine(here, found, STRANGER)
    assert [rule for rule, _ in looked] == [rule for rule, _ in CHAIN]
    hits = {rule: hit for rule, hit in looked if hit is not None}
    assert all(hit.rule == rule for rule, hit in hits.items())
    assert {"loop", "banned", "emergency", "too-big", "announce-only", "nonmember"} <= set(hits)


actions = st.sampled_from(SEVERITY)
lines = st.sampled_from(["@org", "^a", "^(", "a@b", "hold Subject: a", "x", "^(a+)+$", "@", "^"])
postings = st.builds(
    Posting,
    members=actions,
    nonmembers=actions,
    announce_only=st.booleans(),
    emergency=st.booleans(),
    banned=st.lists(lines, max_size=3).map(tuple),
    max_size=st.integers(0, 100),
    max_recipients=st.integers(0, 3),
    require_named=st.booleans(),
    also_known_as=st.lists(lines, max_size=3).map(tuple),
    suspicious=st.lists(lines, max_size=3).map(tuple),
)
rows = st.builds(
    Membership,
    st.just(ANNE),
    st.sampled_from(["member", "owner", "moderator", "nonmember"]),
    st.none() | actions,
)
known = st.builds(SenderFacts, st.lists(rows, max_size=3).map(tuple), st.booleans())


@given(messages, st.sampled_from(["", ANNE, "nonsense"]), postings, known)
def test_any_post_is_decided_and_the_sentence_is_one_line(
    raw: bytes, sender: str, posting: Posting, facts: SenderFacts
) -> None:
    here = ListFacts("ants@example.com", "ants.example.com", "", ListSettings(posting=posting))
    found = read(raw, sender)
    decision = decide(here, found, facts)
    assert decision.action in SEVERITY
    assert decision.sentence.isprintable()
    assert decision.sentence.endswith(".")
    assert decision == decide(here, found, facts)
    if decision.action == "reject":
        assert not found.automatic
    if decision.action == "accept":
        assert facts.approved or facts.accepted or not decision.hits


def test_settings_that_pass_their_check_all_take_part() -> None:
    posting = Posting(
        banned=("a@b.org", "@example.org", "^spam.*@"),
        also_known_as=("x@y.org", "^all@"),
        suspicious=("hold Subject: ^re: *money", "reject X-Spam: yes|maybe"),
    )
    check(ListSettings(posting=posting))
    assert not_used(posting) == []


def test_a_long_ban_list_and_many_senders_cost_no_product() -> None:
    banned = tuple(f"x{n}@example.net" for n in range(1000))
    authors = ", ".join(f"a{n}@example.org" for n in range(50))
    here, found = this(banned=banned), post(f"From: {authors}", without="From")
    assert calls(lambda: rules.banned(here, found, STRANGER)) < 30_000


def calls(call: Callable[[], Hit | None]) -> int:
    """How many functions are called."""
    done = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal done
        done += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        call()
    finally:
        sys.setprofile(None)
    return done
