"""The bench of commands: mail put in and worked off, figures, tables.

For: figures that can be trusted. Nothing is measured here.
"""

import os
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from bench.command_figures import (
    Cost,
    Flood,
    Growth,
    Latency,
    Queue,
    Results,
    allowed,
    cost_table,
    flood_table,
    latency_table,
    queue_table,
    statements_table,
    tables,
)
from bench.command_parts import Flooded, _entries
from bench.command_run import (
    Mail,
    Plan,
    Worked,
    address,
    confirms,
    helps,
    joins,
    put_in,
    work_off,
)
from bench.command_sites import COMMAND, Ours, Peer, ours
from bench.figures import Ledger, Summary, summarise
from bench.load import LoadError
from bench.mailman_post import waiting
from bench.post_figures import Statements
from bench.post_sink import Sink, sink
from bench.process import Skip, find, paused, running
from bench.servers import Server
from bench.tables import Table
from postroom.reading.post import read
from postroom.reading.source import source_of
from tests.peers import need

OURS, PEER = "postroom", "mailman"
LIMIT = 60.0
ANT = address("ant")


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Sink]:
    need("postfix")
    need("cc")
    with sink(tmp_path / "sink", keep=True) as running:
        yield running


# What is put in


def test_each_mail_is_by_somebody_else_from_another_network() -> None:
    mails = [*joins("ant", "v", 70_000)]
    assert len({each.author for each in mails}) == len(mails)
    some = [mails[n] for n in (0, 1, 255, 256, 65_535, 65_536, 69_999)]
    posts = [read(each.text().encode(), each.author) for each in some]
    assert [post.authors for post in posts] == [(each.author,) for each in some]
    assert len({source_of(post) for post in posts} - {""}) == len(some)
    assert len({post.message_id for post in posts}) == len(some)
    assert not any(post.automatic for post in posts)


def test_mails_go_to_the_addresses_for_commands() -> None:
    assert {each.to for each in joins("ant", "v", 3)} == {"ant-join@bench.example.com"}
    assert {(each.to, each.subject) for each in helps("ant", "v", 3)} == {
        ("ant-request@bench.example.com", "help")
    }


@pytest.mark.parametrize("token", ["abc234", "1f9e"])
def test_who_was_asked_to_confirm_does(token: str) -> None:
    letter = f"X-Rcpt-Args: <v-1@d1.example.net>\nReply-To: ant-confirm+{token}@bench.example.com\n"
    assert confirms("ant", [letter.encode()]) == [
        Mail("v-1@d1.example.net", f"ant-confirm+{token}@bench.example.com", 0)
    ]


def test_a_letter_without_a_token_is_an_error() -> None:
    with pytest.raises(LoadError, match="asks nobody to confirm: b'X-Rcpt-Args"):
        confirms("ant", [b"X-Rcpt-Args: <v-1@d1.example.net>\nSubject: no\n"])


# Worked off


def test_commands_are_followed_from_the_queue_to_their_answers(kept: Sink, tmp_path: Path) -> None:
    with ours(tmp_path / "postroom", kept.port, {ANT: []}) as by:
        worked = work_off(by, kept, joins("ant", "v", 7))
        assert worked.entries == 7
        assert worked.rate * worked.seconds == pytest.approx(7)
        kept.wait(7, LIMIT)
        by.settle()
        assert by.members(ANT) == by.waiting() == 0
        work_off(by, kept, confirms("ant", kept.take()))
        kept.wait(7, LIMIT)
        by.settle()
        assert by.members(ANT) == 7
        with pytest.raises(LoadError, match="worked off too soon"):
            work_off(by, kept, helps("ant", "w", 2), by.settle)


class Watched(Ours):
    """Tells how its runner is whenever somebody looks what waits."""

    states: ClassVar[list[str]] = []

    def waiting(self, queue: str = COMMAND) -> int:
        self.states.append(Path(f"/proc/{self.runner}/stat").read_text().rpartition(")")[2][1])
        return super().waiting(queue)


def test_mail_is_put_in_while_nobody_serves_it(kept: Sink, tmp_path: Path) -> None:
    with ours(tmp_path / "postroom", kept.port, {ANT: []}) as by:
        watched = Watched(*by)
        work_off(watched, kept, helps("ant", "v", 5))
        first, *others = watched.states
        assert first == "T"
        assert others and "T" not in others
        with pytest.raises(LoadError, match="0 entries wait instead of 1"):
            work_off(by, kept, [Mail("v@example.net", address("ant", "bounces"), 0)])


def test_mail_that_is_not_taken_is_an_error(kept: Sink, tmp_path: Path) -> None:
    with (
        ours(tmp_path / "postroom", kept.port, {ANT: []}) as by,
        pytest.raises(LoadError, match=r"a mail to bee-join@.* was not taken: .*550"),
    ):
        put_in(by.server.port, joins("bee", "v", 3))


# Mailman


def mailman(directory: Path, **queues: int) -> Peer:
    for name, number in queues.items():
        made = directory / "var/queue" / name
        made.mkdir(parents=True)
        for each in range(number):
            (made / f"{each}.pck").touch()
    return Peer(directory, directory, Server(PEER, 1, 1), 1, ())


def test_what_waits_in_mailman_are_the_files_of_its_queues(tmp_path: Path) -> None:
    by = mailman(tmp_path, command=3, virgin=2)
    assert (by.waiting(), by.waiting("bounces")) == (3, 0)
    assert waiting(tmp_path, "command", "virgin", "out") == 5


def test_mailman_has_settled_when_nothing_is_on_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mailman(tmp_path / "idle", command=0, bounces=5).settle()
    with pytest.raises(LoadError, match="1 messages went astray"):
        mailman(tmp_path / "astray", shunt=1).settle()
    monkeypatch.setattr("bench.command_sites.SETTLE_LIMIT", -1.0)
    with pytest.raises(LoadError, match="4 messages do not get on"):
        mailman(tmp_path / "busy", virgin=4).settle()


def test_mailman_gets_fewer_joins_and_as_much_of_the_rest() -> None:
    plan = Plan()
    kinds = ("help", "join", "confirm")
    assert [_entries(plan, PEER, kind) for kind in kinds] == [1_000, 200, 200]
    assert [_entries(plan, OURS, kind) for kind in kinds] == [1_000] * 3


# Processes


def test_a_process_is_found_by_a_word_of_its_command_line(tmp_path: Path) -> None:
    script = "cat <asked >answered & exec sleep 600"
    for name in ("asked", "answered"):
        os.mkfifo(tmp_path / name)
    with running(["sh", "-c", script, "--name"], tmp_path / "log", tmp_path) as process:
        with open(tmp_path / "asked", "wb", 0) as asked, open(tmp_path / "answered", "rb") as said:
            asked.write(b"here?\n")
            assert said.readline()
            assert find(process.pid, "cat") != process.pid
        with pytest.raises(Skip, match="was started with ca"):
            find(process.pid, "ca")


def test_a_process_does_nothing_while_it_is_paused() -> None:
    child = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
    try:
        with pytest.raises(LoadError), paused(child):
            assert os.WIFSTOPPED(os.waitpid(child, os.WUNTRACED)[1])
            raise LoadError("whatever happens")
        assert os.WIFCONTINUED(os.waitpid(child, os.WCONTINUED)[1])
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Figures and tables


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def once(*values: float) -> Summary:
    return summarise(values)


def test_queues_of_one_kind_are_compared_by_their_medians() -> None:
    table = queue_table(
        [
            Queue(PEER, "join", 200, once(10), once(5)),
            Queue(OURS, "help", 1_000, once(90, 100, 300), once(80)),
            Queue(PEER, "help", 1_000, once(200), once(20)),
            Queue(OURS, "join", 1_000, once(50), once(40)),
        ],
        PEER,
    )
    assert [row[:4] for row in table.rows] == [
        ("join", OURS, "1,000", "5.0"),
        ("join", PEER, "200", ""),
        ("help", OURS, "1,000", "0.5"),
        ("help", PEER, "1,000", ""),
    ]
    at = table.columns.index("letters/s") - 1
    assert [row[at] for row in table.rows] == ["8.0", "", "4.0", ""]


def test_latency_is_told_with_its_worst() -> None:
    table = latency_table([Latency(OURS, once(0.01, 0.02, 0.09)), Latency(PEER, once(2.0))], PEER)
    assert table.rows == ((OURS, "100.0", "20.0", "10.0", "90.0"), (PEER, "", *["2,000.0"] * 3))


def test_the_time_of_a_join_is_compared_with_that_on_the_smallest_list() -> None:
    costs = [Cost(OURS, 100_000, once(0.008)), Cost(OURS, 10, once(0.004))]
    assert column(cost_table(Growth(costs, [])), "to the first") == ["1.00", "2.00"]


@pytest.mark.parametrize(("more", "said"), [(0, "yes"), (1, "NO")])
def test_statements_that_grow_with_the_members_are_told(more: int, said: str) -> None:
    rows = [
        Statements(100_000, 1, {"SELECT x": 3 + more, "COMMIT": 2}),
        Statements(10, 1, {"SELECT x": 3, "COMMIT": 2}),
    ]
    table = statements_table(rows)
    assert column(table, "the same") == ["", said]
    assert column(table, "statements") == ["5", f"{5 + more}"]
    assert ("1 more: SELECT x" in table.notes) == bool(more)


def flooded(letters: Sequence[float], most: float | None = 202.5, queued: int = 10) -> Flood:
    rate, door = once(100), once(50)
    ledger = Ledger(10, queued)
    return Flood(OURS, 10_000, rate, summarise(letters), 200, most, once(100), door, ledger)


@pytest.mark.parametrize(
    ("letters", "verdict"),
    [([200, 202], "202 met"), ([200, 203], "202 MISSED"), ([199, 202], "202 MISSED")],
)
def test_no_more_letters_may_be_sent_than_the_limits_say_nor_fewer(
    letters: list[float], verdict: str
) -> None:
    table = flood_table([flooded(letters)], PEER)
    assert column(table, "at most") == [verdict]
    assert column(table, "door, ratio") == ["0.50"]


def test_who_has_no_limits_is_not_judged() -> None:
    assert column(flood_table([flooded([300], None)], PEER), "at most") == [""]


def test_a_message_at_the_door_that_was_lost_is_told() -> None:
    assert any("10 messages were accepted, 9" in note for note in flood_notes(9))
    assert not any("accepted" in note for note in flood_notes(10))


def flood_notes(queued: int) -> Sequence[str]:
    return flood_table([flooded([200], queued=queued)], PEER).notes


def test_a_limit_leaks_as_much_an_hour() -> None:
    assert allowed(200, 0.0) == 200
    assert allowed(200, 36.0) == 202


def test_rounds_of_a_flood_are_summed_up_with_what_the_longest_allows() -> None:
    rounds = Flooded(OURS, 1.0)
    rounds.worked = [Worked(100, 0.0, 36.0), Worked(100, 0.0, 18.0)]
    rounds.letters, rounds.alone, rounds.beside = [201, 200], [4.0, 6.0], [2.0, 3.0]
    found = rounds.summed_up(100, 200)
    assert (found.least, found.most) == (200, 202)
    assert (found.door_alone.median, found.door.median, found.letters.most) == (5.0, 2.5, 201)
    assert rounds.summed_up(100, None).most is None


def test_only_parts_that_were_measured_have_a_table() -> None:
    assert tables(Results({}, {}), PEER) == []
    everything = Results(
        {},
        {},
        [Queue(OURS, "join", 1, once(1), once(1))],
        [Latency(OURS, once(1))],
        Growth([Cost(OURS, 10, once(1))], [Statements(10, 1, {"COMMIT": 1})]),
        [flooded([200])],
    )
    assert len(tables(everything, PEER)) == 5
