"""The bench of posts: the counting sink, figures, tables, the trace of statements.

For: figures that can be trusted. Nothing is measured here.
"""

import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.figures import Ledger, Summary, summarise
from bench.load import LoadError
from bench.post_figures import (
    Beside,
    Memory,
    Posts,
    Results,
    Statements,
    beside_table,
    grown,
    memory_table,
    posts_table,
    sizes_table,
    statements_table,
    tables,
    times,
)
from bench.post_ours import TRACES, Site, Trace, runners_of, shape
from bench.post_run import address, deliver, exactly, hand_over, lists, message
from bench.post_sink import APART, Arrived, Sink, sink
from bench.process import Skip, clean_environment, memory
from bench.tables import Table
from tests.peers import need

OURS, PEER = "postroom", "mailman"
LIMIT = 60.0


# The sink


@pytest.fixture
def counted(tmp_path: Path) -> Iterator[Sink]:
    need("postfix")
    need("cc")
    with sink(tmp_path / "sink") as running:
        yield running


def talk(sink: Sink, octets: bytes, replies: int, piece: int = 65536) -> None:
    """Say all of it, in pieces, and wait for so many replies."""
    with socket.create_connection(("127.0.0.1", sink.port), timeout=LIMIT) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answers = client.makefile("rb")
        answers.readline()
        client.sendall(b"HELO localhost\r\n")
        answers.readline()
        for at in range(0, len(octets), piece):
            client.sendall(octets[at : at + piece])
        for _ in range(replies):
            assert answers.readline()[:1] in (b"2", b"3")


def transaction(*recipients: str) -> bytes:
    to = b"".join(b"RCPT TO:<%s>\r\n" % each.encode() for each in recipients)
    return b"MAIL FROM:<ann@example.org>\r\n" + to + b"DATA\r\nSubject: x\r\n\r\n..\r\nx\r\n.\r\n"


def test_each_recipient_of_each_message_is_counted_once(counted: Sink) -> None:
    with smtplib.SMTP("127.0.0.1", counted.port) as client:
        for number in (1, 50, 7):
            to = [f"m{each}@example.net" for each in range(number)]
            client.sendmail("ann@example.org", to, "Subject: x\n\n.\nRCPT\n")
    found = counted.arrived()
    assert (found.recipients, found.messages) == (58, 3)
    assert 0 < found.first < found.last


@pytest.mark.parametrize("piece", [1, 7, 65536])
def test_the_count_does_not_depend_on_how_octets_come(counted: Sink, piece: int) -> None:
    talk(counted, transaction("bo@example.net", "cy@example.net") * 3, 3 * 5, piece)
    assert counted.wait(6, LIMIT).messages == 3


def test_recipients_of_a_message_that_did_not_come_are_not_counted(counted: Sink) -> None:
    cut = transaction("bo@example.net")
    talk(counted, cut[: cut.index(b"DATA")], 2)  # hung up
    with smtplib.SMTP("127.0.0.1", counted.port) as client:
        client.ehlo()
        client.mail("ann@example.org")
        client.rcpt("cy@example.net")
        client.rset()
        client.sendmail("ann@example.org", ["di@example.net"], "Subject: x\n\nx\n")
    assert counted.arrived().recipients == 1


def test_some_recipients_are_counted_apart_and_all_anew(counted: Sink) -> None:
    talk(counted, transaction("bo@example.net", f"{APART}cy@example.net", "di@example.net"), 6)
    assert counted.wait(2, LIMIT).recipients == 2
    assert counted.arrived(apart=True).recipients == 1
    counted.clear()
    assert counted.arrived() == counted.arrived(apart=True) == Arrived(0, 0, 0.0, 0.0)
    talk(counted, transaction("bo@example.net"), 4)
    assert counted.wait(1, LIMIT).recipients == 1


def test_recipients_that_do_not_come_are_an_error(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    counts.write_bytes(bytes(64))
    with pytest.raises(LoadError, match="0 of 1,000 recipients"):
        Sink(1, 1, counts).wait(1000, 0.0)


def test_what_was_kept_is_taken_out_once(tmp_path: Path) -> None:
    need("postfix")
    need("cc")
    with sink(tmp_path / "sink", keep=True) as keeping:
        talk(keeping, transaction("bo@example.net"), 4)
        [message] = keeping.take()
        assert b"\nX-Rcpt-Args: <bo@example.net>\n" in message
        assert keeping.take() == []


def test_a_sink_keeps_nothing_by_itself(counted: Sink) -> None:
    talk(counted, transaction("bo@example.net"), 4)
    assert counted.take() == []


def test_a_recipient_too_many_or_too_few_is_an_error() -> None:
    exactly(Arrived(100, 1, 1.0, 2.0), 100)
    for number in (99, 101):
        with pytest.raises(LoadError, match=f"{number} recipients came instead of 100"):
            exactly(Arrived(number, 1, 1.0, 2.0), 100)


def test_without_a_compiler_nothing_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("postfix")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Skip, match="no C compiler"), sink(tmp_path / "sink"):
        pytest.fail("it was started")


# What is posted


def test_members_of_a_list_are_as_many_as_its_name_says_and_all_different() -> None:
    made = lists([100, 5_000])
    assert [len(set(each)) for each in made.values()] == [100, 5_000]
    assert len(made) == 2


def test_no_two_posts_are_the_same_and_none_looks_like_commands() -> None:
    first, second = (message("list@example.com", "ann@example.org") for _ in range(2))
    assert first != second
    assert not [line for line in first.splitlines() if line == "." or line.startswith("RCPT")]


# A post of ours


def test_a_post_is_followed_from_the_door_to_its_last_reader(counted: Sink, tmp_path: Path) -> None:
    log = tmp_path / "trace"
    log.touch()
    ours = Site(tmp_path / "postroom", counted.port, verp=False, trace=log)
    ours.create(lists([12]))
    trace = Trace(log)
    with ours.serve() as server:
        trace.since()
        runners = runners_of(server.pid)
        before = memory(runners).high
        done = deliver(server.port, counted, 12, LIMIT)
        ours.settle()
        assert 10e6 < before <= memory(runners).high
    assert (done.recipients, done.transactions) == (12, 1)
    assert 0 < done.wire < done.seconds
    expanded = [each for each in trace.since() if each.startswith("INSERT INTO delivery")]
    assert len(expanded) == 1


def test_a_post_that_waits_for_a_moderator_is_an_error(counted: Sink, tmp_path: Path) -> None:
    ours = Site(tmp_path / "postroom", counted.port, verp=False)
    ours.create(lists([2]))
    with ours.serve() as server:
        hand_over(server.port, address(2), "stranger@example.org")
        with pytest.raises(LoadError, match=r"messages went astray.*held"):
            ours.settle()


# Statements


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        (
            "UPDATE delivery SET state=1, next_at=NULL WHERE post = 12 AND n BETWEEN 1 AND 500",
            "UPDATE delivery SET state=?, next_at=? WHERE post = ? AND n BETWEEN ? AND ?",
        ),
        ("SELECT x FROM t1 WHERE a IN ('it''s', 'b', x'00ff')", "SELECT x FROM t1 WHERE a IN (?)"),
        ("COMMIT", "COMMIT"),
    ],
)
def test_a_shape_is_a_statement_without_its_values(statement: str, expected: str) -> None:
    assert shape(statement) == expected


ASK = """\
import pysqlite3.dbapi2 as sqlite
connection = sqlite.connect(":memory:", isolation_level=None)
connection.execute("CREATE TABLE t (n)")
connection.execute("BEGIN")
connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
connection.execute("COMMIT")
"""


@pytest.mark.parametrize("name", ["postroom.service.runners", "postroom.service.door"])
def test_the_runners_statements_are_traced_and_nobody_elses(tmp_path: Path, name: str) -> None:
    log = tmp_path / "trace"
    log.touch()
    trace = Trace(log)
    environment = clean_environment(PYTHONPATH=str(TRACES), POST_TRACE=str(log))
    subprocess.run([sys.executable, "-c", ASK, name], env=environment, check=True)
    wanted = {"CREATE TABLE t (n)": 1, "INSERT INTO t VALUES (?)": 2, "COMMIT": 1}
    assert trace.since() == (wanted if name.endswith("runners") else {})
    assert not trace.since(), "told twice"


def test_what_grows_with_the_members_is_found() -> None:
    small = Statements(100, 1, {"claim": 1, "update": 1, "COMMIT": 4})
    large = Statements(100_000, 200, {"claim": 1, "update": 200, "COMMIT": 203})
    assert grown([large, small]) == {"update": 199, "COMMIT": 199}
    table = statements_table([large, small])
    assert table.rows == (("100", "1", "6", "4", "1"), ("100,000", "200", "404", "203", "1"))
    assert "1.00 more for each transaction more: update" in table.notes


# Figures and tables


def posts(name: str, members: int, *rates: float) -> Posts:
    once = summarise([1.0])
    return Posts(name, members, summarise(rates), once, once, once)


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def test_medians_are_compared_at_the_same_number_of_members() -> None:
    measured = [
        posts(OURS, 100, 10, 30, 20),
        posts(OURS, 5_000, 90),
        posts(f"{OURS}, VERP", 5_000, 60),
        posts(PEER, 5_000, 3),
    ]
    assert times(measured, OURS, PEER) == {(OURS, 5_000): 30.0, (f"{OURS}, VERP", 5_000): 20.0}


@pytest.mark.parametrize(
    ("rate", "verdict"), [(30.0, "30 goal met"), (15.0, "15 met"), (14.9, "15 MISSED")]
)
def test_the_target_is_fifteen_times_the_peer_and_the_goal_thirty(
    rate: float, verdict: str
) -> None:
    table = posts_table([posts(OURS, 5_000, rate), posts(PEER, 5_000, 1)], OURS, PEER)
    assert column(table, "server") == [PEER, OURS]
    assert column(table, "target") == ["", verdict]


def test_default_settings_are_judged_like_those_that_are_faster() -> None:
    measured = [posts(OURS, 5_000, 48), posts(f"{OURS}, VERP", 5_000, 10), posts(PEER, 5_000, 1)]
    table = posts_table(measured, OURS, PEER)
    assert column(table, "target") == ["", "30 goal met", "15 MISSED"]


def test_what_a_peer_waits_before_it_sends_is_shown_by_a_ratio_of_its_own() -> None:
    once = summarise([1.0])
    slow = Posts(PEER, 5_000, summarise([10.0]), summarise([100.0]), once, once)
    fast = Posts(OURS, 5_000, summarise([400.0]), summarise([500.0]), once, once)
    table = posts_table([fast, slow], OURS, PEER)
    assert column(table, "times mailman") == ["", "40.0"]
    assert column(table, "on the wire") == ["", "5.0"]


def test_without_the_peer_there_is_no_verdict() -> None:
    table = posts_table([posts(OURS, 5_000, 10)], OURS, PEER)
    assert column(table, "target") == column(table, "times mailman") == [""]


def test_postroom_is_compared_with_itself_at_five_thousand_members() -> None:
    measured = [posts(OURS, 5_000, 10), posts(OURS, 100_000, 20), posts(PEER, 5_000, 1)]
    assert column(sizes_table(measured, OURS), "to 5,000") == ["1.00", "2.00"]


@pytest.mark.parametrize(("peak", "verdict"), [(200e6, "200 met"), (201e6, "200 MISSED")])
def test_memory_is_judged_with_the_largest_list_and_by_its_worst_round(
    peak: float, verdict: str
) -> None:
    idle, used = summarise([60e6]), summarise([90e6, 90e6, peak])
    table = memory_table([Memory(100_000, idle, used), Memory(5_000, idle, used)])
    assert column(table, "at most") == ["", verdict]
    assert column(table, "peak") == ["90", "90"]


def beside(kept: float, seconds: float) -> Beside:
    def once(value: float) -> Summary:
        return summarise([value])

    rates = once(200), once(100), once(kept * 100)
    return Beside(100_000, 100, *rates, once(0.1), once(seconds), Ledger(1, 1))


@pytest.mark.parametrize(
    ("kept", "seconds", "verdicts"),
    [
        (0.5, 10.0, ["0.5 met", "", "10 met"]),
        (0.49, 10.1, ["0.5 MISSED", "", "10 MISSED"]),
    ],
)
def test_what_others_notice_of_a_large_post_is_judged(
    kept: float, seconds: float, verdicts: list[str]
) -> None:
    assert column(beside_table(beside(kept, seconds)), "target") == verdicts


def test_the_door_is_also_compared_with_one_that_has_no_runners() -> None:
    assert column(beside_table(beside(0.5, 1.0)), "ratio") == ["0.50", "0.25", "10.0"]


def test_only_parts_that_were_measured_have_a_table() -> None:
    assert tables(Results({}, {}), OURS, PEER) == []
    everything = Results(
        {},
        {},
        [posts(OURS, 100, 1)],
        [Memory(100, summarise([1]), summarise([2]))],
        [Statements(100, 1, {"COMMIT": 1})],
        beside(1.0, 1.0),
    )
    assert len(tables(everything, OURS, PEER)) == 5
