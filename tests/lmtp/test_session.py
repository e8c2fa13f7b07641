"""The session: what its dialogues do not show, and what holds for any octets."""

import pytest

from postroom.lmtp.protocol import LEGAL, REFUSED, Close, Deliver, Limits, Reserve, State, Verify
from postroom.lmtp.session import MAX_LINE, Session
from postroom.lmtp.transfer import SMALL_BODY
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply

LHLO = b"LHLO client.example.org\r\n"
MAIL = b"MAIL FROM:<anne@example.org>\r\n"
RCPT = b"RCPT TO:<a@example.com>\r\n"
END = b"\r\n.\r\n"
# How to get to each state in which commands may come.
WAYS = {
    State.GREETED: b"",
    State.READY: LHLO,
    State.MAIL: LHLO + MAIL,
    State.RCPT: LHLO + MAIL + RCPT,
    State.CHUNKS: LHLO + MAIL + RCPT + b"BDAT 3\r\nabc",
}
ARGUMENTS = {
    b"LHLO": b" x",
    b"MAIL": b" FROM:<>",
    b"RCPT": b" TO:<a@example.com>",
    b"BDAT": b" 0",
    b"VRFY": b" x",
}


def begin(way: bytes = LHLO, limits: Limits = Limits()) -> Session:  # noqa: B008
    """A session that has come this way, its output taken."""
    session = Session("lists.example.com", "ident", limits, "peer", tls=True)
    assert session.receive(way) is None
    session.output()
    return session


def in_data(recipients: int = 1, limits: Limits = Limits(), size: int = 0) -> Session:  # noqa: B008
    """A session after 354."""
    mail = b"MAIL FROM:<anne@example.org> SIZE=%d\r\n" % size
    session = begin(LHLO + mail + RCPT * recipients + b"DATA\r\n", limits)
    assert session.owes_replies
    return session


# The ledger


@pytest.mark.parametrize("recipients", [1, 2, 50])
@pytest.mark.parametrize(
    ("content", "allowed", "answer"),
    [
        (b"x" * 200, Limits(max_message_size=100), reply.TOO_BIG),
        (b"Content-Type: multipart/x\r\n\r\n--cut", Limits(), reply.ACCEPTED),
        (b"z" * 200_000, Limits(), reply.ACCEPTED),
        (b"", Limits(), reply.ACCEPTED),
        (b"\0\xff\r\n.\n", Limits(), reply.LOCAL_ERROR),
    ],
    ids=["oversize", "defects", "long line", "empty", "trouble"],
)
def test_d8_every_accepted_recipient_gets_a_reply_whatever_the_message(
    content: bytes, allowed: Limits, answer: Reply, recipients: int
) -> None:
    session = in_data(recipients, allowed)
    event = session.receive(content + END + b"QUIT\r\n")
    if answer is not reply.TOO_BIG:
        assert isinstance(event, Deliver)
        event = session.delivered([answer] * recipients)
    assert session.output() == answer.wire * recipients + reply.BYE.wire
    assert isinstance(event, Close)


def test_d8_an_outcome_that_nobody_knows_gets_no_reply_at_all() -> None:
    session = in_data(3)
    assert isinstance(session.receive(b"hello" + END + b"QUIT\r\n"), Deliver)
    assert isinstance(session.delivered(None), Close)
    assert session.output() == b""
    assert not session.owes_replies


@pytest.mark.parametrize("count", [0, 1, 3])
def test_d8_a_wrong_number_of_replies_is_a_defect_and_not_sent(count: int) -> None:
    session = in_data(2)
    session.receive(b"hello" + END)
    with pytest.raises(AssertionError):
        session.delivered([reply.ACCEPTED] * count)
    assert session.output() == b""


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_wrong_number_of_answers_to_a_look_up_is_a_defect_and_not_sent(count: int) -> None:
    session = begin(LHLO + MAIL, Limits(refuse_at_rcpt=True))
    assert isinstance(session.receive(RCPT * 2), Verify)
    with pytest.raises(AssertionError):
        session.verified([reply.RECIPIENT_OK] * count)
    assert session.output() == b""


@pytest.mark.parametrize(
    "content",
    [
        b"Content-Type: multipart/report; boundary=cut\r\n\r\n--cut\r\nContent-Type: mess",
        b"no header at all",
        b"Message-ID: <\xe4\xff@example.org>\r\n\r\n8-bit \x80",
        b"Subject: =?x?q?\r\n \r\n\0",
    ],
    ids=["truncated notice", "no header", "8-bit Message-ID", "bad encoding"],
)
def test_d9_d10_malformed_mail_is_handed_on_as_it_came(content: bytes) -> None:
    session = in_data()
    event = session.receive(content + END)
    assert isinstance(event, Deliver)
    assert event.envelope.raw == content + b"\r\n"


def test_the_envelope_is_what_the_client_said() -> None:
    session = begin(b"LHLO some.name\r\n")
    event = session.receive(
        b'MAIL FROM:<"A b"@Example.ORG>\r\nRCPT TO:<B@x>\r\nRCPT TO:<"a"@x>\r\nDATA\r\n..\r\n.\r\n'
    )
    assert isinstance(event, Deliver)
    assert event.envelope == Envelope(
        '"A b"@Example.ORG',
        (Mailbox("B", "x"), Mailbox("a", "x")),
        b".\r\n",
        Peer("peer", "some.name"),
        event.envelope.received_at,
    )


@pytest.mark.parametrize(
    ("name", "kept"),
    [(b"a\0b\x07c", "a?b?c"), (b"\xff", "\ufffd"), (b"x" * 300, "x" * 255), ("ä".encode(), "ä")],
)
def test_item_4_an_odd_name_is_kept_in_a_form_that_logs_and_databases_can_hold(
    name: bytes, kept: str
) -> None:
    session = begin(b"LHLO " + name + b"\r\n")
    event = session.receive(MAIL + RCPT + b"DATA\r\n.\r\n")
    assert isinstance(event, Deliver)
    assert event.envelope.peer.lhlo == kept


# Order


@pytest.mark.parametrize("state", WAYS)
@pytest.mark.parametrize("verb", LEGAL)
def test_the_table_of_legal_order_is_what_the_session_does(verb: bytes, state: State) -> None:
    session = begin(WAYS[state])
    assert session.state is state
    session.receive(verb + ARGUMENTS.get(verb, b"") + b"\r\n")
    said = session.output()
    if state in LEGAL[verb]:
        assert session.state is LEGAL[verb][state]
        assert said[:1] in (b"2", b"3")
    else:
        assert session.state is state
        assert said == reply.BAD_ORDER.wire


@pytest.mark.parametrize("state", WAYS)
@pytest.mark.parametrize("verb", REFUSED)
def test_what_is_refused_everywhere_changes_nothing(verb: bytes, state: State) -> None:
    session = begin(WAYS[state])
    session.receive(verb + b" x\r\n")
    assert session.output() == REFUSED[verb].wire
    assert session.state is state


def test_d14_pipelining_enhanced_codes_smtputf8_and_size_are_offered_and_postmaster_is_there() -> (
    None
):
    session = Session("host", "ident", Limits(max_message_size=12345), "peer")
    session.output()
    session.receive(LHLO)
    offered = session.output().decode().split("\r\n")
    expected = ["PIPELINING", "ENHANCEDSTATUSCODES", "8BITMIME", "SMTPUTF8"]
    expected += ["CHUNKING", "BINARYMIME", "SIZE 12345"]
    assert [line[4:] for line in offered[1:-1]] == expected
    session.receive(MAIL + b"RCPT TO:<postmaster>\r\n")
    assert session.output() == reply.SENDER_OK.wire + reply.RECIPIENT_OK.wire


# Memory


def test_item_53_an_endless_command_takes_no_memory_and_one_reply() -> None:
    session = begin()
    for _ in range(1000):
        session.receive(b"x" * 1000)
        assert session.backlog <= MAX_LINE
    session.receive(b"\r\nNOOP\r\n")
    assert session.output() == reply.LINE_TOO_LONG.wire + reply.DONE.wire


def test_a_small_message_needs_no_room() -> None:
    session = in_data()
    assert session.receive(b"x" * SMALL_BODY) is None
    assert isinstance(session.receive(END), Deliver)


@pytest.mark.parametrize(
    ("declared", "wanted"),
    [(0, 1_000_000), (80_000, 90_000), (60_000, 1_000_000), (950_000, 1_000_000)],
    ids=["nothing declared", "and an eighth", "less than is there", "as much as any"],
)
def test_a_larger_one_asks_once_for_what_it_declared_or_may_become(
    declared: int, wanted: int
) -> None:
    session = in_data(limits=Limits(max_message_size=1_000_000), size=declared)
    event = session.receive(b"x" * (SMALL_BODY + 10_000))
    assert event == Reserve(wanted - SMALL_BODY)
    assert session.reserved(True) is None
    assert session.receive(b"x" * (wanted - SMALL_BODY - 20_000)) is None


def test_one_that_outgrows_what_it_declared_asks_for_the_rest() -> None:
    session = in_data(limits=Limits(max_message_size=1_000_000), size=80_000)
    assert session.receive(b"x" * 80_000) == Reserve(90_000 - SMALL_BODY)
    assert session.reserved(True) is None
    assert session.receive(b"x" * 20_000) == Reserve(1_000_000 - 90_000)
    assert session.reserved(True) is None
    event = session.receive(END)
    assert isinstance(event, Deliver) and len(event.envelope.raw) == 100_002


@pytest.mark.parametrize("more", [b"", b"x" * 2_000_000])
def test_item_38_without_room_the_message_is_read_to_its_end_and_told_452(more: bytes) -> None:
    session = in_data(2, Limits(max_message_size=1_000_000))
    assert isinstance(session.receive(b"x" * 100_000), Reserve)
    # What comes while it waits is kept for later.
    assert session.receive(b"y" * 10) is None
    assert session.backlog == 10
    assert session.reserved(False) is None
    assert session.receive(more + END + b"NOOP\r\n") is None
    assert session.output() == reply.NO_ROOM.wire * 2 + reply.DONE.wire
    assert session.state is State.READY


# Driving it


def test_input_is_kept_while_an_event_is_under_way() -> None:
    session = in_data()
    assert isinstance(session.receive(b"hello" + END), Deliver)
    assert session.receive(b"NOOP\r\nQU") is None
    assert session.receive(b"IT\r\n") is None
    assert (session.output(), session.backlog) == (b"", 12)
    assert isinstance(session.delivered([reply.ACCEPTED]), Close)
    assert session.output() == reply.ACCEPTED.wire + reply.DONE.wire + reply.BYE.wire


@pytest.mark.parametrize("state", [state for state in WAYS if state is not State.CHUNKS])
def test_item_57_shut_down_says_421_where_nothing_is_owed(state: State) -> None:
    session = begin(WAYS[state])
    assert isinstance(session.shut_down(), Close)
    assert session.output() == reply.SHUTTING_DOWN.wire
    session.receive(b"NOOP\r\n")
    assert (session.output(), session.backlog) == (b"", 0)


def test_item_57_shut_down_during_a_look_up_leaves_it_unanswered() -> None:
    session = begin(LHLO + MAIL, Limits(refuse_at_rcpt=True))
    assert isinstance(session.receive(RCPT), Verify)
    assert isinstance(session.shut_down(), Close)
    assert session.output() == reply.SHUTTING_DOWN.wire


def test_item_57_shut_down_waits_while_replies_are_owed() -> None:
    session = in_data()
    assert session.shut_down() is None
    assert isinstance(session.receive(b"hello" + END), Deliver)
    assert session.shut_down() is None
    assert session.output() == b""
    session.delivered([reply.ACCEPTED])
    assert not session.owes_replies
    assert session.output() == reply.ACCEPTED.wire


def test_after_its_end_a_session_is_not_told_to_shut_down_twice() -> None:
    session = begin()
    session.receive(b"QUIT\r\n")
    session.output()
    session.shut_down()
    assert session.output() == b""


def test_an_answer_that_was_not_asked_for_is_a_defect() -> None:
    session = begin()
    with pytest.raises(AssertionError):
        session.delivered([])
    with pytest.raises(AssertionError):
        session.verified([])
    with pytest.raises(AssertionError):
        session.reserved(True)
