"""Keys: the site's secret on both databases, and the tokens made with it."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.keys import (
    is_moderator_token,
    moderator_token,
    read_unsubscribe_token,
    site_secret,
    unsubscribe_token,
)
from postroom.store.engine import Store
from tests.contract.threads import at_once

SECRET = bytes(range(32))
ANTS = "ants.example.com"


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
    assert moderator_token(SECRET, ANTS, "Ann@example.org") == "R32I-T4ID-BTQI-SAHZ"


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
    assert not is_moderator_token(SECRET, ANTS, "ann@example.org", text)


def test_a_token_of_any_length_is_refused() -> None:
    assert read_unsubscribe_token(SECRET, ANTS, "A" * 10_000_000) is None
    assert not is_moderator_token(SECRET, ANTS, "ann@example.org", "A" * 10_000_000)


def test_a_moderator_token_is_easy_to_type() -> None:
    token = moderator_token(SECRET, ANTS, "ann@example.org")
    assert re.fullmatch(r"(?:[A-Z2-7]{4}-){3}[A-Z2-7]{4}", token)
    for typed in (token, token.lower(), token.replace("-", ""), f" {token.replace('-', ' - ')}\n"):
        assert is_moderator_token(SECRET, ANTS, "ANN@Example.org", typed)


def test_a_moderator_token_is_good_for_one_list_one_person_and_one_site() -> None:
    token = moderator_token(SECRET, ANTS, "ann@example.org")
    assert not is_moderator_token(SECRET, "bees.example.com", "ann@example.org", token)
    assert not is_moderator_token(SECRET, ANTS, "bo@example.org", token)
    assert not is_moderator_token(bytes(32), ANTS, "ann@example.org", token)
    for forged in ("", token[:-1], token + "A", ("A" if token[0] != "A" else "B") + token[1:]):
        assert not is_moderator_token(SECRET, ANTS, "ann@example.org", forged)
