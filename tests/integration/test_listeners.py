"""Where it listens: several places at once, unix sockets (faults 37 to 39), and what mail can do
without."""

import json
import os
import resource
import signal
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.lmtp.client import LMTPClient
from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    begin_data,
    create_lists,
    deliver,
    depth,
    end_data,
    new_message,
)
from tests.integration.processes import (
    DOOR,
    Follower,
    descendants,
    eventually,
    kill,
    listens,
    process_of,
    wait_ended,
)
from tests.integration.sites import Sites, processes_of
from tests.integration.test_start import refusal
from tests.peers import Cluster


def on_unix(sites: Sites, **settings: str) -> tuple[Site, Path]:
    """A site that listens on a unix socket too, not started yet."""
    site = sites.make(**settings)
    path = site.directory / "lmtp.sock"
    site.listen = (f"unix:{path}",)
    return site, path


def test_it_serves_on_tcp_and_on_a_unix_socket_at_once(sites: Sites) -> None:
    site, path = on_unix(sites)
    create_lists(site.store, LIST)
    site.listen += ("127.0.0.2:0",)
    site.start()
    assert site.addresses[:2] == (f"127.0.0.1:{site.port}", f"unix:{path}")
    assert site.addresses[2].startswith("127.0.0.2:")
    for address in site.addresses:
        with site.client(address) as client:
            assert deliver(client, [LIST, LIST], new_message()) == [ACCEPTED] * 2
    assert depth(site.store) == 3
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert site.stop() == 0
    assert not path.exists()


def test_a_unix_socket_alone_will_do(sites: Sites, tmp_path: Path) -> None:
    path = tmp_path / "lmtp.sock"
    site = sites.start(LMTP__LISTEN=f"unix:{path}", LMTP__SOCKET_MODE="600")
    assert (site.addresses, site.port) == ((f"unix:{path}",), 0)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with site.client(f"unix:{path}") as client:
        assert client.lhlo().accepted
    assert site.stop() == 0


def test_nobody_can_connect_to_a_unix_socket_before_the_database_is_found_fit(
    sites: Sites,
) -> None:
    site, path = on_unix(sites, STORE__URL="mysql://localhost/mail")
    assert "use sqlite:///PATH" in refusal(site)
    assert not path.exists()


def test_a_unix_socket_stays_the_same_while_the_door_is_started_again(sites: Sites) -> None:
    site, path = on_unix(sites)
    site.start()
    inode = path.stat().st_ino
    with Follower(site.log) as log:
        door = process_of(site.supervisor, DOOR)
        os.kill(door, signal.SIGTERM)  # it closes its listeners, as at every end
        wait_ended(door)
        with LMTPClient(str(path)) as client:  # waits for the next one
            assert client.lhlo().accepted
        log.wait_for("ready ")
        kill(process_of(site.supervisor, DOOR))
        log.wait_for("ready ")
    with LMTPClient(str(path)) as client:
        assert client.lhlo().accepted
    assert path.stat().st_ino == inode


def test_fault_37_the_socket_of_a_server_that_was_killed_is_replaced(sites: Sites) -> None:
    site, path = on_unix(sites)
    site.start()
    for pid in processes_of(site):
        kill(pid)
        wait_ended(pid)
    assert path.exists()
    assert site.stop() == -signal.SIGKILL
    site.start()
    with LMTPClient(str(path)) as client:
        assert client.lhlo().accepted


def test_fault_37_a_second_server_does_not_take_a_socket_from_the_first(sites: Sites) -> None:
    site, path = on_unix(sites)
    site.start()
    said = refusal(sites.make(LMTP__LISTEN=f"unix:{path}"))
    assert f"cannot listen on unix:{path} (a process holds {path}.lock)" in said
    assert "is postroom running already?" in said
    with LMTPClient(str(path)) as client:
        assert client.lhlo().accepted


def test_fault_37_another_server_may_have_the_path_while_the_first_drains(sites: Sites) -> None:
    site, path = on_unix(sites)
    create_lists(site.store, LIST)
    site.start()
    with LMTPClient(str(path)) as busy:
        begin_data(busy, [LIST])
        with Follower(site.log) as log:
            os.kill(site.supervisor, signal.SIGTERM)
            log.wait_for('"event":"stopping"')
        successor = sites.make(LMTP__LISTEN=f"unix:{path}")
        successor.start()
        assert end_data(busy, new_message(), 1) == [ACCEPTED]
        wait_ended(site.supervisor)
        assert site.stop() == 0
        with LMTPClient(str(path)) as client:  # its path was left alone
            assert client.lhlo().accepted


@pytest.mark.parametrize(
    ("address", "reasons"),
    [
        ("unix:/{long}", ["lmtp.listen", "107 octets", "shorter"]),
        ("unix:lmtp.sock", ["lmtp.listen", "absolute path"]),
        ("unix:/nowhere/lmtp.sock", ["no directory /nowhere", "mkdir", "RuntimeDirectory"]),
        ("unix:/dev/null", ["what is there is no socket", "left alone"]),
        ("[::1:8024", ["lmtp.listen", "brackets"]),
    ],
)
def test_fault_38_a_place_that_cannot_be_is_refused_in_one_sentence(
    sites: Sites, address: str, reasons: list[str]
) -> None:
    said = refusal(sites.make(LMTP__LISTEN=address.format(long="x" * 107)))
    for reason in reasons:
        assert reason in said


def test_fault_38_a_file_in_the_place_of_the_socket_is_not_touched(sites: Sites) -> None:
    site, path = on_unix(sites)
    path.write_text("precious")
    assert "what is there is no socket" in refusal(site)
    assert path.read_text() == "precious"


def test_a_group_that_does_not_exist_is_refused(sites: Sites) -> None:
    site, path = on_unix(sites, LMTP__SOCKET_GROUP="no-such-group")
    assert "there is no group 'no-such-group'" in refusal(site)
    assert not path.exists()


# What mail can do without


@pytest.mark.parametrize("kind", ["maps", "metrics"])
def test_trouble_with_a_helpful_listener_is_one_line_and_does_not_stop_the_mail(
    sites: Sites, kind: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        site = sites.start(LIST, **{f"{kind.upper()}__LISTEN": taken})
        with site.client() as client:
            assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    lines = [line for line in site.log.read_text().splitlines() if '"level":"error"' in line]
    [line] = map(json.loads, lines)
    assert line["event"] == f"{kind} not served"
    assert f"cannot listen on {taken} (Address already in use)" in line["reason"]
    assert f"`{kind}.listen` names another address, or is empty" in line["reason"]
    command = descendants(site.supervisor)[process_of(site.supervisor, DOOR)]
    assert f"--trouble {kind}: cannot listen on {taken}" in command


def test_helpful_listeners_are_bound_and_let_go_at_a_stop(sites: Sites, tmp_path: Path) -> None:
    path = tmp_path / "maps.sock"
    site = sites.start(
        MAPS__LISTEN=f"unix:{path}", METRICS__LISTEN="127.0.0.1:0", LMTP__SOCKET_MODE="0666"
    )
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    command = descendants(site.supervisor)[process_of(site.supervisor, DOOR)]
    assert " --maps " in command
    assert " --metrics " in command
    assert "--trouble" not in command
    assert site.stop() == 0
    assert not path.exists()


# Open files


@pytest.fixture
def few_files() -> Iterator[int]:
    """What this process starts may have few files open, unless it raises that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_as_many_files_may_be_open_as_the_system_allows(sites: Sites, few_files: int) -> None:
    site = sites.start()
    for pid in processes_of(site):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        [line] = [each for each in limits if each.startswith("Max open files")]
        assert line.split()[3:5] == [str(few_files)] * 2


# One supervisor for one SQLite database


def test_fault_40_a_second_supervisor_on_the_same_database_is_refused(sites: Sites) -> None:
    site = sites.start(LIST)
    said = refusal(sites.make(site.url, MAPS__LISTEN="127.0.0.1:0"))
    assert f"{site.directory}/postroom.db is served by another postroom" in said
    assert "stop that one first, or set store.url to another database" in said
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert site.stop() == 0
    sites.make(site.url).start()


def test_fault_40_after_a_supervisor_was_killed_another_serves_while_its_door_drains(
    sites: Sites,
) -> None:
    site = sites.start(LIST)
    busy = site.client()
    begin_data(busy, [LIST])
    with Follower(site.log) as log:
        kill(site.supervisor)
        log.wait_for('"event":"stopping"')
    eventually(lambda: not listens(site.port), "the old socket is closed")
    successor = sites.make(site.url)
    successor.start()
    with successor.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert end_data(busy, new_message(), 1) == [ACCEPTED]
    busy.close()
    assert depth(site.store) == 2


def test_fault_40_postgresql_may_have_several(sites: Sites, cluster: Cluster) -> None:
    url = cluster.new_database()
    first = sites.start(LIST, url=url)
    second = sites.start(url=url)
    for site in first, second:
        with site.client() as client:
            assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    assert depth(first.store) == 2
