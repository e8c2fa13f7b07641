"""A full disk: 452 for everybody, nothing left behind, and it recovers by itself (faults 1-3)."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from postroom.lmtp.client import LMTPReply
from postroom.store import schema
from postroom.store.engine import Store
from postroom.testing.site import Site, SiteError
from tests.crash.mounts import memory
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_ROOM,
    SENDER,
    deliver,
    new_message,
    queued,
)
from tests.integration.processes import INTAKE, Follower, eventually, kill, process_of
from tests.integration.sites import Sites

MIB = 1_048_576
DISK = 24 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own, with few inodes."""
    with memory(tmp_path / "disk", f"size={DISK}", "nr_inodes=30") as place:
        yield place


@pytest.fixture
def sites(disk: Path) -> Iterator[Sites]:
    """Makes throwaway sites, all of whose processes end before the disk is taken away."""
    with Sites() as made:
        yield made


def fill(place: Path, leave: int) -> Path:
    """Leave only so many octets free."""
    ballast = place / "ballast"
    free = os.statvfs(place)
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free.f_bavail * free.f_bsize - leave)
    return ballast


def counts(store: Store) -> list[int]:
    """How many messages, entries and receipts there are."""
    with store.read() as connection:
        tables = schema.message, schema.entry, schema.receipt
        return [connection.scalar(select(func.count()).select_from(each)) or 0 for each in tables]


def test_a_commit_that_finds_no_room_is_452_for_each_and_leaves_nothing(
    sites: Sites, disk: Path
) -> None:
    site = sites.start(LIST, url=f"sqlite:///{disk}/postroom.db", STORE__MIN_FREE_SPACE="0")
    ballast = fill(disk, leave=5 * MIB)
    recipients = [LIST, "mylist-join@example.com", "nobody@example.com", LIST]
    large, accepted = new_message(size=4 * MIB), []
    with site.client() as client:
        for _ in range(8):
            raw = new_message(size=MIB)
            replies = deliver(client, recipients, raw)
            if replies[0].code != 250:
                break
            accepted.append(raw)
        assert_no_room(replies, 4)
        assert accepted  # there was room at first
        assert_no_room(deliver(client, [LIST], large), 1)
        rows = [len(accepted), 2 * len(accepted), 2 * len(accepted)]
        assert counts(site.store) == rows
        ballast.unlink()
        assert deliver(client, [LIST], raw) == [ACCEPTED]  # in the same session, the same message
        assert deliver(client, [LIST], large) == [ACCEPTED]
    found = {each.raw for each in queued(site.store)}
    assert found == {*accepted, raw, large}
    assert integrity(site) == "ok"


def assert_no_room(replies: list[LMTPReply], number: int) -> None:
    assert replies == [NO_ROOM] * number
    assert {each.enhanced_code for each in replies} == {"4.3.1"}


def integrity(site: Site) -> object:
    with site.store.read() as connection:
        return connection.exec_driver_sql("PRAGMA integrity_check").scalar()


def test_a_disk_that_is_nearly_full_is_452_at_mail_until_there_is_room(
    sites: Sites, disk: Path
) -> None:
    ballast = fill(disk, leave=6 * MIB)
    site = sites.start(
        LIST, url=f"sqlite:///{disk}/postroom.db", STORE__MIN_FREE_SPACE=str(6 * MIB)
    )

    def code_of_mail(size: int) -> int:
        with site.client() as client:
            client.lhlo()
            return client.mail(SENDER, [f"SIZE={size}"]).code

    assert code_of_mail(100) == 452
    ballast.unlink()
    eventually(lambda: code_of_mail(100) == 250, "it sees that there is room again")
    assert code_of_mail(10 * MIB) == 452  # this one does not fit at all
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]


def test_a_server_starts_on_a_full_disk_and_serves_when_there_is_room(
    sites: Sites, disk: Path
) -> None:
    site = sites.start(LIST, url=f"sqlite:///{disk}/postroom.db", STORE__MIN_FREE_SPACE="0")
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
    ballast = fill(disk, leave=0)
    assert site.stop() == 0
    site.start()
    with site.client() as client:
        assert_no_room(deliver(client, [LIST], new_message(size=MIB)), 1)
        ballast.unlink()
        assert deliver(client, [LIST], new_message(size=MIB)) == [ACCEPTED]
    assert counts(site.store) == [2, 2, 2]


def fill_with_files(place: Path) -> list[Path]:
    """Make files until there can be no more."""
    made: list[Path] = []
    with contextlib.suppress(OSError):
        while True:
            file, name = tempfile.mkstemp(dir=place)
            os.close(file)
            made.append(Path(name))
    return made


def test_fault_3_without_inodes_mail_is_taken_as_long_as_no_file_is_needed(
    sites: Sites, disk: Path
) -> None:
    site = sites.start(LIST, url=f"sqlite:///{disk}/postroom.db", STORE__MIN_FREE_SPACE="0")
    site.store.close()
    messages = [new_message() for _ in range(4)]
    with site.client() as client:
        assert deliver(client, [LIST], messages[0]) == [ACCEPTED]
        files = fill_with_files(disk)
        assert deliver(client, [LIST], messages[1]) == [ACCEPTED]
    with Follower(site.log) as log:
        kill(process_of(site.supervisor, INTAKE))  # its files stay, for the next one
        log.wait_for("ready ")
    with site.client() as client:
        assert deliver(client, [LIST], messages[2]) == [ACCEPTED]
    assert site.stop() == 0
    files += fill_with_files(disk)
    with pytest.raises(SiteError, match="its disk has no room for new files: free some"):
        site.start()
    for each in files:
        each.unlink()
    site.start()
    with site.client() as client:
        assert deliver(client, [LIST], messages[3]) == [ACCEPTED]
    assert [each.raw for each in queued(site.store)] == messages
