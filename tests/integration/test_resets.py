"""A client that vanishes ends its own session and nothing else (fault 36: RST, SIGPIPE)."""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable

import pytest

from postroom.lmtp.client import LMTPClient
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    begin_data,
    create_lists,
    depth,
    end_data,
    new_message,
    send,
)
from tests.integration.processes import DOOR, eventually, process_of
from tests.integration.sites import Sites, held


def reset(client: LMTPClient) -> None:
    """End the connection as a crash would."""
    assert client.sock is not None
    if client.sock.family != socket.AF_UNIX:  # where unread replies make it a reset
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def close(client: LMTPClient) -> None:
    """End the connection in order."""
    client.close()


def greeted(client: LMTPClient) -> None:
    """Nothing was said yet."""


def rcpt(client: LMTPClient) -> None:
    client.lhlo()
    client.mail("anne@example.org")
    client.rcpt(LIST)


def data(client: LMTPClient) -> None:
    begin_data(client, [LIST])
    send(client, b"Subject: half")


def stored(client: LMTPClient) -> None:
    """The end of the data was sent: replies are on their way, or yet to come."""
    begin_data(client, [LIST] * 50)
    send(client, new_message() + b".\r\n")


def flooding(client: LMTPClient) -> None:
    """Commands were sent whose replies nobody reads."""
    client.lhlo()
    send(client, b"NOOP\r\n" * 90)


def open_sockets(pid: int) -> int:
    """How many sockets a process has."""
    found = 0
    for number in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(OSError):
            found += os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")
    return found


@pytest.mark.parametrize("where", ["tcp", "unix"])
@pytest.mark.parametrize("go", [reset, close])
def test_fault_36_a_client_that_goes_in_any_state_ends_its_own_session_only(
    sites: Sites, go: Callable[[LMTPClient], None], where: str
) -> None:
    site = sites.make()
    create_lists(site.store, LIST)
    site.listen = (f"unix:{site.directory}/lmtp.sock",)
    site.start()
    address = site.addresses[where == "unix"]
    door = process_of(site.supervisor, DOOR)
    with site.client(address) as honest:
        begin_data(honest, [LIST])
        sockets = open_sockets(door)
        with held(site):  # replies of the storage find nobody
            for state in greeted, rcpt, data, stored, flooding:
                client = site.client(address)
                state(client)
                go(client)
        eventually(lambda: open_sockets(door) == sockets, "the sessions have ended")
        assert end_data(honest, new_message(), 1) == [ACCEPTED]
        assert process_of(site.supervisor, DOOR) == door
    assert depth(site.store) == 2  # of those who went, one had sent all of it
    lines = [line for line in site.log.read_text().splitlines() if line.startswith("{")]
    assert [line for line in map(json.loads, lines) if line["level"] == "error"] == []
