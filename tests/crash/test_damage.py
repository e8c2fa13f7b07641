"""A database that is damaged behind the server's back: never 250, never 5xx; put right, all is
there (fault 10; that a damaged one is refused at the start is in tests/store)."""

from contextlib import closing
from pathlib import Path

import pysqlite3.dbapi2 as sqlite

from tests.integration.mail import (
    ACCEPTED,
    LIST,
    LOCAL_ERROR,
    STOPPING,
    deliver,
    new_message,
    queued,
)
from tests.integration.processes import Follower
from tests.integration.sites import Sites


def page_of(path: Path, name: str) -> slice:
    """Where the first page of a table or an index is, in octets."""
    with closing(sqlite.connect(str(path))) as connection:
        (size,) = connection.execute("PRAGMA page_size").fetchone()
        found = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,))
        (number,) = found.fetchone()
    return slice((number - 1) * size, number * size)


def test_fault_10_with_a_damaged_page_mail_is_451_until_the_database_is_put_right(
    sites: Sites,
) -> None:
    site = sites.start(LIST)
    site.store.close()
    first, late = new_message(), new_message()
    with site.client() as client:
        assert deliver(client, [LIST], first) == [ACCEPTED]
    assert site.stop() == 0
    path = Path(site.url.removeprefix("sqlite:///"))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    where = page_of(path, "receipt")
    damaged[where] = b"\xff" * len(whole[where])
    path.write_bytes(damaged)
    site.start()
    with Follower(site.log) as log, site.client() as client:
        assert deliver(client, [LIST, LIST], late) == [LOCAL_ERROR] * 2
        log.wait_for('"event":"not stored"', "malformed (SQLITE_CORRUPT", '"trying_again":false')
        assert client.getreply() == STOPPING
        log.wait_for('"event":"lmtp process ended"', '"status":1')
    assert site.stop() == 0
    path.write_bytes(whole)
    site.start()
    with site.client() as client:
        assert deliver(client, [LIST, LIST], late) == [ACCEPTED] * 2
        assert deliver(client, [LIST], first) == [ACCEPTED]
    assert [each.raw for each in queued(site.store)] == [first, late]
