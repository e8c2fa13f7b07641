"""What the LMTP session and its driver share: states, limits and events.

For: one table of what may follow what, and the few things a session may ask of its driver.
Values only; nothing here can fail.
"""

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply


class State(enum.Enum):
    """Where a session stands; the letters of RFC 2033 sessions as administrators see them."""

    GREETED = "greeted"
    READY = "ready"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    CHUNKS = "chunks"  # some of the message came with BDAT, not yet its last chunk
    CLOSED = "closed"

    __hash__ = object.__hash__  # identity: an Enum's own hash is a Python call per look-up


OPEN = (State.GREETED, State.READY, State.MAIL, State.RCPT, State.CHUNKS)
_SAME = {state: state for state in OPEN}

# The legal order of commands: verb -> state it may come in -> state after its success.
# What is not here is 503. docs/architecture.md draws its diagram from this table.
LEGAL: Final[Mapping[bytes, Mapping[State, State]]] = {
    b"LHLO": dict.fromkeys(OPEN, State.READY),
    b"MAIL": {State.READY: State.MAIL},
    b"RCPT": {State.MAIL: State.RCPT, State.RCPT: State.RCPT},
    b"DATA": {State.RCPT: State.DATA},
    b"BDAT": {State.RCPT: State.CHUNKS, State.CHUNKS: State.CHUNKS},
    b"RSET": {
        State.GREETED: State.GREETED,
        State.READY: State.READY,
        State.MAIL: State.READY,
        State.RCPT: State.READY,
        State.CHUNKS: State.READY,
    },
    b"STARTTLS": {State.READY: State.GREETED},  # RFC 3207 4.2: all that was said is forgotten
    b"NOOP": _SAME,
    b"HELP": _SAME,
    b"VRFY": _SAME,
    b"QUIT": dict.fromkeys(OPEN, State.CLOSED),
}
# Verbs that are refused wherever they come: RFC 2033 4.1 for HELO and EHLO.
REFUSED: Final[Mapping[bytes, Reply]] = {
    b"HELO": reply.USE_LHLO,
    b"EHLO": reply.USE_LHLO,
    b"EXPN": reply.NOT_IMPLEMENTED,
    b"AUTH": reply.NOT_IMPLEMENTED,
    b"TURN": reply.NOT_IMPLEMENTED,
    b"ETRN": reply.NOT_IMPLEMENTED,
}
# The first words of clients that speak something else: told to go, before they do harm.
FOREIGN: Final = frozenset({b"GET", b"POST", b"CONNECT"})


class Limits(NamedTuple):
    """What a session allows. Sizes in octets. `max_errors` and `max_junk` count since the
    last MAIL: commands that are wrong, and commands that lead nowhere; `max_commands` counts
    all but RCPT since the last message."""

    max_message_size: int = 26_214_400
    max_recipients: int = 1000
    refuse_at_rcpt: bool = False
    max_errors: int = 20
    max_junk: int = 100
    max_commands: int = 1000


class Deliver(NamedTuple):
    """Store this envelope; answer with `Session.delivered`."""

    envelope: Envelope


class Verify(NamedTuple):
    """Are these valid recipients? Answer with `Session.verified`."""

    recipients: tuple[Mailbox, ...]


class Reserve(NamedTuple):
    """So many octets of memory are needed; answer with `Session.reserved`."""

    octets: int


class StartTls(NamedTuple):
    """Send what is to be sent, then begin TLS; answer with `Session.secured`."""


class Later(NamedTuple):
    """Much was asked at once: let others have their turn, then call `Session.resume`."""


class Close(NamedTuple):
    """Send what is to be sent and close. `punish` a client that would not behave: do not
    let it come again at once."""

    punish: bool = False


Event = Deliver | Verify | Reserve | StartTls | Later | Close


def greeting(hostname: str, ident: str) -> Reply:
    """The first line of a session (RFC 5321 4.2: no enhanced code)."""
    return Reply(220, "", f"{hostname} {ident}")


def capabilities(hostname: str, max_message_size: int, tls: bool) -> Reply:
    """The reply to LHLO (no enhanced code). RFC 2033 4.2 asks for the first two keywords;
    RFC 6152, 6531, 1870, 3030 and 3207 give the others."""
    lines = [
        hostname,
        "PIPELINING",
        "ENHANCEDSTATUSCODES",
        "8BITMIME",
        "SMTPUTF8",
        "CHUNKING",
        "BINARYMIME",
        *(["STARTTLS"] if tls else []),
        f"SIZE {max_message_size}",
    ]
    return Reply(250, "", "\n".join(lines))
