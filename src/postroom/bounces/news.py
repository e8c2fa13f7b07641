"""News: what an entry of the queue `bounces` tells, of whom, and how that is proved.

For: the bounce runner. Guarantees: the address that it came to, if we made it, is believed before
what the message says; an event of our own delivery is believed at once. What cannot be read is
about whom its address names, or about nobody. Pure, never raises.
"""

import re
from typing import Any, Final, NamedTuple

from postroom.bounces.recognise import failure_of_reply
from postroom.bounces.values import Failure, Proof, Report
from postroom.bounces.verp import read_detail

TOKEN: Final = re.compile(r"[a-z2-7]{26}", re.IGNORECASE)
# A mailbox or a server that took no mail until the probe was given up (subject and detail).
_NOWHERE: Final = frozenset(
    {"2.1", "2.2", "3.1", "3.2", "4.0", "4.1", "4.2", "4.3", "4.4", "4.6", "4.7", "1.1", "1.2"}
)
MOST_FAILURES: Final = 100  # of one message; a report on more is a made up one


class News(NamedTuple):
    """What an entry tells: failures with how each is proved, complaints likewise, the token of
    a probe that came back, and of what kind the message is."""

    failures: tuple[tuple[Failure, Proof], ...] = ()
    complaint: tuple[str, Proof] | None = None
    probe: str = ""
    kind: str = ""
    message_id: str = ""


def news_of(facts: dict[str, Any], report: Report, sender: str, key: str) -> News:
    """What an entry tells, by its metadata and what its message says. Pure, never raises; `key`
    is the list's for VERP."""
    if facts.get("event") == "refused":
        return _event(facts)
    detail = str(facts.get("detail", ""))
    if TOKEN.fullmatch(detail):
        return _probe(report, sender, detail.lower())
    email, proof = read_detail(detail, key)
    named = (email, proof) if email else None
    if report.kind == "complaint":
        if named is None or proof == "none":  # what came back may still show whom it went to
            shown = read_detail(report.sender.partition("@")[0].partition("+")[2], key)
            named = shown if shown[0] and shown[1] != "none" else named
            proof = shown[1] if shown[0] else proof
        about = named or next(((each.email, proof) for each in report.failures), None)
        return News(complaint=about, kind=report.kind, message_id=report.message_id)
    if named is not None and _is_bounce(report, sender):
        failure = _about(report, email)
        return News(((failure, proof),), kind="bounce", message_id=report.message_id)
    if report.kind != "bounce":
        return News(kind=report.kind)
    found = tuple((each, proof) for each in report.failures[:MOST_FAILURES])
    return News(found, kind=report.kind, message_id=report.message_id)


def _is_bounce(report: Report, sender: str) -> bool:
    """Whether this is a bounce, be it one that nobody can read: they have no sender (RFC 5321
    4.5.5)."""
    unread = report.kind == "other" and not report.read_as and not sender
    return report.kind == "bounce" or unread


def _about(report: Report, email: str) -> Failure:
    """What a report says of this address: whatever it calls it, since mail is forwarded."""
    said = next((each for each in report.failures if each.email == email), None)
    said = said or next(iter(report.failures), None)
    if said is None:
        return Failure(email, False, "", "the bounce cannot be read")
    return said._replace(email=email)


def _probe(report: Report, sender: str, token: str) -> News:
    """A probe came back, unless it is only late, or somebody answers it."""
    said = next((each for each in report.failures if _is_end(each)), None)
    if not _is_bounce(report, sender):
        return News(kind=f"probe: {report.kind}")
    if report.failures and said is None:
        return News(kind="probe: it is late, or this is about us")
    failure = said or Failure("", True, "", "the bounce cannot be read")
    return News(((failure, "own"),), probe=token, kind="bounce")


def _is_end(failure: Failure) -> bool:
    """Whether a probe did not get through for good: a mailbox that is still full is none, nor is
    a server that did not answer until the mail was given up. What is about us or about the message
    (`reasons`) says nothing."""
    return failure.final or (failure.over and failure.status[2:] in _NOWHERE)


def _event(facts: dict[str, Any]) -> News:
    """Delivery was refused for good, or has given up."""
    refused = facts.get("refused")
    token = str(facts.get("token", ""))
    failures: tuple[tuple[Failure, Proof], ...] = tuple(
        (_refusal(each), "own")
        for each in (refused if isinstance(refused, list) else [])
        if isinstance(each, dict) and _is_about_reader(each, bool(token))
    )
    if token and failures:
        return News(failures[:1], probe=token, kind="refused")
    return News(failures, kind="refused", message_id=str(facts.get("message_id", "")))


def _refusal(said: dict[str, Any]) -> Failure:
    return failure_of_reply(str(said.get("email", "")), str(said.get("reply", "")))


def _is_about_reader(said: dict[str, Any], probe: bool) -> bool:
    """Whether a refusal is about the recipient; of a probe, whether it says that nobody is there.
    What was given up no longer tells at what it failed, so only a code of an address or a mailbox
    does (x.1, x.2): our own mail server may have been away."""
    about, failure = said.get("about"), _refusal(said)
    if not probe:
        return about == "recipient"
    theirs = about == "recipient" or (about != "us" and failure.status[2:4] in ("1.", "2."))
    return theirs and _is_end(failure)
