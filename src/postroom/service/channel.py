"""What the door process and the intake process say to each other.

For: frames on the socket pair between them: eight octets with two lengths, a head in
MessagePack and the message bytes, which are never copied into anything. Guarantees: frames
arrive whole and in order or the connection ends; nothing is executed by decoding. Raises
`msgspec.DecodeError` on anything else: both ends are ours, so that is a defect.
"""

import struct
from collections.abc import Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply
from postroom.watch.figures import Tally

_LENGTHS = struct.Struct("<II")


class Delivery(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Store this; `deadline` as of time.monotonic(), which all processes share."""

    number: int
    deadline: float
    sender: str
    recipients: tuple[Mailbox, ...]
    peer: Peer
    received_at: float


class Question(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Are these valid recipients?"""

    number: int
    recipients: tuple[Mailbox, ...]


class Change(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Settings that the intake needs; `receipts_kept` in seconds."""

    site_owner: str
    receipts_kept: float


class Ask(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """How is it going? Answered with `Told`."""


class Ready(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """The database is fit: what it is called, how many lists it has."""

    database: str
    lists: int


class Room(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Octets that may still be stored; None if that cannot be told."""

    free: int | None


class Answers(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """Outcomes: number, and a reply (code, enhanced code, text) per recipient or None."""

    outcomes: list[tuple[int, list[tuple[int, str, str]] | None]]


class Told(Struct, frozen=True, array_like=True, tag=True, gc=False):
    """The answer to `Ask`: that it comes shows that the intake is at work."""

    tally: Tally


Request = Delivery | Question | Change | Ask
Report = Ready | Room | Answers | Told
_encode = msgspec.msgpack.Encoder().encode
decode_request = msgspec.msgpack.Decoder(Request).decode
decode_report = msgspec.msgpack.Decoder(Report).decode


def frame(head: Struct, raw: bytes = b"") -> list[bytes]:
    """A frame as pieces for one gathered write."""
    encoded = _encode(head)
    pieces = [_LENGTHS.pack(len(encoded), len(raw)), encoded]
    return [*pieces, raw] if raw else pieces


class Frames:
    """Cuts what arrives into frames."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        """Add what arrived."""
        self._buffer += data

    def take(self) -> tuple[bytes, bytes] | None:
        """The next whole frame (head, raw), or None."""
        buffer = self._buffer
        if len(buffer) < _LENGTHS.size:
            return None
        head, raw = _LENGTHS.unpack_from(buffer)
        middle = _LENGTHS.size + head
        if len(buffer) < middle + raw:
            return None
        with memoryview(buffer) as view:
            found = bytes(view[_LENGTHS.size : middle]), bytes(view[middle : middle + raw])
        del buffer[: middle + raw]
        return found


def delivery(number: int, deadline: float, envelope: Envelope) -> list[bytes]:
    """The frame for an envelope."""
    sender, recipients, raw, peer, received_at = envelope
    return frame(Delivery(number, deadline, sender, recipients, peer, received_at), raw)


def envelope_of(request: Delivery, raw: bytes) -> Envelope:
    """The envelope of a frame."""
    return Envelope(request.sender, request.recipients, raw, request.peer, request.received_at)


def spell(replies: Sequence[Reply]) -> list[tuple[int, str, str]]:
    """Replies for a frame."""
    return [(each.code, each.enhanced, each.text) for each in replies]


@lru_cache(maxsize=256)
def reply_of(spelled: tuple[int, str, str]) -> Reply:
    """The reply of a frame; there are few different ones."""
    return Reply(*spelled)
