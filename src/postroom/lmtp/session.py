"""The LMTP session (RFC 2033): octets in, replies and events out, no I/O.

For: all that the protocol decides. The driver feeds `receive`, sends what `output`
returns and carries out the one event it may be given; while that event waits for its
answer, further input is kept and not looked at. Guarantees: at 354, or with the first chunk,
the number of replies owed for the message is fixed, and every path gives exactly so many or
none and a close; the replies to the same octets do not depend on how they were cut; memory
is bounded by one message, one line and what the driver feeds at once. A misuse by the driver
is an AssertionError.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Final

from postroom.lmtp.body import Body, Chunks
from postroom.lmtp.conduct import Conduct, is_error
from postroom.lmtp.grammar import Refused, parse_chunk, parse_mail, parse_recipient
from postroom.lmtp.protocol import (
    FOREIGN,
    LEGAL,
    REFUSED,
    Close,
    Deliver,
    Event,
    Later,
    Limits,
    Reserve,
    StartTls,
    State,
    Verify,
    capabilities,
    greeting,
)
from postroom.lmtp.transfer import Transfer
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply

MAX_LINE = 4096  # octets with CRLF; RFC 5321 4.5.3.1.4 asks for 512, parameters need more
LINES_AT_ONCE = 100  # before others get their turn


@lru_cache(maxsize=8)
def _lhlo(hostname: str, max_message_size: int, tls: bool) -> bytes:
    return capabilities(hostname, max_message_size, tls).wire


class Session:
    """One client's session. `admit(size)` may refuse a MAIL that declares `size` octets;
    `tally` counts what is sent, by whole reply; `tls` offers STARTTLS."""

    def __init__(
        self,
        hostname: str,
        ident: str,
        limits: Limits,
        peer: str,
        admit: Callable[[int], Reply | None] = lambda size: None,
        tally: Counter[bytes] | None = None,
        tls: bool = False,
    ) -> None:
        self._hostname = hostname
        self._limits = limits
        self._peer = Peer(peer)
        self._admit = admit
        self._tally = Counter() if tally is None else tally
        self._tls_offered, self._tls_active = tls, False
        self._out: list[bytes] = [greeting(hostname, ident).wire]
        self._buffer = b""
        self._overlong = False
        self._awaiting: Event | None = None
        self._conduct = Conduct(limits)
        self._lines = 0  # since others had their turn
        self.state = State.GREETED
        self.messages = 0  # begun so far, and chunks that belong to none
        self._clear()

    def _clear(self) -> None:
        self._sender = ""
        self._declared: int | None = None
        self._smtputf8 = self._binary = False
        self._recipients: list[Mailbox] = []
        self._unverified: list[Mailbox | Reply] = []
        self._mail_refused = False  # so RCPT and DATA that were sent with it are no errors
        self._message: Transfer | None = None
        # Where input goes that is no command: the message, or a chunk that is only skipped.
        self._reading: Transfer | None = None

    @property
    def owes_replies(self) -> bool:
        """True from 354, or the first chunk, until the last reply to the message is in
        `output`; and while a chunk is read that belongs to no message."""
        return self._message is not None or self._reading is not None

    @property
    def received(self) -> int:
        """Octets so far of the present message, or of a chunk that belongs to none."""
        transfer = self._reading or self._message
        return transfer.size if transfer is not None else 0

    @property
    def backlog(self) -> int:
        """Octets that were fed and not yet looked at."""
        return len(self._buffer)

    def output(self) -> bytes:
        """What is to be sent now, taken out."""
        out, tally = self._out, self._tally
        if len(out) == 1:
            data = out.pop()
            tally[data] += 1
            return data
        for wire in out:
            tally[wire] += 1
        data = b"".join(out)
        out.clear()
        return data

    # What the driver tells

    def receive(self, data: bytes) -> Event | None:
        """Octets from the client. Returns what has to be done before the session goes on."""
        if self.state is State.CLOSED or type(self._awaiting) is StartTls:
            # RFC 3207 5: what came in clear after STARTTLS must never be executed. Input
            # after QUIT is ignored.
            return None
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
        assert isinstance(self._awaiting, Reserve) and self._message is not None
        if granted:
            self._message.grant(self._awaiting.octets)
        else:
            self._message.refuse(reply.NO_ROOM)
        self._awaiting = None
        return self._advance()

    def secured(self) -> Event | None:
        """The outcome of `StartTls`: TLS is on. All that was said before is forgotten, and
        LHLO is required again (RFC 3207 4.2)."""
        assert isinstance(self._awaiting, StartTls)
        self._awaiting = None
        self._tls_active = True
        self._clear()
        self._peer = Peer(self._peer.address)
        return None

    def resume(self) -> Event | None:
        """The outcome of `Later`."""
        assert isinstance(self._awaiting, Later)
        self._awaiting = None
        return self._advance()

    def shut_down(self) -> Event | None:
        """The server stops: close now if nothing is owed (421), else return None."""
        if self.owes_replies:
            return None
        if self.state is not State.CLOSED:
            self._out.append(reply.SHUTTING_DOWN.wire)
        return self.abandon()

    def time_out(self) -> Event:
        """The client was silent or slow for too long: close with 421, once for each reply
        that is owed. Nothing of its message was stored."""
        assert self._awaiting is None
        if self._reading is not None:
            chunk = self._reading.chunk
            one = chunk is not None and not chunk.last
            self._out.extend([reply.TOO_SLOW.wire] * (1 if one else len(self._recipients)))
        elif self.state is not State.CLOSED:
            self._out.append(reply.IDLE.wire)
        return self.abandon()

    def abandon(self, punish: bool = False) -> Event:
        """Close with no further reply."""
        self.state = State.CLOSED
        self._buffer = b""
        self._clear()
        self._awaiting = Close(punish)
        return self._awaiting

    # Input

    def _advance(self) -> Event | None:
        self._lines = 0
        while self.state is not State.CLOSED:
            if self._reading is not None:
                event = self._take_body() if self._buffer or self._reading.chunk else None
                stuck = self._reading is not None
            else:
                event = self._take_lines() if self._buffer or self._conduct.over else None
                stuck = self._reading is None
            if event is not None:
                self._awaiting = event
                return event
            if stuck:
                break
        return self.abandon() if self.state is State.CLOSED else None

    def _take_lines(self) -> Event | None:
        """Work through whole lines until a message begins, an event is due or none is left."""
        buffer, start, event, conduct = self._buffer, 0, None, self._conduct
        lines = self._lines
        while event is None and self._reading is None and self.state is not State.CLOSED:
            end = buffer.find(b"\n", start) + 1
            line = buffer[start:end]
            if self._unverified and (conduct.over or self._group_ends(line)):
                event = self._verify_group()
            elif conduct.over:
                event = self.abandon(punish=True)
            elif end and lines >= LINES_AT_ONCE:
                event = Later()
            elif end:
                event = self._line(line)
                start, lines = end, lines + 1
            else:
                if len(buffer) - start > MAX_LINE:
                    self._overlong, start = True, len(buffer)
                break
        self._lines = lines
        if type(event) is StartTls or self._awaiting is not None:
            self._buffer = b""  # never looked at
        else:
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
        transfer = self._reading
        assert transfer is not None
        rest = transfer.feed(self._buffer)
        self._buffer = rest or b""
        if lacking := transfer.lacks():
            return Reserve(lacking)
        if rest is None:
            return None
        self._reading = None
        if transfer is not self._message:
            self._stray_chunk(transfer)
        elif not transfer.complete:
            self._refuse(transfer.chunk_reply(), error=not transfer.sound)
        elif transfer.refusal is not None:
            self._finish([transfer.refusal.wire] * len(self._recipients))
        else:
            to = tuple(self._recipients)
            now = time.time()
            return Deliver(Envelope(self._sender, to, transfer.content(), self._peer, now))
        return None

    def _stray_chunk(self, transfer: Transfer) -> None:
        """Answer a chunk that belongs to no message. With no recipient its last one gets no
        reply: a client that pipelines expects none, and would take one for the next
        message's."""
        # RFC 2033 4.2 foresees it after recipients that were all refused.
        expected = self.state is State.MAIL or self._mail_refused
        if not transfer.complete:
            self._refuse(transfer.chunk_reply(), error=not (expected and transfer.sound))
        elif expected:
            self._clear()
            self.state = State.READY
        elif self._conduct.error():
            self._say(reply.TOO_MANY_ERRORS)

    def _finish(self, replies: list[bytes]) -> None:
        """RFC 2033 4.2: one reply per accepted recipient, in the order of RCPT."""
        self._out.extend(replies)
        self._awaiting = None
        self._conduct.message()
        self._clear()
        self.state = State.READY

    # Commands

    def _line(self, line: bytes) -> Event | None:
        if self._overlong or len(line) > MAX_LINE:
            self._overlong = False
            self._refuse(reply.LINE_TOO_LONG, error=True)
            return None
        if not line.endswith(b"\r\n"):
            # RFC 5321 2.3.8; what follows may have been meant as something else.
            self._say(reply.BARE_LF)
            return self.abandon()
        verb, _, argument = line.rstrip(b"\r\n \t").partition(b" ")
        verb = verb.upper()
        after = LEGAL.get(verb)
        if after is None:
            if verb in FOREIGN and self.state is State.GREETED:
                self._say(reply.NOT_LMTP)
                return self.abandon(punish=True)
            self._refuse(REFUSED.get(verb, reply.BAD_COMMAND), error=True)
            return None
        if self._conduct.command(verb):
            self._say(reply.TOO_MANY_ERRORS)
            return None
        if self.state not in after and verb != b"BDAT":
            self._refuse(reply.BAD_ORDER, error=not self._foreseen(verb))
            return None
        try:
            return _HANDLERS[verb](self, argument.lstrip(b" "), after.get(self.state, self.state))
        except Refused as refused:
            self._mail_refused = verb == b"MAIL"
            self._refuse(refused.reply, error=is_error(refused.reply))
            return None

    def _foreseen(self, verb: bytes) -> bool:
        """Whether a client that pipelines may have sent this before it knew what is refused:
        the sender, or all recipients (RFC 2033 4.2)."""
        if self._mail_refused:
            return verb in (b"RCPT", b"DATA")
        return verb == b"DATA" and self.state is State.MAIL

    def _refuse(self, answer: Reply, error: bool) -> None:
        """Say no; the error that is one too many gets another answer, the last one."""
        self._say(reply.TOO_MANY_ERRORS if error and self._conduct.error() else answer)

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
        size, tls = self._limits.max_message_size, self._tls_offered and not self._tls_active
        self._out.append(_lhlo(self._hostname, size, tls))
        self.state = after

    def _handle_starttls(self, argument: bytes, after: State) -> Event | None:
        if argument:
            raise Refused(reply.NO_ARGUMENT)
        if self._tls_active:
            raise Refused(reply.BAD_ORDER)
        if not self._tls_offered:
            raise Refused(reply.NO_TLS)
        self._out.append(reply.START_TLS.wire)
        self.state = after
        return StartTls()

    def _handle_mail(self, argument: bytes, after: State) -> None:
        mail = parse_mail(argument)
        size = mail.size or 0
        if size > self._limits.max_message_size:
            raise Refused(reply.TOO_BIG)  # RFC 1870 6.1
        if (refusal := self._admit(size)) is not None:
            raise Refused(refusal)
        self._sender, self._declared, self._smtputf8, self._binary = mail
        self._mail_refused = False
        self._conduct.mail()
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
        if self._binary:
            raise Refused(reply.BAD_ORDER)  # RFC 3030 3: only BDAT can carry it
        self._message = self._reading = Transfer(
            Body(), self._limits.max_message_size, self._declared
        )
        self.messages += 1
        self.state = after
        self._out.append(reply.GO_AHEAD.wire)

    def _handle_bdat(self, argument: bytes, after: State) -> Event | None:
        """RFC 3030 2: whatever else is wrong, the octets that were announced are skipped."""
        try:
            chunk = parse_chunk(argument)
        except Refused as refused:
            self._say(refused.reply)
            return self.abandon()  # where the next command begins cannot be known
        limit = self._limits.max_message_size
        if after is not State.CHUNKS:
            transfer = Transfer(Chunks(), limit)
            transfer.refuse(reply.BAD_ORDER if chunk.sound else reply.BAD_CHUNK)
            self.messages += 1
        elif self._message is None:
            transfer = self._message = Transfer(Chunks(), limit, self._declared)
            self.messages += 1
            self.state = after
        else:
            transfer = self._message
        transfer.begin(chunk)
        self._reading = transfer
        self._conduct.chunk(chunk.octets)
        return None

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


_HANDLERS: Final[Mapping[bytes, Callable[[Session, bytes, State], Event | None]]] = {
    b"LHLO": Session._handle_lhlo,
    b"MAIL": Session._handle_mail,
    b"RCPT": Session._handle_rcpt,
    b"DATA": Session._handle_data,
    b"BDAT": Session._handle_bdat,
    b"STARTTLS": Session._handle_starttls,
    b"RSET": Session._handle_rset,
    b"NOOP": Session._handle_noop,
    b"HELP": Session._handle_help,
    b"VRFY": Session._handle_vrfy,
    b"QUIT": Session._handle_quit,
}
