"""The player of golden dialogues.

For: playing one `Dialogue` against the sans-IO `Session` in every way that octets can be
cut: all at once, a line at a time, octet by octet. What comes out is a `Played`; all ways
must give the same. `assert` says what differs from the dialogue.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from postroom.lmtp.protocol import Close, Deliver, Event, Later, Reserve, Verify
from postroom.lmtp.session import Session
from tests.wire.dialogue import HOST, IDENT, Dialogue, Expect, Queued, queued


class Played(NamedTuple):
    """The server's side of a dialogue."""

    output: bytes
    queued: tuple[Queued, ...]
    closed: bool


class Player:
    """One session in the hands of a driver that answers every event at once."""

    def __init__(self, dialogue: Dialogue, refuse_at_rcpt: bool) -> None:
        self._dialogue = dialogue
        limits = dialogue.limits._replace(refuse_at_rcpt=refuse_at_rcpt)
        self.session = Session(HOST, IDENT, limits, "player", lambda size: dialogue.admit)
        self.output = self.session.output()
        self.queued: list[Queued] = []
        self.closed = False

    def feed(self, octets: bytes) -> None:
        """The client sends this."""
        event = self.session.receive(octets)
        self.output += self.session.output()
        while event is not None and not self.closed:
            event = self._carry_out(event)
            self.output += self.session.output()

    def _carry_out(self, event: Event) -> Event | None:
        match event:
            case Deliver(envelope):
                replies = self._dialogue.delivered(envelope)
                if message := queued(envelope, replies):
                    self.queued.append(message)
                return self.session.delivered(replies)
            case Verify(recipients):
                return self.session.verified(self._dialogue.verified(recipients))
            case Reserve():
                return self.session.reserved(not self._dialogue.no_room)
            case Later():
                return self.session.resume()
            case Close():
                self.closed = True
        return None

    def played(self) -> Played:
        """What happened."""
        return Played(self.output, tuple(self.queued), self.closed)


def whole(dialogue: Dialogue, refuse_at_rcpt: bool, trailing: bytes = b"") -> Played:
    """All octets of the client in one piece."""
    player = Player(dialogue, refuse_at_rcpt)
    player.feed(dialogue.sent + trailing)
    return player.played()


def in_step(dialogue: Dialogue, refuse_at_rcpt: bool, octet_by_octet: bool) -> Played:
    """As written: what the server is to say must be there before the client goes on."""
    player = Player(dialogue, refuse_at_rcpt)
    expected = 0
    for said, octets in turns(dialogue):
        expected += len(said)
        lines = reply_lines(player.output)
        assert len(lines) == expected, f"{dialogue.name}: {lines} before {octets!r}"
        for piece in cut(octets) if octet_by_octet else [octets]:
            player.feed(piece)
    return player.played()


def turns(dialogue: Dialogue) -> Iterator[tuple[list[Expect], bytes]]:
    """The lines of the server, then the octets of the client, one turn after the other."""
    said: list[Expect] = []
    octets = b""
    for step in dialogue.steps:
        if not isinstance(step, Expect):
            octets += step.octets
            continue
        if octets:
            yield said, octets
            said, octets = [], b""
        said.append(step)
    yield said, octets


def cut(octets: bytes) -> Iterable[bytes]:
    """Octet by octet; but what is far too long to matter singly in pieces of 97."""
    if len(octets) <= 20_000:
        return (octets[at : at + 1] for at in range(len(octets)))
    return (octets[at : at + 97] for at in range(0, len(octets), 97))


def reply_lines(output: bytes) -> list[str]:
    """The server's lines; each must end with CRLF."""
    assert not output or output.endswith(b"\r\n"), output
    return output.decode("ascii").split("\r\n")[:-1]


def check(dialogue: Dialogue, played: Played) -> None:
    """Assert that the server said, queued and closed what the dialogue says."""
    lines = reply_lines(played.output)
    for expected, line in zip(dialogue.expected, lines, strict=False):
        assert expected.matches(line), f"{dialogue.name}: expected {expected.line!r}, got {line!r}"
    assert len(lines) == len(dialogue.expected), f"{dialogue.name}: {lines}"
    assert played.queued == dialogue.queued
    assert played.closed == dialogue.closes
