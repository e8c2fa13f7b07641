"""`postroom held`."""

import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from sqlalchemy import select

from postroom.spool import ids
from postroom.spool.held import discard as discard_held
from postroom.spool.held import hold
from postroom.spool.queue import claim
from postroom.spool.steps import Step, steps_of
from postroom.store.engine import Store
from postroom.store.schema import entry
from tests.cli.conftest import MESSAGE, Post, Postroom, Run, notices

ANNE, BART = "anne@example.org", "bart@example.org"
HOSTILE = b"Subject: \x1b[2J =?utf-8?q?=E2=80=AEgnp=0Aall?=\r\nFrom: a\r\n\r\n\x1b[5mblink\x07\r\n"
Hold = Callable[..., str]


@pytest.fixture(autouse=True)
def ants(run: Run) -> None:
    """A list to send to."""
    run("list", "create", "ants@example.com", "bees@example.com")


@pytest.fixture
def held(store: Store, post: Post) -> Hold:
    """Accepts a post, another one each time, and holds it; returns its id."""
    made = count()

    def make(
        raw: bytes = MESSAGE,
        sender: str = ANNE,
        to: str = "ants@example.com",
        reason: str = "nonmember",
    ) -> str:
        [number] = post(to, raw + b"\r\n" * next(made), sender)
        with store.begin() as connection:
            [taken] = claim(connection, "in", 10, 60)
            hold(connection, taken, reason, "You are not a member.", sender)
        return number

    return make


def queues(store: Store) -> dict[str, str]:
    """The queue of each entry, by id."""
    with store.read() as connection:
        rows = connection.execute(select(entry.c.id, entry.c.queue))
        return {ids.show(number): queue for number, queue in rows}


def steps(store: Store, message_id: str = "<ant@example.org>") -> list[Step]:
    with store.read() as connection:
        return list(steps_of(connection, message_id))


def refused(run: Run, *arguments: str, status: int = 1) -> str:
    return run("held", *arguments, status=status).stderr


def test_where_nothing_waits_it_says_so(run: Run) -> None:
    assert run("held", "ls").stdout == "No post waits for a moderator.\n"
    assert json.loads(run("held", "ls", "--json").stdout) == []


def test_held_posts_are_listed_oldest_first_of_one_list_or_all(run: Run, held: Hold) -> None:
    one, two = held(), held(to="bees@example.com")
    shown = run("held", "ls").stdout.splitlines()
    assert shown[0].split() == ["ID", "LIST", "FROM", "SUBJECT", "HELD", "WHY"]
    assert [line.split()[0] for line in shown[1:]] == [one, two]
    assert shown[1].split()[1:4] == ["ants@example.com", ANNE, "hello"]
    assert shown[1].split()[-1] == "nonmember"
    found = json.loads(run("held", "ls", "bees@example.com", "--json").stdout)
    assert [each["id"] for each in found] == [two]
    limited = run("held", "ls", "--limit", "1")
    assert [line.split()[0] for line in limited.stdout.splitlines()[1:]] == [one]
    assert "The 1 oldest" in limited.stderr


def test_an_unknown_list_is_refused(run: Run) -> None:
    assert "list wasps@example.com does not exist" in refused(run, "ls", "wasps@example.com")


def test_a_post_is_shown_with_why_it_waits_and_where_it_begins(run: Run, held: Hold) -> None:
    number = held()
    shown = run("held", "show", number).stdout
    assert "why         You are not a member. (nonmember)\n" in shown
    assert "subject     hello\n" in shown
    assert "\n  Hello, list.\n" in shown
    found = json.loads(run("held", "show", number, "--json").stdout)
    assert found["beginning"] == ["Hello, list."]
    assert found["sentence"] == "You are not a member."
    assert (found["author"], found["size"]) == (ANNE, len(MESSAGE))


@pytest.mark.parametrize("command", ["ls", "show"])
def test_a_hostile_post_cannot_steer_the_terminal(run: Run, held: Hold, command: str) -> None:
    number = held(HOSTILE, "an[red]ne\u202e@example.org")
    shown = run("held", command, *([number] if command == "show" else [])).stdout
    assert shown.replace("\n", "").isprintable()
    assert "\\u202e" in shown


def test_accepted_posts_go_back_to_the_rules_and_leave_a_step(
    run: Run, held: Hold, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGNAME", "carla")
    one, two, three = held(), held(), held()
    said = run("held", "accept", two, one, two).stdout
    assert said == f"accepted {one} from {ANNE}\naccepted {two} from {ANNE}\n"
    assert queues(store) == {one: "in", two: "in", three: "held"}
    with store.begin() as connection:
        facts = [each.metadata for each in claim(connection, "in", 10, 60)]
    assert [(each["approved"], each["approved_by"]) for each in facts] == [(True, "carla")] * 2
    assert [(each.what, each.list, each.facts) for each in steps(store)] == [
        ("accepted by a moderator", "ants@example.com", {"entry": one, "by": "carla"}),
        ("accepted by a moderator", "ants@example.com", {"entry": two, "by": "carla"}),
    ]


def test_a_rejected_post_is_gone_and_its_author_is_told_why(
    run: Run, held: Hold, store: Store
) -> None:
    number = held(sender=BART)
    said = run("held", "reject", number, "--reason", "Ask Zoë.").stdout
    assert said == f"rejected {number} from {BART}; the author is told\n"
    [(recipients, raw)] = notices(store)
    assert recipients == (BART,)
    assert b"Reason:  Ask Zo=C3=AB." in raw
    assert list(queues(store).values()) == ["out"]
    assert [each.what for each in steps(store)] == ["rejected by a moderator"]


def test_authors_of_several_rejected_posts_are_told_of_each(
    run: Run, held: Hold, store: Store
) -> None:
    run("held", "reject", held(), held(), held(sender=BART))
    assert [recipients for recipients, _ in notices(store)] == [(ANNE,), (ANNE,), (BART,)]


@pytest.mark.parametrize(
    ("raw", "sender", "why"),
    [
        (MESSAGE, "", "the null sender is never answered"),
        (b"Auto-Submitted: auto-replied\r\n" + MESSAGE, ANNE, "a program sent it"),
        (b"Precedence: bulk\r\n" + MESSAGE, ANNE, "a program sent it"),
        (b"List-Id: <x.example.net>\r\n" + MESSAGE, ANNE, "a program sent it"),
        (MESSAGE, "bees-owner@example.com", "a program sent it"),
        (MESSAGE, "bees@example.com", "the sender is an address of this site's lists"),
    ],
)
def test_who_must_not_be_answered_is_not_told_of_a_rejection(
    run: Run, held: Hold, store: Store, raw: bytes, sender: str, why: str
) -> None:
    said = run("held", "reject", held(raw, sender)).stdout
    assert said.endswith(f"; the author is not told: {why}\n")
    assert queues(store) == {}


def test_discarded_posts_are_gone_without_a_word(run: Run, held: Hold, store: Store) -> None:
    number = held()
    assert run("held", "discard", number).stdout == f"discarded {number} from {ANNE}\n"
    assert queues(store) == {}
    assert [each.what for each in steps(store)] == ["discarded by a moderator"]


@pytest.mark.parametrize("command", ["accept", "reject", "discard"])
def test_one_wrong_id_and_nothing_is_decided(
    run: Run, held: Hold, post: Post, store: Store, command: str
) -> None:
    one = held()
    [other] = post("ants-join@example.com", b"\r\nother")
    before = queues(store)
    assert "is not held but in queue command" in refused(run, command, one, other)
    assert "there is no held post" in refused(run, command, one, "7fffffffffffffff")
    assert "is no id" in refused(run, command, one, "xyz", status=2)
    assert queues(store) == before
    assert steps(store) == []


@pytest.mark.parametrize("command", ["accept", "reject", "discard"])
def test_who_decides_second_is_told_so(run: Run, held: Hold, command: str) -> None:
    number, other = held(), held()
    run("held", "accept", number)
    run("held", "discard", other)
    assert f"postroom: {number} was accepted already" in refused(run, command, number)
    assert "it was decided on already" in refused(run, command, other)


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["0326c1a2b4000001", "--all", "ants@example.com"],
        ["0326c1a2b4000001", "--from", ANNE],
        ["0326c1a2b4000001", "--held-for", "nonmember"],
    ],
)
def test_what_to_decide_on_must_be_clear(run: Run, arguments: list[str]) -> None:
    assert "Usage: postroom held discard" in refused(run, "discard", *arguments, status=2)


def test_all_of_a_list_are_decided_on_after_a_question(run: Run, held: Hold, store: Store) -> None:
    numbers = [held() for _ in range(3)]
    other = held(to="bees@example.com")
    everything = queues(store)
    asked = run("held", "accept", "--all", "ants@example.com", stdin="n\n", status=1)
    assert "Accept 3 posts to ants@example.com? [y/N]" in asked.stdout
    assert queues(store) == everything
    run("held", "accept", "--all", "ants@example.com", stdin="y\n")
    assert queues(store) == dict.fromkeys(numbers, "in") | {other: "held"}


def test_all_that_fit_are_chosen_by_author_and_reason(run: Run, held: Hold, store: Store) -> None:
    kept = [held(sender=BART), held(reason="too-big")]
    chosen = [held(sender="Anne@Example.ORG"), held()]
    run(
        *("held", "discard", "--all", "ants@example.com", "--yes"),
        *("--from", ANNE, "--held-for", "nonmember"),
    )
    assert set(queues(store)) == set(kept)
    assert not set(queues(store)) & set(chosen)


def test_if_none_fits_nothing_is_asked(run: Run, held: Hold) -> None:
    held()
    said = run("held", "discard", "--all", "ants@example.com", "--from", BART).stdout
    assert said == "No held post fits.\n"


def test_many_posts_are_decided_on_in_several_transactions(
    run: Run, held: Hold, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.cli.held.CHUNK", 2)
    numbers = [held() for _ in range(5)]
    said = run("held", "reject", "--all", "ants@example.com", "--yes").stdout
    assert [line.split()[1] for line in said.splitlines()] == numbers
    assert len(notices(store)) == 5


def test_what_somebody_else_decided_meanwhile_is_left_out(
    run: Run, held: Hold, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = held(), held()

    def confirm(text: str, abort: bool) -> None:
        with store.begin() as connection:
            discard_held(connection, ids.read(one))

    monkeypatch.setattr("click.confirm", confirm)
    said = run("held", "accept", "--all", "ants@example.com").stdout
    assert said.startswith(f"accepted {two} from {ANNE}\n1 ")
    assert queues(store) == {two: "in"}


def test_the_sites_own_template_is_used(run: Run, held: Hold, store: Store, place: Path) -> None:
    (place / "texts").mkdir()
    (place / "texts" / "rejected.txt").write_text("Subject: Nope\n\n{{ reason }}\n")
    (place / "postroom.toml").write_text('[notices]\ntemplates = "texts"\n')
    run("held", "reject", held())
    [(_, raw)] = notices(store)
    assert b"\r\nSubject: Nope\r\n" in raw


def test_the_author_is_told_in_the_language_of_the_list(
    run: Run, held: Hold, store: Store, place: Path
) -> None:
    (place / "texts" / "de").mkdir(parents=True)
    (place / "texts" / "de" / "rejected.txt").write_text("Subject: Nein\n\n{{ reason }}\n")
    (place / "postroom.toml").write_text('[notices]\ntemplates = "texts"\n')
    run("list", "set", "ants@example.com", "notices.language=de")
    run("held", "reject", held(), held(to="bees@example.com"))
    (_, german), (_, english) = notices(store)
    assert b"\r\nSubject: Nein\r\n" in german
    assert b"\r\nSubject: Nein\r\n" not in english


@pytest.mark.parametrize("command", ["accept", "discard"])
def test_a_post_whose_author_is_not_told_needs_no_settings(
    run: Run, held: Hold, store: Store, command: str
) -> None:
    number = held()
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE mailing_list SET settings = '{'")
    assert "settings of list ants@example.com cannot be read" in refused(run, "reject", number)
    run("held", command, number)


def test_a_broken_template_is_said_and_does_not_stop_the_rejection(
    postroom: Postroom, held: Hold, store: Store, place: Path
) -> None:
    (place / "texts").mkdir()
    (place / "texts" / "rejected.txt").write_text("Subject: {{ nobody }}\n\nx\n")
    (place / "postroom.toml").write_text('[notices]\ntemplates = "texts"\n')
    done = postroom("held", "reject", held(), held())
    assert (done.returncode, done.stderr.count(b"template not used")) == (0, 1)
    assert len(notices(store)) == 2


@pytest.mark.parametrize("raw", [b"", b"\xff\x00", HOSTILE, b"Subject: x\r\n\r\n" + b"y" * 10**7])
def test_any_post_can_be_listed_shown_and_rejected(
    run: Run, held: Hold, store: Store, raw: bytes
) -> None:
    number = held(raw)
    assert number in run("held", "ls").stdout
    assert number in run("held", "show", number).stdout
    run("held", "reject", number)
    [(recipients, notice)] = notices(store)
    assert recipients == (ANNE,)
    assert len(notice) < 4000


def test_d6_posts_with_the_same_message_id_show_their_own_text(run: Run, held: Hold) -> None:
    head = b"Message-ID: <same@example.org>\r\n\r\n"
    one, two = held(head + b"first text\r\n"), held(head + b"second text\r\n")
    show = partial(run, "held", "show")
    assert "first text" in show(one).stdout
    assert "second text" in show(two).stdout


def test_held_posts_count_as_a_queue(run: Run, held: Hold) -> None:
    number = held()
    found = json.loads(run("queue", "ls", "held", "--json").stdout)
    assert [each["id"] for each in found] == [number]
    stats = {
        each["queue"]: each["depth"] for each in json.loads(run("queue", "stats", "--json").stdout)
    }
    assert (stats["held"], stats["in"]) == (1, 0)
