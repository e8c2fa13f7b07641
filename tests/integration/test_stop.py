"""Stopping: SIGTERM lets messages in hand finish, a second one ends at once (item 57, fault 36)."""

import os
import signal
import smtplib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from postroom.lmtp.client import LMTPClient
from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    STOPPING,
    begin_data,
    deliver,
    depth,
    end_data,
    new_message,
    send,
)
from tests.integration.processes import (
    DOOR,
    INTAKE,
    Follower,
    eventually,
    listens,
    process_of,
    wait_ended,
)
from tests.integration.sites import Sites, held, processes_of


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    """Runs `Site.stop` while the test goes on."""
    with ThreadPoolExecutor(1) as made:
        yield made


def begin_stop(site: Site, thread: ThreadPoolExecutor) -> Future[int]:
    """SIGTERM; returns when the door is stopping. The future is the exit status."""
    with Follower(site.log) as log:
        stopped = thread.submit(site.stop)
        log.wait_for('"event":"stopping"')
    return stopped


def expect_end(client: LMTPClient) -> None:
    """The connection ends, and nothing more is said."""
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()


IDLE = {
    "greeted": [],
    "ready": ["LHLO x"],
    "mail": ["LHLO x", "MAIL FROM:<>"],
    "rcpt": ["LHLO x", "MAIL FROM:<>", f"RCPT TO:<{LIST}>"],
    "all recipients refused": ["LHLO x", "MAIL FROM:<>", "RCPT TO:<nobody@example.com>"],
    "after an error": ["LHLO x", "NONSENSE"],
}


def test_fault_36_in_every_state_who_is_owed_nothing_is_told_421_and_the_status_is_0(
    sites: Sites,
) -> None:
    site = sites.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")
    clients = {state: site.client() for state in [*IDLE, "in a command", "after a message"]}
    for state, commands in IDLE.items():
        for command in commands:
            clients[state].docmd(command)
    send(clients["in a command"], b"LHLO clie")
    assert deliver(clients["after a message"], [LIST], new_message()) == [ACCEPTED]
    assert site.stop() == 0
    for state, client in clients.items():
        goodbye = client.getreply()
        assert goodbye == STOPPING, state
        assert goodbye.enhanced_code == "4.3.2"
        expect_end(client)
    assert depth(site.store) == 1


def test_fault_36_what_is_being_stored_is_answered_to_each_recipient(
    sites: Sites, thread: ThreadPoolExecutor
) -> None:
    site = sites.start(LIST)
    with site.client() as plain, site.client() as chunked:
        begin_data(plain, [LIST, "nobody@example.com"])
        chunked.lhlo()
        chunked.mail("anne@example.org")
        chunked.rcpt(LIST)
        with held(site):
            send(plain, new_message() + b".\r\n")
            send(chunked, b"BDAT 4 LAST\r\n\r\nx\n")
            stopped = begin_stop(site, thread)
        assert [plain.getreply() for _ in range(2)] == [ACCEPTED, NO_MAILBOX]
        assert chunked.getreply() == ACCEPTED
        for client in plain, chunked:
            expect_end(client)
    assert stopped.result() == 0
    assert depth(site.store) == 2


def test_fault_36_who_waits_for_the_answer_to_rcpt_is_told_421(
    sites: Sites, thread: ThreadPoolExecutor
) -> None:
    site = sites.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")
    with site.client() as client:
        client.lhlo()
        client.mail("anne@example.org")
        with held(site):
            send(client, b"RCPT TO:<%b>\r\n" % LIST.encode())
            stopped = begin_stop(site, thread)
            assert client.getreply() == STOPPING
        expect_end(client)
    assert stopped.result() == 0
    assert "defect" not in site.log.read_text()


def test_a_client_in_its_data_may_finish_and_gets_all_its_replies(
    sites: Sites, thread: ThreadPoolExecutor
) -> None:
    site = sites.start(LIST)
    client = site.client()
    begin_data(client, [LIST, "nobody@example.com", "mylist-join@example.com"])
    stopped = begin_stop(site, thread)
    assert end_data(client, new_message(), 3) == [ACCEPTED, NO_MAILBOX, ACCEPTED]
    assert stopped.result() == 0
    expect_end(client)
    assert depth(site.store) == 2


def test_a_client_between_two_chunks_may_finish(sites: Sites, thread: ThreadPoolExecutor) -> None:
    site = sites.start(LIST)
    with site.client() as client:
        client.lhlo()
        client.mail("anne@example.org")
        client.rcpt(LIST)
        send(client, b"BDAT 4\r\n\r\nx\n")
        assert client.getreply().code == 250
        stopped = begin_stop(site, thread)
        send(client, b"BDAT 2 LAST\r\ny\n")
        assert client.getreply() == ACCEPTED
        expect_end(client)
    assert stopped.result() == 0
    assert depth(site.store) == 1


def test_nobody_can_connect_while_it_stops(sites: Sites, thread: ThreadPoolExecutor) -> None:
    site = sites.start(LIST)
    client = site.client()
    begin_data(client, [LIST])
    stopped = begin_stop(site, thread)
    eventually(lambda: not listens(site.port), "the socket is closed")
    assert end_data(client, new_message(), 1) == [ACCEPTED]
    assert stopped.result() == 0
    client.close()


def test_another_server_can_start_while_it_stops(sites: Sites, thread: ThreadPoolExecutor) -> None:
    site = sites.start(LIST)
    client = site.client()
    begin_data(client, [LIST])
    stopped = begin_stop(site, thread)
    eventually(lambda: not listens(site.port), "the socket is closed")
    with Site(site.url, LMTP__LISTEN=f"127.0.0.1:{site.port}") as successor:
        successor.start()
        with successor.client() as other:
            begin_data(other, [LIST])
            assert end_data(other, new_message(), 1) == [ACCEPTED]
        assert end_data(client, new_message(), 1) == [ACCEPTED]
        assert stopped.result() == 0
    client.close()
    assert depth(site.store) == 2


def test_who_does_not_finish_is_cut_off_without_a_word(sites: Sites) -> None:
    site = sites.start(LIST, SERVICE__DRAIN="0.2")
    client = site.client()
    begin_data(client, [LIST])
    send(client, b"Subject: half")
    assert site.stop() == 0
    expect_end(client)
    assert depth(site.store) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_it_at_once(
    sites: Sites, thread: ThreadPoolExecutor, number: signal.Signals
) -> None:
    site = sites.start(LIST, SERVICE__DRAIN="1000")
    client = site.client()
    begin_data(client, [LIST])
    stopped = begin_stop(site, thread)
    os.kill(site.supervisor, number)
    assert stopped.result() == 1
    expect_end(client)
    assert processes_of(site) == []
    assert depth(site.store) == 0


def test_a_signal_to_all_its_processes_is_one_signal(sites: Sites) -> None:
    site = sites.start(LIST)  # systemd stops a service in this way
    idle, busy = site.client(), site.client()
    begin_data(busy, [LIST, LIST])
    for pid in processes_of(site):
        os.kill(pid, signal.SIGTERM)
    assert idle.getreply() == STOPPING
    assert end_data(busy, new_message(), 2) == [ACCEPTED] * 2
    wait_ended(site.supervisor)
    assert site.stop() == 0
    for each in idle, busy:
        each.close()


def test_an_interrupt_from_the_terminal_drains_too(sites: Sites) -> None:
    site = sites.start()
    with Follower(site.log) as log:
        os.kill(site.supervisor, signal.SIGINT)
        log.wait_for('"event":"stopped"')
    wait_ended(site.supervisor)
    assert site.stop() == 0


def test_a_stop_while_it_starts_is_not_lost(sites: Sites) -> None:
    site = sites.start(LIST)
    with Follower(site.log) as log:
        os.kill(process_of(site.supervisor, DOOR), signal.SIGKILL)
        log.wait_for("lmtp process ended")
        process_of(site.supervisor, INTAKE)  # the next one is on its way
    assert site.stop() == 0


def test_no_process_is_left(sites: Sites) -> None:
    site = sites.start()
    assert len(processes_of(site)) == 3  # supervisor, door, intake
    assert site.stop() == 0
    assert processes_of(site) == []


def test_a_stopped_server_has_let_go_of_its_port(sites: Sites) -> None:
    site = sites.start()
    LMTPClient("127.0.0.1", site.port).close()
    assert site.stop() == 0
    site.start()
    with site.client() as client:
        assert client.lhlo().accepted
