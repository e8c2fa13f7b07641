"""A message on its way in: how much of it came, may come, and what became of it.

For: what DATA and BDAT have in common. Guarantees: a message that is refused is read to its
end and not kept; no more is kept than was reserved, but for what came with one feed. Never
fails.
"""

from postroom.lmtp.body import Body, Chunks
from postroom.lmtp.grammar import Chunk
from postroom.mail import reply
from postroom.mail.reply import Reply

SMALL_BODY = 65536  # octets of a message that need no reservation from the memory budget


class Transfer:
    """One message; or a chunk that belongs to none, and is only skipped. `limit` and what
    the client `declared` in octets."""

    __slots__ = ("_body", "_declared", "_limit", "_room", "_told", "chunk", "complete", "refusal")

    def __init__(self, body: Body | Chunks, limit: int, declared: int | None = None) -> None:
        self._body, self._limit, self._declared = body, limit, declared
        self._room = SMALL_BODY
        self._told = False
        self.chunk: Chunk | None = None  # the present one
        self.complete = False
        self.refusal: Reply | None = None  # of the whole message

    @property
    def size(self) -> int:
        """Octets so far."""
        return self._body.size

    @property
    def sound(self) -> bool:
        """Whether the present chunk was announced as it should be."""
        return self.chunk is None or self.chunk.sound

    def begin(self, chunk: Chunk) -> None:
        """A chunk follows."""
        assert isinstance(self._body, Chunks)
        self._body.begin(chunk.octets)
        self.chunk = chunk
        if not chunk.sound:
            self.refuse(reply.BAD_CHUNK)

    def feed(self, data: bytes) -> bytes | None:
        """Take `data`; None asks for more, else what came after the message or chunk."""
        rest = self._body.feed(data)
        self.complete = rest is not None and (self.chunk is None or self.chunk.last)
        return rest

    def lacks(self) -> int:
        """Octets that must be reserved before it goes on; 0 if none."""
        size = self._body.size
        if size > self._limit:
            self.refuse(reply.TOO_BIG)  # RFC 1870 6.3: read to the real end
        if size <= self._room or self.complete or self.refusal is not None:
            return 0
        # A declared size is only a hint (RFC 1870 6.2): with none that can be true the
        # message may become as large as any.
        expected = (self._declared or 0) * 9 // 8
        wanted = expected if size < expected < self._limit else self._limit
        return wanted - self._room

    def grant(self, octets: int) -> None:
        """So many octets more are reserved."""
        self._room += octets

    def refuse(self, refusal: Reply) -> None:
        """Keep nothing of it; the first refusal stands."""
        self._body.discard()
        self.refusal = self.refusal or refusal

    def chunk_reply(self) -> Reply:
        """The reply to a chunk that is not the last one. RFC 3030 2: after one that failed
        the others are out of order until RSET; but what was refused for a time must not
        become refused for good."""
        if self.refusal is None:
            return reply.CHUNK_OK
        told, self._told = self._told, True
        return reply.BAD_ORDER if told and self.refusal.code >= 500 else self.refusal

    def content(self) -> bytes:
        """The message, handed over."""
        return self._body.content()
