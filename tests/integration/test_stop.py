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
    depth,
    end_data,
    new_message,
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
from tests.integration.sites import Sites, processes_of


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


def test_an_idle_client_is_told_421_and_the_exit_status_is_0(sites: Sites) -> None:
    site = sites.start()
    clients = [site.client() for _ in range(3)]
    clients[1].lhlo("client.example.org")
    clients[2].lhlo("client.example.org")
    clients[2].mail("anne@example.org")
    assert site.stop() == 0
    for client in clients:
        goodbye = client.getreply()
        assert goodbye == STOPPING
        assert goodbye.enhanced_code == "4.3.2"
        with pytest.raises(smtplib.SMTPServerDisconnected):
            client.getreply()


def test_a_client_in_its_data_may_finish_and_gets_all_its_replies(
    sites: Sites, thread: ThreadPoolExecutor
) -> None:
    site = sites.start(LIST)
    client = site.client()
    begin_data(client, [LIST, "nobody@example.com", "mylist-join@example.com"])
    stopped = begin_stop(site, thread)
    assert end_data(client, new_message(), 3) == [ACCEPTED, NO_MAILBOX, ACCEPTED]
    assert stopped.result() == 0
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()
    assert depth(site.store) == 2


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
    assert client.sock is not None
    client.sock.sendall(b"Subject: half")
    assert site.stop() == 0
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()
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
    with pytest.raises(smtplib.SMTPServerDisconnected):
        client.getreply()
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
