"""The log of a running server: every line parses, and one message can be followed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    begin_data,
    deliver,
    depth,
    end_data,
    new_message,
    postroom,
)
from tests.integration.processes import Follower, eventually, listens
from tests.integration.sites import Sites

HOSTILE_NAMES = [
    'x","event":"fake',
    "x\\",
    "x\x1b[2Jcleared",
    "x\tsender=fake",
    "x\u2028fake\u0085fake",
    "x\u202e\u200bhidden",
]
HOSTILE_SENDERS = [
    r'"a\" sender=fake "@example.org',
    r'"{\"event\":\"fake\"}"@example.org',
    "a\u2028b\u202ec@example.org",
    '"%s%n../../etc/passwd\';--"@example.org',
]
HOSTILE_IDS = [
    b'<"}\\>',
    b"<a\x00b\x1b[31m\x07>",
    b"<\xff\xfe\x80>",
    "<\u2028\u202e>".encode(),
    b"<" + b"x" * 5000 + b">",
    b"",
]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server that logs JSON."""
    with Sites() as made:
        yield made.start(LIST)


def told(site: Site, *texts: str) -> dict[str, Any]:
    """The first line about a message, by any text that is in it."""
    with Follower(site.log, from_start=True) as log:
        found: dict[str, Any] = json.loads(log.wait_for(*texts))
    return found


def test_a_message_can_be_followed_from_the_log_to_its_entries(site: Site) -> None:
    raw = new_message()
    message_id = raw.split()[1].decode()
    with site.client() as client:
        recipients = [LIST, "nobody@example.com", "mylist-join@example.com"]
        assert deliver(client, recipients, raw) == [ACCEPTED, NO_MAILBOX, ACCEPTED]
    line = told(site, message_id)
    assert line["event"] == "accepted"
    assert line["level"] == "info"
    assert line["sender"] == "anne@example.org"
    assert line["size"] == len(raw)
    assert line["lhlo"] == "client.example.org"
    assert line["peer"].startswith("127.0.0.1:")
    assert line["refused"] == ["nobody@example.com"]
    listed = json.loads(postroom(site, "queue", "ls", "--json").stdout)
    assert [each["id"] for each in listed if each["message_id"] == message_id] == line["entries"]
    for number in line["entries"]:
        shown = json.loads(postroom(site, "queue", "show", number, "--json").stdout)
        assert shown["message"] == line["message"]


def test_what_was_refused_and_what_came_again_is_told(site: Site) -> None:
    refused, again = new_message(), new_message()
    with site.client() as client:
        deliver(client, ["nobody@example.com"], refused)
        deliver(client, [LIST], again)
        deliver(client, [LIST], again)
        deliver(client, [LIST, "mylist-leave@example.com"], again)
    line = told(site, refused.split()[1].decode())
    assert (line["event"], line["refused"]) == ("refused", ["nobody@example.com"])
    assert "entries" not in line
    message_id = again.split()[1].decode()
    assert told(site, message_id, '"seen before"')["message_id"] == message_id
    partly = told(site, message_id, '"seen_before":1')
    assert (partly["event"], len(partly["entries"])) == ("accepted", 1)


def send_hostile(site: Site) -> int:
    """Mail whose every part wants to break a line of the log; returns how many."""
    sent = 0
    for name in HOSTILE_NAMES:
        with site.client() as client:
            assert client.docmd("LHLO", name).code == 250
            assert client.mail("anne@example.org").code == 250
            assert client.rcpt(LIST).code == 250
            assert client.docmd("DATA").code == 354
            assert end_data(client, new_message(), 1) == [ACCEPTED]
            sent += 1
    with site.client() as client:
        for sender in HOSTILE_SENDERS:
            client.lhlo()
            assert client.docmd("MAIL", f"FROM:<{sender}> SMTPUTF8").code == 250
            assert client.rcpt(LIST).code == 250
            assert client.docmd("DATA").code == 354
            assert end_data(client, new_message(), 1) == [ACCEPTED]
            sent += 1
        for number, value in enumerate(HOSTILE_IDS):
            raw = b"Message-ID: %b\r\nSubject: %d\r\n\r\n" % (value, number)
            assert deliver(client, [LIST, LIST], raw) == [ACCEPTED] * 2
            sent += 1
    return sent


def test_nothing_that_a_stranger_sends_breaks_a_line(sites: Sites) -> None:
    site = sites.start(LIST)
    sent = send_hostile(site)
    assert site.stop() == 0
    lines = site.log.read_bytes().split(b"\n")
    assert lines.pop() == b""
    ready = [line for line in lines if line.startswith(b"ready ")]
    assert len(ready) == 1
    lines.remove(ready[0])
    parsed = [json.loads(line) for line in lines]
    assert len([line for line in parsed if line["event"] == "accepted"]) == sent
    assert {line["event"] for line in parsed} <= {"serving", "accepted", "stopping", "stopped"}
    assert all({"timestamp", "level"} <= line.keys() for line in parsed)
    accepted = [line for line in parsed if line["event"] == "accepted"]
    assert all(line["message_id"].isprintable() and line["lhlo"].isprintable() for line in accepted)
    assert max(map(len, lines)) < 2000


def test_the_human_format_cannot_steer_a_terminal(sites: Sites) -> None:
    site = sites.start(LIST, LOG__FORMAT="human")
    sent = send_hostile(site)
    assert site.stop() == 0
    lines = site.log.read_text().split("\n")
    assert lines.pop() == ""
    assert all(line.isprintable() for line in lines)
    accepted = [line for line in lines if line[9:].startswith("info    accepted ")]
    assert len(accepted) == sent
    assert len(lines) < sent + 10


def test_the_level_of_the_log_is_a_setting(sites: Sites) -> None:
    site = sites.start(LIST, LOG__LEVEL="error")
    with site.client() as client:
        deliver(client, [LIST], new_message())
    assert site.stop() == 0
    assert site.log.read_bytes() == b"ready 127.0.0.1:%d\n" % site.port


def serve(site: Site, stderr: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "postroom", "serve", "--only", "lmtp"],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stderr=stderr,
    )


def deliver_many(site: Site) -> None:
    for _ in range(20):
        with site.client() as client:
            begin_data(client, [LIST] * 100)
            assert end_data(client, new_message(), 100) == [ACCEPTED] * 100
    assert depth(site.store) == 20


def test_a_log_that_nobody_reads_any_more_does_not_stop_the_mail(sites: Sites) -> None:
    site = sites.start(LIST)
    port = site.port
    assert site.stop() == 0
    server = serve(site, subprocess.PIPE)
    assert server.stderr is not None
    assert any(line.startswith(b"ready ") for line in server.stderr)
    server.stderr.close()
    assert site.port == port
    deliver_many(site)
    server.terminate()
    assert server.wait(timeout=60) == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_log_does_not_stop_the_mail(sites: Sites) -> None:
    site = sites.start(LIST)
    assert site.stop() == 0
    with open("/dev/full", "wb") as full:
        server = serve(site, full.fileno())
    eventually(lambda: listens(site.port), "it cannot say that it is ready")
    deliver_many(site)
    server.terminate()
    assert server.wait(timeout=60) == 0
