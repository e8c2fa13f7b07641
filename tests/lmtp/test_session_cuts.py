"""The session, driven as the server drives it: what holds for any octets, however cut."""

import itertools
from collections.abc import Iterable
from typing import NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from postroom.lmtp.protocol import Close, Deliver, Event, Later, Limits, Reserve, Verify
from postroom.lmtp.session import MAX_LINE, Session
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.reply import Reply

LHLO = b"LHLO client.example.org\r\n"
MAIL = b"MAIL FROM:<anne@example.org>\r\n"
RCPT = b"RCPT TO:<a@example.com>\r\n"
END = b"\r\n.\r\n"


class Happened(NamedTuple):
    """All that a session gave: what it said, asked to be stored and looked up, its end."""

    output: bytes
    delivered: tuple[tuple[object, ...], ...]
    looked_up: tuple[Mailbox, ...]
    closed: bool


class Driver:
    """Answers every event at once; keeps the ledger of replies."""

    def __init__(self, limits: Limits) -> None:
        self._session = Session("lists.example.com", "ident", limits, "peer")
        self._output = self._session.output()
        self._delivered: list[tuple[object, ...]] = []
        self._looked_up: list[Mailbox] = []
        self._closed = False

    def feed(self, octets: bytes) -> None:
        event = self._session.receive(octets)
        while event is not None and not self._closed:
            event = self._carry_out(event)
        self._output += self._session.output()

    def _carry_out(self, event: Event) -> Event | None:
        self._output += self._session.output()
        match event:
            case Deliver(envelope):
                self._delivered.append(envelope[:4])
                owed = [_verdict(each) for each in envelope.recipients]
                event_after = self._session.delivered(owed)
                said = self._session.output()
                self._output += said
                assert said.startswith(b"".join(each.wire for each in owed))
                return event_after
            case Verify(recipients):
                assert recipients
                self._looked_up += recipients
                return self._session.verified([_verdict(each) for each in recipients])
            case Reserve(octets):
                assert octets > 0
                return self._session.reserved(True)
            case Later():
                return self._session.resume()
            case Close():
                self._closed = True
        return None

    def happened(self) -> Happened:
        delivered, looked_up = tuple(self._delivered), tuple(self._looked_up)
        return Happened(self._output, delivered, looked_up, self._closed)


def _verdict(box: Mailbox) -> Reply:
    return reply.NO_MAILBOX if box.local.startswith("x") else reply.ACCEPTED


def play(parts: Iterable[bytes], limits: Limits) -> Happened:
    driver = Driver(limits)
    for part in parts:
        driver.feed(part)
    return driver.happened()


_commands = st.sampled_from(
    [
        LHLO,
        MAIL,
        MAIL,
        RCPT,
        RCPT,
        b"RCPT TO:<x@example.com>\r\n",
        b"RCPT TO:<>\r\n",
        b"rcpt to:<b@example.com>\n",
        b"DATA\r\n",
        b"DATA\r\nhello\r\n.\r\n",
        b"DATA\r\n" + b"x" * 300 + END,
        b"MAIL FROM:<> SIZE=50\r\n",
        b"MAIL FROM:<> SMTPUTF8\r\n",
        b"RSET\r\n",
        b"NOOP\r\n",
        b"QUIT\r\n",
        b"STARTTLS\r\n",
        b"BDAT\r\n",
        b"BDAT 0\r\n",
        b"BDAT 0 LAST\r\n",
        b"BDAT 3\r\n",  # what comes next is not what it seems
        b"BDAT 3 LAST\r\n",
        b"BDAT 6\r\nQUIT\r\n",
        b"BDAT 6 LAST\r\nQUIT\r\n",
        b"BDAT 7 MORE\r\nBDAT 1\n",
        b"BDAT 101\r\n" + b"x" * 101,
        b"BDAT 101 LAST\r\n" + b"x" * 101,
        b"N" * (MAX_LINE + 10) + b"\r\n",
        b"\r\n",
        b".\r\n",
        b"\r\n.\r\n",
        b"..\r\n",
        b"\n.\n",
        b"\xff\x00",
    ]
)
dialogues = st.builds(
    bytes.__add__,
    st.sampled_from(
        [
            b"",
            LHLO,
            LHLO + MAIL + RCPT,
            LHLO + MAIL + RCPT + b"DATA\r\n",
            LHLO + MAIL + RCPT * 2 + b"BDAT 3\r\nabc",
        ]
    ),
    st.lists(st.one_of(_commands, _commands, _commands, st.binary(max_size=8)), max_size=12).map(
        b"".join
    ),
)
limits = st.builds(
    Limits,
    max_message_size=st.sampled_from([100, 100_000]),
    max_recipients=st.integers(1, 3),
    refuse_at_rcpt=st.booleans(),
    max_errors=st.integers(0, 20),
    max_junk=st.integers(0, 3),
    max_commands=st.sampled_from([4, 1000]),
)


@given(dialogues, limits, st.lists(st.integers(0, 400), max_size=8))
@example(
    LHLO + MAIL + RCPT * 2 + b"RCPT TO:<x@example.com>\r\nDATA\r\nhello\r\n.\r\nQUIT\r\n",
    Limits(refuse_at_rcpt=True),
    [],
)
@example(
    LHLO + MAIL + RCPT + b"RCPT\r\n" + RCPT + b"BDAT 3\r\nabcBDAT 3 LAST\r\ndef" + MAIL,
    Limits(refuse_at_rcpt=True, max_errors=0),
    [],
)
@example(LHLO + MAIL + RCPT + b"BDAT 3\r\nabc" * 250 + b"BDAT 0 LAST\r\n", Limits(), [1000])
def test_item_47_any_cut_of_any_octets_gives_the_same(
    octets: bytes, allowed: Limits, at: list[int]
) -> None:
    edges = [0, *sorted(min(offset, len(octets)) for offset in at), len(octets)]
    parts = [octets[start:end] for start, end in itertools.pairwise(edges)]
    whole = play([octets], allowed)
    assert play(parts, allowed) == whole
    assert play([octets[i : i + 1] for i in range(len(octets))], allowed) == whole


@given(st.lists(st.binary(), max_size=20), limits)
def test_no_octets_make_a_session_fail(parts: list[bytes], allowed: Limits) -> None:
    happened = play(parts, allowed)
    assert happened.output.endswith(b"\r\n")


@pytest.mark.parametrize("refuse_at_rcpt", [False, True])
def test_item_30_a_thousand_recipients_are_taken_in_one_transaction(refuse_at_rcpt: bool) -> None:
    boxes = [Mailbox(f"list{number}", "example.com") for number in range(1001)]
    driver = Driver(Limits(refuse_at_rcpt=refuse_at_rcpt))
    driver.feed(LHLO + MAIL + b"".join(b"RCPT TO:<%b>\r\n" % str(box).encode() for box in boxes))
    driver.feed(b"DATA\r\nhello\r\n.\r\n")
    happened = driver.happened()
    assert happened.output.count(reply.TOO_MANY_RECIPIENTS.wire) == 1
    assert [each[1] for each in happened.delivered] == [tuple(boxes[:1000])]
