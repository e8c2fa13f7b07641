"""Recognising what a message to the bounce address is.

For: the bounce runner. Guarantees: any bytes can be read, the first 256 KiB are, and nothing is
raised; a report that is malformed or cut off is read as far as it goes; what a member's message
said, which came back with the report, is not taken for the report. Pure.

In this order, as each says less than the one before: reports of delivery, complaints, automatic
answers that say so, the formats of single servers, automatic answers that look so.
"""

from typing import Final

from postroom.bounces import answers, complaint, dsn, wild
from postroom.bounces.parts import Taken, take_parts
from postroom.bounces.reasons import is_final
from postroom.bounces.values import Failure, Report
from postroom.lists.roster import same_address
from postroom.mail.fields import Parts, take_apart

LOOKED_AT: Final = 262_144  # octets


def recognise(raw: bytes, sender: str) -> Report:
    """What a message says that came with this envelope sender ("" is the null sender)."""
    message = take_apart(raw[:LOOKED_AT])
    taken = take_parts(message)
    report = _by_report(taken)
    kind = None if report else answers.surely(message, taken)
    report = report or (None if kind else _by_format(message, taken))
    kind = kind or (None if report else answers.probably(message, taken))
    found = report or Report(kind or "other")
    return found._replace(message_id=taken.message_id)


def failure_of_reply(email: str, reply: str) -> Failure:
    """What the reply of a server says of this recipient, whom it refused for good, or whom nobody
    could reach for days."""
    status = dsn.exact(dsn.status_of(reply), reply)
    return Failure(same_address(email), is_final(status), status, dsn.reason_of(reply))


def _by_report(taken: Taken) -> Report | None:
    if taken.report == "feedback-report" or taken.of("feedback-report"):
        return complaint.read_feedback(taken)
    texts = taken.of("delivery-status")
    if not texts and taken.type == "multipart/report" and taken.report in ("", "delivery-status"):
        texts = [each.text for each in taken.parts]  # some call the part something else
    said = dsn.read_status(texts)
    if said.failures:
        return Report("bounce", said.failures, "dsn")
    return Report("success", read_as="dsn") if said.success else None


def _by_format(message: Parts, taken: Taken) -> Report | None:
    found = wild.failures(message, taken)
    return Report("bounce", found, "wild") if found else None
