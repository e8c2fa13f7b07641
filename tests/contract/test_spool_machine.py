"""The spool against a model of it in plain Python, step by step, on both databases."""

import time
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select, text

from postroom.lists.registry import create_list
from postroom.mail.address import parse_mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.spool import care, intake, queue
from postroom.spool.metadata import decode
from postroom.spool.queue import LONGEST_LEASE, LONGEST_WAIT, SKEW, Claim, Lost, QueueError
from postroom.spool.receipts import purge_receipts
from postroom.store import schema
from postroom.store.direct import Direct
from postroom.store.engine import Store
from tests.contract.desk import Desk

# Recipients as written -> endpoint and queue; None is refused.
RECIPIENTS: dict[str, tuple[str, str] | None] = {
    "ant@example.com": ("ant@example.com/", "in"),
    "ANT@Example.com": ("ant@example.com/", "in"),
    "ant-join@example.com": ("ant@example.com/join", "command"),
    "ant-subscribe@example.com": ("ant@example.com/join", "command"),
    "bee@example.com": ("bee@example.com/", "in"),
    "postmaster": ("/", "in"),
    "cat@example.com": None,
}
QUEUES = ("in", "command", "shunt")
SENDERS, BODIES = ("anne@example.org", ""), (b"one", b"two", b"three")
START = 1_800_000_000.0
DAY = 86_400.0

envelopes = st.tuples(
    st.sampled_from(SENDERS),
    st.lists(st.sampled_from([*RECIPIENTS]), min_size=1, max_size=4),
    st.sampled_from(BODIES),
)
queues = st.sampled_from(QUEUES)
delays = st.sampled_from([0.0, 10.0, 1000.0, 1e9])
picks = st.integers(0, 1_000_000)


@dataclass
class Entry:
    """What the model knows of an entry."""

    message: int
    endpoint: str
    queue: str
    available_at: float
    attempts: int = 0
    lease: str | None = None
    lease_until: float = 0.0
    error: str | None = None
    shunted_from: str | None = None
    readable: bool = True
    retried_at: float | None = None


@dataclass
class Model:
    """What the spool should hold."""

    entries: dict[int, Entry] = field(default_factory=dict)
    receipts: dict[tuple[str, str, bytes], tuple[int, float]] = field(default_factory=dict)
    deliveries: list[tuple[str, list[str], bytes]] = field(default_factory=list)

    def set_aside(self, entry: Entry, reason: str) -> None:
        entry.shunted_from = entry.shunted_from or entry.queue
        entry.queue, entry.lease, entry.error = "shunt", None, reason


class Spool(RuleBasedStateMachine):
    """One run; `store` and `clock` are set by the test."""

    store: Store
    clock: SimpleNamespace

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.held: list[Claim] = []
        self.desk = Desk(self.store, Direct(self.store))

    @initialize()
    def empty(self) -> None:
        self.clock.now = START
        with self.store.begin() as connection:
            for table in ("receipt", "entry", "message"):
                connection.execute(text(f"DELETE FROM {table}"))

    def teardown(self) -> None:
        self.desk.direct.close()

    # The intake

    @rule(batch=st.lists(envelopes, min_size=1, max_size=3))
    def accept(self, batch: list[tuple[str, list[str], bytes]]) -> None:
        self.model.deliveries += batch
        self._deliver(batch)

    @precondition(lambda self: self.model.deliveries)
    @rule(pick=picks)
    def resend(self, pick: int) -> None:
        self._deliver([self.model.deliveries[pick % len(self.model.deliveries)]])

    def _deliver(self, batch: list[tuple[str, list[str], bytes]]) -> None:
        answers = self.desk.deliver(*(self._envelope(*each) for each in batch))
        assert answers == [[250 if RECIPIENTS[r] else 550 for r in each[1]] for each in batch]
        for (sender, recipients, raw), stored in zip(
            batch, self.desk.stored[-len(batch) :], strict=True
        ):
            led = dict.fromkeys(found for r in recipients if (found := RECIPIENTS[r]))
            new = [each for each in led if (sender, each[0], raw) not in self.model.receipts]
            assert (len(stored.entries), stored.again) == (len(new), len(led) - len(new))
            for number, (endpoint, name) in zip(stored.entries, new, strict=True):
                message, now = stored.draft.message, self.clock.now
                self.model.entries[number] = Entry(message, endpoint, name, now)
                self.model.receipts[sender, endpoint, raw] = number, now

    def _envelope(self, sender: str, recipients: list[str], raw: bytes) -> Envelope:
        boxes = tuple(parse_mailbox(each)[0] for each in recipients)
        return Envelope(sender, boxes, raw, Peer("192.0.2.1"), self.clock.now)

    @rule(older_than=st.sampled_from([-10.0, 0.0, 10.0]), most=st.sampled_from([0, 2, 1000]))
    def purge(self, older_than: float, most: int) -> None:
        limit = self.clock.now + older_than
        old = [key for key, (_, at) in self.model.receipts.items() if at < limit]
        with self.store.begin() as connection:
            assert purge_receipts(connection, limit, most) == min(most, len(old))
        by_age = sorted(old, key=lambda key: self.model.receipts[key][0])
        for key in by_age[:most]:
            del self.model.receipts[key]

    # Workers

    @rule(name=queues, limit=st.integers(1, 4), lease=st.sampled_from([5.0, 100.0, 1e9]))
    def claim(self, name: str, limit: int, lease: float) -> None:
        now = self.clock.now
        due = sorted(
            (entry.available_at, number)
            for number, entry in self.model.entries.items()
            if entry.queue == name and entry.lease is None and entry.available_at <= now
        )[:limit]
        with self.store.begin() as connection:
            claims = queue.claim(connection, name, limit, lease, now)
        given = iter(claims)
        for _, number in due:
            entry = self.model.entries[number]
            entry.attempts += 1
            if not entry.readable:
                self.model.set_aside(entry, "unreadable")
                entry.readable = True  # what could not be read is quoted now
                entry.endpoint = "unreadable"
                continue
            held = next(given)
            assert (held.id, held.attempts, held.message) == (number, entry.attempts, entry.message)
            entry.lease, entry.lease_until = held.lease, now + min(lease, LONGEST_LEASE)
        assert list(given) == []
        self.held += claims

    def _pick(self, pick: int) -> tuple[Claim, Entry | None]:
        """A claim that was given, and its entry if the lease still holds."""
        held = self.held[pick % len(self.held)]
        entry = self.model.entries.get(held.id)
        return held, entry if entry is not None and entry.lease == held.lease else None

    def _fenced(self, ours: bool, action: Any, *arguments: Any) -> None:
        with self.store.engine.connect() as connection, connection.begin() as transaction:
            try:
                action(connection, *arguments)
            except Lost:
                assert not ours
                transaction.rollback()
            else:
                assert ours

    @precondition(lambda self: self.held)
    @rule(some=st.lists(picks, min_size=1, max_size=3))
    def finish(self, some: list[int]) -> None:
        picked = {held.id: (held, entry) for held, entry in map(self._pick, some)}
        ours = all(entry is not None for _, entry in picked.values())
        self._fenced(ours, queue.finish, [held for held, _ in picked.values()])
        for number in picked if ours else ():
            del self.model.entries[number]

    @precondition(lambda self: self.held)
    @rule(pick=picks, delay=delays)
    def retry(self, pick: int, delay: float) -> None:
        held, entry = self._pick(pick)
        self._fenced(entry is not None, queue.retry, held, delay, "busy")
        if entry is not None:
            entry.lease, entry.error = None, "busy"
            entry.retried_at = self.clock.now
            entry.available_at = self.clock.now + min(delay, LONGEST_WAIT)

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def shunt(self, pick: int) -> None:
        held, entry = self._pick(pick)
        self._fenced(entry is not None, queue.shunt, held, "Traceback")
        if entry is not None:
            self.model.set_aside(entry, "Traceback")

    @precondition(lambda self: self.held)
    @rule(pick=picks)
    def give_back(self, pick: int) -> None:
        held, entry = self._pick(pick)
        self._fenced(entry is not None, queue.give_back, held)
        if entry is not None:
            entry.lease = None
            entry.attempts -= 1
            entry.available_at = min(entry.available_at, self.clock.now)

    # Time and accidents

    @rule(seconds=st.sampled_from([6.0, 200.0, DAY, -DAY]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.now += seconds

    @precondition(lambda self: self.held)
    @rule()
    def set_clock_back(self) -> None:
        self.clock.now -= DAY
        for name in QUEUES:
            self.mend(name)

    @rule(name=queues)
    def mend(self, name: str) -> None:
        now, freed = self.clock.now, 0
        for entry in self.model.entries.values():
            if entry.queue != name:
                continue
            late, soon = entry.lease_until < now, entry.lease_until > now + LONGEST_LEASE
            if entry.lease is not None and (late or soon):
                entry.lease = None
                entry.available_at = min(entry.available_at, now)
                freed += 1
            elif entry.lease is None and entry.available_at > now:
                ahead = entry.retried_at is None or entry.retried_at > now + SKEW
                if ahead or entry.available_at > now + LONGEST_WAIT:
                    entry.available_at = now
                    freed += 1
        with self.store.begin() as connection:
            assert queue.mend(connection, name, now) == freed

    @precondition(lambda self: self.model.entries)
    @rule(pick=picks)
    def corrupt(self, pick: int) -> None:
        number = sorted(self.model.entries)[pick % len(self.model.entries)]
        entry = self.model.entries[number]
        if entry.lease is None and entry.queue != "shunt":
            entry.readable = False
            with self.store.begin() as connection:
                which = schema.entry.update().where(schema.entry.c.id == number)
                connection.execute(which.values(metadata="{"))

    # Operators

    @precondition(lambda self: self.model.entries)
    @rule(pick=picks)
    def requeue(self, pick: int) -> None:
        number = sorted(self.model.entries)[pick % len(self.model.entries)]
        entry = self.model.entries[number]
        refused = entry.lease is not None or entry.endpoint == "unreadable"
        assert self._operate(care.requeue, number) is not refused
        if not refused:
            entry.queue, entry.shunted_from = entry.shunted_from or entry.queue, None
            entry.available_at, entry.attempts, entry.error = self.clock.now, 0, None

    @precondition(lambda self: self.model.entries)
    @rule(pick=picks)
    def remove(self, pick: int) -> None:
        number = sorted(self.model.entries)[pick % len(self.model.entries)]
        refused = self.model.entries[number].lease is not None
        assert self._operate(care.remove, number) is not refused
        if not refused:
            del self.model.entries[number]

    def _operate(self, action: Any, number: int) -> bool:
        with self.store.begin() as connection:
            try:
                action(connection, number)
            except QueueError:
                return False
        return True

    # After each step

    @invariant()
    def the_spool_is_as_the_model_says(self) -> None:
        with self.store.read() as connection:
            rows = connection.execute(select(schema.entry)).all()
            messages = set(connection.scalars(select(schema.message.c.id)))
            receipts = connection.execute(select(schema.receipt)).all()
        found = {}
        for row in rows:
            entry = Entry(row.message, "", row.queue, row.available_at, row.attempts, row.lease)
            entry.lease_until = row.lease_until or 0.0
            entry.retried_at = row.retried_at
            entry.error = row.last_error and row.last_error.partition(" metadata")[0]
            self._read(entry, row.metadata)
            found[row.id] = entry
        assert found == {
            number: replace(
                entry,
                endpoint=entry.endpoint if entry.readable else "",
                lease_until=entry.lease_until if entry.lease else 0.0,
            )
            for number, entry in self.model.entries.items()
        }
        assert messages == {entry.message for entry in self.model.entries.values()}
        assert sorted((row.entry, row.accepted_at) for row in receipts) == sorted(
            self.model.receipts.values()
        )

    @staticmethod
    def _read(entry: Entry, metadata: str) -> None:
        try:
            facts = decode(metadata)
        except ValueError:
            entry.readable = False
            return
        entry.shunted_from = facts.get("shunted_from")
        entry.endpoint = f"{facts.get('listname', '')}/{facts.get('subaddress', '')}"
        if "unreadable" in facts:
            entry.endpoint = "unreadable"


def test_the_spool_does_what_its_model_says(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with store.begin() as connection:
        create_list(connection, "ant@example.com")
        create_list(connection, "bee@example.com")
    clock = SimpleNamespace(now=START, monotonic=time.monotonic, sleep=time.sleep)
    clock.time = lambda: clock.now
    monkeypatch.setattr(queue, "time", clock)
    monkeypatch.setattr(care, "time", clock)
    monkeypatch.setattr(intake, "time", clock)
    machine = type("Machine", (Spool,), {"store": store, "clock": clock})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=40,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
