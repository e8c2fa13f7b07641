"""Postfix as the client: what it delivers, bounces and tries again."""

import random
import signal
import smtplib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import pytest

from postroom.testing.site import Site
from tests.integration.mail import LIST, Queued, depth, new_message, queued
from tests.integration.processes import DOOR, INTAKE, eventually, kill, process_of
from tests.integration.sites import Sites
from tests.interop.postfix import Postfix

ANNE = "anne@example.org"


class Pair(NamedTuple):
    """A server and the Postfix that delivers to it."""

    site: Site
    postfix: Postfix
    mode: str


@pytest.fixture(scope="module", params=["after-data", "at-rcpt"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Both of them running, once in each mode of refusal."""
    with Sites() as made:
        site = made.start(LIST, LMTP__REFUSE_UNKNOWN=request.param)
        with Postfix(site.port) as postfix:
            yield Pair(site, postfix, request.param)


def hand_in(
    postfix: Postfix,
    recipients: Sequence[str],
    raw: bytes,
    sender: str = ANNE,
    options: Sequence[str] = (),
) -> None:
    """Mail for Postfix, by SMTP."""
    with smtplib.SMTP("127.0.0.1", postfix.port) as client:
        assert client.sendmail(sender, recipients, raw, options) == {}


def arrived(site: Site, text: bytes, number: int = 1) -> list[Queued]:
    """Wait for so many entries whose message holds `text`."""

    def look() -> list[Queued]:
        found = [each for each in queued(site.store) if text in each.raw]
        return found if len(found) >= number else []

    found = eventually(look, f"{number} entries of {text!r}")
    assert len(found) == number
    return found


def test_a_post_arrives_with_its_envelope_sender(pair: Pair) -> None:
    raw = new_message("Good morning.")
    with pair.postfix.follow() as log:
        hand_in(pair.postfix, [LIST], raw)
        log.wait_for(f"to=<{LIST}>", "status=sent (250 2.0.0 Message accepted and stored)")
    [entry] = arrived(pair.site, raw.split()[1])
    assert (entry.queue, entry.sender) == ("in", ANNE)
    assert entry.raw.startswith(b"Received: from ")
    assert entry.raw.endswith(b"\r\n\r\nGood morning.\r\n")
    assert b"\r\nX-MailFrom: anne@example.org\r\n\r\nGood" in entry.content


def test_a_message_of_its_sendmail_command_arrives(pair: Pair) -> None:
    raw = new_message()
    pair.postfix.submit(ANNE, ["mylist-join@example.com"], raw)
    [entry] = arrived(pair.site, raw.split()[1])
    assert entry.where == (LIST, "join", "")


def test_of_a_mixed_set_the_valid_are_sent_and_the_unknown_bounced(pair: Pair) -> None:
    raw = new_message()
    recipients = [
        "nobody@example.com",
        LIST,
        "mylist-bogus@example.com",
        "mylist-leave@example.com",
    ]
    with pair.postfix.follow() as log:
        hand_in(pair.postfix, recipients, raw)
        told: dict[str, str] = {}
        while not told.keys() >= set(recipients):
            line = log.wait_for("postfix/lmtp", "to=<")
            told[line.partition("to=<")[2].partition(">")[0]] = line
    for valid in LIST, "mylist-leave@example.com":
        assert "dsn=2.0.0, status=sent (250 2.0.0 " in told[valid]
    when = "end of DATA" if pair.mode == "after-data" else "RCPT TO"
    for unknown in "nobody@example.com", "mylist-bogus@example.com":
        assert "dsn=5.1.1, status=bounced" in told[unknown]
        assert "550 5.1.1 Requested action not taken: mailbox unavailable" in told[unknown]
        assert f"in reply to {when} command" in told[unknown]
    assert len(arrived(pair.site, raw.split()[1], 2)) == 2


def test_a_message_for_nobody_at_all_is_bounced(pair: Pair) -> None:
    with pair.postfix.follow() as log:
        hand_in(pair.postfix, ["nobody@example.com"], new_message())
        assert "status=bounced" in log.wait_for("postfix/lmtp", "to=<nobody@example.com>")


def test_a_bounce_with_the_null_sender_reaches_the_bounces_endpoint(pair: Pair) -> None:
    raw = new_message()
    # What a list sends to a member who is gone: Postfix itself then writes the bounce.
    verp = "mylist-bounces+gone=example.com@example.com"
    hand_in(pair.postfix, ["gone@example.com"], raw, sender=verp)
    [entry] = arrived(pair.site, b"Content-Type: multipart/report")
    assert (entry.queue, entry.sender) == ("bounces", "")
    assert entry.where == (LIST, "bounces", "gone=example.com")
    assert b"Diagnostic-Code: smtp; 550 5.1.1" in entry.raw
    assert raw.split()[1] in entry.raw


def test_a_large_message_arrives_whole(pair: Pair) -> None:
    raw = new_message(size=5_000_000)
    headers, _, body = raw.partition(b"\r\n\r\n")
    hand_in(pair.postfix, [LIST], raw)
    [entry] = arrived(pair.site, headers)
    assert entry.raw.endswith(b"\r\n\r\n" + body)


def test_dots_and_long_lines_and_octets_beyond_ascii_arrive_as_they_are(pair: Pair) -> None:
    body = b".\r\n..\r\n.x\r\n" + b"y" * 998 + b"\r\n" + bytes(range(128, 256)) + b"\r\n.\r\n"
    raw = new_message() + body
    hand_in(pair.postfix, [LIST], raw, options=["BODY=8BITMIME"])
    [entry] = arrived(pair.site, raw.split()[1])
    assert entry.raw.endswith(b"Hello.\r\n" + body)


def test_addresses_beyond_ascii_arrive(pair: Pair) -> None:
    raw = new_message()
    recipient, sender = "mylist-confirm+grüße@example.com", "änne@example.org"
    hand_in(pair.postfix, [recipient], raw, sender, ["SMTPUTF8", "BODY=8BITMIME"])
    [entry] = arrived(pair.site, raw.split()[1])
    assert (entry.where, entry.sender) == ((LIST, "confirm", "grüße"), sender)


def test_more_recipients_than_it_puts_into_one_transaction_all_arrive(pair: Pair) -> None:
    raw = new_message()
    recipients = [f"mylist-confirm+{number}@example.com" for number in range(120)]
    hand_in(pair.postfix, recipients, raw)
    found = arrived(pair.site, raw.split()[1], 120)
    assert {each.where[2] for each in found} == {str(number) for number in range(120)}


def test_a_server_that_is_killed_in_mid_stream_gets_every_message_once(pair: Pair) -> None:
    messages = [new_message(size=random.randint(200, 40_000)) for _ in range(300)]
    before = depth(pair.site.store)
    with ThreadPoolExecutor(8) as threads:
        handed_in = [threads.submit(hand_in, pair.postfix, [LIST], raw) for raw in messages]
        for part, goal in ("door", 40), ("intake", 90), ("everything", 150):
            wait_for_depth(pair.site, before + goal)
            kill_and_restart(pair.site, part)
        for each in handed_in:
            each.result()
    ids = Counter(raw.split()[1] for raw in messages)
    wait_for_depth(pair.site, before + len(messages))
    eventually(lambda: not pair.postfix.waiting(), "Postfix has nothing left to deliver")
    found = Counter(
        number
        for each in queued(pair.site.store)
        if (number := each.raw.partition(b"Message-ID: ")[2].split()[0]) in ids
    )
    assert found == ids


def wait_for_depth(site: Site, goal: int) -> None:
    """Wait for so many entries."""
    eventually(lambda: depth(site.store) >= goal, f"{goal} entries")


def kill_and_restart(site: Site, part: str) -> None:
    """kill -9 of a part of the server, or of all of it; it is there again afterwards."""
    if part == "everything":
        pids = process_of(site.supervisor, DOOR), process_of(site.supervisor, INTAKE)
        for pid in site.supervisor, *pids:
            kill(pid)
        assert site.stop() == -signal.SIGKILL
        site.start()
    else:
        kill(process_of(site.supervisor, DOOR if part == "door" else INTAKE))
