"""Target: the LMTP session, driven by a driver whose outcomes come from the input.

For: holding `lmtp.session` to what it promises for any octets, however they are cut and
however late its events are answered: each command one reply, each message exactly N, in
the same octets; what is delivered is what was sent; nothing is kept beyond what was asked
for; no exception. Fails with `AssertionError`, or what the session raised.
"""

import gc
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple
from unittest.mock import patch

from fuzz.dialogues import dialogues
from fuzz.ledger import Finished, Ledger
from fuzz.replies import answers
from fuzz.target import Octets, Target, pieces
from postroom.lmtp import session as code
from postroom.lmtp import transfer
from postroom.lmtp.protocol import Close, Deliver, Event, Later, Limits, Reserve, StartTls, Verify
from postroom.lmtp.session import Session
from postroom.mail import reply
from postroom.mail.reply import Reply

# Small, so that inputs of a few hundred octets reach them.
MAX_LINE, SMALL_BODY = 120, 60
SIZES, RECIPIENTS = (100_000, 100, 20, 300), (1000, 1, 2, 3)
WEIGHED = 16  # pieces after which the session is weighed, which takes long
COUNTS = {"max_errors": 10, "max_junk": 15, "max_commands": 40}
OUTCOMES = (
    reply.ACCEPTED,
    reply.NO_MAILBOX,
    reply.LOCAL_ERROR,
    reply.NO_ROOM,
    Reply(250, "2.1.5", "two\nlines"),
)
UNKNOWN = 255  # the outcome of a delivery that cannot be known
TLS = b"\xffTLS\xff"  # what stands after it is only sent if TLS was begun before it


class Case(NamedTuple):
    """What one input says: limits, what the driver answers, how the octets are cut."""

    limits: Limits
    stingy: bool  # room for a message may be denied
    late: bool  # events are answered after more input has come
    full: bool  # the disk is nearly full
    tls: bool  # STARTTLS is offered
    outcomes: bytes
    lengths: bytes
    octets: bytes

    def admit(self, size: int) -> Reply | None:
        """The driver's word at MAIL."""
        return reply.NO_ROOM if self.full and size > 9 else None

    def outcome(self, number: int) -> int:
        """A number that decides the outcome of something."""
        return self.outcomes[number % len(self.outcomes)] if self.outcomes else 0


def read(data: bytes) -> Case:
    """One octet each for limits and manners, four for outcomes, four for lengths."""
    source = Octets(data)
    allowed, manners = source.number(below=256), source.number(below=256)
    limits = Limits(
        max_message_size=SIZES[allowed >> 1 & 3],
        max_recipients=RECIPIENTS[allowed >> 3 & 3],
        refuse_at_rcpt=bool(allowed & 1),
        **COUNTS,
    )
    stingy, late, full, tls = (bool(manners & bit) for bit in (1, 2, 4, 8))
    return Case(limits, stingy, late, full, tls, source.take(4), source.take(4), source.rest())


class Driver:
    """Answers what the session asks; keeps what it said and delivered."""

    def __init__(self, case: Case) -> None:
        self.tally: defaultdict[bytes, int] = defaultdict(int)
        self.session = Session(
            "lists.example.com", "ident", case.limits, "peer", case.admit, self.tally, case.tls
        )
        self.said = self.session.output()
        self.deliveries: list[tuple[object, ...]] = []
        self.last: Deliver | None = None
        self.granted = 0  # octets of room for the message under way
        self.denied = self.unknown = self.closed = False
        self._case = case
        self._event: Event | None = None
        self._verified = self._reserved = 0

    @property
    def begins_tls(self) -> bool:
        """It waits for TLS; what comes before that must be ignored."""
        return isinstance(self._event, StartTls)

    def feed(self, octets: bytes) -> None:
        """The client sends this."""
        event = self.session.receive(octets)
        if event is not None:
            assert self._event is None
            self._event = event

    def settle(self) -> None:
        """Answer events until there is none but the beginning of TLS."""
        while self._event is not None and not self.closed and not self.begins_tls:
            self.said += self.session.output()
            self._event = self._carry_out(self._event)
        self.said += self.session.output()
        if self.closed or self.begins_tls or self.session.owes_replies:
            assert self.session.backlog <= self.session.owes_replies * MAX_LINE
        assert self.session.backlog <= MAX_LINE

    def secure(self) -> None:
        """TLS is on."""
        self._event = self.session.secured()
        assert self._event is None and not self.session.output()

    def _carry_out(self, event: Event) -> Event | None:
        match event:
            case Deliver(envelope):
                self.last, self.granted = event, 0
                number = len(self.deliveries)
                self.deliveries.append(envelope[:4])
                if self._case.outcome(number) == UNKNOWN:
                    self.unknown = True
                    return self.session.delivered(None)
                recipients = range(number, number + len(envelope.recipients))
                return self.session.delivered([self._outcome(each) for each in recipients])
            case Verify(recipients=boxes):
                assert boxes and self._case.limits.refuse_at_rcpt
                first, self._verified = self._verified, self._verified + len(boxes)
                return self.session.verified(
                    [self._outcome(number) for number in range(first, self._verified)]
                )
            case Reserve(octets):
                assert 0 < octets <= self._case.limits.max_message_size
                self._reserved += 1
                granted = not self._case.stingy or self._case.outcome(self._reserved) % 2 == 0
                self.denied |= not granted
                self.granted += octets * granted
                return self.session.reserved(granted)
            case Later():
                return self.session.resume()
            case Close():
                self.closed = True
        return None

    def _outcome(self, number: int) -> Reply:
        return OUTCOMES[self._case.outcome(number) % len(OUTCOMES)]


def check(data: bytes) -> None:
    """Play the input step by step, at once, and cut."""
    case = read(data)
    with (
        patch.multiple(code, MAX_LINE=MAX_LINE, LINES_AT_ONCE=7),
        patch.object(transfer, "SMALL_BODY", SMALL_BODY),
    ):
        stepwise = _play_stepwise(case)
        for lengths in (b"", case.lengths or b"\1"):
            driver = _play(case, lengths)
            if case.stingy:
                answers(driver.said)  # room is a matter of the moment, so replies may differ
                continue
            assert driver.said == stepwise.said
            assert driver.deliveries == stepwise.deliveries
            assert driver.closed == stepwise.closed


def _in_stages(case: Case, play: Callable[[Driver, bytes], None]) -> Driver:
    """Play what is sent in clear, and if TLS was begun what is sent after that."""
    driver = Driver(case)
    clear, _, secret = case.octets.partition(TLS)
    play(driver, clear)
    if driver.begins_tls:
        driver.secure()
        play(driver, secret)
        assert not driver.begins_tls, "TLS within TLS"
    return driver


def _play_stepwise(case: Case) -> Driver:
    """Wait for the replies to each command, as a client that does not pipeline."""
    ledger = Ledger(b"")

    def play(driver: Driver, octets: bytes) -> None:
        nonlocal ledger
        ledger = Ledger(octets, MAX_LINE)
        while not (driver.closed or driver.begins_tls) and (unit := ledger.take()):
            before, driver.last, driver.denied = len(driver.said), None, False
            driver.feed(unit)
            driver.settle()
            if driver.unknown:
                assert driver.closed and len(driver.said) == before
                return
            finished = ledger.answered(answers(driver.said[before:]))
            assert (driver.closed, driver.begins_tls) == (ledger.ended, ledger.secured)
            if finished is None:
                assert driver.last is None
            else:
                _check_message(case, driver, finished)
        before = len(driver.said)
        driver.feed(ledger.left)
        driver.settle()
        assert len(driver.said) == before, "a reply to no command"

    driver = _in_stages(case, play)
    assert driver.tally == Counter(each.wire for each in answers(driver.said))
    _check_end(case, driver, ledger.due)
    return driver


def _check_message(case: Case, driver: Driver, finished: Finished) -> None:
    """What was sent was delivered, or refused for a reason."""
    if driver.last is None:
        assert len({each.wire for each in finished.answers}) == 1
        assert finished.answers[0].code >= 400
        too_big = len(finished.raw) > case.limits.max_message_size
        assert too_big or driver.denied or not finished.sound
        return
    envelope = driver.last.envelope
    assert finished.sound and envelope.raw == finished.raw
    assert len(envelope.raw) <= case.limits.max_message_size
    assert envelope.sender.encode() in finished.sender
    for box, line in zip(envelope.recipients, finished.recipients, strict=True):
        assert box.domain.encode() in line


def _check_end(case: Case, driver: Driver, due: int | None) -> None:
    """However a session is ended, nobody is told more than is due."""
    session, waits = driver.session, not (driver.closed or driver.begins_tls)
    if case.late and waits:  # as well as any other half of the cases
        session.time_out()
        told = answers(session.output())
        assert [answer.code for answer in told] == [421] * (1 if due is None else due)
        return
    owes = session.owes_replies
    event = session.shut_down()
    assert (event is None) == owes
    assert session.output() == (b"" if owes or driver.closed else reply.SHUTTING_DOWN.wire)


def _play(case: Case, lengths: bytes) -> Driver:
    """Feed pieces of these lengths."""
    most = _weight(Driver(case).session) + 3 * MAX_LINE + SMALL_BODY
    most += sum(len(line) for line in case.octets.split(b"\n") if line[:4].upper() == b"RCPT")

    def play(driver: Driver, octets: bytes) -> None:
        for number, part in enumerate(pieces(octets, lengths)):
            driver.feed(part)
            if case.late and number % 2 == 0:
                continue
            driver.settle()
            if number % WEIGHED == WEIGHED - 1:
                kept = _weight(driver.session)
                assert kept <= most + driver.granted + len(part), f"{kept} octets are kept"
        driver.settle()

    return _in_stages(case, play)


def _weight(session: Session) -> int:
    """Octets of all text and data that a session holds."""
    total = 0
    seen: set[int] = set()
    waiting: list[object] = [session]
    while waiting:
        each = waiting.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, bytes | bytearray | str):
            total += len(each)
        elif isinstance(each, defaultdict):
            pass  # of replies, of which there are few
        elif isinstance(each, list | tuple | dict) or type(each).__module__.startswith(
            "postroom.lmtp"
        ):
            waiting += gc.get_referents(each)
    return total


def mutate(data: bytes, random: Random) -> bytes:
    """Move, double, drop or add whole lines."""
    head, lines = data[:10], data[10:].splitlines(keepends=True)
    at = random.randrange(len(lines) + 1)
    match random.randrange(4):
        case 0:
            lines.insert(at, random.choice(LINES))
        case 1 if lines:
            lines.insert(at, random.choice(lines))
        case 2 if lines:
            del lines[at : at + random.randrange(1, 4)]
        case _:
            lines.insert(at, random.choice(LINES) * random.randrange(1, 30))
    return head + b"".join(lines)


LINES = (
    b"LHLO client.example.org\r\n",
    b"MAIL FROM:<anne@example.org>\r\n",
    b"MAIL FROM:<> SIZE=500 BODY=8BITMIME SMTPUTF8\r\n",
    b"MAIL FROM:<> BODY=BINARYMIME\r\n",
    b"RCPT TO:<a@example.com>\r\n",
    b"RCPT TO:<>\r\n",
    b"DATA\r\n",
    b"DATA\r\nhello\r\n.\r\n",
    b"DATA\r\n" + b"x" * 90 + b"\r\n..\r\n.\r\n",
    b"x" * 200,
    b".\r\n",
    b"..\r\n",
    b"RSET\r\n",
    b"NOOP\r\n",
    b"HELP\r\n",
    b"VRFY a\r\n",
    b"QUIT\r\n",
    b"GET / HTTP/1.1\r\n",
    b"STARTTLS\r\n",
    TLS,
    TLS + b"LHLO client.example.org\r\n",
    b"STARTTLS\r\nNOOP\r\n" + TLS,
    b"BDAT 5\r\nhello",
    b"BDAT 5 LAST\r\nhello",
    b"BDAT 0 LAST\r\n",
    b"BDAT 3 FIRST\r\nabc",
    b"BDAT 900 LAST\r\n",
    b"BDAT 110\r\n" + b"y" * 110,
    b"x" * 130 + b"\r\n",
    b"\n",
    b"\r\n",
)


def _seeds() -> Iterator[bytes]:
    opening = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<a@example.com>\r\n"
    for endless in (b"DATA\r\n", b"BDAT 99999 LAST\r\n", b"BDAT 99999\r\n"):
        yield b"\4\0\0\0\0\0\30\7\1\3" + opening + endless + b"x" * 800
    for each in dialogues():
        for allowed in (0, 1, 2, 4, 9, 24):
            yield bytes([allowed, 0]) + b"\0\0\0\0" + b"\3\40\7\1" + each.sent
        yield b"\0\0\0\0\0\0\1\1\1\1" + each.sent
        yield b"\0\10\0\0\0\0\1\2\3\4LHLO x\r\nSTARTTLS\r\nQUIT\r\n" + TLS + each.sent
        yield b"\0\3" + b"\0\1\2\3" + b"\20\1\100\2" + each.sent
        yield b"\1\2" + b"\4\0\377\1" + b"\30\1\11\170" + each.sent


TARGET = Target(check, _seeds, tokens=LINES, longest=1024, share=4, mutate=mutate)
