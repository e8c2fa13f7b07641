"""How a client behaves: what it may do wrong, or to no purpose, before it is turned out.

For: ending sessions that only cost (items of RFC 5321 4.2.5's "too many errors"). Guarantees:
a client that delivers mail can go on for ever. Never fails.
"""

from postroom.lmtp.protocol import Limits
from postroom.mail.reply import Reply

MUCH = 1024  # octets of a chunk
JUNK = frozenset({b"LHLO", b"RSET", b"NOOP", b"HELP", b"VRFY"})  # lead nowhere by themselves


class Conduct:
    """The counts of one session. `over` is True once its limits are exceeded."""

    __slots__ = ("_commands", "_errors", "_junk", "_limits", "over")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._errors = self._junk = self._commands = 0
        self.over = False

    def command(self, verb: bytes) -> bool:
        """Count a command; True if it is one too many."""
        if verb == b"RCPT":  # has a limit of its own
            return False
        self._commands += 1
        if verb in JUNK:
            self._junk += 1
            self.over = self._junk > self._limits.max_junk
        if self._commands > self._limits.max_commands:
            self.over = True
        return self.over

    def chunk(self, octets: int) -> None:
        """A large part of a message is not counted, or large messages could not be sent in
        small parts."""
        self._commands -= octets >= MUCH

    def error(self) -> bool:
        """Count an error; True if it is one too many."""
        self._errors += 1
        self.over = self._errors > self._limits.max_errors
        return self.over

    def mail(self) -> None:
        """MAIL was accepted: what was done wrong before is forgiven."""
        self._errors = self._junk = 0

    def message(self) -> None:
        """A message was handed on: this client does not idle."""
        self._commands = 0


def is_error(answer: Reply) -> bool:
    """Whether a reply is a fact about the command, and not about an address or ourselves."""
    return answer.enhanced.startswith("5.5")
