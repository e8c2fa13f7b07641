"""Flushes that fail and writes that end short: 451, never tried again, nothing of it is found
later; and no promise is broken (faults 4, 5)."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.testing.site import Site
from tests.crash.shims import build, environment
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    LOCAL_ERROR,
    NO_ROOM,
    STOPPING,
    create_lists,
    deliver,
    new_message,
    queued,
)
from tests.integration.processes import INTAKE, Follower, kill, process_of, wait_ended
from tests.integration.sites import Sites

FLUSH, SHORT, SHORT_THEN_ERROR, SHORT_THEN_FULL = b"f", b"s", b"h", b"n"
LARGE = 50_000  # octets: many pages of the log


class Disk:
    """The disk of a site, which fails on command."""

    def __init__(self, control: Path) -> None:
        self._control = control
        control.write_bytes(b".\0")

    def fail(self, how: bytes, times: int = 0) -> None:
        """From now on, or for so many times."""
        with self._control.open("r+b", buffering=0) as control:
            control.write(how + bytes([times]))

    def work(self) -> None:
        """All is well again."""
        self.fail(b".")

    @property
    def works(self) -> bool:
        """Whether all that was to fail has failed."""
        return self._control.read_bytes()[:1] == b"."


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lets a disk fail."""
    return build("fail_writes", tmp_path_factory.mktemp("library"))


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """A disk that works until it is told otherwise."""
    return Disk(tmp_path / "how")


@pytest.fixture
def site(sites: Sites, library: Path, tmp_path: Path, disk: Disk) -> Iterator[Site]:
    """A running server on that disk."""
    made = sites.make()
    create_lists(made.store, LIST)
    made.store.close()
    settings = {
        "LD_PRELOAD": str(library),
        "FAIL_DATABASE": made.url.removeprefix("sqlite:///"),
        "FAIL_HOW": str(tmp_path / "how"),
    }
    with environment(settings):
        made.start()
    yield made
    disk.work()


def found(site: Site) -> list[bytes]:
    """The messages that are queued."""
    return [each.raw for each in queued(site.store)]


@pytest.mark.parametrize("how", [FLUSH, SHORT_THEN_ERROR])
def test_fault_4_and_5_a_commit_that_fails_once_is_451_and_is_not_tried_again(
    site: Site, disk: Disk, how: bytes
) -> None:
    first, lost = new_message(), new_message(size=LARGE)
    intake = process_of(site.supervisor, INTAKE)
    with Follower(site.log) as log:
        with site.client() as client:
            assert deliver(client, [LIST], first) == [ACCEPTED]
            disk.fail(how, times=1)
            assert deliver(client, [LIST, "nobody@example.com", LIST], lost) == [LOCAL_ERROR] * 3
            assert client.getreply() == STOPPING
        assert disk.works  # so a second attempt would have seemed to succeed
        assert "SQLITE_IOERR" in log.wait_for('"event":"not stored"', '"trying_again":false')
        log.wait_for('"event":"lmtp process ended"', '"status":1')
        wait_ended(intake)
    with site.client() as client:
        assert found(site) == [first]
        assert deliver(client, [LIST], lost) == [ACCEPTED]
    assert found(site) == [first, lost]


def test_fault_4_while_no_flush_succeeds_all_mail_is_451_and_none_is_found_later(
    site: Site, disk: Disk
) -> None:
    first, lost = new_message(), [new_message(size=LARGE), new_message()]
    with Follower(site.log) as log:
        with site.client() as client:
            assert deliver(client, [LIST], first) == [ACCEPTED]
        disk.fail(FLUSH)
        for each in lost:
            with site.client() as client:
                assert deliver(client, [LIST, LIST], each) == [LOCAL_ERROR] * 2
                assert client.getreply() == STOPPING
            log.wait_for('"event":"lmtp process ended"')
            log.wait_for("ready ")
        # Written it was, and complete: who reads the log anew must not find it there.
        kill(process_of(site.supervisor, INTAKE))
        assert found(site) == [first]
        disk.work()
        log.wait_for("ready ")
    with site.client() as client:
        for each in lost:
            assert deliver(client, [LIST, LIST], each) == [ACCEPTED] * 2
    assert found(site) == [first, *lost]


def test_fault_5_writes_that_end_short_go_on_where_they_ended(site: Site, disk: Disk) -> None:
    messages = [new_message(size=LARGE) for _ in range(3)]
    disk.fail(SHORT)
    with site.client() as client:
        for each in messages:
            assert deliver(client, [LIST], each) == [ACCEPTED]
    kill(process_of(site.supervisor, INTAKE))
    assert found(site) == messages


def test_a_write_that_ends_short_on_a_full_disk_is_452_and_nothing_is_left(
    site: Site, disk: Disk
) -> None:
    first, late = new_message(), new_message(size=LARGE)
    with site.client() as client:
        assert deliver(client, [LIST], first) == [ACCEPTED]
        disk.fail(SHORT_THEN_FULL)
        assert deliver(client, [LIST, LIST], late) == [NO_ROOM] * 2
        disk.work()
        assert found(site) == [first]
        assert deliver(client, [LIST, LIST], late) == [ACCEPTED] * 2
    assert found(site) == [first, late]
