"""Complaints: what a provider sends when a reader calls a post spam (ARF, RFC 5965).

For: taking those off a list who do not want it. Guarantees: only what a reader said himself is a
complaint, not what a filter found; nothing is raised; linear. Pure.
"""

import re
from typing import Final

from postroom.bounces.dsn import address_of, reason_of
from postroom.bounces.parts import Taken
from postroom.bounces.values import Failure, Report

MOST: Final = 100  # addresses of a report
# What RFC 5965 7.3 and RFC 6650 call so; "virus", "auth-failure" (RFC 6591), "not-spam" (RFC 6430)
# and "other" are not what a reader says against the list.
COMPLAINTS: Final = frozenset({"", "abuse", "fraud", "opt-out", "opt-out-list"})

_FIELD = re.compile(
    r"^(feedback-type|original-mail-from|original-rcpt-to|removal-recipient)[ \t]*:"
    r"([^\r\n]{0,1100}+)",
    re.IGNORECASE | re.MULTILINE,
)


def read_feedback(taken: Taken) -> Report:
    """What a feedback report says. Whom it is about is often blackened; then nobody is named."""
    texts = taken.of("feedback-report") or [each.text for each in taken.parts]
    kind, sender, emails = "", "", dict[str, None]()
    for match in _FIELD.finditer("\n".join(texts)):
        if match[1].lower() == "feedback-type":
            kind = kind or match[2].strip().lower()
        elif match[1].lower() == "original-mail-from":
            sender = sender or address_of(match[2])
        elif (email := address_of(match[2])) and len(emails) < MOST:
            emails[email] = None
    if kind not in COMPLAINTS:
        return Report("other", read_as="arf")
    reason = reason_of(kind)
    found = tuple(Failure(each, True, "", reason) for each in emails)
    return Report("complaint", found, "arf", sender=sender)
