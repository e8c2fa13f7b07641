"""Target: where a message ends, and dot-stuffing (RFC 5321 4.5.2).

For: holding `lmtp.body` to a reference that reads line by line. Whatever the cuts, message,
size and what follows are those of the reference; nothing but CRLF.CRLF ends the data; a
message that is being discarded ends where it would have.
"""

from collections.abc import Iterator

from fuzz.dialogues import bodies
from fuzz.target import Octets, Target, pieces
from postroom.lmtp.body import Body

END = b"\r\n.\r\n"


def read_data(octets: bytes) -> tuple[bytes, bytes] | None:
    """The message at the start of `octets` and what follows it; None if it does not end."""
    message = b""
    while b"\r\n" in octets:
        line, _, octets = octets.partition(b"\r\n")
        if line == b".":
            return message, octets
        message += line.removeprefix(b".") + b"\r\n"
    return None


def check(data: bytes) -> None:
    """One octet says how many lengths follow, then the lengths, then what a client sends."""
    source = Octets(data)
    lengths = source.take(source.number(below=8))
    drop_at = source.number(below=32)
    octets = source.rest()
    expected = read_data(octets)
    # Nothing that came so far is lost: it is there when the end comes.
    completed = expected or read_data(octets + END)
    assert completed is not None
    for parts in ([octets], pieces(octets, lengths), pieces(octets, b"\1")):
        body = Body()
        rest = _feed(body, parts)
        assert (rest is None) == (expected is None)
        if rest is None:
            rest = body.feed(END)
        size = body.size
        assert (body.content(), rest) == completed
        assert size == len(completed[0])
        _check_dropped(parts, drop_at, completed)


def _check_dropped(parts: list[bytes], drop_at: int, completed: tuple[bytes, bytes]) -> None:
    body = Body()
    first, second = parts[:drop_at], parts[drop_at:]
    rest = _feed(body, first)
    body.discard()
    if rest is None:
        rest = _feed(body, second)
    else:
        rest += b"".join(second)
    assert (body.feed(END) if rest is None else rest) == completed[1]
    assert body.content() == b"" and body.size == len(completed[0])


def _feed(body: Body, parts: list[bytes]) -> bytes | None:
    """Feed until the message ends; returns all that came after it."""
    for number, part in enumerate(parts):
        rest = body.feed(part)
        if rest is not None:
            return rest + b"".join(parts[number + 1 :])
    return None


def _seeds() -> Iterator[bytes]:
    for octets in bodies():
        yield b"\0\0" + octets
        yield b"\2\1\5\3" + octets


TARGET = Target(
    check,
    _seeds,
    tokens=(END, b"\r\n.", b"\r\n..", b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r"),
    longest=512,
)
