"""The pages of a server: a real intake, a door whose figures the test makes up."""

import asyncio
import io
import json
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import update

from postroom.base.observe import Log
from postroom.base.places import parse_listen
from postroom.base.settings import LogSettings, Settings
from postroom.lists import registry
from postroom.lmtp.budget import Budget
from postroom.service.front import Front
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.store.engine import Store
from postroom.store.schema import entry
from postroom.testing.site import Site
from postroom.watch import observatory as module
from postroom.watch.figures import Memory, Status, Tally
from postroom.watch.http import fetch
from postroom.watch.observatory import Observatory, decode_status
from tests.integration.processes import eventually
from tests.watch.statuses import status, tally
from tests.watch.watched import Watched, door_figures

TO = "ants@example.com"


@pytest.fixture
def store(sqlite_store: Store) -> Store:
    """A database with one list."""
    with sqlite_store.begin() as connection:
        registry.create_list(connection, TO)
    return sqlite_store


@pytest.fixture
def watched(store: Store) -> Iterator[Watched]:
    """Its pages."""
    with Watched(store) as made:
        yield made


def shown(watched: Watched) -> Status:
    code, body = watched.get("/status")
    assert code == 200
    return decode_status(body)


def test_all_pages_show_the_same_server(watched: Watched) -> None:
    watched.send(TO, "nope@example.com")
    watched.figures = door_figures(replies={b"250 2.0.0 Ok\r\n": 3, b"250-x\r\n250 y\r\n": 1})
    code, body = watched.get("/metrics")
    assert code == 200
    assert b'postroom_replies_total{code="250"} 4.0\n' in body
    assert b"postroom_messages_stored_total 1.0\n" in body
    found = shown(watched)
    assert found.replies == {"250": 4}
    assert found.tally is not None and found.tally.messages == 1
    assert [each.recipient for each in found.refusals] == ["nope@example.com"]
    code, body = watched.get("/healthz")
    assert (code, json.loads(body)) == (200, {"status": "ok", "reasons": []})
    assert watched.get("/")[0] == watched.get("/metrics/")[0] == 404


def test_what_the_door_counted_is_shown(watched: Watched) -> None:
    budget = Budget(1000)
    budget.request(600, lambda: None)
    budget.request(600, lambda: None)
    budget.resize(-200)
    watched.figures = door_figures(
        settings=msgspec.convert({"lmtp": {"max_connections": 7}}, Settings),
        replies={b"421 4.4.2 too slow\r\n": 2, b"421 4.4.2 idle\r\n": 1, b"421 4.3.2 x\r\n": 5},
        states=["ready", "data", "ready"],
        accepted=11,
        refused={"too many": 3},
        octets_in=12_345,
        budget=budget,
    )
    found = shown(watched)
    assert (found.timed_out, found.replies) == (3, {"421": 8})
    assert found.connections["ready"] == 2 and found.connections["data"] == 1
    assert found.connections["greeted"] == 0  # a state that nobody is in is 0, not unknown
    assert (found.max_connections, found.accepted, found.octets_in) == (7, 11, 12_345)
    assert found.refused == {"too many": 3}
    assert found.memory == Memory(total=800, free=200, waiting=1)
    assert found.free is not None and found.free > 0
    assert found.started_at <= found.time


def test_a_degraded_server_is_served_and_says_why(watched: Watched) -> None:
    watched.figures = door_figures(unbound=["maps.listen"])
    code, body = watched.get("/healthz")
    assert code == 200
    assert json.loads(body) == {
        "status": "degraded",
        "reasons": ["nobody listens on maps.listen: the log says why"],
    }


def test_an_intake_that_does_not_answer_is_a_failure_until_it_does(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as hasty:
        hasty.setattr(module, "PATIENCE", 0.05)
        watched.intake.send_signal(signal.SIGSTOP)
        code, body = watched.get("/healthz")
        assert code == 503
        assert "the intake process did not answer" in json.loads(body)["reasons"][0]
        code, body = watched.get("/metrics")
        assert (code, b"postroom_intake_up 0.0\n" in body) == (200, True)
        assert b"postroom_messages_stored_total" not in body
    watched.intake.send_signal(signal.SIGCONT)
    assert watched.get("/healthz")[0] == 200


def test_an_intake_that_is_gone_is_a_failure_at_once(watched: Watched) -> None:
    watched.intake.kill()
    watched.intake.wait()
    code, body = watched.get("/healthz")
    assert code == 503
    assert json.loads(body)["reasons"] == ["the intake process is gone: the log says why"]


def test_a_commit_that_failed_is_a_failure(watched: Watched, store: Store) -> None:
    watched.front._deadline = 0.05
    with store.begin():  # it has the write lock
        watched.send(TO)
        code, body = watched.get("/healthz")
        assert code == 503
        assert "locked" in json.loads(body)["reasons"][0]
    watched.send(TO, raw=b"\r\nanother\r\n")
    assert watched.get("/healthz")[0] == 200


def test_the_pages_are_there_on_a_unix_socket_too(store: Store, tmp_path: Path) -> None:
    bound = socket.socket(socket.AF_UNIX)
    bound.bind(f"{tmp_path}/pages")
    bound.listen()
    with Watched(store, bound) as watched:
        assert watched.get("/healthz")[0] == 200


def test_mail_that_no_runner_takes_is_told(store: Store) -> None:
    with store.begin() as connection:
        [number] = hand_on(connection, IdMaker(), [Handed("in", 1, {}, Letter(b"\r\n", ""))])
        old = update(entry).where(entry.c.id == number).values(available_at=time.time() - 3_600)
        connection.execute(old)
    with Watched(store) as watched:
        eventually(lambda: b"queue_due_seconds" in watched.get("/metrics")[1], "a look at queues")
        code, body = watched.get("/healthz")
        found = json.loads(body)
        assert (code, found["status"]) == (200, "degraded")
        assert "mail in queue in is due for 60 minutes" in found["reasons"][0]
        assert b'postroom_queue_due_seconds{queue="in"} 36' in watched.get("/metrics")[1]


class Silent:
    """A front whose intake says nothing until it is told to."""

    def __init__(self) -> None:
        self.asked: list[Callable[[Tally | None], None]] = []

    def stats(self, answer: Callable[[Tally | None], None]) -> None:
        self.asked.append(answer)


def test_the_intake_is_asked_once_however_many_look_and_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def script() -> None:
        log = Log(LogSettings("json"), io.StringIO())
        front = Front(Settings(), log, lambda: None)
        silent = Silent()
        monkeypatch.setattr(front, "stats", silent.stats)
        observatory = Observatory(door_figures, front, log)
        with monkeypatch.context() as hasty:
            hasty.setattr(module, "PATIENCE", 0.01)
            for _ in range(3):
                late = await asyncio.gather(observatory.status(), observatory.status())
                assert [each.tally for each in late] == [None, None]
        assert len(silent.asked) == 1
        looks = asyncio.gather(observatory.status(), observatory.status())
        await asyncio.sleep(0)
        silent.asked[0](tally(messages=5))
        assert [each.tally for each in await looks] == [tally(messages=5)] * 2
        look = asyncio.ensure_future(observatory.status())
        await asyncio.sleep(0)
        assert len(silent.asked) == 2  # the last answer is not used again
        silent.asked[1](None)
        assert (await look).tally is None

    asyncio.run(script())


def test_a_status_comes_out_as_it_went_in() -> None:
    for sent in status(), status(tally=None, free=None, refusals=()):
        assert decode_status(msgspec.json.encode(sent)) == sent


def test_a_running_server_shows_what_it_did() -> None:
    with Site(METRICS__LISTEN="127.0.0.1:0") as site:
        with site.store.begin() as connection:
            registry.create_list(connection, TO)
        site.start()
        events = [json.loads(line) for line in site.log.read_text().splitlines() if line[0] == "{"]
        [where] = next(each for each in events if each["event"] == "serving")["metrics"]
        place = parse_listen(where)
        with site.client() as client:
            client.sendmail("anne@example.org", [TO, "nope@example.com"], "\r\nhello\r\n")
            found = decode_status(fetch(place, "/status")[1])
            assert found.connections["ready"] == found.accepted == 1
            assert found.octets_in > 0
            assert (found.replies["220"], found.replies["550"]) == (1, 1)
            assert found.tally is not None and found.tally.recipients["post"] == 1
            assert [each.recipient for each in found.refusals] == ["nope@example.com"]
        assert fetch(place, "/healthz")[0] == 200
