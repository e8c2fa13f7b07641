"""A PostgreSQL server that goes away: never 5xx, each entry exactly once."""

from collections.abc import Sequence
from typing import Any

import psycopg
import pytest
from sqlalchemy import event, text

from postroom.spool import intake
from postroom.store.direct import Direct
from postroom.store.engine import Store
from tests.contract import sabotage
from tests.contract.conftest import NewDesk
from tests.contract.desk import NOTHING, Counts, Desk, counts, endpoints, envelope, rows
from tests.contract.sabotage import BAD
from tests.peers import Cluster

SOON = 0.5  # seconds: a deadline that tests wait for
BATCH = [
    envelope("ant@example.com", "bee-join@example.com", sender=BAD, raw=b"1"),
    envelope("ant@example.com", "no@example.com", raw=b"2"),
]
STORED = [[250, 250], [250, 550]]


@pytest.fixture
def store_url(cluster: Cluster) -> str:
    """A new database."""
    return cluster.new_database()


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Try again at once."""
    monkeypatch.setattr(intake, "PAUSE", 0.01)


def stored_once(desk: Desk) -> bool:
    """Whether the batch was stored, and once."""
    found = sorted((row.raw, row.endpoint) for row in rows(desk.store))
    return counts(desk.store) == Counts(3, 2, 3) and found == [
        (b"1", "ant@example.com/"),
        (b"1", "bee@example.com/join"),
        (b"2", "ant@example.com/"),
    ]


def terminate(store: Store, process: int) -> None:
    """End a server process, and wait until it is gone."""
    with store.engine.connect() as connection:
        gone = connection.scalar(text("SELECT pg_terminate_backend(:pid, 10000)"), {"pid": process})
        assert gone is True


def process_of(desk: Desk) -> int:
    """The server process of the writer's connection."""
    return int(desk.direct.execute("SELECT pg_backend_pid()")[0][0])


def test_a_connection_lost_between_batches_is_replaced(desk: Desk) -> None:
    assert desk.deliver(envelope("bee@example.com")) == [[250]]
    process = process_of(desk)
    desk.direct.discard()
    terminate(desk.store, process)
    assert desk.deliver(*BATCH) == STORED
    assert counts(desk.store) == Counts(4, 3, 4)
    assert [trouble.unknown for trouble in desk.troubles] == [False]


class Ended(Direct):
    """Its server process is ended when it is told to insert the first time."""

    process = 0

    def insert(self, *arguments: Any, **options: Any) -> int:
        if not self.process:
            self.process = int(self.execute("SELECT pg_backend_pid()")[0][0])
            terminate(self._store, self.process)
        return super().insert(*arguments, **options)


def test_a_connection_lost_before_the_commit_is_tried_again(new_desk: NewDesk) -> None:
    desk = new_desk(Ended)
    assert desk.deliver(*BATCH) == STORED
    assert stored_once(desk)
    assert [(trouble.retry, trouble.unknown) for trouble in desk.troubles] == [(True, False)]


DIE_ONCE = (
    "IF nextval('deaths') = 1 THEN "
    "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60); END IF;"
)
DIE = "PERFORM pg_terminate_backend(pg_backend_pid()); PERFORM pg_sleep(60);"


def test_a_connection_lost_in_the_commit_is_found_out_by_trying_again(desk: Desk) -> None:
    sabotage.run(desk.store, "CREATE SEQUENCE deaths")
    sabotage.at_commit(desk.store, DIE_ONCE)
    assert desk.deliver(*BATCH) == STORED
    assert stored_once(desk)
    assert [(trouble.retry, trouble.unknown) for trouble in desk.troubles] == [(True, True)]


def test_an_outcome_that_stays_unknown_is_no_answer(desk: Desk) -> None:
    sabotage.at_commit(desk.store, DIE)
    assert desk.deliver(*BATCH, within=SOON) == [None, None]
    assert desk.troubles[0].unknown
    assert counts(desk.store) == NOTHING
    sabotage.repair(desk.store)
    assert desk.deliver(*BATCH) == STORED
    assert stored_once(desk)


class ReplyLost(Direct):
    """It commits, and the first time the connection is lost before that is known."""

    lost = False

    def commit(self) -> None:
        super().commit()
        if not self.lost:
            self.lost = True
            self._driver.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")


def test_a_commit_whose_confirmation_is_lost_is_found_by_its_receipts(new_desk: NewDesk) -> None:
    desk = new_desk(ReplyLost)
    assert desk.deliver(*BATCH) == STORED
    assert stored_once(desk)
    assert [(stored.entries, stored.again) for stored in desk.stored] == [((), 2), ((), 1)]


def test_a_commit_whose_confirmation_is_lost_too_late_is_no_answer_and_stays(
    new_desk: NewDesk,
) -> None:
    desk = new_desk(ReplyLost)

    def break_registry() -> None:
        if len(desk.troubles) == 1:
            sabotage.run(desk.store, "ALTER TABLE domain RENAME TO away")

    desk.at_trouble = break_registry
    assert desk.deliver(*BATCH) == [None, None]  # never 451: it is stored
    assert stored_once(desk)
    sabotage.run(desk.store, "ALTER TABLE away RENAME TO domain")
    assert desk.deliver(*BATCH) == STORED
    assert stored_once(desk)


def test_a_server_that_is_down_is_451_and_up_again_it_takes_mail(
    desk: Desk, cluster: Cluster
) -> None:
    desk.deliver(envelope("bee@example.com"))
    cluster.stop()
    try:
        assert desk.deliver(*BATCH, within=SOON) == [[451, 451], [451, 451]]
    finally:
        cluster.start()
    assert counts(desk.store) == Counts(1, 1, 1)
    assert desk.deliver(*BATCH) == STORED
    assert counts(desk.store) == Counts(4, 3, 4)


def test_a_server_that_comes_back_within_the_deadline_only_delays(
    desk: Desk, cluster: Cluster
) -> None:
    desk.deliver(envelope("bee@example.com"))
    cluster.stop()
    down = [True]

    def start() -> None:
        if len(desk.troubles) >= 3 and down:
            down.clear()
            cluster.start()

    desk.at_trouble = start
    try:
        assert desk.deliver(*BATCH) == STORED
    finally:
        if down:
            cluster.start()
    assert counts(desk.store) == Counts(4, 3, 4)


@pytest.mark.parametrize("code", ["53100", "53200", "53300"])
def test_d11_a_server_without_room_is_452(desk: Desk, code: str) -> None:
    sabotage.refuse(desk.store, code)
    assert desk.deliver(*BATCH) == [[452, 452], [452, 452]]
    assert counts(desk.store) == NOTHING
    sabotage.repair(desk.store)
    assert desk.deliver(*BATCH) == STORED


@pytest.mark.parametrize("code", ["40001", "40P01", "55P03", "57014"])
def test_what_another_transaction_is_the_cause_of_is_tried_again(desk: Desk, code: str) -> None:
    sabotage.refuse(desk.store, code)
    desk.at_trouble = lambda: sabotage.repair(desk.store)
    assert desk.deliver(*BATCH) == STORED
    assert len(desk.troubles) == 1
    assert stored_once(desk)


def test_a_server_that_only_reads_is_451(desk: Desk) -> None:
    with desk.store.engine.connect() as connection:
        name = connection.scalar(text("SELECT current_database()"))
        connection.execute(text(f"ALTER DATABASE {name} SET default_transaction_read_only = on"))
        connection.commit()
    desk.store.engine.dispose()  # it holds for new connections
    assert desk.deliver(*BATCH) == [[451, 451], [451, 451]]
    assert not any(trouble.unhealthy or trouble.retry for trouble in desk.troubles)


def remove_ant(store: Store) -> None:
    sabotage.run(store, "DELETE FROM mailing_list WHERE list_name = 'ant'")


class RemovedUnderIt(Direct):
    """A list is removed after the first look-up and before what follows."""

    removed = False

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        found = super().execute(statement, tuple(parameters))
        if "unnest" in statement and not self.removed:
            self.removed = True
            remove_ant(self._store)
        return found


def test_a_list_that_is_removed_under_a_batch_fails_no_neighbour(new_desk: NewDesk) -> None:
    desk = new_desk(RemovedUnderIt)
    alone = envelope("bee@example.com")
    assert desk.deliver(envelope("ant@example.com"), alone) == [[550], [250]]
    assert endpoints(desk.store) == ["bee@example.com/"]


def test_the_writer_s_statements_and_waits_are_bounded(desk: Desk) -> None:
    seen: list[str] = []
    event.listen(desk.store.engine, "checkout", lambda *_: seen.append("checkout"))
    desk.direct.begin(lock_wait=0.25, limit=1.5)
    shown = desk.direct.execute(
        "SELECT current_setting('lock_timeout'), current_setting('statement_timeout')"
    )
    assert shown == [("250ms", "1500ms")]
    desk.direct.discard()
    assert desk.direct.execute("SELECT current_setting('statement_timeout')") == [("0",)]
    desk.direct.discard()
    assert seen == ["checkout"]
