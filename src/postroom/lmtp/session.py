"""The LMTP session (RFC 2033): octets in, replies and events out, no I/O.

For: all that the protocol decides. The driver feeds `receive`, sends what `output`
returns and carries out the one event it may be given; while that event waits for its
answer, further input is kept and not looked at. Guarantees: at 354 the number of replies
owed is fixed, and every path gives exactly so many or none and a close; the replies to
the same octets do not depend on how they were cut; memory is bounded by one message, one
line and what the driver feeds at once. A misuse by the driver is an AssertionError.
"""

import enum
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from postroom.lmtp.body import Body
from postroom.lmtp.grammar import Refused, parse_mail, parse_recipient
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply

MAX_LINE = 4096  # octets with CRLF; RFC 5321 4.5.3.1.4 asks for 512, parameters need more
SMALL_BODY = 65536  # octets of a message that need no reservation from the memory budget


class State(enum.Enum):
    """Where a session stands; the letters of RFC 2033 sessions as administrators see them."""

    GREETED = "greeted"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CLOSED = "closed"

    __hash__ = object.__hash__  # identity: an Enum's own hash is a Python call per look-up


_OPEN = (State.GREETED, State.READY, State.MAIL, State.RCPT)
_SAME = {state: state for state in _OPEN}

# The legal order of commands: verb -> state it may come in -> state after its success.
# What is not here is 503. docs/architecture.md draws its diagram from this table.
LEGAL: Final[Mapping[bytes, Mapping[State, State]]] = {
    b"LHLO": dict.fromkeys(_OPEN, State.READY),
    b"MAIL": {State.READY: State.MAIL},
    b"RCPT": {State.MAIL: State.RCPT, State.RCPT: State.RCPT},
    b"DATA": {State.RCPT: State.DATA},
    b"RSET": {
        State.GREETED: State.GREETED,
        State.READY: State.READY,
        State.MAIL: State.READY,
        State.RCPT: State.READY,
    },
    b"NOOP": _SAME,
    b"HELP": _SAME,
    b"VRFY": _SAME,
    b"QUIT": dict.fromkeys(_OPEN, State.CLOSED),
}
# Verbs that are refused wherever they come: RFC 2033 4.1 for HELO and EHLO.
REFUSED: Final[Mapping[bytes, Reply]] = {
    b"HELO": reply.USE_LHLO,
    b"EHLO": reply.USE_LHLO,
    b"EXPN": reply.NOT_IMPLEMENTED,
    b"STARTTLS": reply.NOT_IMPLEMENTED,
    b"AUTH": reply.NOT_IMPLEMENTED,
    b"TURN": reply.NOT_IMPLEMENTED,
    b"ETRN": reply.NOT_IMPLEMENTED,
    b"BDAT": reply.NOT_IMPLEMENTED,
}


class Limits(NamedTuple):
    """What a session allows. Sizes in octets."""

    max_message_size: int = 26_214_400
    max_recipients: int = 1000
    refuse_at_rcpt: bool = False


class Deliver(NamedTuple):
    """Store this envelope; answer with `Session.delivered`."""

    envelope: Envelope


class Verify(NamedTuple):
    """Are these valid recipients? Answer with `Session.verified`."""

    recipients: tuple[Mailbox, ...]


class Reserve(NamedTuple):
    """So many octets of memory are needed; answer with `Session.reserved`."""

    octets: int


class Close(NamedTuple):
    """Send what is to be sent and close."""


Event = Deliver | Verify | Reserve | Close


def greeting(hostname: str, ident: str) -> Reply:
    """The first line of a session (RFC 5321 4.2: no enhanced code)."""
    return Reply(220, "", f"{hostname} {ident}")


class Session:
    """One client's session. `admit(size)` may refuse a MAIL that declares `size` octets."""

    def __init__(
        self,
        hostname: str,
        ident: str,
        limits: Limits,
        peer: str,
        admit: Callable[[int], Reply | None] = lambda size: None,
    ) -> None:
        self._limits = limits
        self._peer = Peer(peer)
        self._admit = admit
        self._lhlo = Reply(
            250,
            "",
            f"{hostname}\nPIPELINING\nENHANCEDSTATUSCODES\n8BITMIME\nSMTPUTF8\n"
            f"SIZE {limits.max_message_size}",
        ).wire
        self._out: list[bytes] = [greeting(hostname, ident).wire]
        self._buffer = b""
        self._overlong = False
        self._awaiting: Event | None = None
        self.state = State.GREETED
        self._clear()

    def _clear(self) -> None:
        self._sender = ""
        self._declared: int | None = None
        self._smtputf8 = False
        self._recipients: list[Mailbox] = []
        self._unverified: list[Mailbox | Reply] = []
        self._body: Body | None = None
        self._room = SMALL_BODY
        self._refusal: Reply | None = None

    @property
    def owes_replies(self) -> bool:
        """True from 354 until the last reply to the data is in `output`."""
        return self.state is State.DATA

    @property
    def backlog(self) -> int:
        """Octets that were fed and not yet looked at."""
        return len(self._buffer)

    def output(self) -> bytes:
        """What is to be sent now, taken out."""
        out = self._out
        data = out[0] if len(out) == 1 else b"".join(out)
        out.clear()
        return data

    # What the driver tells

    def receive(self, data: bytes) -> Event | None:
        """Octets from the client. Returns what has to be done before the session goes on."""
        if self.state is State.CLOSED:
            return None  # input after QUIT is ignored
        self._buffer = self._buffer + data if self._buffer else data
        return None if self._awaiting is not None else self._advance()

    def delivered(self, replies: Sequence[Reply] | None) -> Event | None:
        """The outcome of `Deliver`: a reply per recipient, in order.

        None means that the outcome is not known: the session closes without a word, and
        the client will try again (RFC 2033 4.2 allows no partial answer).
        """
        assert isinstance(self._awaiting, Deliver)
        if replies is None:
            return self.abandon()
        assert len(replies) == len(self._recipients)
        self._finish([answer.wire for answer in replies])
        return self._advance()

    def verified(self, replies: Sequence[Reply]) -> Event | None:
        """The outcome of `Verify`: a reply per recipient, in order."""
        assert isinstance(self._awaiting, Verify)
        assert len(replies) == len(self._awaiting.recipients)
        answers = iter(replies)
        for slot in self._unverified:
            if isinstance(slot, Reply):
                self._out.append(slot.wire)
                continue
            answer = next(answers)
            self._out.append(answer.wire)
            if answer.accepted:
                self._recipients.append(slot)
                self.state = State.RCPT
        self._unverified = []
        self._awaiting = None
        return self._advance()

    def reserved(self, granted: bool) -> Event | None:
        """The outcome of `Reserve`. If it was not granted the message will be refused 452."""
        assert isinstance(self._awaiting, Reserve) and self._body is not None
        if granted:
            self._room += self._awaiting.octets
        else:
            self._refuse_body(reply.NO_ROOM)
        self._awaiting = None
        return self._advance()

    def shut_down(self) -> Event | None:
        """The server stops: close now if nothing is owed (421), else return None."""
        if self.owes_replies:
            return None
        if self.state is not State.CLOSED:
            self._out.append(reply.SHUTTING_DOWN.wire)
        return self.abandon()

    def abandon(self) -> Event:
        """Close with no further reply."""
        self.state = State.CLOSED
        self._buffer = b""
        self._clear()
        self._awaiting = Close()
        return self._awaiting

    # Input

    def _advance(self) -> Event | None:
        while self._buffer and self.state is not State.CLOSED:
            in_data = self.state is State.DATA
            event = self._take_body() if in_data else self._take_lines()
            if event is not None:
                self._awaiting = event
                return event
            if not in_data and self.state is not State.DATA:
                break  # what is left is no whole line
        return self.abandon() if self.state is State.CLOSED else None

    def _take_lines(self) -> Event | None:
        """Work through whole lines until DATA begins, an event is due or none is left."""
        buffer, start, event = self._buffer, 0, None
        while event is None and self.state in _SAME:
            end = buffer.find(b"\n", start) + 1
            line = buffer[start:end]
            if self._unverified and self._group_ends(line):
                event = self._verify_group()
            elif end:
                event = self._line(line)
                start = end
            else:
                if len(buffer) - start > MAX_LINE:
                    self._overlong, start = True, len(buffer)
                break
        self._buffer = buffer[start:] if start else buffer
        return event

    def _group_ends(self, line: bytes) -> bool:
        """True if `line` must wait until the recipients before it are verified.

        Pipelined RCPTs are verified together; all else, and a recipient that might be
        one too many, is looked at only when the group is settled.
        """
        return (
            line[:4].upper() != b"RCPT"
            or not line.endswith(b"\r\n")
            or len(self._recipients) + len(self._unverified) >= self._limits.max_recipients
        )

    def _verify_group(self) -> Event:
        return Verify(tuple(slot for slot in self._unverified if isinstance(slot, Mailbox)))

    def _take_body(self) -> Event | None:
        body = self._body
        assert body is not None
        rest = body.feed(self._buffer)
        self._buffer = rest or b""
        limit = self._limits.max_message_size
        if self._refusal is None:
            if body.size > limit:
                self._refuse_body(reply.TOO_BIG)  # RFC 1870 6.3: read to the real end
            elif body.size > self._room and rest is None:
                # A declared size is only a hint (RFC 1870 6.2): with none that can be
                # true the message may become as large as any.
                expected = (self._declared or 0) * 9 // 8
                wanted = expected if body.size < expected < limit else limit
                return Reserve(wanted - self._room)
        if rest is None:
            return None
        if self._refusal is not None:
            self._finish([self._refusal.wire] * len(self._recipients))
            return None
        recipients = tuple(self._recipients)
        return Deliver(Envelope(self._sender, recipients, body.content(), self._peer, time.time()))

    def _refuse_body(self, refusal: Reply) -> None:
        assert self._body is not None
        self._body.discard()
        self._refusal = refusal

    def _finish(self, replies: list[bytes]) -> None:
        """RFC 2033 4.2: one reply per accepted recipient, in the order of RCPT."""
        self._out.extend(replies)
        self._awaiting = None
        self._clear()
        self.state = State.READY

    # Commands

    def _line(self, line: bytes) -> Event | None:
        if self._overlong or len(line) > MAX_LINE:
            self._overlong = False
            self._say(reply.LINE_TOO_LONG)
            return None
        if not line.endswith(b"\r\n"):
            # RFC 5321 2.3.8; what follows may have been meant as something else.
            self._say(reply.BARE_LF)
            return self.abandon()
        verb, _, argument = line.rstrip(b"\r\n \t").partition(b" ")
        verb = verb.upper()
        after = LEGAL.get(verb)
        if after is None:
            self._say(REFUSED.get(verb, reply.BAD_COMMAND))
            # RFC 3030: chunks would follow that we do not read as such.
            return self.abandon() if verb == b"BDAT" else None
        if self.state not in after:
            self._say(reply.BAD_ORDER)
            return None
        try:
            _HANDLERS[verb](self, argument.lstrip(b" "), after[self.state])
        except Refused as refused:
            self._say(refused.reply)
        return None

    def _say(self, answer: Reply) -> None:
        if self._unverified:
            self._unverified.append(answer)
        else:
            self._out.append(answer.wire)

    def _handle_lhlo(self, argument: bytes, after: State) -> None:
        if not argument:
            raise Refused(reply.NEED_NAME)
        self._clear()  # RFC 5321 4.1.4: as if by RSET
        text = argument[:255].decode("utf-8", "replace")
        name = "".join(char if char.isprintable() else "?" for char in text)
        self._peer = Peer(self._peer.address, name)
        self._out.append(self._lhlo)
        self.state = after

    def _handle_mail(self, argument: bytes, after: State) -> None:
        mail = parse_mail(argument)
        size = mail.size or 0
        if size > self._limits.max_message_size:
            raise Refused(reply.TOO_BIG)  # RFC 1870 6.1
        if (refusal := self._admit(size)) is not None:
            raise Refused(refusal)
        self._sender, self._declared, self._smtputf8 = mail
        self.state = after
        self._out.append(reply.SENDER_OK.wire)

    def _handle_rcpt(self, argument: bytes, after: State) -> None:
        mailbox = parse_recipient(argument, self._smtputf8)
        if len(self._recipients) >= self._limits.max_recipients:
            raise Refused(reply.TOO_MANY_RECIPIENTS)  # RFC 5321 4.5.3.1.10
        if self._limits.refuse_at_rcpt:
            self._unverified.append(mailbox)
            return
        self._recipients.append(mailbox)
        self.state = after
        self._out.append(reply.RECIPIENT_OK.wire)

    def _handle_data(self, argument: bytes, after: State) -> None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        self._body = Body()
        self.state = after
        self._out.append(reply.GO_AHEAD.wire)

    def _handle_rset(self, argument: bytes, after: State) -> None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        self._clear()
        self.state = after
        self._out.append(reply.DONE.wire)

    def _handle_noop(self, argument: bytes, after: State) -> None:
        self._out.append(reply.DONE.wire)

    def _handle_help(self, argument: bytes, after: State) -> None:
        self._out.append(reply.HELP.wire)

    def _handle_vrfy(self, argument: bytes, after: State) -> None:
        # RFC 5321 3.5.3: never 250 on syntax alone.
        self._out.append((reply.CANNOT_VERIFY if argument else reply.NEED_ARGUMENT).wire)

    def _handle_quit(self, argument: bytes, after: State) -> None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        self.state = after
        self._out.append(reply.BYE.wire)


_HANDLERS: Final[Mapping[bytes, Callable[[Session, bytes, State], None]]] = {
    b"LHLO": Session._handle_lhlo,
    b"MAIL": Session._handle_mail,
    b"RCPT": Session._handle_rcpt,
    b"DATA": Session._handle_data,
    b"RSET": Session._handle_rset,
    b"NOOP": Session._handle_noop,
    b"HELP": Session._handle_help,
    b"VRFY": Session._handle_vrfy,
    b"QUIT": Session._handle_quit,
}
