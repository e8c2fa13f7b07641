"""A worker that is killed, as by a system that is out of memory: its lease runs out, and its
entry is tried again (fault 17)."""

import subprocess
import sys
import time

from postroom.lists.registry import create_list
from postroom.spool.queue import claim, finish, mend
from postroom.store.direct import Direct
from postroom.store.engine import Store
from tests.contract.desk import Desk, counts, envelope
from tests.integration.processes import kill

LEASE = 60.0  # seconds
WORKER = """
import sys, time
from postroom.lists.registry import create_list
from postroom.spool.queue import claim, finish
from postroom.store.engine import open_store

store = open_store(sys.argv[1])
with store.begin() as connection:
    held = claim(connection, "in", 10, float(sys.argv[2]))
with store.begin() as connection:
    finish(connection, held[:1])
with store.begin() as connection:
    create_list(connection, "effect@example.com")
    finish(connection, held[1:])
    print(len(held), flush=True)
    time.sleep(600)  # it is killed here
"""


def test_fault_17_what_a_killed_worker_held_is_freed_and_tried_again(
    store: Store, store_url: str
) -> None:
    with store.begin() as connection:
        create_list(connection, "ant@example.com")
    desk = Desk(store, Direct(store))
    raws = [b"one", b"two", b"three"]
    desk.deliver(*(envelope("ant@example.com", raw=raw) for raw in raws))
    command = [sys.executable, "-c", WORKER, store_url, str(LEASE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"3\n"
        kill(worker.pid)
    now = time.time()
    with store.begin() as connection:
        assert mend(connection, "in", now) == 0
        assert claim(connection, "in", 10, LEASE, now) == []
    with store.begin() as connection:
        assert mend(connection, "in", now + LEASE) == 2
        held = claim(connection, "in", 10, LEASE, now + LEASE)
        assert [(each.raw, each.attempts) for each in held] == [(b"two", 2), (b"three", 2)]
        create_list(connection, "effect@example.com")  # what it did last was undone
        finish(connection, held)
    assert counts(store)[:2] == (0, 0)
    desk.direct.close()
