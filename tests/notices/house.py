"""A house whose notices are the same every time."""

import io
from itertools import count

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.lists.registry import MailingList
from postroom.notices.render import Templates
from postroom.notices.sheet import House
from postroom.spool.held import Held

NOW = 1_767_225_600.0  # 2026-01-01 00:00 UTC
SITE_OWNER = "boss@example.com"
ANNE = "anne@example.org"
ANTS = MailingList(7, "ants.example.com", "ants@example.com", "Ants", 0.0)
POST = Held(
    id=0x0CA67E92D7F5B000,
    list_key=7,
    list="ants@example.com",
    sender="anne@example.org",
    author="anne@example.org",
    subject="Leaf cutting",
    message_id="<ant@example.org>",
    size=1234,
    received_at=NOW - 60,
    held_at=NOW - 60,
    reason="nonmember",
    sentence="You are not a member of this list.",
)
HEADER = (
    b"From: Anne <anne@example.org>\r\nTo: ants@example.com\r\nSubject: Leaf cutting\r\n"
    b"Message-ID: <ant@example.org>\r\n\r\nThe body.\r\n"
)


def log() -> tuple[Log, io.StringIO]:
    """A log, and what is written to it."""
    said = io.StringIO()
    return Log(LogSettings(format="json"), said), said


def house(directory: str = "") -> House:
    """A house with its own count of notices, from 1."""
    return House(Templates(directory, log()[0]), "lists.example.com", SITE_OWNER, count(1).__next__)
