"""One post, handed over and followed until its last recipient has come.

For: all parts of `bench.post`. Guarantees: a run counts only if each recipient came, and came
once. Fails with `LoadError`, which says who is missing or too many.
"""

import os
import smtplib
import time
import uuid
from collections.abc import Sequence
from typing import NamedTuple

from bench.load import LoadError
from bench.post_sink import APART, Arrived, Sink

DOMAIN = "bench.example.com"
DOMAINS = 100  # that members are spread over
AUTHOR = "m0@d0.example.net"  # the first of them, who gets the post, too
SIZE = 4000  # octets of a post's text
LIMIT = 300.0  # seconds until a run counts as stuck
LATE = 0.5  # seconds in which a second copy would come


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int = 5
    members: tuple[int, ...] = (100, 5_000, 100_000)
    peer: tuple[int, ...] = (100, 5_000)  # the same for Mailman
    large: int = 100_000
    small: int = 100
    seconds: float = 1.0  # that a run of the door should take alone


QUICK = Plan(2, (100, 5_000), (100,), 20_000, 100, 0.3)


class Done(NamedTuple):
    """A post that has arrived. Times in seconds."""

    recipients: int
    transactions: int
    seconds: float  # from the beginning of the LMTP session to the last recipient
    wire: float  # from the first transaction's begin to the last one's end

    @property
    def rate(self) -> float:
        return self.recipients / self.seconds


def address(members: int) -> str:
    """The list with so many members."""
    return f"list-{members}@{DOMAIN}"


def members(number: int, prefix: str = "m") -> list[str]:
    """So many addresses of members."""
    return [f"{prefix}{each}@d{each % DOMAINS}.example.net" for each in range(number)]


SMALL = f"small@{DOMAIN}"


def readers(number: int) -> list[str]:
    """The members of `SMALL`: the sink counts them apart."""
    return members(number, APART)


def message(to: str, author: str) -> str:
    """A post; no two are the same."""
    number = uuid.uuid4()
    line = "What is said here is said again in each of the lines that follow it.\n"
    return (
        f"From: A Member <{author}>\nTo: {to}\nSubject: What there is to say\n"
        f"Date: Fri, 20 Nov 2026 09:54:42 +0000\nMessage-ID: <{number}@example.net>\n\n"
        + line
        * (SIZE // len(line))
    )


def hand_over(port: int, to: str, author: str = AUTHOR) -> float:
    """Hand a post over by LMTP; returns when that began. Raises `LoadError`."""
    text = message(to, author)
    try:
        with smtplib.LMTP("127.0.0.1", port, "localhost", timeout=LIMIT) as client:
            began = time.monotonic()
            client.sendmail(author, [to], text)
    except (OSError, smtplib.SMTPException) as error:
        raise LoadError(f"a post to {to} was not taken: {error}") from error
    return began


def deliver(port: int, sink: Sink, number: int, limit: float = LIMIT) -> Done:
    """Post to the list with so many members, and wait for them. Raises `LoadError`, also if
    that takes more than `limit` seconds."""
    os.sync()
    sink.clear()
    began = hand_over(port, address(number))
    found = sink.wait(number, limit)
    time.sleep(LATE)
    exactly(sink.arrived(), number)
    return Done(number, found.messages, found.last - began, found.last - found.first)


def exactly(found: Arrived, wanted: int) -> None:
    """Raises `LoadError` unless that many recipients came."""
    if found.recipients != wanted:
        raise LoadError(f"{found.recipients:,} recipients came instead of {wanted:,}")


def lists(numbers: Sequence[int]) -> dict[str, list[str]]:
    """Lists with these numbers of members."""
    return {address(number): members(number) for number in numbers}
