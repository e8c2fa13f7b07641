"""Framing of a message: after DATA, and in chunks.

For: finding where the octets of a message end, and undoing dot-stuffing (RFC 5321 4.5.2)
where there is any. Guarantees: only CRLF.CRLF ends the data, whatever bare CR or LF it holds
(no SMTP smuggling); a chunk has exactly the octets that were announced (RFC 3030 2); time is
linear in the octets fed; memory is the message itself, or four octets once it is being
discarded. Never fails: any octets are a body.
"""

END = b"\r\n.\r\n"


class Content:
    """The octets of one message so far; `size` counts them even when they are discarded."""

    __slots__ = ("_content", "_discard", "size")

    def __init__(self) -> None:
        self._content: bytes | bytearray = b""
        self._discard = False
        self.size = 0

    def discard(self) -> None:
        """Forget what came and keep nothing more; `size` still counts."""
        self._discard = True
        self._content = b""

    def content(self) -> bytes:
        """The message, unstuffed; handed over, so that it is in memory once."""
        content, self._content = bytes(self._content), b""
        return content

    def _add(self, piece: bytes) -> None:
        self.size += len(piece)
        if self._discard or not piece:
            return
        if not self._content:
            self._content = piece
            return
        if isinstance(self._content, bytes):
            self._content = bytearray(self._content)
        self._content += piece


class Body(Content):
    """What comes after DATA. Feed it octets until `feed` returns what came after the end."""

    __slots__ = ("_carry", "_skip")

    def __init__(self) -> None:
        super().__init__()
        # DATA's own line end stands before the first octet, so a first "." is at the
        # start of a line; the two octets are taken off the first piece again.
        self._carry = b"\r\n"
        self._skip = 2

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return None to ask for more, or the octets after the end."""
        data = self._carry + data
        end = data.find(END)
        if end >= 0:
            self._keep(data[: end + 2])
            self._carry = b""
            return data[end + 5 :]
        held = _partial_end(data)
        cut = len(data) - held
        self._keep(data[:cut])
        self._carry = data[cut:]
        return None

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        # Each CRLF of `piece` is followed by all that may belong to it, so no CRLF.
        # straddles two pieces.
        if b"\r\n." in piece:
            piece = piece.replace(b"\r\n.", b"\r\n")
        if self._skip:
            piece = piece[2:]
            self._skip = 0
        self._add(piece)


class Chunks(Content):
    """What comes with BDAT. After `begin(octets)` feed it until `feed` returns what came
    after the chunk."""

    __slots__ = ("_left",)

    def __init__(self) -> None:
        super().__init__()
        self._left = 0

    def begin(self, octets: int) -> None:
        """So many octets are the next chunk."""
        self._left = octets

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; return None to ask for more, or the octets after the chunk."""
        if len(data) < self._left:
            self._left -= len(data)
            self._add(data)
            return None
        rest = data[self._left :]
        self._add(data[: self._left] if rest else data)
        self._left = 0
        return rest


def _partial_end(data: bytes) -> int:
    """How many of the last octets may be the beginning of the end."""
    if data.endswith(b"\r\n"):
        return 2
    if data.endswith(b"\r"):
        return 4 if data.endswith(b"\r\n.\r") else 1
    if data.endswith(b"\r\n."):
        return 3
    return 0
