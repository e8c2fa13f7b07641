"""A clock that jumps under a running server: mail goes on, nothing is forgotten, nothing gets
stuck (fault 35)."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from postroom.spool.queue import claim
from postroom.store import schema
from postroom.testing.site import Site
from tests.crash.shims import build, environment
from tests.integration.mail import ACCEPTED, LIST, create_lists, deliver, new_message
from tests.integration.processes import INTAKE, Follower, kill, process_of
from tests.integration.sites import Sites

DAY = 86_400
YEAR = 365 * DAY


class Clock:
    """The clock of a server."""

    def __init__(self, control: Path) -> None:
        self._control = control
        self.set(0)

    def set(self, ahead: int) -> None:
        """So many seconds ahead of the true time."""
        with self._control.open("r+b" if self._control.exists() else "wb", buffering=0) as file:
            file.write(struct.pack("=q", ahead))


@pytest.fixture
def clock(tmp_path: Path) -> Clock:
    """A clock that is right."""
    return Clock(tmp_path / "clock")


@pytest.fixture
def site(sites: Sites, tmp_path: Path, clock: Clock) -> Iterator[Site]:
    """A running server with that clock."""
    made = sites.make()
    create_lists(made.store, LIST)
    library = build("shift_clock", tmp_path)
    with environment({"LD_PRELOAD": str(library), "SHIFT_BY": str(tmp_path / "clock")}):
        made.start()
    yield made


def start_intake_anew(site: Site) -> None:
    """The first thing that a new one does is to look for old receipts."""
    with Follower(site.log) as log:
        kill(process_of(site.supervisor, INTAKE))
        log.wait_for("ready ")


def send(site: Site, *messages: bytes) -> None:
    """Deliver in one session; all are accepted."""
    with site.client() as client:
        for raw in messages:
            assert deliver(client, [LIST], raw) == [ACCEPTED]


def rows(site: Site) -> tuple[int, int]:
    """How many entries and receipts there are."""
    with site.store.read() as connection:
        entries, receipts = (
            connection.scalar(select(func.count()).select_from(table)) or 0
            for table in (schema.entry, schema.receipt)
        )
    return entries, receipts


def test_fault_35_a_clock_a_year_ahead_forgets_next_to_nothing(site: Site, clock: Clock) -> None:
    messages = [new_message() for _ in range(30)]
    with site.client() as client:
        for raw in messages:
            assert deliver(client, [LIST], raw) == [ACCEPTED]
        clock.set(YEAR)
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]  # in the same session
    start_intake_anew(site)
    send(site, new_message())
    entries, receipts = rows(site)
    assert entries == 32
    assert 32 - 2 <= receipts < 32
    clock.set(0)
    start_intake_anew(site)
    send(site, *messages[2:])
    assert rows(site) == (entries, receipts)  # they were all known


def test_fault_35_a_clock_a_day_back_holds_up_no_new_mail(site: Site, clock: Clock) -> None:
    first, second = new_message(), new_message()
    send(site, first)
    clock.set(-DAY)
    send(site, first, second)
    start_intake_anew(site)
    third = new_message()
    send(site, first, second, third)
    clock.set(0)
    with site.store.begin() as connection:
        held = claim(connection, "in", 10, 60.0)
    assert {each.raw for each in held} == {first, second, third}
    assert rows(site) == (3, 3)
