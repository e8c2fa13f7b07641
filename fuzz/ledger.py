"""The client's view of a session: what each piece of its input must be answered with.

For: cutting what a client sends into commands and messages as the replies tell it to, and
counting. It knows only what stands on the wire: 354 begins a message, each 2xx to RCPT
makes one more reply to it due (RFC 2033 4.2), BDAT says how many octets follow and gets one
reply, or as many as a message if it is the last (RFC 3030 2). Fails with `AssertionError`
if a reply is missing, is one too many or cannot be meant for that piece.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

from fuzz.framing import read_data
from fuzz.replies import Answer

LONGEST_LINE = 4096  # octets, with CRLF
_CHUNK = re.compile(rb"(?P<size>\d{1,20})(?:[ \t]+(?P<word>.*))?", re.DOTALL)


class Finished(NamedTuple):
    """A message that was sent whole: its octets, unstuffed, and a reply per recipient.

    `sender` and `recipients` are the commands that were accepted; a message is not `sound`
    if a chunk of it was refused before.
    """

    sender: bytes
    recipients: tuple[bytes, ...]
    raw: bytes
    sound: bool
    answers: tuple[Answer, ...]


class Ledger:
    """Follows one session after its greeting: `take` what to send, say what was `answered`."""

    def __init__(self, octets: bytes, longest_line: int = LONGEST_LINE) -> None:
        self.left = octets  # not yet taken
        self.owed = 0  # replies to what was taken last
        self.ended = False  # the server closes after what it answered last
        self.secured = False  # the server waits for TLS, and ignores what is left
        self.due: int | None = None  # replies to what is not whole, None if nothing was begun
        self._longest_line = longest_line
        self._line = self._verb = b""  # of the command that was taken last
        self._part = b""  # of a message, taken last
        self._ends = False  # with that part the message ends
        self._greeted = self._in_data = False
        self._forget()

    def _forget(self) -> None:
        self._sender: bytes | None = None
        self._recipients: list[bytes] = []
        self._raw = b""
        self._chunked, self._sound = False, True

    def take(self) -> bytes:
        """The next whole command, with its chunk, or message; empty if none is left."""
        self.due = None
        rest = self._take_data() if self._in_data else self._take_command()
        if rest is None:
            return b""
        taken = self.left[: len(self.left) - len(rest)]
        self.left = rest
        return taken

    def _take_data(self) -> bytes | None:
        found = read_data(self.left)
        if found is None:
            self.due = len(self._recipients)
            return None
        self._part, rest = found
        self.owed, self._ends = len(self._recipients), True
        return rest

    def _take_command(self) -> bytes | None:
        line, end, rest = self.left.partition(b"\n")
        if not end:
            return None
        self._line, self.owed, self._ends = line, 1, False
        self._verb, _, argument = line.rstrip(b"\r \t").partition(b" ")
        self._verb = self._verb.upper()
        too_long = len(line) >= self._longest_line
        if too_long or not line.endswith(b"\r"):
            self._verb, self.ended = b"*", not too_long
        elif self._verb == b"BDAT":
            return self._take_chunk(argument.lstrip(b" "), rest)
        return rest

    def _take_chunk(self, argument: bytes, rest: bytes) -> bytes | None:
        chunk = _CHUNK.fullmatch(argument)
        if chunk is None:
            self.ended = True  # where the next command begins cannot be known
            self._verb = b"*"
            return rest
        size = int(chunk["size"])
        word = (chunk["word"] or b"").strip(b" \t").upper()
        self._ends = word == b"LAST"
        if word and not self._ends:
            self._verb = b"BDAT *"  # its octets are skipped
        self.owed = len(self._recipients) if self._ends else 1
        if len(rest) < size:
            self.due = self.owed
            return None
        self._part = rest[:size]
        return rest[size:]

    def answered(self, answers: Sequence[Answer]) -> Finished | None:
        """The replies to what was taken; a message if that was one, or the end of one."""
        if not self._in_data and [answer.code for answer in answers] == [421]:
            self.ended = True
            return None
        assert len(answers) == self.owed, f"{self.owed} replies are due, got {answers}"
        if self._ends:
            return self._finish(answers)
        (answer,) = answers
        bare = (self._verb == b"LHLO" and answer.code == 250) or answer.code == 354
        assert answer.enhanced != bare, answer
        assert (answer.code == 354) <= (self._verb == b"DATA")
        assert (answer.code == 221) <= (self._verb == b"QUIT")
        assert (answer.code == 220) <= (self._verb == b"STARTTLS")
        if answer.code < 400:
            self._succeeded(answer.code)
        elif self._verb in (b"BDAT", b"BDAT *") and self._recipients:
            self._chunked, self._sound = True, False
        return None

    def _finish(self, answers: Sequence[Answer]) -> Finished | None:
        sender, recipients, raw, sound = self._sender, self._recipients, self._raw, self._sound
        assert all(answer.enhanced for answer in answers)
        assert sound or all(answer.code >= 400 for answer in answers)
        self._in_data = False
        self._forget()
        if not recipients:
            return None
        assert sender is not None
        return Finished(sender, tuple(recipients), raw + self._part, sound, tuple(answers))

    def _succeeded(self, code: int) -> None:
        """One command was carried out: it must have been legal."""
        match self._verb:
            case b"LHLO":
                self._greeted = True
                self._forget()
            case b"MAIL":
                assert self._greeted and self._sender is None
                self._sender = self._line
            case b"RCPT":
                assert self._sender is not None and not self._chunked
                self._recipients.append(self._line)
            case b"DATA":
                assert code == 354 and self._recipients and not self._chunked
                self._in_data = True
            case b"BDAT":
                assert self._recipients and self._sound
                self._chunked = True
                self._raw += self._part
            case b"RSET":
                self._forget()
            case b"STARTTLS":
                assert code == 220
                self.secured = True
            case b"QUIT":
                assert code == 221
                self.ended = True
            case verb:
                assert verb in (b"NOOP", b"HELP", b"VRFY"), f"{code} to {self._line!r}"
