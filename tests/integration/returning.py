"""Mail that comes back, through real processes: reports, refusals, and what came of them.

For: tests of bounces as a whole. Guarantees: each report is like no other and is brought to the
door as a mail server brings it; what is looked at is what the database has.
"""

from collections.abc import Iterable, Sequence
from itertools import count
from typing import Final, NamedTuple

from sqlalchemy import select

from postroom.lists.keys import site_secret, verp_key, verp_tag
from postroom.lists.registry import find_list
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import BOUNCES
from postroom.store import schema
from postroom.testing.site import Site
from tests.integration.mail import ACCEPTED, LIST, begin_data, end_data

LIST_ID: Final = "mylist.example.com"
NO_USER: Final = "550 5.1.1 No such user"

_numbers = count(1)


class Back(NamedTuple):
    """A report on an address that comes to a bounce address."""

    to: str
    email: str
    action: str = "failed"
    status: str = "5.1.1"
    reason: str = NO_USER


def bounce_address(detail: str = "") -> str:
    """Where mail of `LIST` comes back to."""
    return LIST.replace("@", f"-bounces+{detail}@" if detail else "-bounces@")


def own(site: Site, email: str) -> str:
    """The bounce address that only this member's copies have."""
    with site.store.begin() as connection:
        key = verp_key(site_secret(connection), LIST_ID)
    return bounce_address(f"{verp_tag(key, email)}+{email.replace('@', '=')}")


def report(back: Back) -> bytes:
    """As RFC 3464 has it."""
    return (
        "From: Mail Delivery System <mailer-daemon@mx.example.net>\r\n"
        f"To: {back.to}\r\nSubject: Undelivered\r\nAuto-Submitted: auto-replied\r\n"
        f"Message-ID: <back-{next(_numbers)}@mx.example.net>\r\nMIME-Version: 1.0\r\n"
        "Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n"
        "--b\r\nContent-Type: text/plain\r\n\r\nIt could not be delivered.\r\n\r\n"
        "--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        "Reporting-MTA: dns; mx.example.net\r\n\r\n"
        f"Final-Recipient: rfc822; {back.email}\r\nAction: {back.action}\r\n"
        f"Status: {back.status}\r\nDiagnostic-Code: smtp; {back.reason}\r\n\r\n"
        "--b\r\nContent-Type: text/rfc822-headers\r\n\r\n"
        "Message-ID: <post@example.org>\r\n\r\n--b--\r\n"
    ).encode()


def come_back(site: Site, backs: Iterable[Back]) -> None:
    """Bring reports to the door; they have the null sender."""
    with site.client() as client:
        for back in backs:
            begin_data(client, [back.to], "")
            assert end_data(client, report(back), 1) == [ACCEPTED]


def refuse(site: Site, emails: Sequence[str], token: str = "") -> None:
    """What delivery hands on when these were refused for good, of a post or of the probe with
    this token."""
    each = [
        {"email": email, "member": None, "reply": NO_USER, "about": "recipient"} for email in emails
    ]
    facts = {"event": "refused", "listname": LIST, "refused": each, "message_id": "<post@x>"}
    facts |= {"token": token} if token else {}
    letter = Letter(b"Message-ID: <post@x>\r\n\r\n", bounce_address(token))
    with site.store.begin() as connection:
        key = find_list(connection, LIST).key
        hand_on(connection, IdMaker(), [Handed(BOUNCES, key, facts, letter)])


def probes(site: Site) -> dict[str, str]:
    """Who has a probe, with its envelope sender as it must be."""
    found = (
        select(schema.address.c.email, schema.bounce.c.token)
        .join_from(schema.bounce, schema.member)
        .join(schema.address)
        .where(schema.bounce.c.token.is_not(None))
    )
    with site.store.read() as connection:
        return {email: bounce_address(token) for email, token in connection.execute(found)}
