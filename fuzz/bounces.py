"""Target: what a message to the bounce address says, and its address.

For: holding `bounces` to what it promises of any bytes: nothing is raised, each address is told
once and folded, reasons can be shown and are bounded, and nothing is proved without the key.
"""

from collections.abc import Iterator

from fuzz.target import Octets, Target
from postroom.bounces.dsn import REASON
from postroom.bounces.reasons import in_words, is_final
from postroom.bounces.recognise import failure_of_reply, recognise
from postroom.bounces.values import Failure
from postroom.bounces.verp import read_detail
from postroom.lists.roster import same_address
from postroom.notices.language import say

KEY = "k" * 22


def check(data: bytes) -> None:
    """One octet says how many are a detail, then the detail, then the message."""
    octets = Octets(data)
    detail = octets.take(octets.number(below=80)).decode("utf-8", "replace")
    raw = octets.rest()
    email, proof = read_detail(detail, KEY)
    assert same_address(email) == email and proof == "none"

    report = recognise(raw, "")
    assert report.message_id.isprintable()
    assert not report.failures or report.kind in ("bounce", "complaint")
    assert (report.kind == "complaint") <= (report.read_as == "arf")
    assert len({each.email for each in report.failures}) == len(report.failures)
    reply = failure_of_reply(detail, raw[:200].decode("utf-8", "replace"))
    for each in (*report.failures, reply):
        _check_failure(each)
    assert reply.final == is_final(reply.status)


def _check_failure(failure: Failure) -> None:
    assert same_address(failure.email) == failure.email
    assert failure.reason.isprintable() and len(failure.reason) <= REASON
    assert failure.status[:1] in ("", "2", "4", "5") and say(in_words(failure.status))


def _seeds() -> Iterator[bytes]:
    head = (
        b"From: <>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=b\r\n"
    )
    status = (
        b"\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; x\r\n\r\n"
    )
    back = (
        b"\r\n--b\r\nContent-Type: text/rfc822-headers\r\n\r\nMessage-ID: <a@b.c>\r\n\r\n--b--\r\n"
    )
    ann = b"Final-Recipient: rfc822; ann@b.c\r\n"
    failed = ann + b"Action: failed\r\nStatus: 5.1.1\r\n"
    why = b"Diagnostic-Code: smtp; 550 5.1.1 no\r\n such\r\n"
    for one in (
        failed,
        failed + why,
        failed + b"\r\n" + failed,
        failed + failed,
        ann + b"Action: delayed\r\nStatus: 4.4.1\r\n",
        ann + b"Action: relayed\r\n",
        ann + why,
        b"Original-Recipient: utf-8; \\x{E4}@b.c\r\n" + failed,
        b"Original-Recipient: rfc822; a+2B@b.c\r\n" + failed,
    ):
        yield b"\0" + head + status + one + back
        yield b"\0" + (head + status + one + back).replace(b"--b\r\n", b"--c\r\n")
        yield b"\0" + (head + status + one + back).replace(b"\r\n", b"\n")
        yield b"\0" + (head + status + one + back).replace(b"delivery-status\r\n", b"x\r\n")
        yield b"\0" + (head + status + one)[:-7]
        yield b"\0\r\n" + status + one + back
    yield (
        b"\0"
        + head
        + status.replace(b"\r\n\r\nR", b"\r\nContent-Transfer-Encoding: base64\r\n\r\nR")
    )
    arf = (head + status).replace(b"delivery-status", b"feedback-report")
    for one in (b"abuse", b"not-spam", b"x"):
        yield b"\0" + arf + b"Feedback-Type: " + one + b"\r\nOriginal-Rcpt-To: <a@b.c>\r\n" + back
    for text in (
        b"X-Failed-Recipients: a@b.c\r\n\r\n a@b.c\r\n 550 no",
        b"From: x@y\r\n\r\nHi. This is the qmail-send\r\n\r\n<a@b.c>:\r\nno\r\n\r\n--- Below",
        b"Subject: Automatic reply: x\r\nAuto-Submitted: auto-replied\r\nFrom: a@b.c\r\n\r\nx",
        b"X-AskVersion: 1\r\n\r\nx",
        b"Precedence: auto_reply\r\n\r\nx",
    ):
        yield b"\0" + text
        yield b"\17a=b=example.org" + text


TARGET = Target(
    check,
    _seeds,
    tokens=(
        b"Content-Type: message/delivery-status\r\n",
        b"Content-Type: message/rfc822\r\n",
        b"Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n",
        b"Content-Transfer-Encoding: quoted-printable\r\n",
        b"\r\n--b\r\n",
        b"\r\n--b--\r\n",
        b"Original-Recipient: rfc822; ",
        b"Final-Recipient: utf-8; ",
        b"\\x{E4}",
        b"Action: failed\r\n",
        b"Action: delayed\r\n",
        b"Status: 5.0.0\r\n",
        b"Diagnostic-Code: smtp; 550-5.1.1 ",
        b"over quota",
        b"Feedback-Type: abuse\r\n",
        b"Original-Rcpt-To: ",
        b"X-Failed-Recipients: ",
        b"Auto-Submitted: auto-replied\r\n",
        b"Message-ID: <",
        b"ann@example.org",
        b"<ann@example.org>:\r\n",
        b"=example.org",
        b"--- Below this line is a copy of the message.\r\n",
        b"\r\n\r\n",
    ),
    longest=800,
)
