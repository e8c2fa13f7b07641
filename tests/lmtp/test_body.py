"""Framing after DATA: only CRLF.CRLF ends it, however the octets are cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lmtp.body import Body

END = b"\r\n.\r\n"
# What framing looks at, alone and in the groups that matter.
contents = st.lists(
    st.sampled_from([b"\r", b"\n", b".", b"\r\n", b"\r\n.", b"\r\n..", END, b"a", b"\0", b"\xff"]),
    max_size=25,
).map(b"".join)
cuts = st.lists(st.integers(0, 60), max_size=12)


def pieces(octets: bytes, at: list[int]) -> list[bytes]:
    """`octets` cut at these offsets."""
    edges = [0, *sorted(min(offset, len(octets)) for offset in at), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges)]


def reference(octets: bytes) -> tuple[bytes, bytes] | None:
    """Message and what follows it, line by line as RFC 5321 4.5.2 says; None: no end."""
    message = b""
    while b"\r\n" in octets:
        line, _, octets = octets.partition(b"\r\n")
        if line == b".":
            return message, octets
        message += line.removeprefix(b".") + b"\r\n"
    return None


def feed(body: Body, parts: list[bytes]) -> bytes | None:
    """Feed until the end; returns what came after it."""
    for number, part in enumerate(parts):
        rest = body.feed(part)
        if rest is not None:
            return rest + b"".join(parts[number + 1 :])
    return None


@given(contents, cuts)
def test_any_cut_of_any_octets_gives_what_rfc_5321_says(octets: bytes, at: list[int]) -> None:
    body = Body()
    rest = feed(body, pieces(octets, at))
    expected = reference(octets)
    if expected is None:
        assert rest is None
        # Nothing that came so far is lost: it is there when the end comes.
        rest = body.feed(END)
        expected = reference(octets + END)
    assert expected is not None and rest is not None
    assert (body.content(), rest) == expected
    assert body.size == len(expected[0])


@given(contents, cuts)
def test_a_discarded_message_ends_where_it_would_have_and_keeps_nothing(
    octets: bytes, at: list[int]
) -> None:
    octets += END
    kept, discarded = Body(), Body()
    discarded.discard()
    parts = pieces(octets, at)
    assert feed(discarded, parts) == feed(kept, parts)
    assert discarded.content() == b""
    assert discarded.size == kept.size


@given(contents, st.integers(0, 60))
def test_what_was_kept_before_a_discard_is_forgotten(octets: bytes, at: int) -> None:
    first, second = pieces(octets, [at])
    body = Body()
    if body.feed(first) is None:
        body.discard()
        body.feed(second + END)
        assert body.content() == b""


@given(contents, cuts)
def test_framing_is_linear_since_at_most_four_octets_wait(octets: bytes, at: list[int]) -> None:
    """Each octet is looked at when it comes, and once more if it is one of those."""
    body = Body()
    for part in pieces(octets, at):
        if body.feed(part) is not None:
            break
        assert len(body._carry) <= 4


@pytest.mark.parametrize(
    "no_end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\r\n.\n",
        b"\r.\r",
        b"\r.\r\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
        b"\r\n..\r\n",
        b"\r\n. \r\n",
        b"\r\r\n.\n",
    ],
)
def test_item_40_nothing_but_crlf_dot_crlf_is_an_end(no_end: bytes) -> None:
    for cut in range(len(no_end) + 1):
        body = Body()
        parts = [b"one", no_end[:cut], no_end[cut:], b"two"]
        assert feed(body, parts) is None
        assert body.feed(END + b"rest") == b"rest"
        unstuffed = no_end.replace(b"\r\n.", b"\r\n")
        assert body.content() == b"one" + unstuffed + b"two\r\n"


@pytest.mark.parametrize(
    ("octets", "message"),
    [
        (b".\r\n", b""),
        (b"..\r\n.\r\n", b".\r\n"),
        (b".x\r\n.\r\n", b"x\r\n"),
        (b"\r\n.\r\n", b"\r\n"),
        (b"...\r\n..x\r\n.\r\n", b"..\r\n.x\r\n"),
        (b"x\n..\r\n.\r\n", b"x\n..\r\n"),
    ],
)
def test_item_37_one_dot_is_taken_off_after_crlf_alone(octets: bytes, message: bytes) -> None:
    body = Body()
    assert body.feed(octets) == b""
    assert body.content() == message
