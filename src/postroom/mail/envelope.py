"""The envelope: a message as it stood at the door.

For: the one value that passes from the LMTP session to the spool. Guarantees: frozen;
the bytes are those received, after dot-unstuffing, and nothing else was touched.
"""

from typing import NamedTuple

from postroom.mail.address import Mailbox


class Peer(NamedTuple):
    """Who is on the other end: network address as text, and the LHLO name it gave."""

    address: str
    lhlo: str = ""


class Envelope(NamedTuple):
    """Sender ("" is the null sender), recipients in RCPT order, message bytes.

    `received_at` is in seconds since the epoch.
    """

    sender: str
    recipients: tuple[Mailbox, ...]
    raw: bytes
    peer: Peer
    received_at: float
