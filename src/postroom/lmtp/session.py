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
from collections import defaultdict
from collections.abc import Callable, Sequence

from postroom.lmtp.commands import Commands
from postroom.lmtp.protocol import (
    Deliver,
    Event,
    Later,
    Limits,
    Reserve,
    StartTls,
    State,
    Verify,
)
from postroom.lmtp.transfer import Transfer
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply

MAX_LINE = 4096  # octets with CRLF; RFC 5321 4.5.3.1.4 asks for 512, parameters need more
LINES_AT_ONCE = 128  # before others get their turn; mail servers send up to 100 recipients
# To look up a member of an Enum takes a tenth of a microsecond (Python 3.11).
_READY, _CLOSED = State.READY, State.CLOSED


class Session(Commands):
    """One client's session. `admit(size)` may refuse a MAIL that declares `size` octets;
    `tally` counts what is sent, by whole reply; `tls` offers STARTTLS."""

    def __init__(
        self,
        hostname: str,
        ident: str,
        limits: Limits,
        peer: str,
        admit: Callable[[int], Reply | None] = lambda size: None,
        tally: defaultdict[bytes, int] | None = None,
        tls: bool = False,
    ) -> None:
        super().__init__(hostname, ident, limits, peer, admit, tls)
        self._tally = defaultdict(int) if tally is None else tally
        self._buffer = b""
        self._overlong = False
        self._awaiting: Event | None = None
        self._lines = 0  # since a message was handed on, or others had their turn

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
        if self.state is _CLOSED or type(self._awaiting) is StartTls:
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
        self._lines = 0
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
        self._lines = 0
        return self._advance()

    def shut_down(self) -> Event | None:
        """The server stops: close now if nothing is owed (421), else return None."""
        if self.owes_replies:
            return None
        if self.state is not _CLOSED:
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
        elif self.state is not _CLOSED:
            self._out.append(reply.IDLE.wire)
        return self.abandon()

    def abandon(self, punish: bool = False) -> Event:
        """Close with no further reply."""
        self._buffer = b""
        self._awaiting = super().abandon(punish)
        return self._awaiting

    # Input

    def _advance(self) -> Event | None:
        while self.state is not _CLOSED:
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
        return self.abandon() if self.state is _CLOSED else None

    def _take_lines(self) -> Event | None:
        """Work through whole lines until a message begins, an event is due or none is left."""
        buffer, start, event, conduct = self._buffer, 0, None, self._conduct
        lines = self._lines
        while event is None and self._reading is None and self.state is not _CLOSED:
            if start == len(buffer) and not (conduct.over or self._unverified):
                break
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
            self.state = _READY
        elif self._conduct.error():
            self._say(reply.TOO_MANY_ERRORS)

    def _finish(self, replies: list[bytes]) -> None:
        """RFC 2033 4.2: one reply per accepted recipient, in the order of RCPT."""
        self._out.extend(replies)
        self._awaiting = None
        self._conduct.message()
        self._clear()
        self.state = _READY

    def _line(self, line: bytes) -> Event | None:
        if self._overlong or len(line) > MAX_LINE:
            self._overlong = False
            self._refuse(reply.LINE_TOO_LONG, error=True)
            return None
        if not line.endswith(b"\r\n"):
            # RFC 5321 2.3.8; what follows may have been meant as something else.
            self._say(reply.BARE_LF)
            return self.abandon()
        return self._command(line)
