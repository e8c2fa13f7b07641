"""Upkeep: what ends and what is forgotten when nobody asks for it any more."""

import asyncio
import io
import time

import pytest
from sqlalchemy import func, select, text

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.bounces.scoring import Standing
from postroom.bounces.scoring import State as Bouncing
from postroom.bounces.standing import save
from postroom.lists import audit
from postroom.lists.audit import Change, Entry, changes_of, write
from postroom.lists.limits import Limit, take
from postroom.lists.pending import Wanted, ask, waiting
from postroom.lists.roster import add_members, members
from postroom.lists.subscription import Policy, State
from postroom.runners import upkeep as module
from postroom.runners.upkeep import Upkeep
from postroom.store import schema
from postroom.store.engine import Store
from tests.contract.posts import key_of, make_id
from tests.notices.house import house

ANTS = "ant.example.com"
DAY, HOUR = 86_400.0, 3600.0


class Said(io.StringIO):
    """What is logged, and whether anything was."""

    def __init__(self) -> None:
        super().__init__()
        self.something = asyncio.Event()

    def write(self, text: str) -> int:
        self.something.set()
        return super().write(text)


class Kept:
    """A store's upkeep, what it says, and how often it woke others."""

    def __init__(self, store: Store) -> None:
        self.store, self.said, self.woken = store, Said(), 0
        log = Log(LogSettings(format="json"), self.said)
        self.upkeep = Upkeep(store, house(), 7 * DAY, 30 * DAY, log, self._wake)

    def _wake(self) -> None:
        self.woken += 1

    def ask(self, email: str, ago: float, state: State = State.CONFIRM) -> None:
        """A request that was made so many seconds ago, and that is good for a day."""
        wanted = Wanted("join", email, "", {}, Policy.CONFIRM, state, email, "")
        key = key_of(self.store)
        with self.store.begin() as connection:
            ask(connection, make_id, key, wanted, DAY, time.time() - ago)

    def write(self, what: str, ago: float) -> None:
        """A row of the audit log."""
        change = Change(ANTS, what, "anne@example.org", "root", {})
        with self.store.begin() as connection:
            write(connection, make_id, [change], time.time() - ago)

    def take(self, name: str, ago: float) -> None:
        """One of two in an hour."""
        with self.store.begin() as connection:
            take(connection, [Limit("list", name, 2, HOUR)], time.time() - ago)

    def changes(self) -> list[Entry]:
        with self.store.read() as connection:
            return list(changes_of(connection, ANTS))

    def waiting(self) -> list[str]:
        with self.store.read() as connection:
            return [each.email for each, _ in waiting(connection)]

    def buckets(self) -> list[str]:
        with self.store.read() as connection:
            return list(connection.scalars(select(schema.tally.c.name)))


@pytest.fixture
def kept(spool: Store) -> Kept:
    return Kept(spool)


def test_what_nobody_answered_in_time_ends_and_is_written_down(kept: Kept) -> None:
    kept.ask("Anne@example.org", DAY + 1)
    kept.ask("bart@example.org", DAY + 2, State.MODERATE)
    kept.ask("carl@example.org", DAY - 100)
    before = time.time()
    kept.upkeep.turn()
    assert kept.waiting() == ["carl@example.org"]
    found = kept.changes()
    assert [each[1:] for each in found] == [
        (ANTS, "expired", email, "postroom", {"action": "join", "state": state})
        for email, state in (("bart@example.org", "moderate"), ("anne@example.org", "confirm"))
    ]
    assert all(before <= each.at <= time.time() for each in found)
    kept.upkeep.turn()
    assert kept.changes() == found


def test_many_that_end_are_worked_off_some_at_a_time(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 2)
    for number in range(5):
        kept.ask(f"{number}@example.org", 2 * DAY)
    kept.upkeep.turn()
    assert kept.waiting() == []
    assert len(kept.changes()) == 5


def test_an_end_that_is_not_written_down_is_no_end(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError("no room")

    kept.ask("anne@example.org", 2 * DAY)
    monkeypatch.setattr(audit, "write", fail)
    with pytest.raises(OSError, match="no room"):
        kept.upkeep.turn()
    with kept.store.read() as connection:
        assert connection.scalar(select(func.count()).select_from(schema.pending)) == 1


def test_who_changed_what_is_forgotten_when_it_is_old(kept: Kept) -> None:
    kept.write("joined", 31 * DAY)
    kept.write("left", 29 * DAY)
    kept.upkeep.turn()
    assert [each.what for each in kept.changes()] == ["left"]


def test_limits_are_forgotten_when_nothing_is_left_of_them(kept: Kept) -> None:
    kept.take("old", HOUR)
    kept.take("new", 0)
    kept.upkeep.turn()
    assert kept.buckets() == ["new"]


def test_what_goes_wrong_is_said_and_put_off(kept: Kept) -> None:
    with kept.store.begin() as connection:
        connection.execute(text("DROP TABLE tally"))

    async def until_said() -> None:
        async with asyncio.timeout(30):
            running = asyncio.create_task(kept.upkeep.run())
            await kept.said.something.wait()
            kept.upkeep.stop()
            await running

    asyncio.run(until_said())
    assert "upkeep put off" in kept.said.getvalue()
    assert "tally" in kept.said.getvalue()


def test_who_sends_mail_is_woken_once_for_all_probes(
    kept: Kept, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MEMBERS", 1)
    key, now = key_of(kept.store), time.time()
    known = Standing(Bouncing.COUNTING, 5.0, 0, now, "5.1.1", "No such user", now, 0, now)
    with kept.store.begin() as connection:
        add_members(connection, key, [(f"{n}@example.org", "") for n in range(3)], "member")
        save(connection, {each.key: known for each in members(connection, key, "member")})
    kept.upkeep.turn()
    with kept.store.read() as connection:
        queues = list(connection.scalars(select(schema.entry.c.queue)))
    assert (queues, kept.woken) == (["out"] * 3, 1)


def test_nobody_is_woken_for_what_is_only_forgotten(kept: Kept) -> None:
    kept.ask("anne@example.org", 2 * DAY)
    kept.write("joined", 31 * DAY)
    kept.upkeep.turn()
    assert kept.woken == 0
    assert kept.said.getvalue() == ""
