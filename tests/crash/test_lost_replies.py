"""The message arrives, the reply does not: sent again it is queued once (faults 13, 14)."""

import os
import signal
import smtplib
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pysqlite3.dbapi2 as sqlite
import pytest

from postroom.lmtp.client import LMTPClient
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
    queued,
)
from tests.integration.processes import (
    DOOR,
    INTAKE,
    Follower,
    eventually,
    kill,
    process_of,
    wait_ended,
)
from tests.integration.sites import Sites

JOIN, OTHER = "mylist-join@example.com", "other@example.com"
EVERYBODY = [LIST, JOIN, "nobody@example.com", OTHER, LIST]
EVERY_REPLY = [ACCEPTED, ACCEPTED, NO_MAILBOX, ACCEPTED, ACCEPTED]
EVERY_ENDPOINT = [(LIST, "", ""), (LIST, "join", ""), (OTHER, "", "")]


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server with two lists."""
    with Sites() as made:
        yield made.start(LIST, OTHER)


def close(client: LMTPClient) -> None:
    """Go without having read anything."""
    client.close()


def reset(client: LMTPClient) -> None:
    """Go with a reset: what is on its way may be lost on both sides."""
    assert client.sock is not None
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def stop_sending(client: LMTPClient) -> None:
    """Say that nothing more will come, then go."""
    assert client.sock is not None
    client.sock.shutdown(socket.SHUT_WR)
    client.close()


def places(site: Site, raw: bytes) -> list[tuple[str, str, str]]:
    """The endpoints for which a message is queued, one for each entry."""
    return sorted(each.where for each in queued(site.store) if each.raw == raw)


@pytest.mark.parametrize("go", [close, reset, stop_sending])
@pytest.mark.parametrize("pipelined", [True, False])
def test_who_is_gone_before_the_replies_and_sends_again_is_queued_once(
    site: Site, go: Callable[[LMTPClient], None], pipelined: bool
) -> None:
    raw = new_message(size=30_000)
    for _ in range(3):
        client = site.client()
        client.lhlo()
        if pipelined:
            commands = ["MAIL FROM:<anne@example.org>"]
            commands += [*(f"RCPT TO:<{each}>" for each in EVERYBODY), "DATA"]
            whole = "".join(f"{line}\r\n" for line in commands).encode()
        else:
            begin_data(client, EVERYBODY)
            whole = b""
        assert client.sock is not None
        client.sock.sendall(whole + raw + b".\r\n")
        go(client)
    with site.client() as client:
        assert deliver(client, EVERYBODY, raw) == EVERY_REPLY
    assert places(site, raw) == EVERY_ENDPOINT


def test_who_is_cut_off_between_two_replies_and_sends_again_is_queued_once(site: Site) -> None:
    raw = new_message()
    client = site.client()
    begin_data(client, EVERYBODY)
    assert client.sock is not None
    client.sock.sendall(raw + b".\r\n")
    assert client.getreply() == ACCEPTED
    reset(client)
    with site.client() as client:  # as Postfix does: only those that got no reply
        assert deliver(client, EVERYBODY[1:], raw) == EVERY_REPLY[1:]
    assert places(site, raw) == EVERY_ENDPOINT


def test_a_message_that_was_not_finished_is_nowhere(site: Site) -> None:
    raw = new_message(size=100_000)
    for end in raw[:50_000], raw, raw + b".", raw + b".\r":
        for go in close, reset, stop_sending:
            client = site.client()
            begin_data(client, EVERYBODY)
            assert client.sock is not None
            client.sock.sendall(end)
            go(client)
    with site.client() as client:
        assert deliver(client, [JOIN], new_message()) == [ACCEPTED]  # after all of them
    assert not any(each.raw[:100] == raw[:100] for each in queued(site.store))


def test_killed_in_the_body_it_has_stored_nothing(sites: Sites) -> None:
    site = sites.start(LIST)
    before, within = site.client(), site.client()
    before.lhlo()
    before.mail("anne@example.org")
    before.rcpt(LIST)
    begin_data(within, [LIST])
    assert within.sock is not None
    within.sock.sendall(new_message(size=100_000)[:90_000])
    kill(process_of(site.supervisor, DOOR))
    for each in before, within:
        with pytest.raises(smtplib.SMTPServerDisconnected):
            each.getreply()
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert depth(site.store) == 1


def test_killed_between_the_commit_and_the_replies_it_recognises_the_next_attempt(
    sites: Sites,
) -> None:
    site = sites.start(LIST, OTHER)
    raw = new_message()
    door, intake = process_of(site.supervisor, DOOR), process_of(site.supervisor, INTAKE)
    holder = sqlite.connect(site.url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    client = site.client()
    begin_data(client, EVERYBODY)
    with Follower(site.log) as log, ThreadPoolExecutor(1) as thread:
        replies = thread.submit(end_data, client, raw, len(EVERYBODY))
        log.wait_for('"event":"not stored"', '"trying_again":true')  # the intake has it
        os.kill(door, signal.SIGSTOP)
        holder.close()
        eventually(lambda: depth(site.store) == 3, "the message is stored")
        assert not replies.done()
        kill(door)
        with pytest.raises(smtplib.SMTPServerDisconnected):
            replies.result()
    wait_ended(intake)
    with site.client() as client:
        assert deliver(client, EVERYBODY, raw) == EVERY_REPLY
    assert places(site, raw) == EVERY_ENDPOINT


def test_killed_before_the_commit_it_stores_the_next_attempt(sites: Sites) -> None:
    site = sites.start(LIST, OTHER)
    raw = new_message()
    holder = sqlite.connect(site.url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    client = site.client()
    begin_data(client, EVERYBODY)
    with Follower(site.log) as log, ThreadPoolExecutor(1) as thread:
        replies = thread.submit(end_data, client, raw, len(EVERYBODY))
        log.wait_for('"event":"not stored"', '"trying_again":true')
        kill(process_of(site.supervisor, INTAKE))
        with pytest.raises(smtplib.SMTPServerDisconnected):
            replies.result()  # no 451: it might have been stored
    holder.close()
    assert depth(site.store) == 0
    with site.client() as client:
        assert deliver(client, EVERYBODY, raw) == EVERY_REPLY
    assert places(site, raw) == EVERY_ENDPOINT
