"""The client's end of an LMTP connection: commands out, replies in.

For: what the client needs of a socket. Guarantees: one call reads one whole reply, and
whatever is no reply, or does not come, ends the connection. Fails with OSError when
connecting, and after that with `smtplib.SMTPServerDisconnected`.
"""

import smtplib
import socket
from collections import deque
from collections.abc import Callable
from typing import Self, TypeVar

from postroom.lmtp.codec import Answer, ReplyReader, command_line

MOST_AT_ONCE = 65536  # octets read in one piece

_Error = TypeVar("_Error", bound=smtplib.SMTPException)


class LMTPReply(tuple[int, str]):
    """A reply: the tuple `(code, text)`; its enhanced status code (RFC 2034) is kept apart.

    The lines of a multi-line reply are joined by line feeds.
    """

    enhanced_code: str

    def __new__(cls, code: int, text: str, enhanced_code: str = "") -> Self:
        reply = super().__new__(cls, (code, text))
        reply.enhanced_code = enhanced_code
        return reply

    def __getnewargs__(self) -> tuple[int, str, str]:
        return (*self, self.enhanced_code)

    @property
    def code(self) -> int:
        """The reply code."""
        return self[0]

    @property
    def text(self) -> str:
        """The text, without codes."""
        return self[1]

    @property
    def accepted(self) -> bool:
        """True for 2xx."""
        return 200 <= self[0] < 300


class ClientConnection:
    """`host` is a name, an address or, if it begins with "/", a unix socket; `timeout` is in
    seconds and holds for each wait."""

    def __init__(self, host: str, port: int, timeout: float) -> None:
        self.host, self.port, self.timeout = host, port, timeout
        self.greeting: LMTPReply | None = None
        self.sock: socket.socket | None = None
        self._reader = ReplyReader()
        self._answers: deque[Answer] = deque()  # read, and not asked for yet

    def connect(self, host: str | None = None, port: int | None = None) -> LMTPReply:
        """Connect, to another place if one is given; returns the greeting. Raises OSError."""
        self.close()
        self.host, self.port = host or self.host, port or self.port
        if self.host.startswith("/"):
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(self.timeout)
            try:
                self.sock.connect(self.host)
            except OSError:
                self.close()
                raise
        else:
            self.sock = socket.create_connection((self.host, self.port), self.timeout)
            self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.greeting = self.getreply()
        return self.greeting

    def close(self) -> None:
        """Close without a word."""
        if self.sock is not None:
            self.sock.close()
        self.sock = None
        self._reader = ReplyReader()
        self._answers.clear()

    def docmd(self, command: str, arguments: str = "") -> LMTPReply:
        """Send one command and read its reply."""
        self._send(command_line(command, arguments))
        return self.getreply()

    def getreply(self) -> LMTPReply:
        """Read one reply, all its lines. Raises `SMTPServerDisconnected`."""
        while not self._answers:
            if (fault := self._reader.fault) is not None:
                self.close()
                raise smtplib.SMTPServerDisconnected(str(fault))
            self._answers.extend(self._reader.feed(self._receive()))
        code, enhanced_code, text = self._answers.popleft()
        return LMTPReply(code, text, enhanced_code)

    def _receive(self) -> bytes:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        try:
            data = self.sock.recv(MOST_AT_ONCE)
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(
                f"Connection unexpectedly closed: {error}"
            ) from error
        if not data:
            self.close()
            raise smtplib.SMTPServerDisconnected("Connection unexpectedly closed")
        return data

    def _send(self, octets: bytes) -> None:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        try:
            self.sock.sendall(octets)
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(f"Server not connected: {error}") from error


def error_of(kind: Callable[..., _Error], reply: LMTPReply, *more: object) -> _Error:
    """The exception that stands for one reply."""
    error = kind(*reply, *more)
    vars(error)["enhanced_code"] = reply.enhanced_code
    return error
