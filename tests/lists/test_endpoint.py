"""Readings of a local part, the canonical form of a domain, and telling endpoints apart."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.endpoint import (
    MAX_NAME,
    SUBADDRESSES,
    Endpoint,
    Reading,
    host_of,
    name_of,
    readings,
    shadowed,
)
from postroom.mail.address import ascii_name, fold

# Names made of what has a meaning here, so that confusions are likely.
parts = st.sampled_from(["a", "B", "-", "+", "=", ".", "é", "\u212a", *SUBADDRESSES, "-Join", "-x"])
locals_ = st.lists(parts, min_size=1, max_size=8).map("".join)
details = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=20)
names = st.lists(parts, min_size=1, max_size=4).map("".join).map(fold)


def read(local: str) -> list[Reading]:
    return list(readings(local, fold(local)))


@pytest.mark.parametrize(("suffix", "canonical"), SUBADDRESSES.items())
@pytest.mark.parametrize(
    "detail", ["", "+", "+T0ken", "+anne=example.org", "+a+b-join", "+tag+Ann=x"]
)
def test_each_sub_address_is_read_with_and_without_a_detail(
    suffix: str, canonical: str, detail: str
) -> None:
    assert Reading("mylist", canonical, detail[1:]) in read(f"mylist-{suffix}{detail}")


def test_the_sub_addresses_are_those_of_the_reference() -> None:
    assert SUBADDRESSES == {
        "bounces": "bounces",
        "confirm": "confirm",
        "join": "join",
        "leave": "leave",
        "owner": "owner",
        "request": "request",
        "subscribe": "join",
        "unsubscribe": "leave",
    }


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        ("mylist", [("mylist", "", "")]),
        ("mylist-bogus", [("mylist-bogus", "", "")]),
        ("mylist+detail", [("mylist+detail", "", "")]),
        ("join", [("join", "", "")]),
        ("-join", [("-join", "", "")]),
        ("join-join", [("join-join", "", ""), ("join", "join", "")]),
        ("-join-join", [("-join-join", "", ""), ("-join", "join", "")]),
        ("test-join-join", [("test-join-join", "", ""), ("test-join", "join", "")]),
        ("my-list-Leave", [("my-list-leave", "", ""), ("my-list", "leave", "")]),
        ("c++-join", [("c++-join", "", ""), ("c++", "join", "")]),
        (
            "a-join+b-LEAVE",
            [("a-join+b-leave", "", ""), ("a-join+b", "leave", ""), ("a", "join", "b-LEAVE")],
        ),
        ("a-confirm+X+y", [("a-confirm+x+y", "", ""), ("a", "confirm", "X+y")]),
        (
            "a-bounces+tag23+Ann+B=c=Example.org",
            [
                ("a-bounces+tag23+ann+b=c=example.org", "", ""),
                ("a", "bounces", "tag23+Ann+B=c=Example.org"),
            ],
        ),
    ],
)
def test_every_reading_is_tried_the_longest_list_name_first(
    local: str, expected: list[tuple[str, str, str]]
) -> None:
    assert read(local) == [Reading(*each) for each in expected]


@given(locals_)
def test_readings_are_those_that_the_grammar_allows_longest_first(local: str) -> None:
    """The grammar, said another way: NAME, NAME-SUBADDRESS or NAME-SUBADDRESS+DETAIL."""
    folded = fold(local)
    expected = {Reading(folded, "", "")}
    for suffix, canonical in SUBADDRESSES.items():
        for at in range(1, len(folded)):
            end = at + 1 + len(suffix)
            if folded[at:end] == f"-{suffix}" and (end == len(folded) or folded[end] == "+"):
                expected.add(Reading(folded[:at], canonical, local[end + 1 :]))
    found = read(local)
    assert set(found) == expected
    lengths = [len(reading.list_name) for reading in found]
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) == len(lengths)  # so the order leaves nothing to chance


@given(names, st.sampled_from([*SUBADDRESSES]), details)
def test_list_sub_address_and_detail_are_read_back(name: str, suffix: str, detail: str) -> None:
    local = f"{name}-{suffix.upper()}+{detail}"
    assert Reading(name, SUBADDRESSES[suffix], detail) in read(local)


@given(st.text(max_size=200))
def test_any_text_has_readings_and_the_first_is_the_whole(text: str) -> None:
    assert read(text)[0] == Reading(fold(text), "", "")


@pytest.mark.parametrize("unit", ["+", "-join+", "-join", "a-join+", "-"])
def test_the_number_of_readings_does_not_grow_with_the_local_part(unit: str) -> None:
    short, long = (read("a" + unit * (octets // len(unit))) for octets in (200, 100_000))
    assert len(short) == len(long) <= MAX_NAME
    assert all(len(reading.list_name) <= MAX_NAME for reading in long[1:])


class Watched(str):
    """Counts how often it is searched."""

    searched = 0

    def find(self, *arguments: Any) -> int:
        self.searched += 1
        return super().find(*arguments)


def test_the_work_does_not_grow_with_the_local_part_either() -> None:
    short, long = (Watched("a-" + "+" * number) for number in (200, 100_000))
    assert [len(list(readings(each, each))) for each in (short, long)] == [1, 1]
    assert short.searched == long.searched


def test_a_list_name_of_the_greatest_length_still_has_sub_addresses() -> None:
    name = "n" * MAX_NAME
    assert Reading(name, "leave", "x") in read(f"{name}-unsubscribe+x")
    assert read(f"{name}n-unsubscribe+x") == [Reading(f"{name}n-unsubscribe+x", "", "")]


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("Example.COM", "example.com"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("XN--BCHER-KVA.Example", "bücher.example"),
        ("bücher.example", "bücher.example"),
        ("a.xn--fiqs8s", "a.中国"),
        ("[192.0.2.1]", "[192.0.2.1]"),
        ("", ""),
    ],
)
def test_a_domain_has_one_form_however_it_is_written(written: str, canonical: str) -> None:
    assert host_of(written) == canonical


@pytest.mark.parametrize(
    "written",
    [
        "xn--example-.com",  # decodes to an ASCII name
        "xn--.com",
        "xn--a.com",
        "xn--99999999999.com",
        "xn--example-1z6c.com",  # holds a zero-width space
        "xn--a-qc4g.com",  # holds a surrogate
        "xn--\u212a.com",
        "exa\u200bmple.com",
        "\u212aelvin.example",
    ],
)
def test_a_domain_that_only_looks_like_another_stays_apart(written: str) -> None:
    assert host_of(written) == written


@given(st.text(max_size=60).map(lambda text: f"xn--{text}"))
def test_any_domain_has_a_form_and_no_surrogate_comes_from_it(text: str) -> None:
    if text.isascii():
        host_of(text).encode()
    assert host_of(host_of(text)) == host_of(text)


def endpoint(list_id: str, subaddress: str = "", detail: str = "") -> Endpoint:
    return Endpoint(1, list_id, "any@example.com", subaddress, detail)


ids = st.lists(st.sampled_from(["a", ".", "/", "+", "-", "join"]), max_size=5).map("".join)
endpoints = st.builds(endpoint, ids, st.sampled_from(["", "join", "leave"]), ids)


@given(endpoints, endpoints)
def test_only_the_same_endpoint_has_the_same_name(one: Endpoint, other: Endpoint) -> None:
    assert (name_of(one) == name_of(other)) == (one == other)


def test_a_list_id_that_looks_like_an_endpoint_is_not_taken_for_it() -> None:
    # A list may be called "a.h.com/join+b": "/" and "+" are atext (RFC 5322 3.2.3).
    assert name_of(endpoint("a.h.com/join+b.h.com")) != name_of(
        endpoint("a.h.com", "join", "b.h.com/+")
    )


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("ant-join", [Reading("ant", "join", "")]),
        ("ant-join-unsubscribe", [Reading("ant-join", "leave", "")]),
        ("ant-join+x", [Reading("ant", "join", "x")]),
        ("a-owner+b-leave", [Reading("a-owner+b", "leave", ""), Reading("a", "owner", "b-leave")]),
        ("ant", []),
        ("ant+x", []),
        ("join", []),
        ("-join", []),
        ("ant-bogus", []),
        ("ant-bogus+x", []),
    ],
)
def test_a_list_shadows_the_endpoints_that_have_its_name(name: str, found: list[Reading]) -> None:
    assert shadowed(name) == found


@pytest.mark.parametrize("host", ["b\u00fccher.example", "x.gr\u00fc\u00dfe.example", "a.example"])
def test_a_domain_written_for_other_servers_is_read_as_itself_again(host: str) -> None:
    assert ascii_name(host).isascii()
    assert host_of(ascii_name(host)) == host
