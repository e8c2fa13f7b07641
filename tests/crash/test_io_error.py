"""A write that fails: 451 for everybody, never tried again, and a new process (faults 4, 5).

The limit on the size of files stands in for a disk that fails: writes end short, and then
not at all.
"""

import resource

from sqlalchemy import func, select

from postroom.store import schema
from postroom.store.engine import Store
from tests.integration.mail import ACCEPTED, LIST, LOCAL_ERROR, STOPPING, deliver, new_message
from tests.integration.processes import DOOR, INTAKE, Follower, process_of, wait_ended
from tests.integration.sites import Sites


def rows(store: Store) -> int:
    """How many rows there are of all that an acceptance writes."""
    with store.read() as connection:
        return sum(
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (schema.message, schema.entry, schema.receipt)
        )


def test_a_failed_write_is_451_leaves_nothing_and_starts_the_processes_anew(sites: Sites) -> None:
    site = sites.start(LIST)
    raw = new_message(size=1_000_000)
    door, intake = process_of(site.supervisor, DOOR), process_of(site.supervisor, INTAKE)
    with Follower(site.log) as log:
        idle, client = site.client(), site.client()
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
        resource.prlimit(intake, resource.RLIMIT_FSIZE, (200_000, 200_000))
        assert deliver(client, [LIST, "nobody@example.com", LIST], raw) == [LOCAL_ERROR] * 3
        assert "SQLITE_IOERR" in log.wait_for('"event":"not stored"', '"trying_again":false')
        for each in idle, client:
            assert each.getreply() == STOPPING
            each.close()
        wait_ended(intake)
        wait_ended(door)
    assert rows(site.store) == 3
    with site.client() as client:
        assert deliver(client, [LIST], raw) == [ACCEPTED]
    assert rows(site.store) == 6
    assert site.stop() == 0
