"""What a message to the bounce address says: values, without behaviour.

For: recognition, which makes them, and scoring, which uses them. Guarantees: frozen; pure.
"""

from typing import Literal, NamedTuple

# What a message is. Only a bounce is counted; a complaint is acted on; the others are neither.
Kind = Literal["bounce", "complaint", "answer", "challenge", "success", "other"]
# How far it can be told that it is about this member: by an address or an event that only we can
# have made for them (`own`), by one that all readers of the list know (`shared`), or not at all.
Proof = Literal["own", "shared", "none"]


class Failure(NamedTuple):
    """One address that could not be reached. `email` is folded (`roster.same_address`), `status`
    an enhanced status code (RFC 3463) or "", `reason` the words of whoever refused, on one line.
    What is not `final` may pass for
    other mail; `over` says that this one is not tried again."""

    email: str
    final: bool
    status: str
    reason: str
    over: bool = True


class Report(NamedTuple):
    """What a message says, and by which of the ways to read it: "dsn" (RFC 3464, RFC 6533),
    "arf" (RFC 5965), "wild" (flufl.bounce), or "" if by none. `message_id` is that of the message
    that came back, `sender` its envelope sender; "" if that is not told. The email of a failure is
    "" where nobody can read whom it is about."""

    kind: Kind
    failures: tuple[Failure, ...] = ()
    read_as: str = ""
    message_id: str = ""
    sender: str = ""
