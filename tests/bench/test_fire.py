"""The bench under fire, and against another checkout: figures, tables, crowds, tiny runs.

For: that what is said to be there, idle clients and attackers, really is. The runs are too
short to measure anything.
"""

import contextlib
import os
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.__main__ import arguments
from bench.against import OTHER, OURS, against
from bench.crowd import LEEWAY, ROOT, Crowd, Told, crowd, deaf, open_files, tidied
from bench.figures import (
    Against,
    AgainstRow,
    Attack,
    Hostile,
    Idle,
    Ledger,
    Rate,
    Results,
    faults,
    summarise,
)
from bench.fire import ALONE, ATTACKED, CONTROL, hostile, idle
from bench.load import LoadError, Run
from bench.measure import Measurements, Plan, Trial
from bench.process import Skip
from bench.servers import Postroom
from bench.tables import against_table, hostile_table, idle_table, tables
from tests.peers import need

EVEN, SHORT = Ledger(100, 100), Ledger(100, 99)
TINY = Plan(rounds=1, seconds=0.02, sessions=(2,), idle=20, hostile=4)


def rate(name: str, *values: float) -> Rate:
    return Rate(name, 10, 1000, summarise(values))


def idle_of(ratio: float, answering: int, octets: float, ledger: Ledger = EVEN) -> Idle:
    rates = [rate("alone", 100), rate("beside", 100 * ratio)]
    return Idle(10_000, rates, [summarise([70e6]), summarise([octets])], ratio, answering, ledger)


def hostile_of(ratio: float, ledger: Ledger = EVEN) -> Hostile:
    rates = [rate(ALONE, 100), rate(ATTACKED, 100 * ratio), rate(CONTROL, 90)]
    attacks = {ATTACKED: Attack(200.0, 5e6, 0.25), CONTROL: Attack(50.0, 1e6, 0.5)}
    return Hostile(250, rates, attacks, ratio, 0.9, ledger)


def against_of(ratio: float, ledger: Ledger = EVEN) -> Against:
    row = AgainstRow(rate("postroom", 1000 * ratio), rate("the other", 1000), ratio)
    return Against("/other", [row], {"postroom": EVEN, "the other": ledger})


# Figures and tables


def test_what_attackers_did_is_the_median_of_each_figure() -> None:
    attacks = [Attack(1.0, 30.0, 0.5), Attack(2.0, 10.0, 0.1), Attack(9.0, 20.0, 0.3)]
    assert Attack.median(attacks) == Attack(2.0, 20.0, 0.3)


def test_a_crowd_is_counted_from_when_the_run_began() -> None:
    before, after = Told(10, 10, 100, 1.5), Told(9, 30, 400, 2.0)
    assert after.since(before) == Told(9, 20, 300, 0.5)


def test_a_message_missing_under_fire_is_a_fault() -> None:
    results = Results(
        {},
        {},
        idle=idle_of(1.0, 10_000, 1.0, SHORT),
        hostile=hostile_of(1.0, SHORT),
        against=against_of(1.0, SHORT),
    )
    assert [each.partition(":")[0] for each in faults(results)] == [
        "beside idle clients",
        "under attack",
        "the other",
    ]


@pytest.mark.parametrize(
    ("measured", "ratio", "memory", "answering"),
    [
        (idle_of(0.9, 10_000, 300e6), "0.9 met", "300 met", "10,000 of 10,000"),
        (idle_of(0.89, 9_999, 301e6), "0.9 MISSED", "300 MISSED", "9,999 of 10,000"),
    ],
)
def test_idle_clients_must_cost_little_and_stay(
    measured: Idle, ratio: str, memory: str, answering: str
) -> None:
    table = idle_table(measured)
    assert (table.rows[1][5], table.rows[1][7]) == (ratio, memory)
    assert table.rows[0][5] == table.rows[0][7] == ""
    assert table.notes[0].startswith(answering)
    assert table.notes[0].endswith(ratio.split()[1])


@pytest.mark.parametrize(("ratio", "verdict"), [(0.7, "0.7 met"), (0.69, "0.7 MISSED")])
def test_the_honest_ones_must_keep_their_rate_under_attack(ratio: float, verdict: str) -> None:
    table = hostile_table(hostile_of(ratio))
    assert [row[0] for row in table.rows] == [ALONE, ATTACKED, CONTROL]
    assert [row[-2:] for row in table.rows] == [("", ""), (f"{ratio:.2f}", verdict), ("0.90", "")]
    assert any("200 connections/s, 5.0 MB/s offered" in note for note in table.notes)


@pytest.mark.parametrize(
    ("ratio", "shown"), [(0.97, ("0.970", "0.97 met")), (0.9685, ("0.969", "0.97 MISSED"))]
)
def test_another_checkout_is_the_measure(ratio: float, shown: tuple[str, str]) -> None:
    rows = against_table(against_of(ratio)).rows
    assert [row[1] for row in rows] == ["postroom", "the other"]
    assert [row[-2:] for row in rows] == [shown, ("", "")]


def test_each_part_has_its_table() -> None:
    results = Results({}, {}, idle=idle_of(1, 1, 1), hostile=hostile_of(1), against=against_of(1))
    assert len(tables(results)) == 3


# Crowds


class _Forgetful(socketserver.BaseRequestHandler):
    """Greets, takes LHLO, and closes at the second command of every third client."""

    def handle(self) -> None:
        assert isinstance(self.server, _Server)
        with self.server.lock:
            self.server.clients += 1
            leaves = self.server.clients % 3 == 0
        self.request.sendall(b"220 hello\r\n")
        while self.request.recv(512):
            self.request.sendall(b"250 fine\r\n")
            if leaves and self.request.recv(512):
                return


class _Server(socketserver.ThreadingTCPServer):
    daemon_threads, request_queue_size = True, 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Forgetful)
        self.clients, self.lock = 0, threading.Lock()


@pytest.fixture
def forgetful() -> Iterator[int]:
    """The port of a server that loses every third client."""
    with _Server() as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        yield server.server_address[1]
        server.shutdown()
        serving.join()


def until(clients: Crowd, done: Callable[[Told], bool]) -> Told:
    """What they did when it is enough."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        told = clients.told()
        if done(told):
            return told
    pytest.fail("they did not do it")


def test_only_idle_clients_that_get_an_answer_count(forgetful: int, tmp_path: Path) -> None:
    with crowd("idle", forgetful, 9, tmp_path / "log") as idlers:
        first = idlers.told()
        assert idlers.told().answering == 6
    assert (first.connections, first.answering) == (9, 6)


def test_a_flood_that_is_thrown_out_comes_again(tmp_path: Path) -> None:
    with (
        deaf(tmp_path / "deaf", tmp_path) as port,
        crowd("flood", port, 4, tmp_path / "log") as flood,
    ):
        told = until(flood, lambda told: told.connections > 4)
    assert told.octets > 4 * 2000 * len(b"NOOP\r\n")


def test_slow_clients_are_let_in_and_go_on(tmp_path: Path) -> None:
    with (
        deaf(tmp_path / "deaf", tmp_path) as port,
        crowd("slow", port, 4, tmp_path / "log") as slow,
    ):
        first = slow.told()
        told = until(slow, lambda told: told.octets > first.octets)
    assert told.connections == 4
    assert told.octets < 2000


@pytest.mark.parametrize("kind", ["idle", "slow"])
def test_clients_end_with_those_who_sent_them(kind: str, forgetful: int) -> None:
    command = [sys.executable, "-m", "bench.clients", kind, str(forgetful), "3"]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as clients:
        assert clients.stdout is not None
        clients.stdout.readline()
        assert clients.communicate(timeout=60) == (b"", b"")
    assert clients.returncode == 0


def test_more_clients_than_the_system_has_files_for_are_not_tried(tmp_path: Path) -> None:
    with (
        pytest.raises(Skip, match="1,000,000,000 clients need 1,000,001,000 open files"),
        crowd("idle", 1, 1_000_000_000, tmp_path / "log"),
    ):
        pytest.fail("they came in")


def test_a_server_that_keeps_what_is_gone_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.crowd.LIMIT", 0.0)
    with (
        contextlib.ExitStack() as kept,
        pytest.raises(LoadError, match="still held"),
        tidied(os.getpid()),
    ):
        for _ in range(LEEWAY + 1):
            kept.enter_context(open(os.devnull))
    with tidied(os.getpid()), open(os.devnull):
        assert open_files(os.getpid()) > 0


# Tiny runs


def quiet(text: str) -> None:
    assert text


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """What others write need not be on the disk where nothing is measured."""
    monkeypatch.setattr("bench.measure.os.sync", lambda: None)


def test_honest_clients_are_measured_beside_idle_ones(tmp_path: Path) -> None:
    need("smtp-source")
    found = idle(TINY, tmp_path, quiet)
    assert (found.clients, found.answering) == (20, 20)
    assert found.ledger.balanced and found.ledger.sent > 0
    assert [each.name for each in found.rates] == ["alone", "beside idle clients"]
    assert all(each.median > 1e6 for each in found.memory)


def test_honest_clients_are_measured_under_attack(tmp_path: Path) -> None:
    need("smtp-source")
    found = hostile(TINY, tmp_path, quiet)
    assert found.ledger.balanced and found.ledger.sent > 0
    assert [each.name for each in found.rates] == [ALONE, ATTACKED, CONTROL]
    assert found.ratio is not None and found.control is not None
    assert list(found.attacks) == [ATTACKED, CONTROL]


def test_another_checkout_is_measured_in_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("smtp-source")
    visits, run = [], Measurements.run

    def noted(work: Measurements, trial: Trial, messages: int) -> Run:
        visits.append(trial.server.name)
        return run(work, trial, messages)

    monkeypatch.setattr(Measurements, "run", noted)
    found = against(TINY._replace(rounds=2), tmp_path, ROOT, quiet)
    assert visits[-4:] == [OTHER, OURS, OURS, OTHER]
    assert faults(Results({}, {}, against=found)) == []
    (row,) = found.rows
    assert row.ours.messages == row.other.messages
    assert [len(each.rate.rounds) for each in (row.ours, row.other)] == [2, 2]
    assert all(each.sent > 0 for each in found.ledgers.values())


OLDER_SETTINGS = """
class Settings:
    __struct_fields__ = ("site", "store", "lmtp", "service", "log")
"""
# Tells by its depth how many settings it was given that it does not know, and 1000.
OLDER_MAIN = """
import json, os
unknown = [name for name in os.environ if name.startswith(("POSTROOM_MAPS", "POSTROOM_METRICS"))]
assert "POSTROOM_LMTP__LISTEN" in os.environ
print(json.dumps([{"queue": "in", "depth": 1000 + len(unknown)}]))
"""


def test_an_older_checkout_is_not_told_what_it_does_not_know(tmp_path: Path) -> None:
    package = tmp_path / "older/src/postroom"
    (package / "service").mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(OLDER_MAIN)
    (package / "service/__init__.py").touch()
    (package / "service/settings.py").write_text(OLDER_SETTINGS)
    assert Postroom(tmp_path / "run", source=tmp_path / "older").queued() == 1000


# Command line


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--against", "/nowhere"], "/nowhere is no checkout of postroom"),
        (["--against", str(ROOT), "--only", "door"], "not allowed with argument"),
    ],
)
def test_wrong_options_are_refused(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        arguments(words)
    assert refused.value.code == 2
    assert said in capsys.readouterr().err


def test_another_checkout_can_be_named() -> None:
    assert arguments(["--against", str(ROOT)]).against == ROOT
