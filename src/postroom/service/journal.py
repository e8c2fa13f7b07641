"""The log of accepted mail: one line a message.

For: following one message by its id from the door on. Guarantees: written after the
replies went out, so it costs the client nothing.
"""

from collections.abc import Sequence
from postroom.mail.message import message_id
from postroom.service.observe import Facts, Log
from postroom.spool import ids
from postroom.spool.intake import Stored


def journal(log: Log, stored: Sequence[Stored]) -> None:
    """One line for each message that was taken or refused."""
    log.write("info", map(_line, stored))


def _line(each: Stored) -> tuple[str, Facts]:
    envelope = each.envelope
    facts: Facts = {
        "message": ids.show(each.message),
        "sender": envelope.sender,
        "size": len(envelope.raw),
        "message_id": message_id(envelope.raw),
        "peer": envelope.peer.address,
        "lhlo": envelope.peer.lhlo,
    }
    if each.entries:
        facts["entries"] = [ids.show(number) for number in each.entries]
    if each.again and each.entries:
        facts["seen_before"] = each.again
    refused = [
        str(box)
        for box, answer in zip(envelope.recipients, each.replies, strict=True)
        if not answer.accepted
    ]
    if refused:
        facts["refused"] = refused
    return "accepted" if each.entries else "seen before" if each.again else "refused", facts
