"""Replies of the door: code, enhanced status code and text, one value each.

For: every reply that leaves the server is one of the names below or made by `Reply`.
Guarantees: checked when built: the class of the enhanced code is that of the code
(RFC 2034 4), every line is printable ASCII of at most 512 octets (RFC 5321 4.5.3.1.5),
so no input that is echoed can bring a line end. Fails with `ValueError` when built.
"""

import re
from dataclasses import dataclass, field

_ENHANCED = re.compile(r"[245]\.\d{1,3}\.\d{1,3}")
_PRINTABLE = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class Reply:
    """One SMTP reply. `text` may hold several lines; `wire` is what is sent."""

    code: int
    enhanced: str
    text: str
    wire: bytes = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.enhanced and (
            not _ENHANCED.fullmatch(self.enhanced) or self.enhanced[0] != str(self.code)[0]
        ):
            raise ValueError(f"enhanced code {self.enhanced!r} does not fit {self.code}")
        lines = self.text.split("\n")
        prefix = f"{self.enhanced} " if self.enhanced else ""
        wire = []
        for number, line in enumerate(lines, 1):
            mark = " " if number == len(lines) else "-"
            full = f"{self.code}{mark}{prefix}{line}"
            if not _PRINTABLE.fullmatch(line) or len(full) > 510:
                raise ValueError(f"not a reply line: {line!r}")
            wire.append(full + "\r\n")
        object.__setattr__(self, "wire", "".join(wire).encode("ascii"))

    @property
    def accepted(self) -> bool:
        """True for 2xx."""
        return self.code < 300


# Success
SENDER_OK = Reply(250, "2.1.0", "Sender ok")
RECIPIENT_OK = Reply(250, "2.1.5", "Recipient ok")
ACCEPTED = Reply(250, "2.0.0", "Message accepted and stored")
DONE = Reply(250, "2.0.0", "Ok")
GO_AHEAD = Reply(354, "", "End data with <CR><LF>.<CR><LF>")
CHUNK_OK = Reply(250, "2.0.0", "Chunk taken")
HELP = Reply(
    214, "2.0.0", "LMTP (RFC 2033): LHLO MAIL RCPT DATA BDAT RSET NOOP VRFY STARTTLS HELP QUIT"
)
START_TLS = Reply(220, "2.0.0", "Ready to start TLS")
CANNOT_VERIFY = Reply(252, "2.0.0", "Cannot verify here, send the message and see")
BYE = Reply(221, "2.0.0", "Bye")

# A fact about the command
BAD_COMMAND = Reply(500, "5.5.1", "Command not recognised")
USE_LHLO = Reply(500, "5.5.1", "This is LMTP: use LHLO")
LINE_TOO_LONG = Reply(500, "5.5.2", "Line too long")
BARE_LF = Reply(500, "5.5.2", "Bare line feed in a command")
BAD_SYNTAX = Reply(501, "5.5.2", "Syntax error")
NO_ARGUMENT = Reply(501, "5.5.4", "This command takes no argument")
NEED_NAME = Reply(501, "5.5.4", "LHLO needs the name of the client")
NEED_ARGUMENT = Reply(501, "5.5.4", "This command needs an argument")
BAD_CHUNK = Reply(501, "5.5.4", "BDAT needs a number of octets, then LAST or nothing")
BAD_PARAMETER = Reply(501, "5.5.4", "Bad parameter")
NOT_UTF8 = Reply(501, "5.5.2", "Address is not valid UTF-8")
NOT_IMPLEMENTED = Reply(502, "5.5.1", "Command not implemented")
BAD_ORDER = Reply(503, "5.5.1", "Bad sequence of commands")
UNKNOWN_PARAMETER = Reply(555, "5.5.4", "Parameter not recognised or not implemented")

# A fact about the address or the message
BAD_SENDER = Reply(501, "5.1.7", "Bad sender address syntax")
BAD_RECIPIENT = Reply(501, "5.1.3", "Bad recipient address syntax")
NEED_SMTPUTF8 = Reply(553, "5.6.7", "Address needs SMTPUTF8")
NO_MAILBOX = Reply(550, "5.1.1", "Requested action not taken: mailbox unavailable")
TOO_BIG = Reply(552, "5.3.4", "Message is larger than this system takes")

# Our own trouble: try again, nothing is lost
NO_ROOM = Reply(452, "4.3.1", "Out of room for now, try again later")
TOO_MANY_RECIPIENTS = Reply(452, "4.5.3", "Too many recipients in one transaction")
LOCAL_ERROR = Reply(451, "4.3.0", "Local trouble, try again later")
NO_TLS = Reply(454, "4.7.0", "TLS is not available here")
TOO_MANY_ERRORS = Reply(421, "4.7.0", "Too many errors or idle commands, try again later")
NOT_LMTP = Reply(421, "4.7.0", "This is LMTP (RFC 2033), not HTTP")
NOT_ALLOWED = Reply(421, "4.7.0", "Your address is not among those allowed here")
IDLE = Reply(421, "4.4.2", "Nothing came for too long, try again later")
TOO_SLOW = Reply(421, "4.4.2", "The message came too slowly, try again later")
OVERLOADED = Reply(421, "4.3.2", "Too many connections, try again later")
SHUTTING_DOWN = Reply(421, "4.3.2", "Shutting down, try again later")
