"""Every notice there is, from the same facts each time; and how it is read."""

import email
import email.policy
from collections.abc import Callable, Mapping
from email.message import EmailMessage

from postroom.lists.pending import Request
from postroom.lists.subscription import Policy, State
from postroom.notices import bounces, letters, requests
from postroom.notices.bounces import Outcome
from postroom.notices.language import ENGLISH
from postroom.notices.render import Templates, Text, Value
from postroom.notices.requests import Row
from postroom.notices.sheet import House
from postroom.spool.handing import Handed, Letter
from tests.notices.house import ANNE, ANTS, HEADER, NOW, POST, house, log

HOSTILE = "x\r\nBcc: all@example.net\r\n\r\nBuy\x1b[2J\x00 \u202egnp \ud800 =?utf-8?q?=0ABcc:_x?="
FIELDS = {
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "from",
    "to",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "auto-submitted",
    "x-auto-response-suppress",
    "in-reply-to",
    "references",
}
STAFF = ("carla@example.net", "dan@example.com")
LINES = ["Dear ants,", "how do you cut a leaf?", "Anne"]
REASON = "Please write to help@example.com."
FAILED = letters.Failed(ANNE, b"Subject: Your post\r\n\r\n", "550 5.1.1 No such user")
TOKEN = "abcdefghijklmnopqrstuvwxyz"
HELD_TOKEN = "abcdefghijklmnopqrstuvwxyz234567abcdefg"
DAY = 86_400.0
JOIN = Request(
    id=0x0CA67E92D7F5B001,
    list_key=7,
    action="join",
    email=ANNE,
    name="Anne Lee",
    changes={"mode": "digest"},
    policy=Policy.CONFIRM,
    state=State.CONFIRM,
    token=TOKEN,
    asked_by=ANNE,
    source="192.0.2.7",
    created_at=NOW,
    told_at=NOW,
    expires_at=NOW + 7 * DAY,
)
LEAVE = JOIN._replace(action="leave", changes={})
CHANGE = JOIN._replace(action="change", changes={"delivery": "user", "own_posts": "no"})
INVITED = JOIN._replace(state=State.INVITED, asked_by="carla@example.net", changes={}, source="")
ROWS = (
    Row("join digest=yes", ["A mail has been sent to anne@example.org: answer it."]),
    Row("who", ["Members of ants@example.com:", "anne@example.org"]),
    Row("", ["And 3 more, which were not looked at."]),
)
TURN_ON = JOIN._replace(action="change", changes={"delivery": "on"}, asked_by="postroom")
WORDS, SAID = "The mailbox is full.", "552 5.2.2 Over quota"
LOST = (
    Outcome(NOW - DAY, ANNE, "stopped", "550 5.1.1 No such user"),
    Outcome(NOW - 7200, "bart@example.net", "removed", SAID),
    Outcome(NOW - 3600, "cris@example.org", "complained", ""),
)


def rejected(house: House, language: str) -> Handed:
    return letters.rejected(house, ANTS, POST, HEADER, REASON, language, NOW)


def held_author(house: House, language: str) -> Handed:
    return letters.held_author(house, ANTS, POST, language, NOW)


def held_owner(house: House, language: str) -> Handed:
    post = POST._replace(sender="anne+list@example.org")
    return letters.held_owner(house, ANTS, post, HELD_TOKEN, LINES, STAFF, 4.0, language, NOW)


def held_summary(house: House, language: str) -> Handed:
    told = [
        (
            POST._replace(id=POST.id + n, subject=f"Leaf {n}", held_at=NOW - 3600 * n),
            f"{HELD_TOKEN[:-1]}{n}",
        )
        for n in range(3)
    ]
    return letters.held_summary(house, ANTS, told, 12, NOW - 7200, STAFF, language, NOW)


def undeliverable(house: House, language: str) -> Handed:
    made = letters.undeliverable(house, FAILED, ANTS, NOW, language)
    assert made is not None
    return made


def confirm_join(house: House, language: str) -> Handed:
    return requests.confirm(house, ANTS, JOIN, language, NOW)


def confirm_leave(house: House, language: str) -> Handed:
    return requests.confirm(house, ANTS, LEAVE, language, NOW)


def confirm_change(house: House, language: str) -> Handed:
    return requests.confirm(house, ANTS, CHANGE, language, NOW)


def invitation(house: House, language: str) -> Handed:
    return requests.confirm(house, ANTS, INVITED, language, NOW)


def welcome(house: House, language: str) -> Handed:
    text = "Be kind to each other.\n\nWe meet on Mondays."
    return requests.welcome(house, ANTS, ANNE, "Anne Lee", text, language, NOW)


def goodbye(house: House, language: str) -> Handed:
    return requests.goodbye(house, ANTS, ANNE, language, NOW)


def refused(house: House, language: str) -> Handed:
    return requests.refused(house, ANTS, JOIN, REASON, language, NOW)


def request_owner(house: House, language: str) -> Handed:
    moderated = JOIN._replace(state=State.MODERATE)
    return requests.request_for_owners(house, ANTS, moderated, STAFF, 4.0, language, NOW)


def request_summary(house: House, language: str) -> Handed:
    told = (JOIN, LEAVE._replace(name=""), CHANGE)
    return requests.request_summary(house, ANTS, told, 12, NOW - 7200, STAFF, language, NOW)


def member_change(house: House, language: str) -> Handed:
    return requests.change_for_owners(house, ANTS, ANNE, "joined", STAFF, language, NOW)


def reply(house: House, language: str) -> Handed:
    subject, original = "Please", ["join digest=yes", "who", "", "-- ", "Anne"]
    return requests.reply(
        house, ANTS, ANNE, subject, ROWS, original, "<ant@example.org>", language, NOW
    )


def acknowledged(house: House, language: str) -> Handed:
    return requests.acknowledged(
        house, ANTS, ANNE, "Leaf cutting", "<ant@example.org>", language, NOW
    )


def probe(house: House, language: str) -> Handed:
    return bounces.probe(house, ANTS, ANNE, TOKEN, WORDS, SAID, language, NOW)


def turned_off(house: House, language: str) -> Handed:
    return bounces.turned_off(house, ANTS, TURN_ON, WORDS, SAID, 2, True, language, NOW)


def bounce_summary(house: House, language: str) -> Handed:
    return bounces.bounce_summary(house, ANTS, LOST, 9, STAFF, language, NOW)


def mass_bounce(house: House, language: str) -> Handed:
    return bounces.mass(house, ANTS, 50, 20, STAFF, language, NOW)


Make = Callable[[House, str], Handed]
# By the name of the template.
EVERY: dict[str, Make] = {
    each.__name__: each
    for each in (
        rejected,
        held_author,
        held_owner,
        held_summary,
        undeliverable,
        confirm_join,
        confirm_leave,
        confirm_change,
        invitation,
        welcome,
        goodbye,
        refused,
        request_owner,
        request_summary,
        member_change,
        reply,
        acknowledged,
        probe,
        turned_off,
        bounce_summary,
        mass_bounce,
    )
}


class Listening(Templates):
    """Remembers what templates are given."""

    def __init__(self) -> None:
        super().__init__("", log()[0])
        self.given: dict[str, Mapping[str, Value]] = {}

    def write(
        self,
        name: str,
        values: Mapping[str, Value],
        list_id: str = "",
        language: str = ENGLISH,
    ) -> Text:
        self.given[name] = values
        return super().write(name, values, list_id, language)


def given_to_templates() -> dict[str, Mapping[str, Value]]:
    """What each template is given."""
    listening = Listening()
    for make in EVERY.values():
        make(house()._replace(templates=listening), ENGLISH)
    return listening.given


def raw_of(handed: Handed) -> bytes:
    """The message."""
    assert isinstance(handed.what, Letter)
    return handed.what.raw


def read(handed: Handed) -> EmailMessage:
    """The message as a mail client reads it."""
    message = email.message_from_bytes(raw_of(handed), policy=email.policy.SMTP)
    assert isinstance(message, EmailMessage)
    return message


def text_of(handed: Handed) -> str:
    """Its text."""
    body = read(handed).get_body(("plain",))
    assert isinstance(body, EmailMessage)
    text: str = body.get_content()
    return text


def assert_harmless(handed: Handed) -> None:
    """It has no field but ours, each once, and nothing in it that steers a terminal."""
    raw = raw_of(handed)
    head = raw.partition(b"\r\n\r\n")[0].decode()
    assert head.replace("\r\n", "").isprintable()
    assert all(len(line) <= 998 for line in raw.split(b"\r\n"))
    names = [name.lower() for name, _ in read(handed).items()]
    assert len(set(names)) == len(names)
    assert set(names) <= FIELDS
    shown = text_of(handed).replace("\u200c", "").replace("\u200d", "")
    assert shown.replace("\r\n", "").replace("\n", "").isprintable()
