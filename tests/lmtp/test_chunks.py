"""Items 44 to 46: messages in chunks (RFC 3030), at every point where something may happen."""

import itertools

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.lmtp.protocol import Close, Deliver, Later, Limits, Reserve, State, Verify
from postroom.lmtp.session import Session
from postroom.lmtp.transfer import SMALL_BODY
from postroom.mail import reply
from postroom.mail.reply import Reply
from tests.lmtp.test_session import LHLO, MAIL, RCPT, begin
from tests.lmtp.test_session_cuts import play

LAST = b"BDAT 2 LAST\r\nde"
_TELLING = [b"\r\n", b".", b"\r\n.\r\n", b"\r\n..", b"QUIT\r\n", b"BDAT 5\r\n", b"\0\xff"]
contents = st.one_of(
    st.binary(max_size=60),
    st.lists(
        st.sampled_from(_TELLING),
        max_size=12,
    ).map(b"".join),
)


def bdat(content: bytes, last: bool = False) -> bytes:
    """A chunk with its command."""
    return b"BDAT %d%s\r\n%s" % (len(content), b" LAST" if last else b"", content)


def cut(octets: bytes, at: list[int]) -> list[bytes]:
    """`octets` cut at these offsets."""
    edges = [0, *sorted(min(offset, len(octets)) for offset in at), len(octets)]
    return [octets[start:end] for start, end in itertools.pairwise(edges)]


def between(recipients: int = 2, limits: Limits = Limits()) -> Session:  # noqa: B008
    """A session between two chunks of a message."""
    session = begin(LHLO + MAIL + RCPT * recipients + bdat(b"abc"), limits)
    assert session.state is State.CHUNKS and session.owes_replies
    return session


# What is delivered


@given(
    contents,
    st.lists(st.integers(0, 60), max_size=6),
    st.lists(st.integers(0, 300), max_size=8),
    st.booleans(),
    st.integers(1, 3),
)
@example(b"", [], [], False, 1)
@example(b"\r\n.\r\n", [2], [70, 71], True, 2)
def test_item_45_any_content_in_any_chunks_is_delivered_as_it_is(
    content: bytes, chunks_at: list[int], cuts_at: list[int], empty_last: bool, recipients: int
) -> None:
    pieces = cut(content, chunks_at)
    if empty_last:
        pieces.append(b"")
    said = b"".join(bdat(piece) for piece in pieces[:-1]) + bdat(pieces[-1], last=True)
    octets = LHLO + MAIL + RCPT * recipients + said + MAIL
    start = len(LHLO + MAIL)
    for allowed in (Limits(), Limits(refuse_at_rcpt=True)):
        happened = play(cut(octets, [start + offset for offset in cuts_at]), allowed)
        assert [each[2] for each in happened.delivered] == [content]
        assert happened.output.endswith(
            reply.CHUNK_OK.wire * (len(pieces) - 1)
            + reply.ACCEPTED.wire * recipients
            + reply.SENDER_OK.wire
        )


@given(contents, st.sampled_from([b"", b" LAST", b" x", b" LAST x"]), st.integers(0, 80))
def test_item_44_a_stray_chunk_is_skipped_whatever_is_in_it(
    content: bytes, word: bytes, at: int
) -> None:
    octets = b"BDAT %d%s\r\n%s" % (len(content), word, content)
    for way in (b"", LHLO, LHLO + MAIL):
        happened = play([way, octets[:at], octets[at:], b"QUIT\r\n"], Limits())
        assert happened.closed and happened.delivered == ()
        said = happened.output.removeprefix(play([way], Limits()).output)
        refused = {b"": reply.BAD_ORDER.wire, b" LAST": b""}.get(word, reply.BAD_CHUNK.wire)
        assert said == refused + reply.BYE.wire


@pytest.mark.parametrize("at_rcpt", [False, True])
def test_item_45_a_group_with_chunks_is_verified_before_they_are_looked_at(at_rcpt: bool) -> None:
    session = begin(limits=Limits(refuse_at_rcpt=at_rcpt))
    event = session.receive(MAIL + RCPT * 3 + bdat(b"abc") + LAST + MAIL)
    if at_rcpt:
        assert isinstance(event, Verify)
        assert not session.owes_replies
        event = session.verified([reply.NO_MAILBOX, reply.RECIPIENT_OK, reply.NO_MAILBOX])
    assert isinstance(event, Deliver)
    assert len(event.envelope.recipients) == (1 if at_rcpt else 3)
    assert event.envelope.raw == b"abcde"


def test_item_45_a_group_that_is_refused_whole_makes_the_last_chunk_nobodys() -> None:
    session = begin(limits=Limits(refuse_at_rcpt=True))
    assert isinstance(session.receive(MAIL + RCPT * 2 + LAST + MAIL), Verify)
    assert session.verified([reply.NO_MAILBOX] * 2) is None
    said = reply.SENDER_OK.wire + reply.NO_MAILBOX.wire * 2 + reply.SENDER_OK.wire
    assert session.output() == said
    assert session.state is State.MAIL


# Memory


@pytest.mark.parametrize("size", [1, 7, 64])
def test_many_small_chunks_ask_for_room_before_they_take_it(size: int) -> None:
    session = begin(LHLO + MAIL + RCPT, Limits(max_message_size=200_000, max_commands=1_000_000))
    chunk = bdat(b"x" * size)
    sent = 0
    while (event := session.receive(chunk)) is None or isinstance(event, Later):
        sent += size
        assert session.received <= SMALL_BODY
        if event is not None:
            assert session.resume() is None
    assert session.received <= SMALL_BODY + size
    # The chunk is answered when there is room for it.
    assert session.output() == reply.CHUNK_OK.wire * (sent // size)
    assert session.reserved(True) is None
    assert session.output() == reply.CHUNK_OK.wire
    event = session.receive(bdat(b"", last=True))
    assert isinstance(event, Deliver) and event.envelope.raw == b"x" * (sent + size)


def test_a_group_of_small_chunks_stops_where_the_room_ends() -> None:
    session = begin(LHLO + MAIL + RCPT)
    chunks = bdat(b"x" * 2048) * 100 + bdat(b"", last=True)
    event = session.receive(chunks)
    assert isinstance(event, Reserve)
    assert session.received == SMALL_BODY + 2048
    event = session.reserved(True)
    assert isinstance(event, Deliver) and event.envelope.raw == b"x" * 204_800


@pytest.mark.parametrize("where", ["within", "end"])
def test_item_46_room_that_is_refused_between_chunks_is_452_to_the_end(where: str) -> None:
    session = begin(LHLO + MAIL + RCPT * 2)
    session.receive(bdat(b"x" * SMALL_BODY))
    session.output()
    chunk = b"BDAT 1000\r\n" + b"x" * (1 if where == "within" else 1000)
    assert isinstance(session.receive(chunk), Reserve)
    assert session.receive(b"" if where == "end" else b"x" * 999) is None
    assert session.reserved(False) is None
    assert session.output() == reply.NO_ROOM.wire
    assert session.receive(bdat(b"x" * 100_000) + bdat(b"", last=True) + MAIL) is None
    assert session.output() == reply.NO_ROOM.wire * 3 + reply.SENDER_OK.wire


def test_item_38_a_chunk_without_end_takes_no_memory() -> None:
    session = begin(LHLO + MAIL + RCPT * 2, Limits(max_message_size=100_000))
    event = session.receive(b"BDAT 99999999999999999999 LAST\r\n" + b"x" * 90_000)
    assert event == Reserve(100_000 - SMALL_BODY)
    assert session.reserved(True) is None
    for _ in range(100):
        assert session.receive(b"x" * 100_000) is None
        assert session.backlog == 0
    assert session._message is not None and session._message.content() == b""
    assert session.time_out() == Close()
    assert session.output() == reply.TOO_SLOW.wire * 2


def test_item_46_after_rset_nothing_of_the_chunks_is_left() -> None:
    session = begin(LHLO + MAIL + RCPT)
    assert isinstance(session.receive(bdat(b"x" * 100_000)), Reserve)
    session.reserved(True)
    assert session.receive(b"RSET\r\n") is None
    assert (session.received, session.owes_replies, session.state) == (0, False, State.READY)
    # The next message asks anew.
    assert isinstance(session.receive(MAIL + RCPT + bdat(b"x" * 100_000)), Reserve)


# Ends


def test_item_57_shut_down_between_chunks_lets_the_message_finish() -> None:
    session = between()
    assert session.shut_down() is None
    assert isinstance(session.receive(LAST), Deliver)
    assert session.shut_down() is None
    assert session.delivered([reply.ACCEPTED] * 2) is None
    assert session.output() == reply.ACCEPTED.wire * 2
    assert not session.owes_replies


@pytest.mark.parametrize("way", [b"", LHLO, LHLO + MAIL])
def test_item_57_shut_down_within_a_stray_chunk_waits_for_its_end(way: bytes) -> None:
    session = begin(way)
    session.receive(b"BDAT 6\r\nQUI")
    assert session.shut_down() is None
    session.receive(b"T\r\n")
    assert session.output() == reply.BAD_ORDER.wire
    assert not session.owes_replies


def test_item_57_shut_down_while_room_is_awaited_between_chunks_waits() -> None:
    session = between()
    assert isinstance(session.receive(bdat(b"x" * SMALL_BODY)), Reserve)
    assert session.shut_down() is None
    assert session.reserved(False) is None
    assert session.output() == reply.NO_ROOM.wire


def test_quit_between_chunks_ends_in_order_and_delivers_nothing() -> None:
    session = between()
    assert session.receive(b"QUIT\r\n" + LAST) == Close()
    assert session.output() == reply.BYE.wire
    assert (session.received, session.backlog, session.owes_replies) == (0, 0, False)


def test_an_outcome_that_nobody_knows_gets_no_reply() -> None:
    session = between()
    assert isinstance(session.receive(LAST + b"QUIT\r\n"), Deliver)
    assert session.delivered(None) == Close()
    assert session.output() == b""


IDLE, SLOW = reply.IDLE, reply.TOO_SLOW


@pytest.mark.parametrize(
    ("way", "answers"),
    [
        (b"", [IDLE]),
        (b"NO", [IDLE]),
        (LHLO, [IDLE]),
        (LHLO + MAIL, [IDLE]),
        (LHLO + MAIL + RCPT * 3, [IDLE]),
        (LHLO + MAIL + RCPT * 3 + b"DATA\r\n", [SLOW] * 3),
        (LHLO + MAIL + RCPT * 3 + b"DATA\r\nhello\r\n.", [SLOW] * 3),
        (LHLO + MAIL + RCPT * 3 + bdat(b"abc"), [IDLE]),
        (LHLO + MAIL + RCPT * 3 + b"BDAT 5\r\nabc", [SLOW]),
        (LHLO + MAIL + RCPT * 3 + b"BDAT 5 LAST\r\nabc", [SLOW] * 3),
        (LHLO + MAIL + RCPT * 3 + b"BDAT 5 LASTLY\r\nabc", [SLOW]),
        (LHLO + MAIL + b"BDAT 5\r\nabc", [SLOW]),
        (LHLO + MAIL + b"BDAT 5 LAST\r\nabc", []),
        (b"BDAT 5 LAST\r\nabc", []),
        (LHLO + MAIL + RCPT + bdat(b"abc") + b"RSET\r\n", [IDLE]),
    ],
)
def test_item_56_whoever_takes_too_long_is_told_once_for_each_reply_that_is_owed(
    way: bytes, answers: list[Reply]
) -> None:
    session = begin(b"")
    session.receive(way)
    session.output()
    assert session.time_out() == Close()
    assert session.output() == b"".join(each.wire for each in answers)
    assert (session.state, session.backlog, session.owes_replies) == (State.CLOSED, 0, False)
    assert session.receive(b"NOOP\r\n") is None
    assert session.output() == b""


def test_item_56_whoever_waits_for_us_does_not_take_too_long() -> None:
    for event in (LAST, bdat(b"x" * SMALL_BODY)):
        session = between()
        assert session.receive(event) is not None
        with pytest.raises(AssertionError):
            session.time_out()
