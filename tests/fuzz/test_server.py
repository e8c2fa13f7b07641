"""The running server under whatever clients may say: it answers each command once, each
message N times, stores what it accepted byte for byte once, and stays as it was."""

import re
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from sqlalchemy import select

from fuzz.ledger import Finished
from postroom.mail.message import identify
from postroom.spool.metadata import decode
from postroom.store.schema import entry, message
from postroom.testing.site import Site
from tests.fuzz.conversations import (
    LISTS,
    MAX_RECIPIENTS,
    MAX_SIZE,
    RECIPIENTS,
    cut_conversations,
)
from tests.fuzz.talk import Talk, Talks
from tests.integration.processes import DOOR, descendants, process_of
from tests.integration.sites import Sites

GROWTH = 16 * 2**20  # octets of memory that the door may take in the course of it all
PIECE, PIECES, FLOODS = 65_536, 64, 8  # octets at once, how often, by how many clients
_PATH = re.compile(rb"<(.*)>")
Key = tuple[str, tuple[str, str, str], bytes]  # sender, endpoint, digest


class House:
    """A server, and what its queues must hold."""

    def __init__(self, site: Site, talks: Talks) -> None:
        self._site, self._talks = site, talks
        self._sent: defaultdict[Key, set[bytes]] = defaultdict(set)
        self._stored: defaultdict[Key, list[bytes]] = defaultdict(list)
        self._newest = 0

    def converse(self, octets: bytes, parts: list[bytes]) -> None:
        """The same conversation twice: in step, then in pieces without waiting."""
        said, sent = self._talks.in_step(octets)
        for each in sent:
            self._expect(each)
        self._look()
        self._talks.at_once(parts, said)
        self._look()

    def _expect(self, sent: Finished) -> None:
        """What a message that was answered like this must have led to."""
        sender = _path(sent.sender)
        for line, answer in zip(sent.recipients, sent.answers, strict=True):
            if answer.code == 250:
                key = sender, RECIPIENTS[_path(line)], identify(sent.raw).digest
                self._sent[key].add(sent.raw)

    def _look(self) -> None:
        """All that was accepted is there, once and as it came, and nothing else."""
        statement = (
            select(entry.c.id, entry.c.metadata, message.c.sender, message.c.raw)
            .join(message, message.c.id == entry.c.message)
            .where(entry.c.id > self._newest)
            .order_by(entry.c.id)
        )
        with self._site.store.read() as connection:
            for row in connection.execute(statement):
                self._newest, raw = row.id, bytes(row.raw)
                facts = decode(row.metadata)
                where = [facts.get(key, "") for key in ("listname", "subaddress", "detail")]
                key = row.sender, tuple(where), identify(raw).digest
                self._stored[key].append(raw)
        assert self._stored.keys() == self._sent.keys()
        for key, raws in self._stored.items():
            assert len(raws) == 1 and raws[0] in self._sent[key]


def _path(line: bytes) -> str:
    match = _PATH.search(line)
    assert match is not None
    return match[1].decode()


class Vitals:
    """The processes of a server, and the memory of its door, from now on."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._processes = descendants(site.supervisor)
        self._door = Path(f"/proc/{process_of(site.supervisor, DOOR)}")
        (self._door / "clear_refs").write_text("5")  # the peak begins here
        self._before = self._memory("VmRSS")

    def _memory(self, name: str) -> int:
        match = re.search(rf"^{name}:\s+(\d+) kB", (self._door / "status").read_text(), re.M)
        assert match is not None
        return int(match[1]) * 1024

    def check(self) -> None:
        """The same processes run, none told of a defect, and the door never grew much."""
        assert descendants(self._site.supervisor) == self._processes
        assert self._memory("VmHWM") - self._before < GROWTH
        told = self._site.log.read_text()
        assert "defect" not in told and '"error"' not in told


@pytest.mark.parametrize("refuse_unknown", ["after-data", "at-rcpt"])
def test_whatever_clients_say_replies_are_even_and_what_was_accepted_is_stored_once(
    refuse_unknown: str, sites: Sites
) -> None:
    site = sites.start(
        *LISTS,
        LMTP__REFUSE_UNKNOWN=refuse_unknown,
        LMTP__MAX_MESSAGE_SIZE=str(MAX_SIZE),
        LMTP__MAX_RECIPIENTS=str(MAX_RECIPIENTS),
    )
    vitals = Vitals(site)
    with Talks(site.port) as talks:
        house = House(site, talks)

        @settings(deadline=None, suppress_health_check=list(HealthCheck))
        @given(cut_conversations)
        def converse(cut: tuple[bytes, list[bytes]]) -> None:
            house.converse(*cut)

        converse()
    vitals.check()


OPENING = b"LHLO client.example.org\r\nMAIL FROM:<>\r\nRCPT TO:<ant@example.com>\r\n"
# What begins a flood, how many replies that gets, and what is sent over and over.
ENDLESS = {
    "a line": (b"", 0, b"x" * PIECE),
    "a message": (OPENING + b"DATA\r\n", 4, b"x" * (PIECE - 2) + b"\r\n"),
    "a chunk": (OPENING + b"BDAT 99999999999999999999 LAST\r\n", 3, b"x" * PIECE),
    "a chunk of no message": (b"BDAT 99999999999999999999\r\n", 0, b"x" * PIECE),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_what_never_ends_is_not_kept(what: str, sites: Sites) -> None:
    beginning, replies, piece = ENDLESS[what]
    site = sites.start(*LISTS, LMTP__MAX_MESSAGE_SIZE=str(MAX_SIZE))
    vitals = Vitals(site)
    talks = [Talk(site.port) for _ in range(FLOODS)]
    for talk in talks:
        talk.say(beginning)
        assert len(talk.replies(replies)) == replies
    for _ in range(PIECES):
        for talk in talks:
            talk.say(piece)
    for talk in talks:
        talk.check_end()  # it has read everything
    vitals.check()
