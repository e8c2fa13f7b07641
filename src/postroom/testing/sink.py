"""A mail server that keeps what it is sent, on loopback: where posts of a throwaway site end.

For: tests and documentation that look at what members get. Guarantees: it takes everything,
and nothing leaves it; what it has answered 250 can be taken out; it makes the sender of each
recipient where XVERP asks for that, as Postfix does; it is gone after `close`. It speaks SMTP
(RFC 5321) without TLS and AUTH.
"""

import re
import socketserver
import threading
from typing import Final, NamedTuple

from postroom.delivery.verp import verp_sender

NAME: Final = "sink.example.net"
OFFERS: Final = (NAME, "PIPELINING", "8BITMIME", "SMTPUTF8", "XVERP", "ENHANCEDSTATUSCODES")
IDLE: Final = 300.0  # seconds
_PATH: Final = re.compile(rb"[^<]*<([^>]*)>(.*)", re.DOTALL)


class Kept(NamedTuple):
    """What one recipient got; `sender` is that of the envelope, "" for the null sender."""

    sender: str
    recipient: str
    raw: bytes


class Sink:
    """Takes mail on `port` until it is closed."""

    def __init__(self) -> None:
        self._kept: list[Kept] = []
        self._lock = threading.Lock()
        self._server = _Server(self)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def keep(self, some: list[Kept]) -> None:
        """Put these to what is there."""
        with self._lock:
            self._kept += some

    def look(self) -> list[Kept]:
        """What is there, in the order in which it came."""
        with self._lock:
            return list(self._kept)

    def empty(self) -> None:
        """Throw away what is there."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Take no more mail. Waits for clients to end."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(socketserver.ThreadingTCPServer):
    request_queue_size = 100

    def __init__(self, sink: Sink) -> None:
        super().__init__(("127.0.0.1", 0), _Session)
        self.sink = sink


class _Session(socketserver.StreamRequestHandler):
    """One connection."""

    timeout = IDLE
    server: _Server
    _sender = ""
    _verp = False
    _recipients: tuple[str, ...] = ()

    def handle(self) -> None:
        try:
            self._say(f"220 {NAME} ESMTP")
            while (line := self.rfile.readline()) and self._command(line):
                pass
        except OSError:  # the client went away
            pass

    def _say(self, *lines: str) -> None:
        *first, last = lines
        self.wfile.write("".join(f"{line}\r\n" for line in (*first, last)).encode())

    def _command(self, line: bytes) -> bool:
        """Answer a command; False after QUIT."""
        verb, _, rest = line.strip().partition(b" ")
        match verb.upper():
            case b"EHLO":
                self._say(*(f"250-{each}" for each in OFFERS[:-1]), f"250 {OFFERS[-1]}")
            case b"MAIL":
                path, parameters = _path(rest)
                self._sender, self._recipients = path, ()
                self._verp = b"XVERP" in parameters.upper()
                self._say("250 2.1.0 Ok")
            case b"RCPT":
                self._recipients += (_path(rest)[0],)
                self._say("250 2.1.5 Ok")
            case b"DATA":
                self._say("354 End data with <CR><LF>.<CR><LF>")
                self._take()
                self._say("250 2.0.0 Ok: kept")
            case b"RSET" | b"NOOP":
                self._say("250 2.0.0 Ok")
            case b"QUIT":
                self._say("221 2.0.0 Bye")
                return False
            case _:
                self._say("502 5.5.1 Not here")
        return True

    def _take(self) -> None:
        lines = []
        while (line := self.rfile.readline()) != b".\r\n":
            if not line:
                raise ConnectionResetError
            lines.append(line.removeprefix(b"."))
        raw = b"".join(lines)
        self.server.sink.keep(
            [
                Kept(verp_sender(self._sender, each) if self._verp else self._sender, each, raw)
                for each in self._recipients
            ]
        )


def _path(rest: bytes) -> tuple[str, bytes]:
    """The address in a command, and the parameters after it."""
    match = _PATH.fullmatch(rest)
    return (match[1].decode(), match[2]) if match else ("", b"")
