"""A full disk: 452 for everybody, nothing left behind, and it recovers by itself (faults 1-3)."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from postroom.lmtp.client import LMTPReply
from postroom.store import schema
from postroom.store.engine import Store
from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    NO_ROOM,
    SENDER,
    deliver,
    new_message,
    queued,
)
from tests.integration.processes import eventually
from tests.integration.sites import Sites

MIB = 1_048_576
DISK = 24 * MIB


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(place)]
    mounted = subprocess.run(["mount", *options], capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


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
    with site.client() as client:
        client.lhlo()

        def code_of_mail(size: int) -> int:
            client.rset()
            return client.mail(SENDER, [f"SIZE={size}"]).code

        assert code_of_mail(100) == 452
        ballast.unlink()
        eventually(lambda: code_of_mail(100) == 250, "it sees that there is room again")
        assert code_of_mail(10 * MIB) == 452  # this one does not fit at all
        client.rset()
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
