"""The door's end of the channel: hands envelopes to the intake process and answers back.

For: being the `Door` of the LMTP server. Guarantees: each envelope and question is answered
exactly once; if the intake ends first, envelopes under way are answered None, because their
outcome cannot be known, and all else 451. All of one turn of the event loop leaves in
one write, so the intake finds it as one batch. What is kept for those who watch, the last
refusals, costs nothing where nobody is refused.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple, cast

from postroom.base.observe import Log
from postroom.base.settings import Settings
from postroom.lmtp.connection import Answer
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply
from postroom.service.channel import (
    Answers,
    Ask,
    Change,
    Frames,
    Question,
    Ready,
    Room,
    Told,
    decode_report,
    delivery,
    frame,
    reply_of,
)
from postroom.spool.space import fits
from postroom.watch.figures import Refusal, Tally

REMEMBERED = 20  # refusals
_NOBODY = Peer("")


class LookUps(NamedTuple):
    """The registry as services see it whose questions are not mail."""

    front: "Front"

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        """Have addresses looked up."""
        self.front.look_up(recipients, answer)


class Front(asyncio.Protocol):
    """Used in the event loop's thread only."""

    def __init__(self, settings: Settings, log: Log, ended: Callable[[], None]) -> None:
        """`ended()` is called when the intake closes the connection after it was `ready`."""
        self._log, self._ended = log, ended
        self._deadline = settings.lmtp.commit_deadline
        self._reserve = settings.store.min_free_space
        self._transport: asyncio.Transport | None = None
        self._frames = Frames()
        self._pending: list[bytes] = []
        # Each with what to say should the intake end first, and who asks for whom.
        self._waiting: dict[int, tuple[Answer, Sequence[Reply] | None, Envelope | None]] = {}
        self._number = 0
        self._curious: list[Callable[[Tally | None], None]] = []
        self.free: int | None = None  # octets on the database's disk
        self.heard_at = time.monotonic()  # when the intake last said something
        self.refusals: deque[Refusal] = deque(maxlen=REMEMBERED)
        self.ready: asyncio.Future[Ready | None] = asyncio.get_running_loop().create_future()

    def reconfigure(self, settings: Settings) -> None:
        """Use these settings from the next message on."""
        self._deadline = settings.lmtp.commit_deadline
        self._reserve = settings.store.min_free_space
        self._send(frame(Change(settings.site.owner, settings.store.receipts_kept * 86_400)))

    @property
    def connected(self) -> bool:
        """Whether there is an intake."""
        return self._transport is not None

    # What the LMTP server asks

    def deliver(self, envelope: Envelope, answer: Answer) -> None:
        """Have it stored."""
        if self._transport is None:
            self._later(answer, [reply.LOCAL_ERROR] * len(envelope.recipients))
            return
        deadline = time.monotonic() + self._deadline
        self._send(delivery(self._enlist(answer, None, envelope), deadline, envelope))

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        """Have recipients looked up who will be told the outcome."""
        self._question(recipients, answer, Envelope("", recipients, b"", _NOBODY, 0.0))

    def look_up(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        """Have addresses looked up; that one is not ours is no refusal."""
        self._question(recipients, answer, None)

    def _question(
        self, recipients: tuple[Mailbox, ...], answer: Answer, asker: Envelope | None
    ) -> None:
        lost = [reply.LOCAL_ERROR] * len(recipients)
        if self._transport is None:
            self._later(answer, lost)
            return
        self._send(frame(Question(self._enlist(answer, lost, asker), recipients)))

    def admit(self, size: int) -> Reply | None:
        """452 if the disk is nearly full (RFC 1870 6.1)."""
        return None if fits(size, self.free, self._reserve) else reply.NO_ROOM

    def broken(self, peer: str, error: Exception) -> None:
        """A connection ended by a defect of ours."""
        self._log.error("connection ended by a defect", peer=peer, exc_info=error)

    # What those who watch ask

    def stats(self, answer: Callable[[Tally | None], None]) -> None:
        """Ask the intake how it is going; None if it is gone. It may take its time."""
        if self._transport is None:
            asyncio.get_running_loop().call_soon(answer, None)
            return
        if not self._curious:
            self._send(frame(Ask()))
        self._curious.append(answer)

    def _satisfy(self, tally: Tally | None) -> None:
        curious, self._curious = self._curious, []
        for answer in curious:
            answer(tally)

    def _refused(self, asker: Envelope, spelled: Sequence[tuple[int, str, str]]) -> None:
        now = time.time()
        refused = [
            Refusal(now, asker.peer.address, asker.sender, str(box), " ".join(map(str, each)))
            for box, each in zip(asker.recipients, spelled, strict=True)
            if each[0] >= 400
        ]
        self.refusals.extend(refused)

    def _later(self, answer: Answer, replies: Sequence[Reply]) -> None:
        # Never from within: a long pipelined input would go ever deeper.
        asyncio.get_running_loop().call_soon(answer, replies)

    def _enlist(self, answer: Answer, lost: Sequence[Reply] | None, asker: Envelope | None) -> int:
        self._number += 1
        self._waiting[self._number] = answer, lost, asker
        return self._number

    def _send(self, pieces: Sequence[bytes]) -> None:
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._flush)
        self._pending.extend(pieces)

    def _flush(self) -> None:
        pieces, self._pending = self._pending, []
        if self._transport is not None:
            self._transport.writelines(pieces)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._frames.feed(data)
        self.heard_at = time.monotonic()
        while (taken := self._frames.take()) is not None:
            report = decode_report(taken[0])
            if type(report) is Answers:
                for number, spelled in report.outcomes:
                    answer, _, asker = self._waiting.pop(number)
                    if spelled and asker is not None and max(spelled)[0] >= 400:
                        self._refused(asker, spelled)
                    answer(None if spelled is None else [reply_of(each) for each in spelled])
            elif type(report) is Room:
                self.free = report.free
            elif type(report) is Told:
                self._satisfy(report.tally)
            elif type(report) is Ready:
                self.ready.set_result(report)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._satisfy(None)
        if not self.ready.done():
            self.ready.set_result(None)
            return
        waiting, self._waiting = self._waiting, {}
        for answer, lost, _ in waiting.values():
            answer(lost)
        self._ended()

    def close(self) -> None:
        """Let the intake store what it has been sent, and end."""
        if self._transport is not None:
            self._flush()
            self._transport.close()
