"""As a service of systemd: what it is told and when, the sockets that it hands over."""

import json
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest

from postroom.lmtp.client import LMTPClient
from postroom.service.supervisor import FROZEN
from tests.integration.mail import ACCEPTED, LIST, create_lists, deliver, new_message
from tests.integration.manager import Systemd, environment_of
from tests.integration.processes import (
    DOOR,
    INTAKE,
    RUNNERS,
    Follower,
    kill,
    listens,
    process_of,
)
from tests.integration.sites import Sites, processes_of


@pytest.mark.parametrize("where", ["path", "abstract"])
def test_it_is_told_when_the_door_serves_and_when_it_stops(sites: Sites, where: str) -> None:
    site = sites.make()
    notify = f"@{site.directory}" if where == "abstract" else ""
    with Systemd(site, notify=notify) as systemd:
        told = systemd.hear()
        assert told["READY"] == "1"
        place = told["STATUS"].removeprefix("serving on ")
        with site.client(place) as client:
            assert client.lhlo().accepted
        assert systemd.stop() == 0
        told = systemd.hear()
        assert told["STOPPING"] == "1"
        assert told["STATUS"].startswith("stopping")
        with pytest.raises(TimeoutError):
            systemd.hear(within=0.01)


def test_it_is_not_told_that_all_is_well_before_that(sites: Sites) -> None:
    site = sites.make(STORE__URL="mysql://localhost/mail")
    with Systemd(site) as systemd:
        assert systemd.wait() == 1
        with pytest.raises(TimeoutError):
            systemd.hear(within=0.01)


def test_what_stops_a_start_is_its_status(sites: Sites) -> None:
    site = sites.make(LMTP__LISTEN="192.0.2.1:0")
    with Systemd(site) as systemd:
        assert systemd.wait() == 1
        assert systemd.hear()["STATUS"].startswith("cannot listen on 192.0.2.1:0 (Cannot")


def test_a_reload_begins_and_ends_whatever_comes_of_it(sites: Sites) -> None:
    site = sites.make()
    with Systemd(site) as systemd, Follower(site.log) as log:
        systemd.hear_of("READY")
        for settings, event, status in (
            ("[lmtp]\nmax_recipients = 7\n", "settings reloaded", "serving on "),
            ("[lmtp]\nmax_recipients = 0\n", "settings not reloaded", "settings not reloaded: "),
        ):
            site.config.write_text(settings)
            before = time.monotonic_ns() // 1000
            os.kill(systemd.pid, signal.SIGHUP)
            told = systemd.hear()
            assert told["RELOADING"] == "1"
            assert before <= int(told["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
            told = systemd.hear()
            assert told["READY"] == "1"
            assert told["STATUS"].startswith(status)
            # READY comes after the door has done it.
            assert f'"event":"{event}' in site.log.read_text()
            log.wait_for(f'"event":"{event}')


def test_a_reload_while_it_starts_again_ends_too(sites: Sites) -> None:
    site = sites.make()
    with Systemd(site) as systemd, Follower(site.log) as log:
        systemd.hear_of("READY")
        site.config.write_text("[nonsense]\n")
        for _ in range(3):  # then there is time enough between two starts
            kill(process_of(systemd.pid, DOOR))
            log.wait_for('"event":"lmtp process ended"')
        site.config.write_text("")
        os.kill(systemd.pid, signal.SIGHUP)
        systemd.hear_of("RELOADING")
        assert systemd.hear_of("READY")["STATUS"] == "settings reloaded"
        assert systemd.hear_of("READY")["STATUS"].startswith("serving on ")


def test_it_is_told_that_the_door_has_died_and_serves_again(sites: Sites) -> None:
    site = sites.make()
    with Systemd(site) as systemd:
        systemd.hear_of("READY")
        kill(process_of(systemd.pid, DOOR))
        assert systemd.hear()["STATUS"] == "lmtp process ended; starting it again in 0.1 s"
        assert systemd.hear()["READY"] == "1"


def test_nothing_of_this_reaches_other_processes(sites: Sites) -> None:
    site = sites.make()
    one = socket.create_server(("127.0.0.1", 0))
    with one, Systemd(site, [one], "lmtp", watchdog=60) as systemd:
        systemd.hear_of("READY")
        assert {"NOTIFY_SOCKET", "LISTEN_PID"} <= environment_of(systemd.pid)
        for role in DOOR, INTAKE, RUNNERS:
            ours = environment_of(process_of(systemd.pid, role))
            assert "POSTROOM_CONFIG" in ours
            foreign = {"NOTIFY", "LISTEN", "WATCHDOG"}
            assert [name for name in ours if name.partition("_")[0] in foreign] == []


def test_the_units_watchdog_leaves_time_to_start_frozen_runners_again() -> None:
    """Else systemd would end the door with them."""
    unit = Path(__file__).parents[2] / "contrib" / "systemd" / "postroom.service"
    [seconds] = re.findall(r"^WatchdogSec=(\d+)$", unit.read_text(), re.M)
    assert int(seconds) >= FROZEN + 15


# The watchdog. Seconds after which systemd would end the service:
INTERVAL = 0.6


@pytest.mark.parametrize("role", [DOOR, RUNNERS])
def test_the_watchdog_is_fed_by_all_and_not_while_one_hangs(sites: Sites, role: str) -> None:
    site = sites.make()
    with Systemd(site, watchdog=INTERVAL) as systemd:
        systemd.hear_of("READY")
        for _ in range(5):
            systemd.hear_of("WATCHDOG")
        hangs = process_of(systemd.pid, role)
        os.kill(hangs, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            for _ in range(20):  # some were on their way
                assert set(systemd.hear(within=INTERVAL)) == {"WATCHDOG"}
        os.kill(hangs, signal.SIGCONT)
        systemd.hear_of("WATCHDOG")
        assert systemd.stop() == 0


def test_the_watchdog_is_fed_while_the_door_is_to_start_again(sites: Sites) -> None:
    site = sites.make()
    with Systemd(site, watchdog=INTERVAL) as systemd:
        systemd.hear_of("READY")
        site.config.write_text("[nonsense]\n")
        kill(process_of(systemd.pid, DOOR))
        for wait in "0.1", "0.2", "0.4":  # no door comes far enough to say anything
            told = systemd.hear_of("STATUS")
            assert told["STATUS"] == f"lmtp process ended; starting it again in {wait} s"
            assert set(systemd.hear()) == {"WATCHDOG"}
        site.config.write_text("")
        systemd.hear_of("READY")


def test_the_watchdog_is_fed_while_it_drains(sites: Sites) -> None:
    site = sites.make()
    create_lists(site.store, LIST)
    with Systemd(site, watchdog=INTERVAL) as systemd:
        with site.client(systemd.hear_of("READY")["STATUS"].split()[-1]) as client:
            client.lhlo()
            client.mail("anne@example.org")
            client.rcpt(LIST)
            assert client.docmd("DATA").code == 354
            os.kill(systemd.pid, signal.SIGTERM)
            systemd.hear_of("STOPPING")
            for _ in range(5):
                systemd.hear_of("WATCHDOG")
            assert client.docmd(".").code == 250
        assert systemd.wait() == 0


# Sockets


def handed(directory: Path) -> list[socket.socket]:
    """A TCP socket and a unix socket, which listen."""
    path = socket.socket(socket.AF_UNIX)
    path.bind(str(directory / "lmtp.sock"))
    path.listen()
    return [socket.create_server(("127.0.0.1", 0)), path]


def test_sockets_of_systemd_are_used_instead_of_those_of_the_settings(sites: Sites) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:  # ours would be refused
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        site = sites.make(LMTP__LISTEN=taken)
        create_lists(site.store, LIST)
        tcp, path = handed(site.directory)
        place = f"127.0.0.1:{tcp.getsockname()[1]}"
        with tcp, path, Systemd(site, [tcp, path], "postroom.socket:lmtp") as systemd:
            # Who comes before anything runs waits, and is served.
            client = site.client(place)
            assert deliver(client, [LIST], new_message()) == [ACCEPTED]
            client.quit()
            status = systemd.hear_of("READY")["STATUS"]
            assert status == f"serving on {place}, unix:{site.directory}/lmtp.sock"
            with site.client(f"unix:{site.directory}/lmtp.sock") as client:
                assert deliver(client, [LIST], new_message()) == [ACCEPTED]


def test_fault_39_a_path_of_systemd_stays_at_a_restart_and_at_the_end(sites: Sites) -> None:
    site = sites.make()
    tcp, path = handed(site.directory)
    place = site.directory / "lmtp.sock"
    before = place.stat()
    with tcp, path:
        for _ in range(2):
            with Systemd(site, [path], "lmtp") as systemd:
                systemd.hear_of("READY")
                os.kill(process_of(systemd.pid, DOOR), signal.SIGTERM)  # it closes what it has
                systemd.hear_of("READY")
                with LMTPClient(str(place)) as client:
                    assert client.lhlo().accepted
                assert systemd.stop() == 0
            after = place.stat()
            assert (after.st_ino, after.st_mode) == (before.st_ino, before.st_mode)
            with socket.socket(socket.AF_UNIX) as waits:
                assert waits.connect_ex(str(place)) == 0  # for the next start
        assert not Path(f"{place}.lock").exists()


def test_fault_39_sockets_for_another_process_are_not_used(sites: Sites) -> None:
    site = sites.make()
    tcp, path = handed(site.directory)
    with tcp, path, Systemd(site, [tcp, path], wrong_pid=True) as systemd:
        status = systemd.hear_of("READY")["STATUS"]
        place = status.removeprefix("serving on ")
        assert place.startswith("127.0.0.1:")
        assert place != f"127.0.0.1:{tcp.getsockname()[1]}"
        assert listens(int(place.rpartition(":")[2]))


def test_sockets_for_maps_and_metrics_go_where_their_names_say(sites: Sites) -> None:
    site = sites.make()
    maps = socket.create_server(("127.0.0.1", 0))
    metrics = socket.create_server(("127.0.0.1", 0))
    with maps, metrics, Systemd(site, [metrics, maps], "metrics:maps") as systemd:
        status = systemd.hear_of("READY")["STATUS"]
        for each in maps, metrics:
            assert str(each.getsockname()[1]) not in status
        door = process_of(systemd.pid, DOOR)
        command = Path(f"/proc/{door}/cmdline").read_text().split("\0")
        given = {kind: command[command.index(f"--{kind}") + 1] for kind in ("maps", "metrics")}
        assert given == {"metrics": "3", "maps": "4"}


def test_a_socket_that_is_not_fit_stops_the_start_in_a_sentence(sites: Sites) -> None:
    site = sites.make()
    with socket.socket() as deaf, Systemd(site, [deaf]) as systemd:
        assert systemd.wait() == 1
        said = site.log.read_text()
    assert said.startswith("postroom: descriptor 3, which systemd handed over, does not listen: ")
    assert said.count("\n") == 1
    assert processes_of(site) == []


def test_the_log_says_nothing_of_all_this(sites: Sites) -> None:
    site = sites.make()
    with Systemd(site, watchdog=INTERVAL) as systemd:
        systemd.hear_of("READY")
        systemd.hear_of("WATCHDOG")
        assert systemd.stop() == 0
    lines = [line for line in site.log.read_text().splitlines() if line.startswith("{")]
    events = [json.loads(line)["event"] for line in lines]
    assert events[:3] == ["serving", "no lists yet", "serving queues"]
    # The two end at the same time.
    assert sorted(events[3:]) == ["runners stopped", "stopped", "stopping", "stopping runners"]
