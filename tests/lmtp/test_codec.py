"""The codec: replies however they are cut, garbage refused, commands that stay commands."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lmtp.codec import MAX_LINE, MAX_REPLY, Answer, ReplyReader, command_line

WIRE = (
    b"220 mta.example.net ESMTP\r\n"
    b"250-mta.example.net\r\n250-SIZE 5\r\n250 PIPELINING\r\n"
    b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n250 2.1.5 Ok\r\n"
    b"550-5.1.1 one\r\n550 5.1.1 two\r\n354\r\n421 4.3.2 Bye\r\n"
)
ANSWERS = [
    Answer(220, "", "mta.example.net ESMTP"),
    Answer(250, "", "mta.example.net\nSIZE 5\nPIPELINING"),
    Answer(250, "2.1.0", "Ok"),
    Answer(250, "2.1.5", "Ok"),
    Answer(250, "2.1.5", "Ok"),
    Answer(550, "5.1.1", "one\ntwo"),
    Answer(354, "", ""),
    Answer(421, "4.3.2", "Bye"),
]


@given(st.lists(st.integers(0, len(WIRE)), max_size=12))
def test_replies_are_the_same_however_the_octets_were_cut(cuts: list[int]) -> None:
    reader, found = ReplyReader(), []
    places = [0, *sorted(cuts), len(WIRE)]
    for start, end in itertools.pairwise(places):
        found += reader.feed(WIRE[start:end])
    assert found == ANSWERS
    assert reader.fault is None and not reader.amid


def test_octet_by_octet_a_reply_is_there_with_its_last_octet() -> None:
    reader = ReplyReader()
    line = b"250-one\r\n250 two\r\n"
    for octet in line[:-1]:
        assert reader.feed(bytes([octet])) == []
        assert reader.amid
    assert reader.feed(line[-1:]) == [Answer(250, "", "one\ntwo")]
    assert not reader.amid


def test_a_line_like_the_one_before_within_a_longer_reply_belongs_to_that() -> None:
    found = ReplyReader().feed(b"250 Ok\r\n250-first\r\n250 Ok\r\n250 Ok\r\n")
    assert found == [Answer(250, "", "Ok"), Answer(250, "", "first\nOk"), Answer(250, "", "Ok")]


def test_hundreds_of_equal_replies_are_one_value() -> None:
    found = ReplyReader().feed(b"250 2.1.5 Ok\r\n" * 500)
    assert len(found) == 500 and len({id(answer) for answer in found}) == 1


@pytest.mark.parametrize(
    "garbage",
    [b"hello", b"", b"25 x", b"250_x", b"150 x", b"650 x", b"\xff\xfe", "２５０ x".encode()],
)
def test_garbage_is_a_fault_and_the_replies_before_it_are_not_lost(garbage: bytes) -> None:
    reader = ReplyReader()
    assert reader.feed(b"250 good\r\n" + garbage + b"\r\n250 late\r\n") == [Answer(250, "", "good")]
    assert reader.fault is not None and "not a reply" in str(reader.fault)
    assert reader.feed(b"250 later\r\n") == []


@pytest.mark.parametrize("pieces", [1, 40])
def test_a_line_that_never_ends_is_a_fault(pieces: int) -> None:
    reader, line = ReplyReader(), b"250 " + b"x" * MAX_LINE
    size = len(line) // pieces + 1
    for start in range(0, len(line), size):
        assert reader.feed(line[start : start + size]) == []
    assert str(reader.fault) == "Reply line too long"
    assert not reader.amid


def test_a_reply_that_never_ends_is_a_fault() -> None:
    reader, line = ReplyReader(), b"250-" + b"x" * 1000 + b"\r\n"
    for _ in range(MAX_REPLY // 1000 + 2):
        assert reader.feed(line) == []
    assert str(reader.fault) == "Reply too long"


def test_a_text_holds_no_control_characters() -> None:
    found = ReplyReader().feed(b"550 5.1.1 a\x00b\x1b[2Jc\rd\te \xff\r\n")
    assert found == [Answer(550, "5.1.1", "a\ufffdb\ufffd[2Jc\ufffdd\te \ufffd")]


def test_an_answer_is_shown_in_one_piece() -> None:
    assert str(Answer(550, "5.1.1", "No such user")) == "550 5.1.1 No such user"
    assert str(Answer(250, "", "")) == "250"
    assert str(Answer(421, "", "one\ntwo")) == "421 one two"


def test_a_command_cannot_bring_another() -> None:
    assert command_line("EHLO", "lists.example.com") == b"EHLO lists.example.com\r\n"
    assert command_line("RSET") == b"RSET\r\n"
    for name in "x\r\nMAIL FROM:<>", "x\ny", "x\ry":
        with pytest.raises(ValueError, match="line end"):
            command_line("EHLO", name)
