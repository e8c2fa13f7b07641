"""Keys: the site's secret on both databases, and the tokens made with it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.keys import (
    held_token,
    is_moderator_token,
    moderator_token,
    moderator_tokens,
    plain_token,
    read_held_token,
    read_unsubscribe_token,
    site_secret,
    unsubscribe_token,
    verp_key,
    verp_tag,
)
from postroom.lists.registry import create_list, find_list
from postroom.lists.roster import Role, add_members, remove_members
from postroom.store.engine import Store
from tests.contract.threads import at_once

SECRET = bytes(range(32))
ANTS = "ants.example.com"
SINCE = 1_795_168_482.25
POST = 0x0CA67E92D7F5B000


def test_the_secret_is_made_once_and_stays(store: Store) -> None:
    with store.begin() as connection:
        made = site_secret(connection)
    assert len(made) == 32
    assert len(set(made)) > 8
    with store.read() as connection:
        assert site_secret(connection) == made


def test_two_who_need_the_secret_first_get_the_same(store: Store) -> None:
    def ask() -> bytes:
        with store.begin() as connection:
            return site_secret(connection)

    assert len(set(at_once([ask] * 4))) == 1


def test_the_formats_stay_what_they_were() -> None:
    """Links in mail that is out must work for years."""
    token = "YW5uQGV4YW1wbGUub3Jn.cZfQC3kBOoVWzff9sRHdtg"
    assert unsubscribe_token(SECRET, ANTS, "Ann@example.org") == token
    assert moderator_token(SECRET, ANTS, "Ann@example.org", SINCE) == "NHYO-7OMG-4ZKY-XAFB"
    assert held_token(SECRET, ANTS, POST) == "bsth5ewx6wyabpuuqmzww3e7w3oaidfptie3r3a"
    assert verp_key(SECRET, ANTS) == (key := "w2rHTb-2q38mR6JH7bm2HA")
    assert verp_tag(key) == "kr73t6xo"
    assert verp_tag(key, "ann@example.org") == "xhyt6utl"


@pytest.mark.parametrize(
    "email", ["ann@example.org", "ännchen@bücher.example", "a" * 242 + "@b.de"]
)
def test_an_unsubscribe_token_gives_its_address_back_and_needs_no_quoting(email: str) -> None:
    token = unsubscribe_token(SECRET, ANTS, email.upper() if email.isascii() else email)
    assert re.fullmatch(r"[A-Za-z0-9._-]+", token)
    assert read_unsubscribe_token(SECRET, ANTS, token) == email


def test_an_unsubscribe_token_is_good_for_one_list_one_address_and_one_site() -> None:
    token = unsubscribe_token(SECRET, ANTS, "ann@example.org")
    assert read_unsubscribe_token(SECRET, "bees.example.com", token) is None
    assert read_unsubscribe_token(bytes(32), ANTS, token) is None
    other = unsubscribe_token(SECRET, ANTS, "bo@example.org")
    mixed = f"{other.partition('.')[0]}.{token.partition('.')[2]}"
    assert read_unsubscribe_token(SECRET, ANTS, mixed) is None


def test_what_was_changed_in_a_token_anywhere_is_seen() -> None:
    token = unsubscribe_token(SECRET, ANTS, "ann@example.org")
    for place, char in enumerate(token):
        for other in ("A" if char != "A" else "B", "", char + "=", char + "\n", "ä", "\udc80"):
            forged = token[:place] + other + token[place + 1 :]
            assert read_unsubscribe_token(SECRET, ANTS, forged) is None, forged


@given(st.text(max_size=80) | st.from_regex(r"\A[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{22}\Z"))
def test_any_text_is_no_token(text: str) -> None:
    assert read_unsubscribe_token(SECRET, ANTS, text) is None
    assert not is_moderator_token(["A" * 16], text)


@given(st.text(max_size=60) | st.from_regex(r"\A[A-Za-z2-7]{39}\Z"))
def test_any_text_is_no_token_of_a_held_post(text: str) -> None:
    assert read_held_token(SECRET, ANTS, text) is None


def test_a_token_of_any_length_is_refused() -> None:
    assert read_unsubscribe_token(SECRET, ANTS, "A" * 10_000_000) is None
    assert not is_moderator_token(["A" * 16], "A" * 10_000_000)
    assert not is_moderator_token(["A" * 16], "-" * 10_000_000 + "A" * 16)
    assert read_held_token(SECRET, ANTS, "a" * 10_000_000) is None
    assert read_held_token(SECRET, ANTS, " " * 10_000_000 + held_token(SECRET, ANTS, 1)) is None


@given(st.integers(0, 2**63 - 1))
def test_the_token_of_a_held_post_gives_its_id_back_and_fits_into_an_address(number: int) -> None:
    token = held_token(SECRET, ANTS, number)
    assert re.fullmatch(r"[a-z2-7]{39}", token)
    for written in (token, token.upper(), f" {token}\r\n"):
        assert read_held_token(SECRET, ANTS, written) == number


def test_the_token_of_a_held_post_is_good_for_one_list_one_post_and_one_site() -> None:
    token, other = held_token(SECRET, ANTS, POST), held_token(SECRET, ANTS, POST + 1)
    assert read_held_token(SECRET, "bees.example.com", token) is None
    assert read_held_token(bytes(32), ANTS, token) is None
    assert read_held_token(SECRET, ANTS, other) == POST + 1
    for cut in range(1, 39):
        assert read_held_token(SECRET, ANTS, other[:cut] + token[cut:]) in (None, POST, POST + 1)
    assert read_held_token(SECRET, ANTS, other[:13] + token[13:]) is None


def test_what_was_changed_in_the_token_of_a_held_post_anywhere_is_seen() -> None:
    token = held_token(SECRET, ANTS, POST)
    for place, char in enumerate(token):
        others = set("abcdefghijklmnopqrstuvwxyz234567") - {char}
        for other in (*others, "", char + "=", char + " ", char + "-", "ſ", "K", "\udc80", "\0"):
            forged = token[:place] + other + token[place + 1 :]
            if forged != token + " ":
                assert read_held_token(SECRET, ANTS, forged) is None, forged


def test_a_verp_tag_is_of_one_list_one_address_and_one_site() -> None:
    sites, lists = (SECRET, bytes(32)), (ANTS, "bees.example.com")
    keys = [verp_key(secret, list_id) for secret in sites for list_id in lists]
    emails = ("", "ann@example.org", "bo@example.org", "ännchen@bücher.example")
    tags = [verp_tag(key, email) for key in keys for email in emails]
    assert len({*tags}) == len(tags) == 16
    for made in tags:
        assert re.fullmatch(r"[a-z2-7]{8}", made)
    for key in keys:
        assert re.fullmatch(r"[A-Za-z0-9_-]{22}", key)


def test_a_verp_key_is_bound_to_its_purpose() -> None:
    """It stands in the spool, so it must not be the beginning of any other token."""
    token = unsubscribe_token(SECRET, ANTS, "")
    assert verp_key(SECRET, ANTS) != token.partition(".")[2]


def test_a_moderator_token_is_easy_to_type() -> None:
    token = moderator_token(SECRET, ANTS, "ann@example.org", SINCE)
    plain = token.replace("-", "")
    assert re.fullmatch(r"(?:[A-Z2-7]{4}-){3}[A-Z2-7]{4}", token)
    for typed in (token, token.lower(), plain, f" {token.replace('-', ' - ')}\n"):
        assert plain_token(typed) == plain
        assert is_moderator_token([plain], typed)
    for other in ("", token[:-1], token + "A", token.replace("-", "."), "yes", "1" * 16):
        assert plain_token(other) == ""


def test_a_moderator_token_is_good_for_one_list_one_person_one_time_and_one_site() -> None:
    token = moderator_token(SECRET, ANTS, "ann@example.org", SINCE)
    assert token == moderator_token(SECRET, ANTS, "ANN@Example.org", SINCE)
    others = {
        moderator_token(SECRET, "bees.example.com", "ann@example.org", SINCE),
        moderator_token(SECRET, ANTS, "bo@example.org", SINCE),
        moderator_token(SECRET, ANTS, "ann@example.org", SINCE + 1),
        moderator_token(bytes(32), ANTS, "ann@example.org", SINCE),
    }
    assert len(others - {token}) == 4
    plain = [each.replace("-", "") for each in others]
    for forged in (token, "", token[:-1], token + "A"):
        assert not is_moderator_token(plain, forged)


def test_only_who_runs_a_list_has_a_token_and_whoever_comes_back_has_another(
    store: Store,
) -> None:
    def join(email: str, role: Role) -> None:
        add_members(connection, ants, [(email, "")], role)

    def tokens() -> frozenset[str]:
        return moderator_tokens(connection, ants, ANTS)

    with store.begin() as connection:
        create_list(connection, "ants@example.com")
        ants = find_list(connection, "ants@example.com").key
        join("olga@example.org", "owner")
        assert tokens() == frozenset()  # there is no secret yet, and asking makes none
        site_secret(connection)
        join("anne@example.org", "member")
        before = tokens()
        assert len(before) == 1
        join("mo@example.org", "moderator")
        assert len(tokens()) == 2
        assert tokens() > before
        remove_members(connection, ants, ["olga@example.org", "mo@example.org"], "owner")
        assert len(tokens()) == 1
        join("olga@example.org", "owner")
        assert len(tokens()) == 2
        assert not tokens() & before
