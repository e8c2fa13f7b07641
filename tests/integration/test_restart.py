"""What dies is started again, and nothing is lost meanwhile (faults 14, 36; D17)."""

import json
import os
import signal
import smtplib
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.integration.mail import (
    ACCEPTED,
    LIST,
    LOCAL_ERROR,
    STOPPING,
    begin_data,
    deliver,
    depth,
    end_data,
    new_message,
)
from tests.integration.processes import (
    DOOR,
    INTAKE,
    Follower,
    kill,
    process_of,
    wait_ended,
)
from tests.integration.sites import Sites, processes_of


def test_clients_that_connect_while_the_door_is_started_again_wait_and_are_served(
    sites: Sites,
) -> None:
    site = sites.start(LIST)
    door = process_of(site.supervisor, DOOR)
    kill(door)
    wait_ended(door)
    with ThreadPoolExecutor(5) as threads:
        clients = list(threads.map(lambda _: site.client(), range(5)))
    for client in clients:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
        client.quit()
    assert process_of(site.supervisor, DOOR) != door
    assert depth(site.store) == 5


def test_the_intake_of_a_door_that_was_killed_ends_by_itself(sites: Sites) -> None:
    site = sites.start()
    intake = process_of(site.supervisor, INTAKE)
    kill(process_of(site.supervisor, DOOR))
    wait_ended(intake)


def test_the_intake_is_started_again_and_what_it_had_accepted_is_there(sites: Sites) -> None:
    site = sites.start(LIST)
    idle, busy = site.client(), site.client()
    assert deliver(busy, [LIST], new_message()) == [ACCEPTED]
    intake = process_of(site.supervisor, INTAKE)
    kill(intake)
    assert idle.getreply() == STOPPING  # to be tried again, never 5xx
    assert busy.getreply() == STOPPING
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert process_of(site.supervisor, INTAKE) != intake
    assert depth(site.store) == 2
    for each in idle, busy:
        each.close()


def test_a_client_in_its_data_is_told_451_when_the_intake_is_gone(sites: Sites) -> None:
    site = sites.start(LIST)
    client = site.client()
    begin_data(client, [LIST, LIST])
    with Follower(site.log) as log:
        kill(process_of(site.supervisor, INTAKE))
        log.wait_for('"event":"stopping"')
    assert end_data(client, new_message(), 2) == [LOCAL_ERROR] * 2
    client.close()
    assert depth(site.store) == 0


def test_a_slow_client_does_not_hold_up_the_restart_of_the_intake(sites: Sites) -> None:
    site = sites.start(LIST, SERVICE__DRAIN="1000")
    slow = site.client()
    begin_data(slow, [LIST])
    with Follower(site.log) as log:
        kill(process_of(site.supervisor, INTAKE))
        log.wait_for('"event":"intake ended"')
        log.wait_for("ready ")
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    with pytest.raises(smtplib.SMTPServerDisconnected):
        slow.getreply()  # no reply is owed a client that did not finish


def test_a_server_whose_supervisor_was_killed_drains_and_ends(sites: Sites) -> None:
    site = sites.start(LIST)
    idle, busy = site.client(), site.client()
    begin_data(busy, [LIST])
    door = process_of(site.supervisor, DOOR)
    intake = process_of(site.supervisor, INTAKE)
    kill(site.supervisor)
    assert idle.getreply() == STOPPING
    assert end_data(busy, new_message(), 1) == [ACCEPTED]
    wait_ended(door)
    wait_ended(intake)
    assert processes_of(site) == []
    assert site.stop() == -signal.SIGKILL
    for each in idle, busy:
        each.close()
    site.start()
    assert depth(site.store) == 1


def test_a_door_that_keeps_dying_is_started_again_after_longer_and_longer_waits(
    sites: Sites,
) -> None:
    site = sites.start(LIST)
    waits = []
    with Follower(site.log) as log:
        for _ in range(4):
            kill(process_of(site.supervisor, DOOR))
            line = json.loads(log.wait_for('"event":"lmtp process ended"'))
            assert line["status"] == -signal.SIGKILL
            waits.append(line["again_in"])
            log.wait_for("ready ")
    assert waits == [0.1, 0.2, 0.4, 0.8]
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]


def test_a_server_that_served_once_comes_back_when_its_settings_are_mended(sites: Sites) -> None:
    site = sites.start(LIST)
    with Follower(site.log) as log:
        site.config.write_text("[nonsense]\n")
        kill(process_of(site.supervisor, DOOR))
        log.wait_for("nonsense: unknown section")
        log.wait_for('"event":"lmtp process ended"', '"status":78')
        site.config.write_text("")
        log.wait_for("ready ")
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]


def test_a_server_can_be_stopped_between_two_attempts_to_start(sites: Sites) -> None:
    site = sites.start()
    with Follower(site.log) as log:
        site.config.write_text("[nonsense]\n")
        kill(process_of(site.supervisor, DOOR))
        for _ in range(4):  # then there is time enough between two
            log.wait_for('"event":"lmtp process ended"')
    assert site.stop() == 0
    assert processes_of(site) == []
    said = site.log.read_text()
    assert said.count("nonsense: unknown section") == said.count('"status":78')  # once each time


def test_a_reload_while_nothing_runs_is_harmless(sites: Sites) -> None:
    site = sites.start(LIST)
    with Follower(site.log) as log:
        kill(process_of(site.supervisor, DOOR))
        log.wait_for('"event":"lmtp process ended"')
        os.kill(site.supervisor, signal.SIGHUP)
        log.wait_for("ready ")
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
