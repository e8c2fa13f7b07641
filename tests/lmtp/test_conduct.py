"""Items 54 and 55: who is turned out, and who may go on for ever."""

from collections import defaultdict
from collections.abc import Callable

import pytest

from postroom.lmtp.conduct import MUCH
from postroom.lmtp.protocol import Close, Deliver, Event, Later, Limits, Reserve, Verify
from postroom.lmtp.session import LINES_AT_ONCE, Session
from postroom.mail import reply
from tests.lmtp.test_session import LHLO, MAIL, RCPT, begin

TOLD = reply.TOO_MANY_ERRORS.wire
TURNED_OUT = Close(punish=True)
GENEROUS = Limits(max_junk=10_000, max_commands=10_000)


def answer(session: Session, event: Event | None) -> Close | None:
    """Answer events until the session waits or ends."""
    while event is not None:
        match event:
            case Deliver(envelope):
                event = session.delivered([reply.ACCEPTED] * len(envelope.recipients))
            case Verify(recipients):
                event = session.verified([reply.RECIPIENT_OK] * len(recipients))
            case Reserve():
                event = session.reserved(True)
            case Later():
                event = session.resume()
            case Close():
                return event
    return None


def say(session: Session, octets: bytes) -> bytes:
    """What the session says to this; it must go on."""
    assert answer(session, session.receive(octets)) is None
    return session.output()


# Limits


def test_item_54_the_twenty_first_error_is_the_last() -> None:
    session = begin()
    assert say(session, b"FOO\r\n" * 20) == reply.BAD_COMMAND.wire * 20
    assert session.receive(b"FOO\r\nNOOP\r\n") == TURNED_OUT
    assert session.output() == TOLD


@pytest.mark.parametrize("junk", [b"NOOP\r\n", b"RSET\r\n", b"VRFY x\r\n", b"HELP\r\n", LHLO])
def test_item_54_the_hundred_and_first_command_that_leads_nowhere_is_the_last(junk: bytes) -> None:
    session = begin(b"")
    assert TOLD not in say(session, LHLO + junk * 99)
    assert TOLD not in say(session, MAIL)
    if junk == b"RSET\r\n":
        assert TOLD not in say(session, junk * 100)
        assert session.receive(junk) == TURNED_OUT
        assert session.output() == TOLD
    else:
        assert TOLD not in say(session, b"RSET\r\n" + junk * 99)
        assert session.receive(junk) == TURNED_OUT
        assert session.output() == TOLD


@pytest.mark.parametrize("pair", [MAIL + b"RSET\r\n", MAIL + b"DATA\r\nRSET\r\n"])
def test_item_54_a_client_that_begins_for_ever_and_sends_nothing_is_turned_out(
    pair: bytes,
) -> None:
    session = begin()
    assert answer(session, session.receive(pair * 1001)) == TURNED_OUT
    assert session.output().endswith(TOLD)


@pytest.mark.parametrize("refuse_at_rcpt", [False, True])
@pytest.mark.parametrize("body", [b"DATA\r\nhello\r\n.\r\n", b"BDAT 5 LAST\r\nhello"])
def test_item_54_a_client_that_delivers_may_go_on_for_ever(
    body: bytes, refuse_at_rcpt: bool
) -> None:
    session = begin(limits=Limits(refuse_at_rcpt=refuse_at_rcpt))
    for _ in range(1000):
        # It asks whether we are there, makes a mistake and starts over, each time.
        said = say(session, b"NOOP\r\nFOO\r\nRSET\r\n" + MAIL + RCPT + body)
        assert said.endswith(reply.ACCEPTED.wire)


def test_item_54_a_client_whose_messages_are_all_refused_may_go_on_too() -> None:
    session = begin(limits=Limits(max_message_size=10))
    for _ in range(1000):
        said = say(session, MAIL + RCPT + b"DATA\r\nfar too long\r\n.\r\n")
        assert said.endswith(reply.TOO_BIG.wire)


def test_item_54_recipients_are_not_counted() -> None:
    session = begin(LHLO + MAIL)
    assert say(session, RCPT * 2000).count(reply.TOO_MANY_RECIPIENTS.wire) == 1000
    assert say(session, b"RCPT TO:<>\r\n" * 2000) == reply.BAD_RECIPIENT.wire * 2000


def test_item_54_a_message_may_have_more_chunks_than_a_session_commands() -> None:
    session = begin(LHLO + MAIL + RCPT)
    chunk = b"BDAT %d\r\n" % MUCH + b"x" * MUCH
    assert say(session, chunk * 2000) == reply.CHUNK_OK.wire * 2000
    event = session.receive(b"BDAT 0 LAST\r\n")
    assert isinstance(event, Deliver) and len(event.envelope.raw) == 2000 * MUCH


@pytest.mark.parametrize("chunk", [b"BDAT 0\r\n", b"BDAT 1\r\nx"])
def test_item_54_a_message_of_nothing_but_small_chunks_is_turned_out(chunk: bytes) -> None:
    session = begin(LHLO + MAIL + RCPT)
    assert answer(session, session.receive(chunk * 1001)) == TURNED_OUT
    assert session.output().endswith(reply.CHUNK_OK.wire + TOLD)


def test_item_54_chunks_that_were_sent_before_the_refusal_was_known_are_no_errors() -> None:
    session = begin(LHLO + MAIL + RCPT * 2, Limits(max_message_size=5000))
    chunk = b"BDAT 2000\r\n" + b"x" * 2000
    said = say(session, chunk * 50 + b"BDAT 0 LAST\r\n" + MAIL)
    assert said == (
        reply.CHUNK_OK.wire * 2
        + reply.TOO_BIG.wire
        + reply.BAD_ORDER.wire * 47
        + reply.TOO_BIG.wire * 2
        + reply.SENDER_OK.wire
    )


def test_item_54_chunks_with_a_wrong_word_are_errors() -> None:
    session = begin(LHLO + MAIL + RCPT, Limits(max_errors=2))
    assert session.receive(b"BDAT 1 x\r\ny" * 3) == TURNED_OUT
    assert session.output() == reply.BAD_CHUNK.wire + reply.BAD_ORDER.wire + TOLD


def test_item_54_recipients_sent_before_the_refusal_of_the_sender_was_known_are_no_errors() -> None:
    session = begin(limits=Limits(max_message_size=10))
    group = b"MAIL FROM:<> SIZE=11\r\n" + RCPT * 50 + b"DATA\r\nRSET\r\n"
    said = reply.TOO_BIG.wire + reply.BAD_ORDER.wire * 51 + reply.DONE.wire
    assert say(session, group) == said
    assert say(session, group) == said
    # RSET ended that: these are mistakes.
    assert answer(session, session.receive(RCPT * 21)) == TURNED_OUT


def test_item_54_it_ends_in_the_middle_of_recipients_that_are_not_verified_yet() -> None:
    session = begin(LHLO + MAIL, Limits(refuse_at_rcpt=True, max_errors=1))
    event = session.receive(RCPT + b"RCPT x\r\n" + RCPT + b"RCPT y\r\n" + RCPT + b"DATA\r\n")
    assert isinstance(event, Verify) and len(event.recipients) == 2
    assert session.output() == b""
    assert session.verified([reply.RECIPIENT_OK, reply.NO_MAILBOX]) == TURNED_OUT
    assert session.output() == (
        reply.RECIPIENT_OK.wire + reply.BAD_SYNTAX.wire + reply.NO_MAILBOX.wire + TOLD
    )


@pytest.mark.parametrize("verb", [b"GET / HTTP/1.1", b"post /", b"CONNECT x:25 HTTP/1.1"])
def test_item_55_what_speaks_http_is_turned_out_before_it_can_do_harm(verb: bytes) -> None:
    session = begin(b"")
    assert session.receive(verb + b"\r\n" + LHLO + MAIL) == TURNED_OUT
    assert session.output() == reply.NOT_LMTP.wire
    assert session.backlog == 0


# Turns


def noops(count: int) -> bytes:
    return b"NOOP\r\n" * count


@pytest.mark.parametrize(
    ("octets", "allowed"),
    [
        (b"NOOP\r\n", GENEROUS),
        (b"BDAT 1\r\nx", GENEROUS),
        (b"BDAT 1 LAST\r\nx", GENEROUS._replace(max_errors=10_000)),
        (RCPT, Limits()),
        (b"BDAT 1025\r\n" + b"x" * 1025, Limits()),
        # Each message is refused without being handed on.
        (MAIL + RCPT + b"DATA\r\nxx\r\n.\r\n", Limits(max_message_size=1)),
    ],
    ids=["commands", "chunks", "stray chunks", "recipients", "large chunks", "messages"],
)
def test_after_so_many_lines_others_have_their_turn(octets: bytes, allowed: Limits) -> None:
    way = LHLO if octets.startswith((b"NOOP", b"MAIL", b"BDAT 1 ")) else LHLO + MAIL + RCPT
    session = begin(way, allowed)
    times = 1000 // (3 if octets.startswith(b"MAIL") else 1)
    event, others = session.receive(octets * times), 0
    while event is not None:
        assert session.output().count(b"\r\n") <= LINES_AT_ONCE * 2
        others += isinstance(event, Later)
        event = session.resume() if isinstance(event, Later) else session.reserved(True)
    assert others >= 1000 // LINES_AT_ONCE


def test_the_replies_do_not_depend_on_turns() -> None:
    octets = noops(70) + MAIL + RCPT * 300 + b"DATA\r\nhello\r\n.\r\n" + noops(31) + b"QUIT\r\n"
    at_once, one_by_one = begin(), begin()
    assert answer(at_once, at_once.receive(octets)) == Close()
    for number in range(len(octets)):
        answer(one_by_one, one_by_one.receive(octets[number : number + 1]))
    assert at_once.output() == one_by_one.output()


def test_what_comes_while_others_have_their_turn_waits() -> None:
    session = begin(limits=GENEROUS)
    assert session.receive(noops(10)) is None  # it has said LHLO before
    assert session.receive(noops(LINES_AT_ONCE - 11)) is None
    assert session.output() == reply.DONE.wire * (LINES_AT_ONCE - 1)
    assert session.receive(noops(1)) == Later()
    assert session.output() == b""
    assert session.receive(b"QUIT\r\n") is None
    assert session.output() == b""
    assert session.resume() == Close()
    assert session.output() == reply.DONE.wire + reply.BYE.wire


@pytest.mark.parametrize("end", [Session.shut_down, Session.abandon], ids=["shut down", "abandon"])
def test_it_may_end_while_others_have_their_turn(end: Callable[[Session], Event | None]) -> None:
    session = begin(limits=GENEROUS)
    assert session.receive(noops(1000)) == Later()
    assert end(session) == Close()
    assert session.backlog == 0
    with pytest.raises(AssertionError):
        session.resume()


# The count of replies


def test_every_reply_is_counted_once_when_it_is_sent() -> None:
    tally: defaultdict[bytes, int] = defaultdict(int)
    session = Session("host", "ident", Limits(refuse_at_rcpt=True), "peer", tally=tally)
    assert not tally
    sent = session.output()
    for octets in (
        LHLO + MAIL + RCPT * 3 + b"BDAT 3\r\nabcBDAT 2 LAST\r\nde" + MAIL,
        b"BDAT 4 LAST\r\nNOOP" + b"FOO\r\n" * 5,
        MAIL + RCPT * 2 + b"DATA\r\nhello\r\n",
    ):
        answer(session, session.receive(octets))
        sent += session.output()
    session.time_out()
    sent += session.output()
    assert sum(len(wire) * times for wire, times in tally.items()) == len(sent)
    assert tally[reply.ACCEPTED.wire] == 3
    assert tally[reply.CHUNK_OK.wire] == 1
    assert tally[reply.TOO_SLOW.wire] == 2
    assert all(sent.count(wire) >= times for wire, times in tally.items())
