r"""Golden dialogues: files of `*.dlg` that a mail administrator can read and write.

For: turning a file into a `Dialogue`. Fails with `DialogueError`, which names file and
line. One line each:

    # item 16: a comment; "item 16" or "items 5, 23" names what of the checklist it shows
    @ max_recipients 3              a setting, before the first C or S line (see SETTINGS)
    C: MAIL FROM:<a@example.org>    the client sends this line, CRLF added
    C! raw\r\n\x00                  the client sends these octets, nothing added
    C* 998 x                        the client sends this so many times, nothing added
    S: 250 2.1.0 Sender ok          the server sends this line, CRLF added
    S! closed                       the server closes; without it the session stays open
    Q: a@example.org -> a@example.com b@example.com : "body\r\n"

Q tells what was queued: the sender ("<>" if null), the recipients that were accepted, and
the message, in pieces of "text" or "text"*TIMES. C lines that follow each other are sent
without waiting for a reply. "*" in the greeting and in the first line of LHLO's reply
stands for any text.

The recipients a@example.com and b@example.com are valid, all others unknown. A dialogue is
played in both modes of refusal unless it says which.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from postroom.lmtp.protocol import Limits, capabilities
from postroom.mail import reply
from postroom.mail.address import Mailbox, fold
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply

VALID = ("a@example.com", "b@example.com")
HOST = "lists.example.com"
IDENT = "Python LMTP queue runner 1.0"
_TROUBLE = {451: reply.LOCAL_ERROR, 452: reply.NO_ROOM}
_ITEMS = re.compile(r"#\s*items?\s+(\d+(?:(?:,| and|, and)\s*\d+)*)")
_QUEUED = re.compile(r'(?P<sender>.+) -> (?P<to>.+?) : (?P<body>".*)')
_PIECE = re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"(?:\*(?P<times>\d+))?(?: |\Z)')
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)")
_ESCAPES = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"0": b"\0", b"\\": b"\\", b'"': b'"'}


class DialogueError(ValueError):
    """A file is no dialogue; `str()` says where and why."""


class Send(NamedTuple):
    """What the client sends."""

    octets: bytes


class Expect(NamedTuple):
    """A line that the server sends, without its CRLF."""

    line: str

    def matches(self, line: str) -> bool:
        parts = [re.escape(part) for part in self.line.split("*")]
        return re.fullmatch(r"[\x20-\x7e]+".join(parts), line) is not None


class Queued(NamedTuple):
    """A message that was accepted for these recipients."""

    sender: str
    recipients: tuple[str, ...]
    body: bytes


class Dialogue(NamedTuple):
    """One dialogue. `limits` leaves the mode of refusal to the player."""

    name: str
    items: frozenset[int] = frozenset()
    steps: tuple[Send | Expect, ...] = ()
    queued: tuple[Queued, ...] = ()
    closes: bool = False
    modes: tuple[bool, ...] = (False, True)  # refuse_at_rcpt
    limits: Limits = Limits()
    after_lhlo: bool = False
    deliver: Reply | None = None  # to all recipients, instead of what they deserve
    verify: Reply | None = None
    admit: Reply | None = None
    outcome_unknown: bool = False
    no_room: bool = False  # for a message that needs some of the memory budget

    @property
    def sent(self) -> bytes:
        """All that the client sends."""
        return b"".join(step.octets for step in self.steps if isinstance(step, Send))

    @property
    def expected(self) -> list[Expect]:
        """All lines that the server sends."""
        return [step for step in self.steps if isinstance(step, Expect)]

    def verified(self, recipients: tuple[Mailbox, ...]) -> list[Reply]:
        """The door's answer at RCPT."""
        return [self.verify or verdict(box, reply.RECIPIENT_OK) for box in recipients]

    def delivered(self, envelope: Envelope) -> list[Reply] | None:
        """The door's answer after the data."""
        if self.outcome_unknown:
            return None
        return [self.deliver or verdict(box, reply.ACCEPTED) for box in envelope.recipients]


def verdict(box: Mailbox, yes: Reply) -> Reply:
    """`yes` for a valid recipient or postmaster, else 550."""
    known = fold(str(box)) in VALID or fold(box.local) == "postmaster"
    return yes if known else reply.NO_MAILBOX


def queued(envelope: Envelope, replies: list[Reply] | None) -> Queued | None:
    """What of an envelope was queued when the door gave these replies."""
    pairs = zip(envelope.recipients, replies or [], strict=False)
    accepted = tuple(str(box) for box, answer in pairs if answer.accepted)
    return Queued(envelope.sender or "<>", accepted, envelope.raw) if accepted else None


SETTINGS: dict[str, Callable[[Dialogue, str], Dialogue]] = {
    "refuse_at_rcpt": lambda one, _: one._replace(modes=(True,)),
    "refuse_after_data": lambda one, _: one._replace(modes=(False,)),
    "max_message_size": lambda one, value: one._replace(
        limits=one.limits._replace(max_message_size=int(value))
    ),
    "max_recipients": lambda one, value: one._replace(
        limits=one.limits._replace(max_recipients=int(value))
    ),
    "max_errors": lambda one, value: one._replace(
        limits=one.limits._replace(max_errors=int(value))
    ),
    "max_junk": lambda one, value: one._replace(limits=one.limits._replace(max_junk=int(value))),
    "no-room": lambda one, _: one._replace(no_room=True),
    # The dialogue begins after the greeting and LHLO, which the player plays.
    "after-lhlo": lambda one, _: one._replace(after_lhlo=True),
    # What the door answers: 451 is local trouble, 452 no room.
    "deliver": lambda one, value: one._replace(deliver=_TROUBLE[int(value)]),
    "verify": lambda one, value: one._replace(verify=_TROUBLE[int(value)]),
    "admit": lambda one, value: one._replace(admit=_TROUBLE[int(value)]),
    "unknown-outcome": lambda one, _: one._replace(outcome_unknown=True),
}


def load(path: Path) -> Dialogue:
    """Read one file."""
    items: set[int] = set()
    steps: list[Send | Expect] = []
    messages: list[Queued] = []
    blank = Dialogue(path.stem)
    closes = False
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        try:
            match line[:2], line[2:].removeprefix(" "):
                case ("C:" | "C!" | "C*") as kind, text:
                    steps.append(Send(_octets(kind, text)))
                case "S:", text:
                    steps.append(_expectation(text))
                case "S!", "closed":
                    closes = True
                case "Q:", text:
                    messages.append(_queued(text))
                case "@ ", text if not steps:
                    blank = _set(blank, text)
                case start, _ if start[:1] == "#":
                    items |= _items(line)
                case "", _:
                    pass
                case _:
                    raise ValueError("not a line of a dialogue")
        except (ValueError, KeyError) as error:
            raise DialogueError(f"{path.name}:{number}: {error}: {line}") from error
    dialogue = blank._replace(
        items=frozenset(items), steps=tuple(steps), queued=tuple(messages), closes=closes
    )
    if not dialogue.after_lhlo:
        return dialogue
    return dialogue._replace(steps=(*introduction(dialogue.limits), *steps))


def load_all(folder: Path) -> Iterator[Dialogue]:
    """All dialogues of a folder, by name."""
    return map(load, sorted(folder.glob("*.dlg")))


def unescape(text: str) -> bytes:
    r"""The octets that `\r \n \t \0 \xNN \\ \"` and UTF-8 text stand for."""

    def replace(found: re.Match[bytes]) -> bytes:
        code = found[1]
        return bytes.fromhex(code[1:].decode()) if len(code) == 3 else _ESCAPES[code]

    return _ESCAPE.sub(replace, text.encode())


def _octets(kind: str, text: str) -> bytes:
    if kind == "C:":
        return text.encode() + b"\r\n"
    if kind == "C!":
        return unescape(text)
    times, _, what = text.partition(" ")
    return unescape(what) * int(times)


def _expectation(text: str) -> Expect:
    if "*" in text and not text.startswith(("220 ", "250-", "250 ")):
        raise ValueError("'*' may only stand for host and ident")
    return Expect(text)


def _queued(text: str) -> Queued:
    match = _QUEUED.fullmatch(text)
    if match is None:
        raise ValueError('must be Q: sender -> recipient recipient : "body"')
    return Queued(match["sender"], tuple(match["to"].split()), _body(match["body"]))


def _body(text: str) -> bytes:
    body, at = b"", 0
    while at < len(text):
        match = _PIECE.match(text, at)
        if match is None:
            raise ValueError('a body is pieces of "text" or "text"*TIMES')
        body += unescape(match["text"]) * int(match["times"] or 1)
        at = match.end()
    return body


def _set(dialogue: Dialogue, text: str) -> Dialogue:
    name, _, value = text.removeprefix("verdict ").partition(" ")
    if name not in SETTINGS:
        raise ValueError(f"unknown setting; there are {', '.join(SETTINGS)}")
    return SETTINGS[name](dialogue, value)


def _items(comment: str) -> set[int]:
    match = _ITEMS.match(comment)
    return {int(number) for number in re.findall(r"\d+", match[1])} if match else set()


def introduction(limits: Limits) -> Iterator[Send | Expect]:
    """Greeting and LHLO."""
    yield Expect(f"220 {HOST} {IDENT}")
    yield Send(b"LHLO client.example.org\r\n")
    for line in capabilities(HOST, limits.max_message_size, False).wire.decode().splitlines():
        yield Expect(line)
