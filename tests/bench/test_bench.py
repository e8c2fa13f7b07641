"""The bench: figures, tables, the plan, JSON, and that servers are surely ended.

For: figures that can be trusted. Nothing is measured here.
"""

import io
import json
import os
import select
import signal
from pathlib import Path

import pytest
from rich.console import Console

from bench.__main__ import arguments
from bench.chart import AVAILABLE, draw
from bench.figures import (
    Comparison,
    Door,
    Flood,
    Flush,
    FlushRow,
    Ledger,
    ListsRow,
    Rate,
    Results,
    Sizes,
    SizesRow,
    Start,
    Target,
    compare,
    faults,
    ratio,
    reached,
    summarise,
)
from bench.load import Load, LoadError, Run, calibrate
from bench.measure import Measurements, Plan, Trial
from bench.peers import dovecot, sink
from bench.process import Skip, await_ready, clean_environment, running
from bench.report import show, write_json
from bench.servers import Server, depth, slow_flush
from bench.tables import Table, door_table, flush_table, lists_table, sizes_table, tables

EVEN = Ledger(100, 100)


def rate(name: str, sessions: int, *values: float) -> Rate:
    return Rate(name, sessions, 1000, summarise(values))


def text_of(table: Table) -> str:
    target = io.StringIO()
    show(table, Console(file=target, width=200))
    return target.getvalue()


# Figures


def test_the_median_of_rounds_stands_and_the_range_is_kept() -> None:
    found = summarise([30.0, 10.0, 20.0])
    assert (found.median, found.least, found.most) == (20.0, 10.0, 30.0)
    assert found.rounds == (30.0, 10.0, 20.0)


def test_the_median_of_an_even_number_of_rounds_is_between_the_middle_ones() -> None:
    assert summarise([1.0, 2.0, 4.0, 100.0]).median == 3.0


def test_nothing_measured_is_an_error_not_a_zero() -> None:
    with pytest.raises(ValueError, match="nothing"):
        summarise([])


def test_a_ratio_to_nothing_is_no_number() -> None:
    assert ratio(5.0, 0.0) is None
    assert ratio(5.0, 2.0) == 2.5


@pytest.mark.parametrize(
    ("value", "least", "expected"),
    [(0.4, 0.4, True), (0.39, 0.4, False), (None, 0.4, None), (0.5, None, None)],
)
def test_a_verdict_needs_a_value_and_a_target(
    value: float | None, least: float | None, expected: bool | None
) -> None:
    assert reached(value, least) is expected


def test_medians_are_compared_at_the_same_number_of_sessions() -> None:
    rates = [
        rate("postroom", 10, 40, 50, 60),
        rate("postroom", 50, 80),
        rate("sink", 10, 100),
        rate("sink", 50, 100),
    ]
    targets = (Target("sink", (10,), 0.4), Target("sink", (50,), 0.9))
    assert compare(rates, "postroom", targets) == [
        Comparison("sink", 10, 0.5, 0.4, True),
        Comparison("sink", 50, 0.8, 0.9, False),
    ]


def test_a_peer_is_not_compared_where_postroom_was_not_measured() -> None:
    assert compare([rate("sink", 10, 100)], "postroom") == []


def test_the_targets_are_those_of_the_project() -> None:
    rates = [
        rate(name, sessions, 100)
        for name in ("postroom", "smtp-sink", "aiosmtpd", "mailman", "dovecot")
        for sessions in (1, 10, 50)
    ]
    found = {(c.peer, c.sessions): c.target for c in compare(rates, "postroom") if c.target}
    assert found == {
        ("smtp-sink", 10): 0.4,
        ("smtp-sink", 50): 0.6,
        ("aiosmtpd", 10): 3.0,
        ("aiosmtpd", 50): 3.0,
        ("mailman", 10): 25.0,
        ("mailman", 50): 25.0,
    }


# Faults


def test_a_message_missing_from_the_queue_is_a_fault() -> None:
    results = Results({}, {}, door=Door([], [], {}, Ledger(1000, 999)))
    assert faults(results) == ["door: 1,000 messages were accepted, 999 are in the queue"]


def test_a_flood_that_was_refused_is_a_fault() -> None:
    results = Results({}, {}, sizes=Sizes([], None, {}, ["large messages: 452"]))
    assert faults(results) == ["large messages: 452"]


def test_balanced_ledgers_are_no_fault() -> None:
    results = Results(
        {}, {}, door=Door([], [], {}, EVEN), lists=[ListsRow(1, False, rate("x", 1, 1), 1.0, EVEN)]
    )
    assert faults(results) == []


def test_the_depth_of_all_queues_is_added_up() -> None:
    stats = [{"queue": "in", "depth": 7, "oldest_age": 1.5}, {"queue": "shunt", "depth": 2}]
    assert depth(json.dumps(stats)) == 9


# Load


class Peer:
    """A server of a given rate that takes `delay` to get going; no time passes."""

    def __init__(self, rate: float, delay: float = 0.0) -> None:
        self.rate, self.delay, self.asked = rate, delay, list[int]()

    def run(self, messages: int) -> Run:
        self.asked.append(messages)
        return Run(messages, self.delay + messages / self.rate)


@pytest.mark.parametrize("speed", [1.0, 300.0, 20_000.0])
def test_a_run_is_sized_to_the_server(speed: float) -> None:
    assert calibrate(Peer(speed).run, 10, 3.0) == pytest.approx(max(10, 3.0 * speed), rel=0.1)


def test_a_start_that_takes_time_does_not_spoil_the_size() -> None:
    assert calibrate(Peer(10_000, delay=0.05).run, 10, 3.0) == pytest.approx(30_000, rel=0.1)


def test_a_run_is_never_larger_than_it_may_be() -> None:
    fast = Peer(20_000)
    assert calibrate(fast.run, 10, 3.0, most=1000) == 1000
    assert max(fast.asked) <= 1000


def test_every_session_has_a_message_to_send() -> None:
    assert calibrate(Peer(0.5).run, 50, 3.0) == 50


class Scripted(Measurements):
    """Runs that are told, not made."""

    def __init__(self, plan: Plan, broken: str = "") -> None:
        super().__init__(plan, lambda _: None)
        self.visits: list[str] = []
        self.broken = broken

    def run(self, trial: Trial, messages: int) -> Run:
        self.visits.append(trial.server.name)
        if trial.server.name == self.broken:
            raise LoadError("it was told no")
        return Run(messages, messages / 1000)


def trials(*names: str) -> list[Trial]:
    return [Trial(Server(name, 1, 1), Load(10)) for name in names]


def test_each_round_visits_every_server_once() -> None:
    work = Scripted(Plan(rounds=4))
    found = work.rates(trials("a", "b", "c"))
    rounds = [work.visits[-12:][at : at + 3] for at in range(0, 12, 3)]
    assert [sorted(each) for each in rounds] == [["a", "b", "c"]] * 4
    assert len({tuple(each) for each in rounds}) > 1, "always in the same order"
    assert [(each.name, len(each.rate.rounds)) for each in found] == [("a", 4), ("b", 4), ("c", 4)]


def test_a_server_that_fails_is_left_out_and_the_others_go_on() -> None:
    work = Scripted(Plan(rounds=2), broken="b")
    assert [each.name for each in work.rates(trials("a", "b", "c"))] == ["a", "c"]
    assert work.failed == {"b": "it was told no"}
    assert work.visits.count("b") == 1


# Tables


def test_the_door_table_shows_ratio_verdict_and_who_is_missing() -> None:
    rates = [rate("postroom", 10, 12_345), rate("smtp-sink", 10, 20_000)]
    door = Door(rates, compare(rates, "postroom"), {"dovecot": "it is not here"}, EVEN)
    table = door_table(door)
    assert table.rows == (
        ("10", "postroom", "12,345", "12,345", "12,345", "", ""),
        ("10", "smtp-sink", "20,000", "20,000", "20,000", "0.62", "0.4 met"),
    )
    assert "dovecot is left out: it is not here" in table.notes
    assert "postroom's queue holds exactly the 100 messages that were accepted." in table.notes


def test_a_missed_target_and_a_lost_message_are_plain_to_see() -> None:
    rates = [rate("postroom", 50, 10), rate("mailman", 50, 1)]
    shown = text_of(door_table(Door(rates, compare(rates, "postroom"), {}, Ledger(2, 1))))
    assert "25 MISSED" in shown
    assert "holds 1 entries, but 2 messages were accepted!" in shown


def test_only_the_largest_number_of_lists_has_a_target() -> None:
    rows = [
        ListsRow(1, False, rate("1 lists", 10, 100), 1.0, EVEN),
        ListsRow(1_000, False, rate("1000 lists", 10, 99), 0.99, EVEN),
        ListsRow(100_000, True, rate("100000 lists", 10, 95), 0.95, EVEN),
    ]
    assert [row[-1] for row in lists_table(rows).rows] == ["", "", "0.9 met"]


def sizes_of(flood: Flood | None = None) -> Sizes:
    row = SizesRow(1_000_000, rate("postroom", 10, 50), 50.0, summarise([80e6]), summarise([99e6]))
    return Sizes([row], flood, {}, [])


def test_the_sizes_table_shows_throughput_and_peak_memory() -> None:
    assert sizes_table(sizes_of()).rows == (("1,000,000", "50", "50", "50", "50.0", "80", "99"),)


@pytest.mark.parametrize(("peak", "verdict"), [(200_000_000, ": met"), (300_000_000, ": MISSED")])
def test_the_flood_is_judged_by_its_peak_memory(peak: int, verdict: str) -> None:
    flood = Flood(100, 25_000_000, 9.5, peak, peak, 234e6, EVEN)
    assert any(note.endswith(verdict) for note in sizes_table(sizes_of(flood)).notes)


def test_the_flush_table_compares_with_the_same_sessions_undelayed() -> None:
    rows = [
        FlushRow(0.0, rate("0 ms", 10, 100), 8.0),
        FlushRow(0.002, rate("2 ms", 10, 80), 9.5),
    ]
    table = flush_table(Flush(rows, 1234, {}))
    assert [row[-2:] for row in table.rows] == [("1.00", "8.0"), ("0.80", "9.5")]
    assert any("1,234 flushes" in note for note in table.notes)


def test_a_flush_table_that_could_not_be_made_says_why() -> None:
    shown = text_of(flush_table(Flush([], 0, {"flush": "there is no C compiler (cc)"})))
    assert "flush is left out: there is no C compiler (cc)" in shown
    assert "counted" not in shown


def everything() -> Results:
    rates = [rate("postroom", 10, 90, 110), rate("mailman", 10, 2)]
    return Results(
        {"cores": 2},
        Plan()._asdict(),
        Start(*(summarise([value]) for value in (0.5, 0.4, 0.003, 0.006, 70e6))),
        Door(rates, compare(rates, "postroom"), {}, EVEN),
        [ListsRow(1, False, rates[0], 1.0, EVEN)],
        sizes_of(),
        Flush([FlushRow(0.0, rates[0], 3.0)], 5, {}),
    )


def test_only_parts_that_were_measured_have_a_table() -> None:
    assert len(tables(everything())) == 5
    assert tables(Results({}, {})) == []


def test_the_json_holds_every_round(tmp_path: Path) -> None:
    write_json(everything(), tmp_path / "bench.json")
    found = json.loads((tmp_path / "bench.json").read_text())
    assert found["machine"] == {"cores": 2}
    assert found["plan"]["sessions"] == [1, 10, 50]
    assert found["door"]["rates"][0] == {
        "name": "postroom",
        "sessions": 10,
        "messages": 1000,
        "rate": {"median": 100.0, "least": 90.0, "most": 110.0, "rounds": [90.0, 110.0]},
    }
    assert found["door"]["comparisons"][0]["met"] is True
    assert found["faults"] == []


def test_the_chart_is_drawn_when_it_can_be(tmp_path: Path) -> None:
    files = draw(everything(), tmp_path)
    names = ["bench.svg", "bench.png"] if AVAILABLE else []
    assert [path.name for path in files] == names
    assert all(path.stat().st_size for path in files)


# Peers and processes


def test_a_peer_that_is_not_installed_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.load.program", lambda _: None)
    for start, reason in ((sink, "smtp-sink is not here"), (dovecot, "dovecot is not here")):
        with pytest.raises(Skip, match=reason), start(tmp_path / "peer"):
            pytest.fail("it was started")


def test_a_server_that_ends_at_once_is_skipped_with_its_last_word(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        running(["sh", "-c", "echo no such option >&2; exit 3"], log, tmp_path) as process,
        pytest.raises(Skip, match="status 3: no such option"),
    ):
        await_ready(process, log)


def test_flushes_are_not_slowed_without_a_compiler(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skip, match="no C compiler"):
        slow_flush(tmp_path)


def test_what_was_started_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    born = tmp_path / "born"
    os.mkfifo(born)
    script = f"sleep 600 & echo $! > {born}; wait"  # ends on SIGTERM, and leaves its child
    with (
        pytest.raises(KeyboardInterrupt),
        running(["sh", "-c", script], tmp_path / "log", tmp_path) as process,
    ):
        orphan = os.pidfd_open(int(born.read_text()))
        raise KeyboardInterrupt
    assert process.returncode == -signal.SIGTERM
    with os.fdopen(orphan):
        assert select.select([orphan], [], [], 30)[0], "the child of the server lives on"


def test_the_environment_of_a_server_has_nothing_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", "192.0.2.1:25")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = clean_environment(POSTROOM_CONFIG="x")
    assert {k: v for k, v in found.items() if k.startswith(("PYTHON", "POSTROOM"))} == {
        "POSTROOM_CONFIG": "x"
    }


# Command line


@pytest.mark.parametrize("words", [["--rounds", "0"], ["--rounds", "x"], ["--only", "windows"]])
def test_wrong_options_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as refused:
        arguments(words)
    assert refused.value.code == 2
    assert words[0] in capsys.readouterr().err


def test_parts_can_be_chosen() -> None:
    assert arguments(["--only", "door", "--only", "flush"]).only == ["door", "flush"]
