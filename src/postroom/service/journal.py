"""The log of accepted mail: one line a message.

For: following one message by its id from the door on. Guarantees: written after the
replies went out, so it costs the client nothing.
"""

from collections.abc import Sequence

from postroom.base.observe import Facts, Log
from postroom.mail.reply import NO_MAILBOX
from postroom.spool import ids
from postroom.spool.intake import Stored


def journal(log: Log, stored: Sequence[Stored]) -> None:
    """One line for each message that was taken or refused."""
    log.write("info", map(_line, stored))


def _line(each: Stored) -> tuple[str, Facts]:
    envelope, message, identity, _ = each.draft
    facts: Facts = {
        "message": ids.show(message),
        "sender": envelope.sender,
        "size": len(envelope.raw),
        "message_id": identity.message_id,
        "peer": envelope.peer.address,
        "lhlo": envelope.peer.lhlo,
    }
    if each.entries:
        facts["entries"] = [ids.show(number) for number in each.entries]
    if each.again and each.entries:
        facts["seen_before"] = each.again
    if NO_MAILBOX in each.replies:
        pairs = zip(envelope.recipients, each.replies, strict=True)
        facts["refused"] = [str(box) for box, answer in pairs if not answer.accepted]
    return "accepted" if each.entries else "seen before" if each.again else "refused", facts
