"""Clients that say whatever they are told, waiting for each reply or for none.

For: playing the octets of a conversation against a real server. Guarantees: every wait has
an end. Fails with `AssertionError` where the replies do not come out even.
"""

import contextlib
import socket
from collections.abc import Iterable
from typing import Self

from fuzz.ledger import Finished, Ledger
from fuzz.replies import Answer, answers

PATIENCE = 30.0  # seconds; a server that says nothing for so long is stuck
TOGETHER = 50  # connections whose end is waited for together


class Talk:
    """One connection, after its greeting."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.unread = b""  # beyond the replies that were asked for
        self.heard = b""
        self.replies(1)

    def say(self, octets: bytes) -> None:
        """Send; that the server has closed shows when its replies are read."""
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(octets)

    def fall_silent(self) -> None:
        """Say no more."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def replies(self, count: int) -> list[Answer]:
        """So many replies; fewer if the server closes."""
        said, found = b"", 0
        while found < count and (line := self._line()):
            said += line
            found += line[3:4] != b"-"
        return answers(said)

    def _line(self) -> bytes:
        while b"\n" not in self.unread and (data := self._receive()):
            self.unread += data
        line, end, self.unread = self.unread.partition(b"\n")
        return line + end

    def octets(self, count: int) -> bytes:
        """All that was heard, so many octets at least; fewer if the server closes."""
        while len(self.heard) < count and self._receive():
            pass
        return self.heard

    def _receive(self) -> bytes:
        try:
            data = self._socket.recv(65536)
        except ConnectionResetError:
            data = b""  # it closed with something of ours unread
        self.heard += data
        return data

    def check_end(self) -> None:
        """The server closes, and says nothing before it does."""
        self.fall_silent()
        heard = self.heard
        while self._receive():
            pass
        self.close()
        assert self.heard == heard, "a reply to no command"

    def close(self) -> None:
        """Be gone."""
        self._socket.close()


class Talks:
    """Conversations with one server. A context manager."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._turned_out: list[Talk] = []

    def in_step(self, octets: bytes) -> tuple[bytes, list[Finished]]:
        """Wait for the replies to each command and message. Returns all that the server
        said, and the messages that were sent whole."""
        talk, ledger = Talk(self._port), Ledger(octets)
        sent: list[Finished] = []
        while not ledger.ended and (unit := ledger.take()):
            talk.say(unit)
            finished = ledger.answered(talk.replies(ledger.owed))
            if finished is not None:
                sent.append(finished)
        if not ledger.ended:
            talk.say(ledger.left)
        assert not talk.unread, "a reply to no command"
        heard = talk.heard
        self._end(talk)
        return heard, sent

    def at_once(self, parts: Iterable[bytes], expected: bytes) -> None:
        """Send all pieces and wait for nothing; what the server says is as expected."""
        talk = Talk(self._port)
        for part in parts:
            talk.say(part)
        talk.fall_silent()
        assert talk.octets(len(expected)) == expected
        self._end(talk)

    def _end(self, talk: Talk) -> None:
        # Who was turned out is let go a little later: wait for many at once.
        if b"\r\n421 4.7.0 " not in talk.heard:
            talk.check_end()
            return
        self._turned_out.append(talk)
        if len(self._turned_out) >= TOGETHER:
            self._check_ends()

    def _check_ends(self) -> None:
        while self._turned_out:
            self._turned_out.pop().check_end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if not any(exception):
            self._check_ends()
        while self._turned_out:
            self._turned_out.pop().close()
