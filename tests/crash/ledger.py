"""The external ledger: a client that knows what it was promised.

For: proving that no 250 is broken. Several threads send messages that are like no others,
each to one to three endpoints, write down every reply they see, and send whatever got no
2xx again, octet for octet, until it did. Guarantees: what `promised` holds was seen on the
wire; a 5xx, or a time without any progress, is an error.
"""

import random
import smtplib
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from postroom.lmtp.client import LMTPClient
from tests.integration.mail import LIST, Queued

ENDPOINTS = {
    LIST: (LIST, "", ""),
    "mylist-join@example.com": (LIST, "join", ""),
    "mylist-bounces+anne=example.org@example.com": (LIST, "bounces", "anne=example.org"),
    "other@example.com": ("other@example.com", "", ""),
    "other-owner@example.com": ("other@example.com", "owner", ""),
}
SENDER = "sender@example.org"
STALLED = 40.0  # seconds without a new promise

Promise = tuple[int, str]  # number of a message, recipient


def message(number: int) -> bytes:
    """The message with this number, the same at each attempt: many are small, some large."""
    most = 60 if number % 8 else 400
    lines = b"The quick brown fox jumps over the lazy dog.\r\n" * (number * 7919 % most)
    head = b"Message-ID: <%d@ledger.example.org>\r\nX-Number: %d\r\n\r\n" % (number, number)
    return head + lines


def recipients(number: int) -> list[str]:
    """The one to three recipients of the message with this number."""
    dice = random.Random(number)
    return dice.sample(list(ENDPOINTS), dice.randint(1, 3))


class Ledger:
    """Sends with so many threads from entering the block to `settle`, or so many messages."""

    def __init__(self, port: int, threads: int = 8, messages: int = 10**9) -> None:
        self.promised: Counter[Promise] = Counter()
        self.first: dict[Promise, float] = {}  # when it was read, as of time.monotonic()
        self.refused: list[tuple[Promise, str]] = []  # for good: there should be none
        self.attempts = 0
        self._port = port
        self._numbers = iter(range(1, messages + 1))
        self._changed = threading.Condition()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._send_all) for _ in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait_for(self, more: int) -> None:
        """Wait for so many new promises."""
        self.wait_until(self.promised.total() + more)

    def wait_until(self, goal: int) -> None:
        """Wait until there are so many promises."""
        with self._changed:
            while self.promised.total() < goal:
                before = self.promised.total()
                self._changed.wait(STALLED)
                assert self.promised.total() > before, f"no reply 250 within {STALLED} s"

    def settle(self) -> None:
        """Start nothing new; wait until all that was begun is promised."""
        self._stop.set()
        for thread in self._threads:
            thread.join(STALLED)
            assert not thread.is_alive(), "a message was not accepted in the end"

    def check(self, found: Sequence[Queued]) -> None:
        """Everything that was promised is there once, nothing is there twice, and all as sent."""
        assert self.refused == []
        there: Counter[Promise] = Counter()
        address_of = {where: address for address, where in ENDPOINTS.items()}
        for each in found:
            number = int(each.raw.split(b"X-Number: ", 1)[1].split(b"\r\n", 1)[0])
            assert each.raw == message(number)
            assert each.sender == SENDER
            there[number, address_of[each.where]] += 1
        assert [one for one, times in there.items() if times > 1] == []
        assert [one for one in self.promised if one not in there] == []
        assert there.keys() == self.promised.keys()

    def _send_all(self) -> None:
        client: LMTPClient | None = None
        while not self._stop.is_set():
            with self._changed:
                number = next(self._numbers, 0)
            if not number:
                break
            missing = recipients(number)
            give_up = time.monotonic() + STALLED
            while missing and time.monotonic() < give_up:
                try:
                    client = client or self._connected()
                    self._send(client, number, missing)
                except (OSError, smtplib.SMTPException):
                    if client is not None:
                        client.close()
                    client = None
                    time.sleep(0.01)  # nobody tells when the server is there again
        if client is not None:
            client.close()

    def _connected(self) -> LMTPClient:
        client = LMTPClient("127.0.0.1", self._port, timeout=STALLED)
        client.lhlo("ledger.example.org")
        return client

    def _send(self, client: LMTPClient, number: int, missing: list[str]) -> None:
        """One attempt; takes off `missing` who got a 2xx."""
        to = list(missing)
        commands = [f"MAIL FROM:<{SENDER}>", *(f"RCPT TO:<{each}>" for each in to), "DATA"]
        assert client.sock is not None
        client.sock.sendall("".join(f"{line}\r\n" for line in commands).encode())
        codes = [client.getreply().code for _ in commands]
        if codes != [250] * (len(to) + 1) + [354]:
            with self._changed:
                self.refused += [((number, ""), f"{codes}")] if max(codes) >= 500 else []
            raise smtplib.SMTPServerDisconnected("try again")
        client.sock.sendall(message(number) + b".\r\n")
        with self._changed:
            self.attempts += 1
        for each in to:
            reply, now = client.getreply(), time.monotonic()
            with self._changed:
                if reply.accepted:
                    missing.remove(each)
                    self.promised[number, each] += 1
                    self.first.setdefault((number, each), now)
                    self._changed.notify_all()
                elif reply.code >= 500:
                    self.refused.append(((number, each), str(reply)))
