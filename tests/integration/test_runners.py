"""The runners beside the door: started with it, started again, woken by it, stopped with it."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_MAILBOX,
    begin_data,
    create_lists,
    deliver,
    end_data,
    new_message,
)
from tests.integration.manager import Systemd
from tests.integration.processes import (
    DOOR,
    INTAKE,
    RUNNERS,
    Follower,
    descendants,
    kill,
    process_of,
    wait_ended,
)
from tests.integration.sites import Sites, processes_of
from tests.integration.test_start import refusal

BOTH = ("lmtp", "runners")
BELL = '"event":"bell"'


def test_they_serve_beside_the_door_and_all_end_well(sites: Sites, store_url: str) -> None:
    site = sites.make(store_url)
    create_lists(site.store, LIST)
    site.start(roles=BOTH)
    assert site.port
    assert len(processes_of(site)) == 4  # supervisor, door, intake, runners
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert site.stop() == 0
    assert processes_of(site) == []
    said = site.log.read_text()
    assert said.count('"event":"runners stopped"') == said.count('"event":"stopped"') == 1


def test_ready_is_said_when_both_serve(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    lines = site.log.read_text().splitlines()
    assert lines[-1] == f"ready 127.0.0.1:{site.port}"
    events = [json.loads(line)["event"] for line in lines[:-1]]
    assert {"serving", "serving queues"} <= set(events)


def test_runners_show_that_they_live_whoever_started_the_server(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    commands = descendants(site.supervisor)
    assert "--beat" in commands[process_of(site.supervisor, RUNNERS)]
    assert "--beat" not in commands[process_of(site.supervisor, DOOR)]


def test_the_door_alone_has_no_bell_and_no_runners(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=["lmtp"])
    assert len(processes_of(site)) == 3
    assert "--bell" not in "".join(descendants(site.supervisor).values())


def test_runners_alone_listen_nowhere_and_end_well(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=["runners"])
    assert site.addresses == ()
    assert site.log.read_text().endswith("\nready\n")
    assert len(processes_of(site)) == 2
    assert "--bell" not in "".join(descendants(site.supervisor).values())
    assert site.stop() == 0
    assert '"event":"runners stopped"' in site.log.read_text()


def test_runners_that_are_killed_are_started_again_and_the_door_is_left_alone(
    sites: Sites,
) -> None:
    site = sites.make()
    create_lists(site.store, LIST)
    site.start(roles=BOTH)
    door, waits = process_of(site.supervisor, DOOR), []
    with site.client() as client, Follower(site.log) as log:
        begin_data(client, [LIST])
        for _ in range(3):
            kill(process_of(site.supervisor, RUNNERS))
            line = json.loads(log.wait_for('"event":"runners process ended"'))
            assert (line["level"], line["status"]) == ("error", -signal.SIGKILL)
            waits.append(line["again_in"])
            log.wait_for("ready ")
        assert end_data(client, new_message(), 1) == [ACCEPTED]
    assert waits == [0.1, 0.2, 0.4]
    assert process_of(site.supervisor, DOOR) == door
    assert site.stop() == 0


def test_a_door_that_is_killed_leaves_the_runners_alone(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    runners = process_of(site.supervisor, RUNNERS)
    with Follower(site.log) as log:
        kill(process_of(site.supervisor, DOOR))
        log.wait_for("ready ")
    assert process_of(site.supervisor, RUNNERS) == runners


def test_what_is_stored_wakes_the_runners_and_what_is_refused_does_not(sites: Sites) -> None:
    site = sites.make(LOG__LEVEL="debug")
    create_lists(site.store, LIST)
    site.start(roles=BOTH)
    with site.client() as client, Follower(site.log) as log:
        assert deliver(client, ["nobody@example.com"], new_message()) == [NO_MAILBOX]
        log.wait_for('"event":"refused"')
        assert deliver(client, [LIST], message := new_message()) == [ACCEPTED]
        log.wait_for(BELL)
        client.lhlo()
        assert deliver(client, [LIST], message) == [ACCEPTED]  # it is there already
        log.wait_for('"event":"seen before"')
    assert site.stop() == 0
    assert site.log.read_text().count(BELL) == 1


@pytest.mark.parametrize("killed", [[DOOR], [INTAKE], [RUNNERS], [DOOR, RUNNERS]])
def test_the_bell_survives_who_rings_and_who_hears_it(sites: Sites, killed: list[str]) -> None:
    site = sites.make(LOG__LEVEL="debug")
    create_lists(site.store, LIST)
    site.start(roles=BOTH)
    with Follower(site.log) as log:
        old = [process_of(site.supervisor, role) for role in killed]
        for each in old:
            kill(each)
        for _ in killed:
            log.wait_for('process ended"')
        log.wait_for("ready ")
        with site.client() as client:
            assert deliver(client, [LIST], new_message()) == [ACCEPTED]
        log.wait_for(BELL)


def test_what_rang_while_nobody_heard_it_is_heard_at_the_next_start(sites: Sites) -> None:
    site = sites.make(LOG__LEVEL="debug")
    create_lists(site.store, LIST)
    site.start(roles=BOTH)
    with Follower(site.log) as log:
        site.config.write_text("[nonsense]\n")  # so they do not come up
        kill(process_of(site.supervisor, RUNNERS))
        log.wait_for('"event":"runners process ended"', '"status":78')
        with site.client() as client:
            assert deliver(client, [LIST], new_message()) == [ACCEPTED]
        site.config.write_text("")
        log.wait_for('"event":"serving queues"')
        log.wait_for(BELL)


def test_both_end_when_the_supervisor_is_killed(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    with Follower(site.log) as log:
        processes = [process_of(site.supervisor, each) for each in (DOOR, INTAKE, RUNNERS)]
        kill(site.supervisor)
        log.wait_for('"event":"runners stopped"')
    for pid in processes:
        wait_ended(pid)
    assert processes_of(site) == []
    assert site.log.read_text().count('"event":"supervisor is gone"') == 2


def test_runners_that_cannot_be_started_again_yet_do_not_stop_the_door(sites: Sites) -> None:
    site = sites.make()
    create_lists(site.store, LIST)
    site.start(roles=BOTH)
    with Follower(site.log) as log:
        site.config.write_text("[nonsense]\n")
        kill(process_of(site.supervisor, RUNNERS))
        log.wait_for("nonsense: unknown section")
        log.wait_for('"event":"runners process ended"', '"status":78')
        with site.client() as client:
            assert deliver(client, [LIST], new_message()) == [ACCEPTED]
        site.config.write_text("")
        log.wait_for('"event":"serving queues"')
        log.wait_for("ready ")
    assert site.stop() == 0


def test_runners_alone_on_a_database_that_is_not_fit_are_refused_in_a_sentence(
    sites: Sites,
) -> None:
    site = sites.make()
    (site.directory / "postroom.db").write_bytes(b"no database at all " * 500)
    assert "is damaged" in refusal(site, "--only", "runners")
    assert processes_of(site) == []


def test_both_read_new_settings(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    with Follower(site.log) as log:
        site.config.write_text('[log]\nlevel = "warning"\n')
        os.kill(site.supervisor, signal.SIGHUP)
        for _ in range(2):
            log.wait_for('"event":"settings reloaded"', '"needs_a_restart":["log"]')
    assert site.stop() == 0


def test_systemd_hears_once_when_both_have_read_new_settings(sites: Sites) -> None:
    site = sites.make()
    with Systemd(site) as systemd:
        serving = systemd.hear_of("READY")
        os.kill(systemd.pid, signal.SIGHUP)
        systemd.hear_of("RELOADING")
        assert systemd.hear() == serving
        assert site.log.read_text().count('"event":"settings reloaded"') == 2
        assert systemd.stop() == 0
        assert "STOPPING" in systemd.hear()


# Two servers


@pytest.mark.parametrize("role", BOTH)
def test_fault_40_each_role_runs_once_on_a_sqlite_database(sites: Sites, role: str) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    other = sites.make(site.url)
    said = refusal(other, "--only", role)
    assert f"is served by another postroom, which runs {role} and holds " in said
    with site.client() as client:
        assert client.lhlo().accepted


def test_fault_40_each_role_may_be_run_by_a_server_of_its_own(sites: Sites) -> None:
    door = sites.start(LIST)
    runners = sites.make(door.url)
    runners.start(roles=["runners"])
    assert "which runs lmtp" in refusal(sites.make(door.url))
    assert "which runs runners" in refusal(sites.make(door.url), "--only", "runners")
    with door.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert door.stop() == 0
    assert "which runs runners" in refusal(sites.make(door.url))
    assert runners.stop() == 0
    again = sites.make(door.url)
    again.start(roles=BOTH)


def test_the_files_of_locks_are_beside_the_database(sites: Sites) -> None:
    site = sites.make()
    site.start(roles=BOTH)
    locks = {each.name for each in Path(site.directory).glob("*.lock")}
    assert locks == {"postroom.db.lmtp.lock", "postroom.db.runners.lock"}
