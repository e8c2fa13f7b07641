"""Metadata: JSON, and nothing else is read."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.endpoint import SUBADDRESSES, Endpoint
from postroom.spool.metadata import QUEUES, Metadata, decode, describe, encode, queue_of

facts = st.dictionaries(
    st.text(st.characters(codec="utf-8"), max_size=8),
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(codec="utf-8")),
)


@given(facts)
def test_what_is_written_is_read_back_and_is_json(facts: Metadata) -> None:
    text = encode(facts)
    assert decode(text) == facts == json.loads(text)


@given(facts)
def test_the_same_facts_are_the_same_text(facts: Metadata) -> None:
    assert encode(dict(reversed(facts.items()))) == encode(facts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "1",
        '"text"',
        '{"a": 1} x',
        "{'a': 1}",
        '{"a": NaN}',
        "[" * 100_000,
        pickle.dumps({"listname": "ant@example.com"}, 0).decode("latin-1"),
    ],
)
def test_d16_what_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)


@pytest.mark.parametrize("subaddress", ["", *dict.fromkeys(SUBADDRESSES.values())])
def test_every_endpoint_has_a_queue_and_says_whose_it_is(subaddress: str) -> None:
    endpoint = Endpoint(7, "ant.example.com", "ant@example.com", subaddress, "")
    found = describe(endpoint, 42, "owner@example.com")
    assert queue_of(endpoint) in QUEUES
    assert found["listname"] == "ant@example.com"
    assert found["original_size"] == 42
    assert (found.get("to_list") is True) is (subaddress == "")
    assert found.get("subaddress") == (subaddress or None)
    assert found.get("envsender") == ("owner@example.com" if subaddress == "owner" else None)


def test_mail_to_the_site_owner_names_no_list_and_no_detail() -> None:
    assert describe(Endpoint(None, "", "", "", ""), 42, "owner@example.com") == {
        "_parsemsg": False,
        "original_size": 42,
        "version": 1,
        "to_owner": True,
        "envsender": "owner@example.com",
    }
