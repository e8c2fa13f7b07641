"""A message on its way in: what is kept of it, what it needs room for, what becomes of it."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lmtp.body import Body, Chunks
from postroom.lmtp.grammar import Chunk
from postroom.lmtp.transfer import SMALL_BODY, Transfer
from postroom.mail import reply
from postroom.mail.reply import Reply

LIMIT = 1_000_000
refusals = pytest.mark.parametrize(
    "refusal", [reply.NO_ROOM, reply.TOO_BIG, reply.BAD_CHUNK], ids=["452", "552", "501"]
)


def chunked(declared: int | None = None) -> Transfer:
    """A message that comes in chunks."""
    return Transfer(Chunks(), LIMIT, declared)


def take(transfer: Transfer, octets: bytes, last: bool = False, sound: bool = True) -> None:
    """One whole chunk comes, with two octets after it."""
    transfer.begin(Chunk(len(octets), last, sound))
    assert transfer.feed(octets + b"NO") == b"NO"


@given(
    st.lists(st.binary(max_size=20), min_size=1, max_size=8),
    st.lists(st.integers(0, 200), max_size=12),
    st.booleans(),
)
def test_chunks_are_their_octets_however_they_are_cut(
    contents: list[bytes], at: list[int], discard: bool
) -> None:
    body = Chunks()
    if discard:
        body.discard()
    for content in contents:
        octets = content + b"RSET\r\n"
        edges = [0, *sorted(min(offset, len(octets)) for offset in at), len(octets)]
        pieces = [octets[start:end] for start, end in itertools.pairwise(edges)]
        body.begin(len(content))
        assert _feed(body, pieces) == b"RSET\r\n"
    whole = b"".join(contents)
    assert body.size == len(whole)
    assert body.content() == (b"" if discard else whole)


def _feed(body: Chunks, pieces: Iterable[bytes]) -> bytes:
    """Feed until the chunk ends; returns what came after it."""
    pieces = iter(pieces)
    for piece in pieces:
        rest = body.feed(piece)
        if rest is not None:
            return rest + b"".join(pieces)
    raise AssertionError("the chunk has no end")


def test_it_is_complete_with_its_last_chunk_or_the_end_of_data() -> None:
    transfer = chunked()
    take(transfer, b"hello")
    assert not transfer.complete
    transfer.begin(Chunk(3, last=True))
    assert transfer.feed(b"ab") is None
    assert not transfer.complete
    assert transfer.feed(b"c") == b""
    assert transfer.complete and transfer.content() == b"helloabc"
    data = Transfer(Body(), LIMIT)
    assert data.feed(b"hello\r\n") is None
    assert not data.complete
    assert data.feed(b".\r\nQUIT") == b"QUIT"
    assert data.complete and data.content() == b"hello\r\n"


@refusals
def test_what_is_refused_is_read_to_its_end_and_not_kept(refusal: Reply) -> None:
    transfer = chunked()
    take(transfer, b"hello")
    transfer.refuse(refusal)
    take(transfer, b"world", last=True)
    assert transfer.complete and transfer.refusal is refusal
    assert (transfer.size, transfer.content()) == (10, b"")


@refusals
def test_the_first_refusal_stands(refusal: Reply) -> None:
    transfer = chunked()
    transfer.refuse(refusal)
    take(transfer, b"x" * (LIMIT + 1), sound=False)
    assert transfer.lacks() == 0
    assert transfer.refusal is refusal


@refusals
def test_after_a_chunk_that_failed_the_others_are_out_of_order_unless_it_was_for_a_time(
    refusal: Reply,
) -> None:
    transfer = chunked()
    assert transfer.chunk_reply() is reply.CHUNK_OK
    transfer.refuse(refusal)
    assert transfer.chunk_reply() is refusal
    later = reply.BAD_ORDER if refusal.code >= 500 else refusal
    assert [transfer.chunk_reply(), transfer.chunk_reply()] == [later, later]
    assert transfer.refusal is refusal


def test_a_chunk_with_a_wrong_word_fails_the_message() -> None:
    transfer = chunked()
    take(transfer, b"hello", sound=False)
    assert not transfer.sound
    assert transfer.refusal is reply.BAD_CHUNK and transfer.content() == b""
    take(transfer, b"hello")
    assert transfer.sound


@pytest.mark.parametrize("size", [1, 1000, SMALL_BODY])
def test_many_chunks_need_room_as_one_would(size: int) -> None:
    transfer = chunked()
    kept = 0
    while not (lacking := transfer.lacks()):
        take(transfer, b"x" * size)
        kept += size
    assert SMALL_BODY < kept <= SMALL_BODY + size
    assert lacking == LIMIT - SMALL_BODY
    transfer.grant(lacking)
    assert transfer.lacks() == 0
    take(transfer, b"x" * (LIMIT - kept))
    assert (transfer.lacks(), transfer.refusal) == (0, None)
    take(transfer, b"x")
    assert (transfer.lacks(), transfer.refusal) == (0, reply.TOO_BIG)


@pytest.mark.parametrize("declared", [None, 0, 10, SMALL_BODY, LIMIT, 10**19])
def test_what_was_declared_is_only_a_hint(declared: int | None) -> None:
    transfer = chunked(declared)
    take(transfer, b"x" * (SMALL_BODY + 10_000))
    assert SMALL_BODY + 10_000 <= SMALL_BODY + transfer.lacks() <= LIMIT


def test_what_is_complete_needs_no_more_room() -> None:
    transfer = chunked()
    take(transfer, b"x" * (SMALL_BODY + 1), last=True)
    assert (transfer.lacks(), transfer.refusal) == (0, None)
