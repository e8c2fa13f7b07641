"""Fault 18: no open files are left. Clients are turned away, and nobody else notices."""

import contextlib
import os
import resource
import socket
from pathlib import Path

from postroom.testing.site import Site
from tests.integration.mail import deliver, new_message
from tests.integration.processes import DOOR, process_of

ROOM = 10  # connections that there are open files for
TICKS = os.sysconf("SC_CLK_TCK")


def processor_time(pid: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def greeting(client: socket.socket) -> bytes:
    """What a client is told first; nothing if the connection is closed."""
    with contextlib.suppress(ConnectionError):
        return client.recv(512)
    return b""


def test_fault_18_without_open_files_clients_are_turned_away_and_nothing_spins(
    site: Site,
) -> None:
    site.start()
    door = process_of(site.supervisor, DOOR)
    with site.client() as early:
        files = len(os.listdir(f"/proc/{door}/fd")) + ROOM
        resource.prlimit(door, resource.RLIMIT_NOFILE, (files, files))
        with contextlib.ExitStack() as crowd:
            clients = [
                crowd.enter_context(socket.create_connection(("127.0.0.1", site.port)))
                for _ in range(ROOM * 5)
            ]
            greeted = sum(greeting(each).startswith(b"220 ") for each in clients)
            assert 0 < greeted <= ROOM
            before = processor_time(door)
            # Who is in goes on, and the door waits for nothing but him.
            for _ in range(20):
                assert deliver(early, ["postmaster"], new_message())[0].accepted
            assert processor_time(door) - before < 1.0
    with site.client() as late:
        assert deliver(late, ["postmaster"], new_message())[0].accepted
    assert site.stop() == 0
