"""Incoming: headers that make no sense, on both databases."""

import random
from collections.abc import Iterable, Iterator

import pytest

from postroom.mail.envelope import Envelope
from tests.contract.desk import envelope, rows
from tests.contract.queues import seen
from tests.runners.ants import BODY, HEAD, RAW, Ants

ODD = [
    b"Urgent: yes\r\n",
    b"Urgent:\r\n",
    b"X-Empty:\r\n",
    b": nameless\r\n",
    b"no colon\r\n",
    b"X-Nul: a\0b\r\n",
    b"Subject: a\0b\r\n",
    b"Subject: \xff\xfe raw\r\n",
    b"Subject: =?utf-8?b?//////8=?=\r\n",
    b"Subject: =?utf-16?q?=D8=00?=\r\n",
    b"Subject: =?nonsense?q?abc?=\r\n",
    b"Subject: =?utf-8?q?a=0Ab=00c?=\r\n",
    b"Subject: =?utf-8?q?=ED=A0=80?=\r\n",
    b"Message-ID: <a\0b@\xff>\r\n",
    b"Message-ID:\r\n",
    b"Message-ID: " + b"x" * 5000 + b"\r\n",
    b"Message-ID: =?utf-8?q?=00?=\r\n",
    b"From: " + b"(" * 5000 + b"\r\n",
    b"From: \xff\0 <anne@example.org>\r\n",
    b"From: =?utf-8?q?=00=ED=A0=80?= <anne@example.org>\r\n",
    b"From: a\0b@example.org\r\n",
    b"From: a@\xff\r\n",
    b"From:\r\n",
    b"From: anne@example.org, bart@example.org\r\n",
    b"To: \0\xff, a\0@example.org, =?utf-8?q?=00?= <b\0@example.org>\r\n",
    b"Cc: " + b"a@example.org, " * 3000 + b"\r\n",
    b"Date: yesterday\0\r\n",
    b"Content-Type: \0/\xff; boundary=\0\r\n",
    b"Content-Type: multipart/mixed; boundary=\r\n",
    b'Content-Type: text/plain; charset="\0"\r\n',
    b"Content-Type: text/plain; charset=utf-16\r\n",
    b"Content-Transfer-Encoding: base64\r\n",
    b"Content-Transfer-Encoding: \xff\0\r\n",
    b"List-Id: <\0>\r\n",
    b"Received: \0\r\n" * 60,
    b"Approved: \0\xff\r\n",
    b"Auto-Submitted: \0\r\n",
    b"Reply-To: \0\r\n",
    b"Sender: \0\r\n",
    b"\r\n",
    b"\n\r\n",
    b" folded first\r\n",
    b"X: " + b"y" * 200_000 + b"\r\n",
]


def mangled(seed: int) -> Iterator[bytes]:
    """Messages with odd fields here and there, and some that were cut or spoiled."""
    chance = random.Random(seed)
    for each in ODD:
        yield each + RAW
        yield HEAD + each + b"Message-ID: <m@example.org>\r\n\r\n" + BODY
    yield from (b"", b"\r\n", b"\0", b"\n\n", b"\r", b"x", BODY, b":", b"\xff" * 1000)
    for _ in range(40):
        fields = chance.sample(ODD[:-1], 4)
        raw = bytearray(b"".join(fields) + RAW)
        for _ in range(chance.randrange(6)):
            raw[chance.randrange(len(raw))] = chance.randrange(256)
        yield bytes(raw[: chance.randrange(1, len(raw))] if chance.random() < 0.3 else raw)


@pytest.mark.parametrize("action", ["accept", "hold", "reject"])
def test_d19_no_header_puts_a_post_aside(ants: Ants, action: str) -> None:
    ants.join("olga@example.net", role="owner")
    ants.set(
        posting__nonmembers=action,
        posting__require_named="no",
        headers__subject_prefix="[ants] ",
    )
    many = deliver(ants, mangled(7))
    assert many > 100
    ants.work()
    assert set(ants.queues()) <= {"out", "held"}, failures(ants)
    assert not ants.worker.said("to be tried again")
    assert ants.worker.failure is None


def deliver(ants: Ants, raws: Iterable[bytes]) -> int:
    """Have these come in, each from a sender of its own."""
    envelopes: list[Envelope] = []
    for number, raw in enumerate(raws):
        envelopes.append(envelope("ant@example.com", sender=f"s{number}@example.org", raw=raw))
    ants.desk.deliver(*envelopes)
    return len(envelopes)


def failures(ants: Ants) -> list[tuple[bytes, str | None]]:
    """What failed, and why."""
    bad = [row for row in rows(ants.store) if row.queue in ("in", "shunt")]
    return [(row.raw[:80], (seen(ants.store, row.id).last_error or "")[-300:]) for row in bad]


def test_d19_owners_get_mail_however_odd(ants: Ants) -> None:
    ants.join("olga@example.net", role="owner")
    envelopes = [envelope("ant-owner@example.com", raw=raw) for raw in mangled(8)]
    ants.desk.deliver(*envelopes)
    ants.work()
    assert set(ants.queues()) == {"out"}, failures(ants)
