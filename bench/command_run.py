"""Mail with commands: what it looks like, put in, and followed until nothing of it waits.

For: all parts of `bench.command`. Guarantees: mail is put in while the command runner is held
(SIGSTOP), so what is timed begins at a known moment with all of it there, whatever a server's
start takes; it ends when nothing waits in that queue any more. Fails with `LoadError`.
"""

import os
import re
import smtplib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.command_sites import Contender
from bench.load import LoadError
from bench.post_run import DOMAIN, DOMAINS
from bench.post_sink import Sink
from bench.process import paused

LOOK = 0.002  # seconds between looks
LIMIT = 900.0  # seconds until something counts as stuck
SESSIONS = 8  # that mail is put in over
_CONFIRM = re.compile(rb"-confirm\+([A-Za-z0-9]+)@")
_RECIPIENT = re.compile(rb"^X-Rcpt-Args: <([^>]+)>", re.MULTILINE)


class Plan(NamedTuple):
    """How much is measured. Mailman gets fewer joins: at each it goes through all that wait to be
    confirmed, so that a thousand take a quarter of an hour."""

    rounds: int = 3
    entries: int = 1_000  # of a queue that is worked off
    peer_joins: int = 200  # the same for Mailman, where they are joins
    latencies: int = 30
    members: tuple[int, ...] = (10, 100_000)
    peer: tuple[int, ...] = (10, 5_000)  # the same for Mailman
    row: int = 300  # joins that tell the time of one, with so many members
    peer_row: int = 50  # the same for Mailman
    flood: int = 10_000
    peer_flood: int = 300  # the same for Mailman
    seconds: float = 1.0  # that a run of the door should take alone


QUICK = Plan(1, 200, 50, 10, (10, 5_000), (10,), 100, 20, 2_000, 100, 0.3)


class Mail(NamedTuple):
    """A mail with a command; `number` tells the network that it comes from."""

    author: str
    to: str
    number: int
    subject: str = ""

    def text(self) -> str:
        """As a mail server hands it over; no two are the same."""
        host = self.author.partition("@")[2]
        # 198.18.0.0/15 is kept for benchmarks (RFC 2544).
        address = f"198.{18 + (self.number >> 16) % 2}.{self.number >> 8 & 255}.{self.number & 255}"
        return (
            f"Received: from {host} ({host} [{address}])\n"
            f"\tby mx.{DOMAIN} (Postfix) with ESMTPS id 4dCQ8z1Xk6z9sT9;\n"
            "\tFri, 20 Nov 2026 09:54:42 +0000 (UTC)\n"
            f"From: A Person <{self.author}>\nTo: {self.to}\nSubject: {self.subject}\n"
            f"Date: Fri, 20 Nov 2026 09:54:41 +0000\nMessage-ID: <{uuid.uuid4()}@{host}>\n"
            "MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n"
        )


def address(name: str, sub: str = "") -> str:
    """A list, or one of its other addresses."""
    return f"{name}-{sub}@{DOMAIN}" if sub else f"{name}@{DOMAIN}"


def people(prefix: str, number: int) -> list[str]:
    """So many addresses."""
    return [f"{prefix}-{each}@d{each % DOMAINS}.example.net" for each in range(number)]


def joins(name: str, prefix: str, number: int) -> list[Mail]:
    """So many people who want to join a list."""
    to = address(name, "join")
    return [Mail(each, to, n) for n, each in enumerate(people(prefix, number))]


def helps(name: str, prefix: str, number: int) -> list[Mail]:
    """So many people who want to know how."""
    to = address(name, "request")
    return [Mail(each, to, n, "help") for n, each in enumerate(people(prefix, number))]


def confirms(name: str, letters: Sequence[bytes]) -> list[Mail]:
    """The answers to these letters, which ask to confirm, by those who got them."""
    mails = []
    for number, letter in enumerate(letters):
        token, recipient = _CONFIRM.search(letter), _RECIPIENT.search(letter)
        if token is None or recipient is None:
            raise LoadError(f"a letter asks nobody to confirm: {letter[:300]!a}")
        to = address(name, f"confirm+{token[1].decode()}")
        mails.append(Mail(recipient[1].decode(), to, number))
    return mails


def put_in(port: int, mails: Sequence[Mail], sessions: int = SESSIONS) -> float:
    """Hand mails over by LMTP; returns when the last one was taken, as of time.monotonic().
    Raises `LoadError`."""
    failed: list[str] = []
    taken: list[float] = []

    def some(mine: Sequence[Mail]) -> None:
        try:
            with smtplib.LMTP("127.0.0.1", port, "localhost", timeout=LIMIT) as client:
                for each in mine:
                    client.sendmail(each.author, [each.to], each.text())
                    taken.append(time.monotonic())
        except (OSError, smtplib.SMTPException) as error:
            failed.append(f"a mail to {mine[0].to} was not taken: {error}")

    pieces = [piece for n in range(sessions) if (piece := mails[n::sessions])]
    threads = [threading.Thread(target=some, args=(piece,)) for piece in pieces]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    if failed:
        raise LoadError(failed[0])
    return max(taken)


class Worked(NamedTuple):
    """A queue that was worked off; `began` as of time.monotonic(), `seconds` until it was empty."""

    entries: int
    began: float
    seconds: float

    @property
    def rate(self) -> float:
        return self.entries / self.seconds


def work_off(
    by: Contender, into: Sink, mails: Sequence[Mail], meanwhile: Callable[[], object] | None = None
) -> Worked:
    """Put mails in and time how they are worked off; `meanwhile` is called while they are, and
    has to end before that does. Raises `LoadError`."""
    by.settle()
    with paused(by.runner):
        put_in(by.server.port, mails)
        if (found := by.waiting()) != len(mails):
            raise LoadError(f"{found:,} entries wait instead of {len(mails):,}")
        into.clear()
        os.sync()
    began = time.monotonic()
    if meanwhile is not None:
        meanwhile()
        if not by.waiting():
            raise LoadError("the queue was worked off too soon")
    while left := by.waiting():
        if time.monotonic() > began + LIMIT:
            raise LoadError(f"{left:,} entries wait after {LIMIT:.0f} s")
        time.sleep(LOOK)
    return Worked(len(mails), began, time.monotonic() - began)
