"""The bench of mail that comes back: reports, the sink that refuses, figures, tables.

For: figures that can be trusted. Nothing is measured here.
"""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import bounce
from bench.bounce_figures import (
    HANDFUL,
    Mass,
    Queue,
    Refused,
    Results,
    beside_table,
    bounce_statements_table,
    mass_table,
    queue_table,
    tables,
)
from bench.bounce_mass import DOOR, SHARES, Found, of_share, people
from bench.bounce_parts import _expect
from bench.bounce_run import BOUNCES, Report, counted, key_of, ours, reports, work_off
from bench.bounce_sink import GONE, Refuser, refuser
from bench.command_run import address
from bench.command_sites import Peer
from bench.figures import Ledger, Summary, summarise
from bench.load import LoadError
from bench.post_figures import Statements
from bench.post_ours import Site
from bench.post_run import AUTHOR, members
from bench.post_sink import APART
from bench.program import arguments
from bench.servers import Server
from bench.tables import Table
from postroom.bounces.recognise import recognise
from postroom.bounces.verp import read_detail
from tests.peers import need

OURS, PEER = "postroom", "mailman"
LIMIT = 60.0
KEY = "key"


# Reports


@pytest.mark.parametrize("key", [KEY, None])
def test_a_report_is_a_bounce_of_the_member_that_its_address_names(key: str | None) -> None:
    ann, bob = reports("ant", ["ann=b+c@example.org", "bob@example.net"], key)
    for each, reader in ((ann, "ann=b+c@example.org"), (bob, "bob@example.net")):
        detail = each.to.rpartition("@")[0].removeprefix(f"ant-{BOUNCES}+")
        assert read_detail(detail, KEY) == (reader, "own" if key else "none")
    found = recognise(bob.text().replace("\n", "\r\n").encode(), bob.author)
    [failure] = found.failures
    assert (found.kind, found.read_as, found.message_id != "") == ("bounce", "dsn", True)
    assert (failure.email, failure.final, failure.status) == (bob.reader, True, "5.1.1")
    assert (ann.author, ann.number, bob.number) == ("", 0, 1)


def test_no_two_reports_are_the_same() -> None:
    texts = {each.text() for each in (*reports("ant", members(3)), *reports("bee", members(3)))}
    assert len(texts) == 6


def test_reports_are_followed_until_all_are_counted(tmp_path: Path) -> None:
    need("postfix")
    site = Site(tmp_path / "postroom", 9, verp=True)
    with ours(site, {address("ant"): members(1_500)}) as by:
        key = key_of(site.directory, "ant")
        worked = work_off(by, reports("ant", members(200), key))
        assert 0 < worked.entries < 200
        assert counted(by) == 200
        with pytest.raises(LoadError, match="0 entries wait instead of 1"):
            work_off(by, [Report("", address("ant", "request"), 0)])


def test_members_that_mailman_counted_are_in_its_database(tmp_path: Path) -> None:
    sqlite = pytest.importorskip("pysqlite3.dbapi2")
    (tmp_path / "var/data").mkdir(parents=True)
    with sqlite.connect(tmp_path / "var/data/mailman.db") as database:
        database.execute("CREATE TABLE member (bounce_score INTEGER)")
        database.executemany("INSERT INTO member VALUES (?)", [(0,), (1,), (2,)])
    assert counted(Peer(tmp_path, tmp_path, Server(PEER, 1, 1), 1, ())) == 2


@pytest.mark.parametrize(("known", "fine"), [(9, False), (10, True), (12, True), (13, False)])
def test_too_few_who_were_counted_are_an_error_and_so_are_too_many(known: int, fine: bool) -> None:
    if fine:
        _expect(known, 10, 100, 1.5)
        return
    with pytest.raises(LoadError, match=f"{known} members were counted instead of 10"):
        _expect(known, 10, 100, 1.5)


# The sink that refuses


@pytest.fixture
def into(tmp_path: Path) -> Iterator[Refuser]:
    with refuser(tmp_path / "sink") as running:
        yield running


def talk(into: Refuser, octets: bytes, piece: int = 65536) -> list[bytes]:
    """Say all of it, in pieces; returns the lines of all replies."""
    with socket.create_connection(("127.0.0.1", into.port), timeout=LIMIT) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for first in range(0, len(octets), piece):
            client.sendall(octets[first : first + piece])
        client.shutdown(socket.SHUT_WR)
        return client.makefile("rb").read().splitlines()


POST = (
    b"EHLO me\r\nMAIL FROM:<a@x>\r\nRCPT TO:<ann@x>\r\nRCPT TO:<%sbob@x>\r\nRCPT TO:<%scy@x>\r\n"
    b"DATA\r\nRCPT TO:<in@text>\r\n..\r\n.\r\n"
    b"MAIL FROM:<a@x>\r\nRCPT TO:<%sbob@x>\r\nDATA\r\nRSET\r\nWHAT\r\nQUIT\r\n"
) % (GONE.encode(), APART.encode(), GONE.encode())


@pytest.mark.parametrize("piece", [1, 7, 65536])
def test_the_sink_refuses_and_counts_however_it_is_told(into: Refuser, piece: int) -> None:
    replies = talk(into, POST, piece)
    assert [each[:9] for each in replies if each[3:4] == b" "] == [
        b"220 sink ",
        b"250 SMTPU",
        b"250 2.1.0",
        b"250 2.1.5",
        b"550 5.1.1",
        b"250 2.1.5",
        b"354 Go on",
        b"250 2.0.0",
        b"250 2.1.0",
        b"550 5.1.1",
        b"503 5.5.1",
        b"250 2.0.0",
        b"502 5.5.2",
        b"221 2.0.0",
    ]
    assert into.arrived()[:2] == into.arrived(apart=True)[:2] == (1, 1)
    assert into.refused()[:2] == (2, 0)
    assert into.arrived().first <= into.arrived().last <= into.refused().last
    assert into.wait_answered(3, LIMIT) == into.refused().last
    with pytest.raises(LoadError, match="3 of 4 recipients within 0 s"):
        into.wait_answered(4, 0.0)
    into.clear()
    assert (into.answered(), into.arrived(apart=True).recipients) == (0, 0)


@pytest.mark.parametrize("text", [b".\r\n", b"..\r\n.\r\n", b"\r\n.\r\n"])
def test_a_text_ends_at_its_lone_dot(into: Refuser, text: bytes) -> None:
    say = b"MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n" + text + b"NOOP\r\n"
    codes = [each[:3] for each in talk(into, say)]
    assert codes == [b"220", b"250", b"250", b"354", b"250", b"250"]
    assert into.arrived().recipients == 1


# The mass


@pytest.mark.parametrize("share", SHARES)
def test_a_share_of_a_list_is_refused_and_the_author_is_not(share: float) -> None:
    found = people(101, share)
    assert found[0] == AUTHOR
    assert sum(each.startswith(GONE) for each in found) == round(100 * share)
    assert len({*found}) == 101


def test_lists_of_each_share_have_names_of_their_own() -> None:
    assert len({of_share(share) for share in SHARES}) == len(SHARES)
    assert of_share(0.5) == "share-50@bench.example.com"
    assert DOOR.to == "small-bounces@bench.example.com"


# Figures and tables


def column(table: Table, name: str) -> list[str]:
    return [row[table.columns.index(name)] for row in table.rows]


def once(*values: float) -> Summary:
    return summarise(values)


def test_reports_are_compared_by_their_medians() -> None:
    table = queue_table(
        [
            Queue(PEER, 300, 100, once(100), once(5, 10, 90)),
            Queue(OURS, 10_000, 10_000, once(2_000), once(700)),
            Queue(OURS, 50_000, 10_000, once(10_000), once(500)),
        ],
        PEER,
    )
    assert [row[:5] for row in table.rows] == [
        (OURS, "50,000", "10,000", "10,000", "50.0"),
        (OURS, "10,000", "10,000", "2,000", "70.0"),
        (PEER, "300", "100", "100", ""),
    ]


@pytest.mark.parametrize(("more", "said"), [(0, "yes"), (1, "NO")])
def test_statements_that_grow_with_the_members_are_told(more: int, said: str) -> None:
    rows = [Statements(10, 1, {"S x": 3}), Statements(100_000, 1, {"S x": 3 + more})]
    table = bounce_statements_table(rows)
    assert column(table, "the same") == ["", said]
    assert ("1 more: S x" in table.notes) == bool(more)
    assert table.title == "Statements of a report"
    assert not any("join" in note for note in table.notes)


def refused(share: float, seconds: float, letters: float = 1) -> Refused:
    one = once(seconds)
    return Refused(share, 1_000, one, once(9), once(0, letters), one, once(50))


def massive(letters: float = 1, worked_off: int = 10) -> Mass:
    posts = [refused(1.0, 6, letters), refused(0.0, 2)]
    return Mass(posts, 100, once(0.5), once(100), 7, 3, Ledger(10, worked_off))


def test_posts_that_are_refused_are_compared_with_one_that_is_not() -> None:
    table = mass_table(massive())
    assert column(table, "refused") == ["0%", "100%"]
    assert column(table, "to the first") == ["1.00", "3.00"]
    assert any("7 entries in all queues" in note for note in table.notes)


@pytest.mark.parametrize(("letters", "said"), [(HANDFUL, "5 met"), (HANDFUL + 1, "5 MISSED")])
def test_more_than_a_handful_of_letters_is_too_many(letters: float, said: str) -> None:
    assert column(mass_table(massive(letters)), "at most")[-1] == said


def test_what_is_beside_is_compared_with_what_is_alone() -> None:
    table = beside_table(massive())
    assert column(table, "beside") == ["nothing", "0% refused", "100% refused"]
    assert column(table, "to alone") == ["", "4.0", "12.0"]
    assert [row[5] for row in table.rows] == ["", "0.50", "0.50"]


@pytest.mark.parametrize(("worked_off", "told"), [(10, False), (9, True)])
def test_a_message_at_the_door_that_was_lost_is_told(worked_off: int, told: bool) -> None:
    notes = beside_table(massive(worked_off=worked_off)).notes
    assert any("10 messages were accepted, 9" in note for note in notes) == told


def test_rounds_of_a_post_are_summed_up() -> None:
    found = Found(0.5)
    found.seconds, found.counted, found.letters = [1.0, 3.0], [4.0], [0, 2]
    found.small, found.door = [5.0], [6.0]
    assert found.summed_up(9) == Refused(
        0.5, 9, once(1, 3), once(4.0), once(0, 2), once(5.0), once(6.0)
    )


def test_only_parts_that_were_measured_have_a_table() -> None:
    assert tables(Results({}, {}), PEER) == []
    queue = [Queue(OURS, 1, 1, once(1), once(1))]
    everything = Results({}, {}, queue, [Statements(10, 1, {"COMMIT": 1})], massive())
    assert len(tables(everything, PEER)) == 4


def test_each_part_can_be_chosen() -> None:
    assert bounce.BENCH.parts == tuple(bounce.PARTS)
    for part in bounce.BENCH.parts:
        assert arguments(bounce.BENCH, ["--only", part]).only == [part]
