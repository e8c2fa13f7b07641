"""Faults of a disk, as SQLite reports them."""

import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from postroom.mail import reply
from tests.contract.desk import Counts, Desk, counts, envelope, rows


@pytest.fixture
def store_url(tmp_path: Path) -> str:
    """A new SQLite file."""
    return f"sqlite:///{tmp_path}/postroom.db"


def limit_pages(desk: Desk, more: int | None) -> None:
    """Let the writer's own connection add no more than so many pages; None: all it wants."""
    pages = desk.direct.execute("PRAGMA page_count")[0][0]
    most = 1_000_000 if more is None else pages + more
    assert desk.direct.execute(f"PRAGMA max_page_count = {most}") == [(most,)]


def test_d11_a_full_disk_is_452_and_it_goes_on_when_there_is_room(desk: Desk) -> None:
    assert desk.deliver(envelope("ant@example.com")) == [[250]]
    limit_pages(desk, 5)
    large = [envelope("ant@example.com", "no@example.com", raw=b"%d" % n * 50_000) for n in (1, 2)]
    assert desk.work(*large) == [[reply.NO_ROOM] * 2] * 2
    (trouble,) = desk.troubles
    assert "SQLITE_FULL" in str(trouble)
    assert not (trouble.retry or trouble.one_envelope or trouble.unhealthy)
    assert counts(desk.store) == Counts(1, 1, 1)
    assert desk.deliver(envelope("bee@example.com")) == [[250]]  # a small one has room
    limit_pages(desk, None)
    assert desk.deliver(*large) == [[250, 550]] * 2
    assert counts(desk.store) == Counts(4, 4, 4)


@pytest.fixture
def with_a_broken_disk(desk: Desk) -> Callable[[Callable[[], object]], None]:
    """Do something while no file can grow: writing fails as on a broken disk."""

    def run(action: Callable[[], object]) -> None:
        path = desk.store.path
        assert path is not None
        size = path.with_name(f"{path.name}-wal").stat().st_size
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            action()
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return run


def test_a_commit_that_cannot_be_written_is_not_tried_again_and_asks_for_a_restart(
    desk: Desk, with_a_broken_disk: Callable[[Callable[[], object]], None]
) -> None:
    assert desk.deliver(envelope("ant@example.com", raw=b"0")) == [[250]]
    batch = [envelope("ant@example.com", "no@example.com", raw=raw) for raw in (b"1", b"2")]
    answers: list[list[int] | None] = []
    with_a_broken_disk(lambda: answers.extend(desk.deliver(*batch)))
    assert answers == [[451, 451], [451, 451]]
    (trouble,) = desk.troubles
    assert "SQLITE_IOERR" in str(trouble)
    assert trouble.unhealthy
    assert not (trouble.retry or trouble.one_envelope)
    assert counts(desk.store) == Counts(1, 1, 1)
    assert desk.deliver(*batch) == [[250, 550], [250, 550]]
    assert [row.raw for row in rows(desk.store)] == [b"0", b"1", b"2"]


def test_a_database_that_turns_read_only_is_451_for_all_and_told_once(desk: Desk) -> None:
    batch = [envelope("ant@example.com", raw=raw) for raw in (b"1", b"2")]
    assert desk.deliver(envelope("bee@example.com")) == [[250]]
    desk.direct.execute("PRAGMA query_only = ON")
    assert desk.deliver(*batch) == [[451], [451]]
    assert [str(trouble).endswith("(SQLITE_READONLY)") for trouble in desk.troubles] == [True]
    assert counts(desk.store) == Counts(1, 1, 1)
    desk.direct.execute("PRAGMA query_only = OFF")
    assert desk.deliver(*batch) == [[250], [250]]
