"""Requests: what is said to whom, that it stays small and harmless, and that it can be answered."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postroom.lists.pending import Request
from postroom.lists.subscription import Action, State
from postroom.notices import requests
from postroom.notices.requests import SAID, SHOWN, Row, in_words
from postroom.notices.sheet import Answer, answer_to
from postroom.spool.handing import Handed
from postroom.spool.ids import show
from postroom.spool.orders import order_of
from tests.notices.every import (
    CHANGE,
    HOSTILE,
    INVITED,
    JOIN,
    LEAVE,
    STAFF,
    TOKEN,
    assert_harmless,
    raw_of,
    read,
    text_of,
)
from tests.notices.house import ANNE, ANTS, NOW, house


def confirm(request: Request = JOIN, language: str = "en") -> Handed:
    return requests.confirm(house(), ANTS, request, language, NOW)


def welcome(text: str, name: str = "") -> str:
    made = requests.welcome(house(), ANTS, ANNE, name, text, "en", NOW)
    return text_of(made).replace("\r\n", "\n")


def reply(subject: str = "", rows: tuple[Row, ...] = (), original: tuple[str, ...] = ()) -> Handed:
    return requests.reply(house(), ANTS, ANNE, subject, rows, original, "<a@b>", "en", NOW)


def for_owners(request: Request, hours: float = 4.0) -> str:
    made = requests.request_for_owners(house(), ANTS, request, STAFF, hours, "en", NOW)
    return text_of(made)


# Where an answer goes


@pytest.mark.parametrize(
    ("local", "knows"),
    [("a", True), ("a" * 29, True), ("a" * 30, False), ("a" * 64, False), ("ä" * 15, False)],
)
def test_an_address_with_a_token_is_never_longer_than_addresses_may_be(
    local: str, knows: bool
) -> None:
    found = answer_to(f"{local}@example.com", TOKEN)
    own = f"{local}-confirm+{TOKEN}@example.com"
    assert found == Answer(own if knows else f"{local}-request@example.com", knows)
    assert not knows or len(own.partition("@")[0].encode()) <= 64


@pytest.mark.parametrize("request_", [JOIN, LEAVE, CHANGE, INVITED])
def test_a_plain_reply_confirms_unless_the_lists_name_is_too_long(
    request_: Request,
) -> None:
    handed = confirm(request_)
    assert read(handed)["From"] == f"ants-confirm+{TOKEN}@example.com"
    assert "you need not write anything" in text_of(handed)
    assert f"    confirm {TOKEN}" in text_of(handed)
    long = ANTS._replace(posting_address=f"{'a' * 64}@example.com")
    handed = requests.confirm(house(), long, request_, "en", NOW)
    assert read(handed)["From"] == f"{'a' * 64}-request@example.com"
    assert "you need not write anything" not in text_of(handed)
    assert f"    confirm {TOKEN}" in text_of(handed)


@pytest.mark.parametrize("length", [5, 64])
def test_owners_are_told_how_to_answer_by_mail(length: int) -> None:
    name = "a" * length
    long = ANTS._replace(posting_address=f"{name}@example.com")
    made = requests.request_for_owners(house(), long, JOIN, STAFF, 4.0, "en", NOW)
    shown = text_of(made).replace("\r\n", "\n")
    token = "" if length == 5 else f" {TOKEN}"
    assert f"    accept{token}\n    reject{token} REASON\n    discard{token}\n" in shown
    assert f"    accept {TOKEN}\n" in shown
    where = f"confirm+{TOKEN}" if length == 5 else "request"
    assert read(made)["Reply-To"] == f"{name}-{where}@example.com"


# What is said


def test_who_confirms_is_told_who_asked_from_where_and_until_when() -> None:
    shown = text_of(confirm(JOIN._replace(asked_by="eve@example.net")))
    assert "Asked by: eve@example.net" in shown
    assert "the network address 192.0.2.7" in shown
    assert "valid until 2026-01-08 00:00 UTC" in shown
    assert "Anne Lee" not in shown  # the name is what a stranger wrote


def test_without_a_source_nothing_is_said_of_it() -> None:
    for language in ("en", "de"):
        shown = text_of(confirm(JOIN._replace(source=""), language))
        assert "network" not in shown
        assert "Netz" not in shown


def test_an_invitation_names_who_invites_if_it_is_a_person_with_an_address() -> None:
    assert "Invited by: carla@example.net" in text_of(confirm(INVITED))
    assert "Invited by" not in text_of(confirm(INVITED._replace(asked_by="root")))


def test_a_change_is_said_in_words() -> None:
    shown = text_of(confirm(CHANGE))
    assert "    No posts are sent to this address." in shown
    assert "    You do not get your own posts." in shown


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("delivery", ("on", "user")),
        ("mode", ("regular", "digest")),
        ("own_posts", ("yes", "no")),
        ("duplicates", ("yes", "no")),
        ("ack", ("yes", "no")),
    ],
)
def test_every_change_has_words_of_its_own(
    language: str, name: str, values: tuple[str, str]
) -> None:
    said = [in_words({name: value}, language)[0] for value in values]
    assert said[0] != said[1]
    assert all("=" not in each and each.endswith(".") for each in said)


def test_a_change_without_words_is_said_as_it_is() -> None:
    assert in_words({"name": "Anne", "mode": "?"}, "de") == ["name = Anne", "mode = ?"]


def test_a_lists_own_welcome_keeps_its_paragraphs() -> None:
    assert "\n\nBe kind.\n\nWe meet\non Mondays.\n\n" in welcome("Be kind.\n\nWe meet\non Mondays.")
    long = " ".join(["word"] * 1000)
    shown = " ".join(welcome(long).split())
    assert long in shown


def test_without_a_text_of_its_own_a_list_welcomes_too() -> None:
    assert welcome("", "Anne Lee").startswith("Anne Lee, you are on the mailing list")
    assert welcome("").startswith("anne@example.org, you are on the mailing list")


def test_a_refusal_without_a_reason_names_none() -> None:
    made = requests.refused(house(), ANTS, LEAVE, "", "en", NOW)
    assert "Reason" not in text_of(made)
    assert "anne@example.org leaves the list" in text_of(made)


@pytest.mark.parametrize(
    ("action", "words"),
    [("join", "wants to join"), ("leave", "wants to leave"), ("change", "wants a change")],
)
def test_owners_see_who_wants_what_and_how_it_was_asked(action: Action, words: str) -> None:
    request = JOIN._replace(action=action, state=State.MODERATE)
    shown = for_owners(request)
    assert words in shown.replace("\r\n", " ")
    for each in ("Name:     Anne Lee", "Asked by: anne@example.org", "address 192.0.2.7"):
        assert each in shown
    assert f"postroom pending accept {show(JOIN.id)}" in shown
    assert "within the next 4 hours" in shown


def test_owners_who_are_told_of_each_are_promised_no_summary() -> None:
    assert "summary" not in for_owners(JOIN, 0.0)


def test_a_summary_says_how_many_more_there_are() -> None:
    made = requests.request_summary(house(), ANTS, [JOIN] * 99, 99, NOW, STAFF, "en", NOW)
    assert "And 74 more." in text_of(made)
    assert text_of(made).count(f"    accept {TOKEN}") == 25
    made = requests.request_summary(house(), ANTS, [JOIN], 1, NOW, STAFF, "en", NOW)
    assert "1 request awaits" in read(made)["Subject"]
    assert "more." not in text_of(made)


def test_owners_are_told_who_came_and_who_went() -> None:
    joined = requests.change_for_owners(house(), ANTS, ANNE, "joined", STAFF, "en", NOW)
    left = requests.change_for_owners(house(), ANTS, ANNE, "left", STAFF, "en", NOW)
    assert read(joined)["Subject"] == "ants@example.com: anne@example.org joined"
    assert read(left)["Subject"] == "ants@example.com: anne@example.org left"
    assert order_of(left.metadata).recipients == STAFF


# Replies


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("", "Your commands to ants@example.com"),
        ("  ", "Your commands to ants@example.com"),
        ("help", "Re: help"),
        ("Re: help", "Re: help"),
        ("RE: AW: help", "Re: help"),
        ("Re: ", "Your commands to ants@example.com"),
        ("regard", "Re: regard"),
    ],
)
def test_the_subject_of_a_reply_is_that_of_the_mail(subject: str, expected: str) -> None:
    assert read(reply(subject))["Subject"] == expected


def test_each_command_is_quoted_with_what_became_of_it() -> None:
    rows = (Row("who", ["Members:", "anne@example.org"]), Row("", ["And 3 more."]))
    shown = text_of(reply("x", rows, ("who", "", "Anne"))).replace("\r\n", "\n")
    assert "\n\n> who\nMembers:\nanne@example.org\n\nAnd 3 more.\n\n" in shown
    assert shown.endswith("Your message was:\n\n> who\n>\n> Anne\n")
    assert "found no room" not in shown


def test_a_mail_without_text_is_not_quoted() -> None:
    assert "Your message" not in text_of(reply("help", (Row("help", ["x"]),)))


def test_every_line_of_the_mail_is_quoted_also_where_it_is_broken() -> None:
    shown = text_of(reply("x", (), ("word " * 90,) * 100))
    quoted = shown.partition("Your message was:")[2].split()
    assert quoted.count("word") == SHOWN * 79  # 400 characters of each
    lines = shown.partition("Your message was:")[2].strip().splitlines()
    assert all(line.startswith("> ") and len(line) <= 78 for line in lines)


def test_what_finds_no_room_in_a_reply_is_counted() -> None:
    rows = (Row("who", ["a" * 99] * 1000), *(Row("x" * 999, ["b"] * 7),) * 1000)
    shown = text_of(reply("x", rows, ("c " * 200,) * 40))
    kept = shown.count("a" * 99)
    assert 300 < kept < SAID / 99
    assert f"{1000 - kept + 7000} more lines found no room here." in shown
    one = (Row("who", ["a" * 99] * (kept + 1)),)
    assert "1 more line found no room here." in text_of(reply("x", one))


# Whatever was asked


HUGE = "word " * 2000


def letters_of(text: str, language: str) -> list[Handed]:
    """Every letter, with this text wherever people write one."""
    odd = JOIN._replace(
        name=text, changes={text: text, "name": text}, asked_by=text, source=text, token=TOKEN
    )
    made = [
        requests.confirm(house(), ANTS, request, language, NOW)
        for request in (
            odd,
            odd._replace(action="leave"),
            odd._replace(action="change"),
            odd._replace(state=State.INVITED),
        )
    ]
    rows = [Row(text, [text] * 3)] * 3
    return [
        *made,
        requests.welcome(house(), ANTS, ANNE, text, text, language, NOW),
        requests.goodbye(house(), ANTS, ANNE, language, NOW),
        requests.refused(house(), ANTS, odd, text, language, NOW),
        requests.acknowledged(house(), ANTS, ANNE, text, text, language, NOW),
        requests.reply(house(), ANTS, ANNE, text, rows, [text] * 3, text, language, NOW),
        requests.request_for_owners(house(), ANTS, odd, STAFF, 4.0, language, NOW),
        requests.request_summary(house(), ANTS, [odd] * 3, 3, NOW, STAFF, language, NOW),
        requests.change_for_owners(house(), ANTS, ANNE, "left", STAFF, language, NOW),
    ]


@settings(max_examples=30, deadline=None)
@given(
    st.text(st.characters(), max_size=300) | st.sampled_from((HOSTILE, HUGE)),
    st.sampled_from(("en", "de")),
)
def test_a_hostile_request_adds_no_field_and_no_control(text: str, language: str) -> None:
    for handed in letters_of(text, language):
        assert_harmless(handed)


def test_a_huge_request_makes_small_letters() -> None:
    assert max(len(raw_of(each)) for each in letters_of(HUGE * 100, "en")) < 30_000


def test_marks_that_turn_the_direction_of_writing_do_not_survive() -> None:
    for handed in letters_of("\u202eabc\u2066\u200f", "de"):
        shown = text_of(handed) + str(read(handed)["Subject"])
        assert not {"\u202e", "\u2066", "\u200f"} & set(shown)


@pytest.mark.parametrize("language", ["en", "de"])
@pytest.mark.parametrize("said", [["y " * 300] * 50, ["ok"], ["y" * 500]])
def test_the_fullest_reply_there_can_be_is_written(language: str, said: list[str]) -> None:
    rows = [Row("x" * 500, said)] * 1000
    made = requests.reply(
        house(), ANTS, ANNE, "z" * 9999, rows, ["w " * 300] * 99, "", language, NOW
    )
    assert len(raw_of(made)) < 100_000
