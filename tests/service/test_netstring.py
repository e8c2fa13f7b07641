"""Netstrings: cut from octets however they arrive, refused as early as can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.service.netstring import NetstringError, cut, netstring

MOST = 300


def cut_all(octets: bytes, most: int = MOST) -> tuple[list[bytes], bytes]:
    """All whole netstrings, and what is left."""
    found, start = [], 0
    while piece := cut(octets, start, most):
        content, start = piece
        found.append(content)
    return found, octets[start:]


@pytest.mark.parametrize(
    ("octets", "found"),
    [
        (b"0:,", ([b""], b"")),
        (b"5:hello,", ([b"hello"], b"")),
        (b"1:,,2:::,", ([b",", b"::"], b"")),
        (b"3:\0\r\n,3:ab", ([b"\0\r\n"], b"3:ab")),
        (b"300:" + b"x" * 300 + b",3", ([b"x" * 300], b"3")),
        (b"", ([], b"")),
        (b"30", ([], b"30")),
        (b"0", ([], b"0")),
        (b"5:hello", ([], b"5:hello")),
    ],
)
def test_whole_netstrings_are_cut_off_and_the_rest_waits(
    octets: bytes, found: tuple[list[bytes], bytes]
) -> None:
    assert cut_all(octets) == found
    assert cut_all(b"".join(map(netstring, found[0])) + found[1]) == found


@pytest.mark.parametrize(
    "octets",
    [
        b":",
        b",",
        b"a",
        b" 5:hello,",
        b"-1:",
        b"+5:hello,",
        b"05",
        b"00",
        b"5 ",
        b"5:hello;",
        b"5:hello!,",
        b"301:",
        b"3000",
        b"1" * 1_000_000,
        b"99999999999999999999999:",
        "٣:abc,".encode(),
        b"\xff",
        b"\0",
        b"\r\n",
        b"GET / HTTP/1.1\r\n",
    ],
)
def test_what_can_never_become_a_netstring_is_refused_at_once(octets: bytes) -> None:
    with pytest.raises(NetstringError):
        cut(octets, 0, MOST)
    with pytest.raises(NetstringError):
        cut(netstring(b"before") + octets, len(netstring(b"before")), MOST)


@given(st.lists(st.binary(max_size=MOST)), st.integers(min_value=0))
def test_where_the_octets_end_does_not_matter(contents: list[bytes], place: int) -> None:
    octets = b"".join(map(netstring, contents))
    place %= len(octets) + 1
    first, rest = cut_all(octets[:place])
    second, nothing = cut_all(rest + octets[place:])
    assert (first + second, nothing) == (contents, b"")


@given(st.binary(max_size=20), st.integers(min_value=0, max_value=20))
def test_what_is_refused_with_more_octets_was_no_netstring_before(octets: bytes, most: int) -> None:
    """A refusal never depends on how the octets were cut."""
    outcomes = []
    for end in range(len(octets) + 1):
        try:
            outcomes.append(cut(octets[:end], 0, most))
        except NetstringError:
            outcomes.append(None)
            with pytest.raises(NetstringError):
                cut(octets, 0, most)
    found = [each for each in outcomes if each is not None]
    assert found == [found[0]] * len(found) if found else True
