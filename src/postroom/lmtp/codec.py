"""Replies in, commands out: what the clients of LMTP and SMTP have in common.

For: reading a server's replies however its octets were cut, and writing commands. Guarantees:
a reply is given when its last line is there, and only then; lines and replies are bounded;
a text holds no control characters; no argument brings a command of its own. Garbage is a
`ProtocolError`, kept in `fault` so that the replies before it are not lost; nothing after it
is read.
"""

import re
from typing import NamedTuple

MAX_LINE = 8192  # octets of a reply line; RFC 5321 4.5.3.1.5 asks for 512
MAX_REPLY = 65536  # octets of all lines of one reply

_REPLY = re.compile(r"([2-5]\d\d)(?:([ -])(.*))?", re.ASCII | re.DOTALL)
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?: |\Z)", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class ProtocolError(Exception):
    """What the server says is not SMTP; `str()` says why."""


class Answer(NamedTuple):
    """A server's reply: code, enhanced status code (RFC 2034; "" if there is none), and text
    without codes, its lines joined by line feeds."""

    code: int
    enhanced: str
    text: str

    def __str__(self) -> str:
        """In one line."""
        return " ".join(str(part) for part in self if part).replace("\n", " ")


class ReplyReader:
    """Reads the replies of one connection."""

    __slots__ = ("_enhanced", "_last", "_last_line", "_rest", "_size", "_texts", "fault")

    def __init__(self) -> None:
        self.fault: ProtocolError | None = None
        self._rest = b""  # of a line
        self._texts: list[str] = []  # of a reply of several lines
        self._enhanced = ""
        self._size = 0
        # Hundreds of recipients are answered alike: the line before is not read twice.
        self._last_line = b""
        self._last = Answer(0, "", "")

    @property
    def amid(self) -> bool:
        """True if a reply has begun and not ended."""
        return bool(self._rest or self._texts)

    def feed(self, data: bytes) -> list[Answer]:
        """Take octets; returns the replies that are whole now. Look at `fault` afterwards."""
        answers: list[Answer] = []
        if self.fault is not None:
            return answers
        lines = (self._rest + data).split(b"\n") if self._rest else data.split(b"\n")
        self._rest = lines.pop()
        last_line, last = self._last_line, self._last
        try:
            for line in lines:
                if line == last_line and not self._texts:
                    answers.append(last)
                elif (answer := self._line(line)) is not None:
                    answers.append(answer)
                    last_line, last = self._last_line, self._last
            if len(self._rest) > MAX_LINE:
                raise ProtocolError("Reply line too long")
        except ProtocolError as fault:
            self.fault = fault
            self._rest = b""
        return answers

    def _line(self, line: bytes) -> Answer | None:
        if len(line) > MAX_LINE:
            raise ProtocolError("Reply line too long")
        whole = line.decode("utf-8", "replace").rstrip("\r")
        if (match := _REPLY.fullmatch(whole)) is None:
            raise ProtocolError(f"not a reply: {whole!r}")
        text = match[3] or ""
        if (enhanced := _ENHANCED.match(text)) and enhanced[0][0] == whole[0]:
            self._enhanced = self._enhanced or enhanced[0].rstrip()
            text = text[enhanced.end() :]
        if not text.isprintable():
            text = _CONTROL.sub("\ufffd", text)
        alone = not self._texts
        self._texts.append(text)
        self._size += len(line)
        if match[2] == "-":
            if self._size > MAX_REPLY:
                raise ProtocolError("Reply too long")
            return None
        answer = Answer(int(match[1]), self._enhanced, "\n".join(self._texts))
        self._texts, self._enhanced, self._size = [], "", 0
        if alone:
            self._last_line, self._last = line, answer
        return answer


def command_line(command: str, arguments: str = "") -> bytes:
    """A command as it is sent. Raises ValueError if it holds a line end."""
    line = f"{command} {arguments}" if arguments else command
    if "\r" in line or "\n" in line:
        raise ValueError(f"a command must not hold a line end: {line!r}")
    return line.encode() + b"\r\n"
