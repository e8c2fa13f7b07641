"""The log of accepted mail: one line a message.

For: following one message by its id from the door on. Guarantees: written after the
replies went out, so it costs the client nothing.
"""

from collections.abc import Sequence
from typing import Any

from postroom.mail.message import message_id
from postroom.service.observe import Logger
from postroom.spool import ids
from postroom.spool.intake import Stored


def journal(logger: Logger, stored: Sequence[Stored]) -> None:
    """One line for each message that was taken or refused, after its replies went out."""
    for each in stored:
        envelope = each.envelope
        refused = [
            str(box)
            for box, answer in zip(envelope.recipients, each.replies, strict=True)
            if not answer.accepted
        ]
        event = "accepted" if each.entries else "seen before" if each.again else "refused"
        facts: dict[str, Any] = {
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
        if refused:
            facts["refused"] = refused
        logger.info(event, **facts)
