"""Framing of a message after DATA.

For: finding the end of the data and undoing dot-stuffing (RFC 5321 4.5.2). Guarantees:
only CRLF.CRLF ends the data, whatever bare CR or LF it holds (no SMTP smuggling); time
is linear in the octets fed; memory is the message itself, or four octets once it is
being discarded. Never fails: any octets are a body.
"""

END = b"\r\n.\r\n"


class Body:
    """One message in the making. Feed it octets until `feed` returns what came after."""

    __slots__ = ("_carry", "_content", "_discard", "_skip", "size")

    def __init__(self) -> None:
        # DATA's own line end stands before the first octet, so a first "." is at the
        # start of a line; the two octets are taken off the first piece again.
        self._carry = b"\r\n"
        self._skip = 2
        self._content: bytes | bytearray = b""
        self._discard = False
        self.size = 0

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

    def discard(self) -> None:
        """Forget what came and keep nothing more; `size` still counts."""
        self._discard = True
        self._content = b""

    def content(self) -> bytes:
        """The message, unstuffed; handed over, so that it is in memory once."""
        content, self._content = bytes(self._content), b""
        return content

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
        self.size += len(piece)
        if self._discard or not piece:
            return
        if not self._content:
            self._content = piece
            return
        if isinstance(self._content, bytes):
            self._content = bytearray(self._content)
        self._content += piece


def _partial_end(data: bytes) -> int:
    """How many of the last octets may be the beginning of the end."""
    if data.endswith(b"\r\n"):
        return 2
    if data.endswith(b"\r"):
        return 4 if data.endswith(b"\r\n.\r") else 1
    if data.endswith(b"\r\n."):
        return 3
    return 0
