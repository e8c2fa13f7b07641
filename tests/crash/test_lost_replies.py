"""The message arrives, the reply does not: sent again it is queued once (faults 13, 14)."""

import os
import signal
import smtplib
import socket
import struct
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pysqlite3.dbapi2 as sqlite
import pytest

from postroom.lmtp.client import LMTPClient
from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    begin_data,
    create_lists,
    deliver,
    depth,
    end_data,
    new_message,
    queued,
)
from tests.integration.processes import (
    DOOR,
    INTAKE,
    PATIENCE,
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


@pytest.mark.parametrize("victim", ["door", "all"])
def test_fault_14_killed_between_two_replies_it_takes_the_rest_once(
    sites: Sites, victim: str
) -> None:
    many = [f"mylist-confirm+{number}@example.com" for number in range(8000)]
    site = sites.make(LMTP__MAX_RECIPIENTS=str(len(many)))
    create_lists(site.store, LIST)
    # Of its replies a unix socket holds no more than the system's net.core.wmem_default.
    place = site.directory / "lmtp.sock"
    site.listen = (f"unix:{place}",)
    site.start()
    raw = new_message()
    with socket.socket(socket.AF_UNIX) as connection, connection.makefile("rb") as replies:
        connection.settimeout(PATIENCE)
        connection.connect(str(place))
        commands = ["LHLO client.example.org", "MAIL FROM:<anne@example.org>"]
        commands += [*(f"RCPT TO:<{each}>" for each in many), "DATA"]
        with ThreadPoolExecutor(1) as thread:  # the server writes while it reads
            sending = thread.submit(
                connection.sendall, "".join(f"{line}\r\n" for line in commands).encode()
            )
            while not replies.readline().startswith(b"354 "):
                pass
            sending.result()
        connection.sendall(raw + b".\r\n")
        answers = [replies.readline()]
        assert depth(site.store) == len(many)
        pids = [process_of(site.supervisor, role) for role in (DOOR, INTAKE)]
        for pid in pids[:1] if victim == "door" else [site.supervisor, *pids]:
            kill(pid)
        with suppress(ConnectionResetError):
            answers += replies
    answered = sum(each.startswith(b"250 ") and each.endswith(b"\r\n") for each in answers)
    assert 1 <= answered < len(many)
    if victim == "all":
        assert site.stop() == -signal.SIGKILL
        site.start()
    with site.client() as client:  # as Postfix does: only those that got no reply
        assert deliver(client, many[answered:], raw) == [ACCEPTED] * (len(many) - answered)
    found = queued(site.store)
    assert sorted(each.where[2] for each in found) == sorted(str(n) for n in range(len(many)))
    assert {each.raw for each in found} == {raw}
