"""`postroom queue`."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

import click
import pytest
from sqlalchemy import update

from postroom.delivery import ledger
from postroom.delivery.care import purge
from postroom.delivery.ledger import Record, Told
from postroom.spool import ids, queue
from postroom.spool.metadata import QUEUES
from postroom.spool.queue import Claim
from postroom.store import schema
from postroom.store.engine import Store
from postroom.store.schema import entry
from tests.cli.conftest import MESSAGE, Post, Postroom, Run
from tests.contract.posts import all_of, expanded, join, make_id, states, those_due
from tests.contract.posts import post as post_of
from tests.contract.queues import do, take

HOSTILE = (
    b"Subject: \x1b[2J\x1b]0;owned\x07 [bold]hello[/bold]\r\n"
    b"Message-ID: <\x1b[31m[red]\xe2\x80\xae@example.org>\r\n"
    b"\r\n"
    b"\x1b[5mblink\x07\x9b5m\r\n"
)
SENDER = "an[red]ne\u202e@example.org"
RECEIVED = datetime(2026, 3, 1, 12, 0, 0, 250_000, UTC)


@pytest.fixture(autouse=True)
def ants(run: Run) -> None:
    """A list to send to."""
    run("list", "create", "ants@example.com")


def listed(run: Run, *arguments: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(run("queue", "ls", "--json", *arguments).stdout)
    return found


def shunt(store: Store, reason: str) -> None:
    """A runner's way of putting the entries of `in` aside."""
    with store.begin() as connection:
        for claim in queue.claim(connection, "in", 100, 60):
            queue.shunt(connection, claim, reason)


def test_empty_queues_say_what_to_do(run: Run) -> None:
    assert "`postroom serve`" in run("queue", "ls").stdout
    assert run("queue", "ls", "in").stdout == (
        "Queue in is empty. All queues: postroom queue stats\n"
    )
    assert listed(run) == []


def test_the_json_of_an_entry_has_its_facts(run: Run, post: Post) -> None:
    [number] = post("ants-join+X@example.com", received_at=RECEIVED.timestamp())
    assert listed(run) == [
        {
            "id": number,
            "queue": "command",
            "list": "ants@example.com",
            "sender": "anne@example.org",
            "size": len(MESSAGE),
            "received_at": "2026-03-01T12:00:00.250+00:00",
            "attempts": 0,
            "message_id": "<ant@example.org>",
            "metadata": {
                "_parsemsg": False,
                "detail": "X",
                "listname": "ants@example.com",
                "original_size": len(MESSAGE),
                "subaddress": "join",
                "version": 1,
            },
        }
    ]


def test_an_entry_for_the_site_owner_has_no_list(run: Run, post: Post) -> None:
    post("postmaster@example.com", sender="")
    [found] = listed(run)
    assert (found["list"], found["sender"]) == (None, "")
    shown = run("queue", "ls").stdout.splitlines()[1]
    assert "(site owner)" in shown
    assert "<>" in shown


def test_entries_are_shown_oldest_first_of_one_queue_or_all(run: Run, post: Post) -> None:
    [first, second] = post(["ants@example.com", "ants-bounces@example.com"])
    [third] = post("ants@example.com", b"\r\nanother\r\n")
    assert [each["id"] for each in listed(run)] == [first, second, third]
    assert [each["id"] for each in listed(run, "in")] == [first, third]
    shown = run("queue", "ls", "in").stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["ID", first, third]


def test_a_narrow_terminal_shows_ids_whole(
    run: Run, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    raw = b"Message-ID: <%b@example.org>\r\n\r\n" % (b"x" * 100)
    [number] = post("ants-bounces@example.com", raw, "a-rather-long-sender@lists.example.org")
    shown = click.unstyle(run("queue", "ls").stdout).splitlines()
    assert shown[1].startswith(f"{number}  bounces  ")
    assert max(map(len, shown)) <= 80


def test_a_limit_shows_the_oldest_and_says_so(run: Run, post: Post) -> None:
    numbers = [post("ants@example.com", b"\r\n%d\r\n" % each)[0] for each in range(3)]
    result = run("queue", "ls", "--limit", "2")
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["ID", *numbers[:2]]
    assert result.stderr == "The 2 oldest; --limit N shows more, `queue stats` counts all.\n"
    assert run("queue", "ls").stderr == ""
    assert [each["id"] for each in listed(run, "--limit", "2")] == numbers[:2]


def test_json_without_a_limit_leaves_nothing_out(
    run: Run, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.cli.output.SHOWN", 1)
    post(["ants@example.com", "ants-owner@example.com"])
    assert len(run("queue", "ls").stdout.splitlines()) == 2
    assert len(listed(run)) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "nowhere"),
        ("ls", "--limit", "0"),
        ("show", "ants"),
        ("show", "-1"),
        ("show", "f" * 16),
        ("retry", "zz"),
        ("delete", ""),
        ("show", "1", "--raw", "--json"),
    ],
)
def test_wrong_usage_is_told_apart_from_failure(run: Run, arguments: tuple[str, ...]) -> None:
    assert run("queue", *arguments, status=2).stderr.startswith("Usage: ")


@pytest.mark.parametrize("command", ["show", "retry", "delete"])
def test_an_entry_that_is_not_there_is_one_sentence(run: Run, command: str) -> None:
    result = run("queue", command, "0123456789abcdef", status=1)
    assert result.stderr == (
        "postroom: there is no such entry: `postroom queue ls` shows those there are\n"
    )


def test_an_entry_is_shown_with_headers_and_first_lines(run: Run, post: Post) -> None:
    raw = MESSAGE + b"".join(b"line %d\r\n" % each for each in range(100))
    [number] = post("ants@example.com", raw)
    shown = run("queue", "show", number).stdout
    facts = dict(line.split("  ", 1) for line in shown.partition("\n\n")[0].splitlines())
    assert facts["id"].strip() == number
    assert facts["sender"].strip() == "anne@example.org"
    assert json.loads(facts["metadata"])["listname"] == "ants@example.com"
    assert "\n  Subject: hello\n  Message-ID: <ant@example.org>\n\n  Hello, list.\n" in shown
    assert "  line 8\n" in shown
    assert "  line 9\n" not in shown
    assert shown.endswith("  ... --raw writes the whole message\n")


def test_a_short_message_is_shown_whole(run: Run, post: Post) -> None:
    [number] = post("ants@example.com")
    assert "--raw" not in run("queue", "show", number).stdout


def test_a_message_with_a_header_that_never_ends_is_shown(run: Run, post: Post) -> None:
    [number] = post("ants@example.com", b"X: " + b"x" * 200_000)
    assert "--raw writes the whole message" in run("queue", "show", number).stdout


def test_the_json_of_one_entry_has_more(run: Run, post: Post) -> None:
    [number] = post("ants@example.com", received_at=RECEIVED.timestamp())
    [short] = listed(run)
    shown = json.loads(run("queue", "show", number, "--json").stdout)
    assert short.items() <= shown.items()
    assert shown["due_at"] == short["received_at"]
    assert shown["headers"] == "Subject: hello\r\nMessage-ID: <ant@example.org>\r\n"
    assert (shown["last_error"], shown["leased_until"]) == (None, None)


def test_raw_is_byte_for_byte_what_a_consumer_gets(postroom: Postroom, post: Post) -> None:
    body = bytes(range(256)) * 300 + b"\r\n.\n\r no end"
    raw = b"X-MailFrom: forged@example.org\r\nSubject: hello\n\n" + body
    [number] = post("ants@example.com", raw)
    result = postroom("queue", "show", number, "--raw")
    assert result.stdout == b"Subject: hello\nX-MailFrom: anne@example.org\r\n\n" + body
    assert (result.stderr, result.returncode) == (b"", 0)


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_stranger_wrote_cannot_steer_a_terminal(
    run: Run, post: Post, store: Store, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    [number] = post("ants@example.com", HOSTILE, SENDER)
    shunt(store, "Traceback\n  \x1b[2Jin it\u202e\x9b31m")
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    shown = [run("queue", "ls").stdout, run("queue", "show", number).stdout]
    for text in shown:
        own = text.replace("\x1b[1m", "").replace("\x1b[0m", "")  # bold titles
        assert all(char.isprintable() or char == "\n" for char in own)
        assert "an[red]ne" in text
    assert "[bold]hello[/bold]" in shown[1]
    assert r"in it\u202e\x9b31m" in shown[1]


def test_json_is_pure_printable_ascii(run: Run, post: Post) -> None:
    [number] = post("ants@example.com", HOSTILE, SENDER)
    for arguments in (("ls",), ("show", number)):
        text = run("queue", *arguments, "--json").stdout
        assert text.isascii()
        assert all(char.isprintable() or char == "\n" for char in text)
    assert listed(run)[0]["sender"] == SENDER


def test_a_shunted_entry_shows_why_and_goes_back_where_it_was(
    run: Run, post: Post, store: Store
) -> None:
    [number] = post("ants@example.com")
    shunt(store, "Traceback (most recent call last):\n  File ants.py\nValueError: bad ant")
    shown = run("queue", "show", number).stdout
    assert "last error\n  Traceback (most recent call last):\n    File ants.py\n" in shown
    [found] = listed(run, "shunt")
    assert (found["id"], found["attempts"]) == (number, 1)

    said = run("queue", "retry", number).stdout
    assert said == f"{number} is due now in queue in\n"
    [found] = listed(run, "in")
    assert found["attempts"] == 0
    assert "shunted_from" not in str(found["metadata"])


def test_an_entry_that_waits_for_a_retry_is_made_due(run: Run, post: Post, store: Store) -> None:
    [number] = post("ants@example.com")
    with store.begin() as connection:
        [claim] = queue.claim(connection, "in", 1, 60)
        queue.retry(connection, claim, 3600, "no answer")
    before = json.loads(run("queue", "show", number, "--json").stdout)
    assert datetime.fromisoformat(before["due_at"]).timestamp() > time.time() + 3000
    run("queue", "retry", number)
    with store.begin() as connection:
        assert [each.id for each in queue.claim(connection, "in", 1, 60)] == [ids.read(number)]


@pytest.mark.parametrize("command", ["retry", "delete"])
def test_an_entry_in_a_runners_hands_is_left_alone(
    run: Run, post: Post, store: Store, command: str
) -> None:
    [number] = post("ants@example.com")
    with store.begin() as connection:
        queue.claim(connection, "in", 1, 60)
    result = run("queue", command, number, status=1)
    assert result.stderr == "postroom: a runner is working on it: try again in a moment\n"
    assert "in work until" in run("queue", "show", number).stdout
    assert [each["id"] for each in listed(run)] == [number]


def test_a_deleted_entry_is_gone_and_the_others_stay(run: Run, post: Post) -> None:
    [gone, kept] = post(["ants@example.com", "ants-owner@example.com"])
    assert run("queue", "delete", gone).stdout == f"deleted {gone}\n"
    assert [each["id"] for each in listed(run)] == [kept]
    assert b"Hello, list." in run("queue", "show", kept, "--raw").stdout_bytes
    run("queue", "delete", gone, status=1)


# Posts on their way out


@pytest.fixture
def under_way(store: Store) -> Claim:
    """A post in the courier's hands: one has got it, one is to be tried again in an hour, one is
    yet to come."""
    join(store, "ann@example.net", "bo@example.net", "cy@example.net", name="ants")
    held = post_of(store, name="ants")
    expanded(store, held)
    later = Told(2, "bo@example.net", None, "451 4.2.0 Later", time.time() + 3600)
    do(store, ledger.record, held.id, [Record(make_id(), "mx:25", 1.0, "250 Ok", [1], [later])])
    return held


def put_off(store: Store, held: Claim) -> None:
    do(store, queue.put_off, held, 3600, None)


def put_aside(store: Store, held: Claim) -> None:
    do(store, queue.shunt, held, "Traceback")


@pytest.mark.parametrize("wait", [put_off, put_aside])
def test_a_retry_of_a_post_makes_all_due_who_wait_for_it(
    run: Run, store: Store, under_way: Claim, wait: Callable[[Store, Claim], None]
) -> None:
    wait(store, under_way)
    run("queue", "retry", ids.show(under_way.id))
    [held] = take(store, name="out")
    assert [row.email for row in those_due(store, held)] == ["bo@example.net", "cy@example.net"]


@pytest.mark.parametrize("wait", [put_off, put_aside])
def test_a_post_that_is_deleted_is_over_and_a_trace_says_so_until_it_is_forgotten(
    run: Run, store: Store, under_way: Claim, wait: Callable[[Store, Claim], None]
) -> None:
    wait(store, under_way)
    run("queue", "delete", ids.show(under_way.id))
    [found] = json.loads(run("trace", "<ant@example.org>", "--json").stdout)["deliveries"]
    assert found["done_at"] is not None
    told = {each["email"]: each["state"] for each in found["recipients"]}
    assert told == {"ann@example.net": "sent", "bo@example.net": "gone", "cy@example.net": "gone"}
    for _ in range(3):
        do(store, purge, time.time() + 1.0, 100)
    assert all_of(store, schema.post) == all_of(store, schema.delivery) == []
    run("trace", "<ant@example.org>", status=1)


@pytest.mark.parametrize("command", ["retry", "delete"])
def test_a_post_in_the_couriers_hands_is_left_alone_with_its_recipients(
    run: Run, store: Store, under_way: Claim, command: str
) -> None:
    before = all_of(store, schema.delivery)
    run("queue", command, ids.show(under_way.id), status=1)
    assert all_of(store, schema.delivery) == before
    assert states(store, under_way)["bo@example.net"] == "pending"


def test_metadata_that_cannot_be_read_is_shown_as_it_is(run: Run, post: Post, store: Store) -> None:
    [number] = post("ants@example.com")
    with store.begin() as connection:
        connection.execute(update(entry).values(metadata="no JSON"))
    [found] = listed(run)
    assert found["metadata"] == {"unreadable": "no JSON"}
    assert "no JSON" in run("queue", "show", number).stdout
    assert number in run("queue", "ls").stdout


def test_stats_name_every_queue(run: Run, post: Post) -> None:
    post(["ants@example.com", "ants-owner@example.com"], received_at=time.time() - 7200)
    post("ants@example.com", b"\r\n", received_at=time.time() + 7200)
    found = json.loads(run("queue", "stats", "--json").stdout)
    assert [each["queue"] for each in found] == list(QUEUES)
    by_name = {each["queue"]: each for each in found}
    assert by_name["in"]["depth"] == 3
    assert 7200 <= by_name["in"]["oldest_age"] < 10_800
    assert by_name["shunt"] == {"queue": "shunt", "depth": 0, "oldest_age": None}
    rows = [line.split(None, 2) for line in run("queue", "stats").stdout.splitlines()]
    assert rows[1] == ["in", "3", "2 h 0 min"]
    assert rows[-1] == ["shunt", "0", "-"]


def test_a_clock_set_back_shows_no_negative_age(run: Run, post: Post) -> None:
    post("ants@example.com", received_at=time.time() + 3600)
    [found] = [each for each in json.loads(run("queue", "stats", "--json").stdout) if each["depth"]]
    assert found["oldest_age"] == 0
    assert " 0 s " in run("queue", "ls").stdout
