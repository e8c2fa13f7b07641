"""Look-ups of a running server, as a mail server makes them."""

import contextlib
import os
import signal
import socket
from concurrent.futures import ThreadPoolExecutor

from postroom.service.netstring import cut, netstring
from tests.contract.sabotage import run as execute
from tests.integration.mail import create_lists
from tests.integration.processes import INTAKE, PATIENCE, eventually, kill, process_of
from tests.integration.sites import Sites


def ask(client: socket.socket, *requests: str) -> list[bytes]:
    """One answer to each request, or what came before the connection ended."""
    octets, start, answers = b"", 0, list[bytes]()
    with contextlib.suppress(ConnectionError):
        client.sendall(b"".join(netstring(each.encode()) for each in requests))
        while len(answers) < len(requests) and (data := client.recv(65536)):
            octets += data
            while piece := cut(octets, start, 100_000):
                answer, start = piece
                answers.append(answer)
    return answers


def test_d8_a_running_server_answers_what_is_so_at_this_moment() -> None:
    questions = "recipients new@example.com", "domains example.com", "domains example.net"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with Sites() as sites:
        site = sites.start(MAPS__LISTEN=f"127.0.0.1:{port}")
        found = [b"OK new@example.com", b"OK lmtp:inet:127.0.0.1:%d" % site.port, b"NOTFOUND "]
        later = [b"TEMP Local trouble, try again later"] * 3
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
            assert ask(client, *questions) == [b"NOTFOUND "] * 3
            create_lists(site.store, "new@example.com")
            assert ask(client, *questions) == found
            execute(site.store, "ALTER TABLE domain RENAME TO elsewhere")
            assert ask(client, *questions) == later
            execute(site.store, "ALTER TABLE elsewhere RENAME TO domain")
            assert ask(client, *questions) == found
            intake = process_of(site.supervisor, INTAKE)
            os.kill(intake, signal.SIGSTOP)  # so it dies with the questions unanswered
            with ThreadPoolExecutor(1) as thread:
                answered = thread.submit(ask, client, *questions)
                kill(intake)
                assert answered.result() in (later, [])

        def recovered() -> bool:
            with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
                return ask(client, *questions) == found

        eventually(recovered, "the registry is there again")
