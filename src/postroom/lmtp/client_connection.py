"""The client's end of an LMTP connection: commands out, replies in.

For: what the client needs of a socket. Guarantees: one call reads one whole reply, and
whatever is no reply, or does not come, ends the connection. Fails with OSError when
connecting, and after that with `smtplib.SMTPServerDisconnected`.
"""

import io
import re
import smtplib
import socket
from collections.abc import Callable
from typing import Self, TypeVar

MAX_LINE = 8192  # octets of a reply line; RFC 5321 4.5.3.1.5 asks for 512

_REPLY = re.compile(r"([2-5]\d\d)(?:(?P<more>[ -])(?P<text>.*))?", re.ASCII | re.DOTALL)
_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}(?: |\Z)", re.ASCII)
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
        self._file: io.BufferedReader | None = None

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
        self._file = self.sock.makefile("rb")
        self.greeting = self.getreply()
        return self.greeting

    def close(self) -> None:
        """Close without a word."""
        for each in (self._file, self.sock):
            if each is not None:
                each.close()
        self._file = self.sock = None

    def docmd(self, command: str, arguments: str = "") -> LMTPReply:
        """Send one command and read its reply."""
        self._send(command_line(command, arguments))
        return self.getreply()

    def getreply(self) -> LMTPReply:
        """Read one reply, all its lines. Raises `SMTPServerDisconnected`."""
        lines: list[str] = []
        enhanced_code = ""
        while True:
            line = self._line()
            if (match := _REPLY.fullmatch(line)) is None:
                self.close()
                raise smtplib.SMTPServerDisconnected(f"not a reply: {line!r}")
            text = match["text"] or ""
            if (code := _ENHANCED.match(text)) and code[0][0] == line[0]:
                enhanced_code = enhanced_code or code[0].rstrip()
                text = text[code.end() :]
            lines.append(text)
            if match["more"] != "-":
                return LMTPReply(int(match[1]), "\n".join(lines), enhanced_code)

    def _line(self) -> str:
        if self._file is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        try:
            line = self._file.readline(MAX_LINE + 1)
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(
                f"Connection unexpectedly closed: {error}"
            ) from error
        if not line.endswith(b"\n"):
            self.close()
            raise smtplib.SMTPServerDisconnected(
                "Reply line too long" if len(line) > MAX_LINE else "Connection unexpectedly closed"
            )
        return line.decode("utf-8", "replace").rstrip("\r\n")

    def _send(self, octets: bytes) -> None:
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("please run connect() first")
        try:
            self.sock.sendall(octets)
        except OSError as error:
            self.close()
            raise smtplib.SMTPServerDisconnected(f"Server not connected: {error}") from error


def command_line(command: str, arguments: str) -> bytes:
    line = f"{command} {arguments}" if arguments else command
    if "\r" in line or "\n" in line:
        raise ValueError(f"a command must not hold a line end: {line!r}")
    return line.encode() + b"\r\n"


def error_of(kind: Callable[..., _Error], reply: LMTPReply, *more: object) -> _Error:
    """The exception that stands for one reply."""
    error = kind(*reply, *more)
    vars(error)["enhanced_code"] = reply.enhanced_code
    return error
