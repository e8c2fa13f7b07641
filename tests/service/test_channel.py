"""Frames between door and intake: whole, in order, however the octets are cut."""

import itertools
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec import Struct

from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply
from postroom.service.channel import (
    Answers,
    Ask,
    Change,
    Delivery,
    Frames,
    Question,
    Ready,
    Room,
    Told,
    decode_report,
    decode_request,
    delivery,
    envelope_of,
    frame,
    reply_of,
    spell,
)
from postroom.watch.figures import Depth, Histogram, Tally

numbers = st.integers(0, 2**63 - 1)
times = st.floats(0, 1e10)
texts = st.text(max_size=30)
mailboxes = st.builds(Mailbox, texts, texts)
recipients = st.lists(mailboxes, max_size=4).map(tuple)
requests: st.SearchStrategy[Struct] = st.one_of(
    st.builds(Delivery, numbers, times, texts, recipients, st.builds(Peer, texts, texts), times),
    st.builds(Question, numbers, recipients),
    st.builds(Change, texts, times),
    st.builds(Ask),
)
histograms = st.builds(
    Histogram,
    st.lists(times, max_size=3).map(tuple),
    st.lists(numbers, max_size=4).map(tuple),
    times,
)
counted = st.dictionaries(texts, numbers, max_size=3)
queues = st.dictionaries(texts, st.builds(Depth, numbers, st.none() | times), max_size=3)
tallies = st.builds(
    Tally,
    batches=histograms,
    commits=histograms,
    messages=numbers,
    octets=numbers,
    recipients=counted,
    again=numbers,
    troubles=counted,
    purged=numbers,
    queues=st.none() | queues,
    failed=texts,
)
spelled = st.lists(st.tuples(st.integers(200, 599), texts, texts), max_size=3)
reports: st.SearchStrategy[Struct] = st.one_of(
    st.builds(Ready, texts, st.integers(0, 10**9)),
    st.builds(Room, st.none() | numbers),
    st.builds(Answers, st.lists(st.tuples(numbers, st.none() | spelled), max_size=3)),
    st.builds(Told, tallies),
)
Pair = tuple[Struct, bytes]


def pieces(octets: bytes, cuts: Sequence[int]) -> list[bytes]:
    """`octets` cut at these places."""
    edges = [0, *sorted(cut % (len(octets) + 1) for cut in cuts), len(octets)]
    return [octets[a:b] for a, b in itertools.pairwise(edges)]


def taken(octets: Sequence[bytes]) -> list[tuple[bytes, bytes]]:
    """The frames that come out if the octets arrive in these pieces."""
    frames, found = Frames(), []
    for piece in octets:
        frames.feed(piece)
        while (each := frames.take()) is not None:
            found.append(each)
    return found


@given(
    st.lists(st.tuples(requests, st.binary(max_size=200)), max_size=5),
    st.lists(st.integers(0, 10**6), max_size=20),
)
@example([(Question(1, ()), b""), (Question(2, ()), b"\0" * 8)], list(range(60)))
def test_requests_arrive_whole_and_in_order_at_any_split(sent: list[Pair], cuts: list[int]) -> None:
    octets = b"".join(b"".join(frame(head, raw)) for head, raw in sent)
    found = [(decode_request(head), raw) for head, raw in taken(pieces(octets, cuts))]
    assert found == sent


@given(st.lists(reports, max_size=5), st.lists(st.integers(0, 10**6), max_size=20))
def test_reports_arrive_whole_and_in_order_at_any_split(
    sent: list[Struct], cuts: list[int]
) -> None:
    octets = b"".join(b"".join(frame(head)) for head in sent)
    assert [decode_report(head) for head, _ in taken(pieces(octets, cuts))] == sent


@given(st.tuples(requests, st.binary(max_size=50)), st.data())
def test_a_frame_that_is_not_whole_is_not_taken(sent: Pair, data: st.DataObject) -> None:
    octets = b"".join(frame(*sent))
    cut = data.draw(st.integers(0, len(octets) - 1))
    assert taken([octets[:cut]]) == []
    assert len(taken([octets[:cut], octets[cut:]])) == 1


@given(numbers, times, texts, recipients, st.binary(max_size=100))
def test_an_envelope_comes_out_as_it_went_in(
    number: int, deadline: float, sender: str, to: tuple[Mailbox, ...], raw: bytes
) -> None:
    envelope = Envelope(sender, to, raw, Peer("127.0.0.1:5", "client"), 12.5)
    [(head, found)] = taken([b"".join(delivery(number, deadline, envelope))])
    request = decode_request(head)
    assert isinstance(request, Delivery)
    assert (request.number, request.deadline) == (number, deadline)
    assert envelope_of(request, found) == envelope
    assert all(type(each) is Mailbox for each in envelope_of(request, found).recipients)


@pytest.mark.parametrize("answer", [each for each in vars(reply).values() if type(each) is Reply])
def test_every_reply_comes_out_as_it_went_in(answer: Reply) -> None:
    [(head, _)] = taken([b"".join(frame(Answers([(1, spell([answer]))])))])
    report = decode_report(head)
    assert isinstance(report, Answers)
    [(_, found)] = report.outcomes
    assert found is not None
    assert [reply_of(each) for each in found] == [answer]


@pytest.mark.parametrize(
    "head", [b"", b"\xc1", b"\x90", b"\x91\xa6System", b"\x92\xa8Question\x01"]
)
def test_what_is_no_frame_of_ours_is_an_error(head: bytes) -> None:
    with pytest.raises(msgspec.DecodeError):
        decode_request(head)


def test_neither_end_takes_the_words_of_the_other() -> None:
    for request in (Question(1, ()), Change("", 1.0), Ask()):
        with pytest.raises(msgspec.DecodeError):
            decode_report(frame(request)[1])
    for report in (Room(1), Answers([])):
        with pytest.raises(msgspec.DecodeError):
            decode_request(frame(report)[1])


def test_the_message_itself_is_not_copied_into_a_frame() -> None:
    raw = b"x" * 1000
    assert frame(Question(1, ()), raw)[2] is raw
