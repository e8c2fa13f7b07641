"""`postroom audit`, and what the commands that change something write down."""

import json
from datetime import datetime
from typing import Any

import pytest

from postroom.cli import people
from postroom.lists.audit import Change, write
from postroom.spool.ids import IdMaker
from postroom.store.engine import Store
from tests.cli.conftest import Run

ANTS = "ants@example.com"
LINE = {"how": "command line"}
HOSTILE = "\x1b[2J\u202e\n"


@pytest.fixture(autouse=True)
def carla(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who calls the commands; and a list."""
    monkeypatch.setenv("LOGNAME", "carla")
    run("list", "create", ANTS)


def known(run: Run, *arguments: str) -> list[tuple[str, str, dict[str, Any]]]:
    """What was done since the list was created, with whom, and the facts; by carla."""
    found = json.loads(run("audit", *(arguments or [ANTS]), "--json").stdout)
    assert {each["by"] for each in found} <= {"carla"}
    return [
        (each["what"], each["address"], each["facts"])
        for each in found
        if each["what"] != "created"
    ]


def remember(store: Store, *changes: Change) -> None:
    with store.begin() as connection:
        write(connection, IdMaker(), changes)


def test_the_newest_change_is_shown_last(run: Run) -> None:
    run("member", "add", ANTS, "Ann@example.org")
    run("member", "remove", ANTS, "ann@example.org")
    title, *lines = run("audit", ANTS).stdout.splitlines()
    assert title.split() == ["WHEN", "WHAT", "ADDRESS", "BY", "HOW"]
    assert [line.split()[2:] for line in lines] == [
        ["created", "carla", "command", "line"],
        ["added", "ann@example.org", "carla", "command", "line", "(role=member)"],
        ["removed", "ann@example.org", "carla", "command", "line", "(role=member)"],
    ]


def test_changes_are_given_to_programs_with_their_facts(run: Run) -> None:
    [change] = json.loads(run("audit", ANTS, "--json").stdout)
    assert datetime.fromisoformat(change.pop("at")).utcoffset() is not None
    assert change == {
        "list_id": "ants.example.com",
        "what": "created",
        "address": "",
        "by": "carla",
        "facts": LINE,
    }


def test_the_newest_of_many_are_shown(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    run("member", "add", ANTS, "bo@example.org")
    said = run("audit", ANTS, "--limit", "2")
    assert [line.split()[3] for line in said.stdout.splitlines()[1:]] == [
        "ann@example.org",
        "bo@example.org",
    ]
    assert said.stderr == "The 2 newest; --limit N shows more.\n"
    assert run("audit", ANTS, "--limit", "4").stderr == ""


def test_what_concerns_one_address_is_shown_in_any_case(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org", "bo@example.org")
    assert [email for _, email, _ in known(run, ANTS, "--address", "ANN@Example.org")] == [
        "ann@example.org"
    ]
    said = run("audit", ANTS, "--address", "cy@example.org").stdout
    assert said == "No change is known.\n"
    for text in ("", "cy@", "a b@example.org"):
        refused = run("audit", ANTS, "--address", text, status=2).stderr
        assert f"{text!r} is no address" in refused


def test_people_who_are_added_and_removed_are_written_down_one_by_one(run: Run) -> None:
    run("member", "add", ANTS, "Ann@example.org")
    run("member", "add", ANTS, "ANN@example.org", "bo@example.org", "Bo <BO@example.org>")
    run("member", "add", ANTS, "bo@example.org", "--role", "owner")
    run("member", "remove", ANTS, "bo@example.org", "ANN@example.org", "cy@example.org")
    member, owner = LINE | {"role": "member"}, LINE | {"role": "owner"}
    assert known(run) == [
        ("added", "ann@example.org", member),
        ("added", "bo@example.org", member),
        ("added", "bo@example.org", owner),
        ("removed", "ann@example.org", member),
        ("removed", "bo@example.org", member),
    ]
    run("member", "remove", ANTS, "cy@example.org", status=1)
    run("member", "add", ANTS, "cy@example.org", "nonsense", status=1)
    assert len(known(run)) == 5


def test_however_many_people_each_is_written_down_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(people, "CHUNK", 2)
    everyone = [f"p{number}@example.org" for number in range(5)]
    run("member", "add", ANTS, "-", stdin="\n".join(everyone))
    assert [email for _, email, _ in known(run)] == everyone


def test_what_is_set_of_a_member_is_written_down(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    run("member", "set", ANTS, "ann@example.org", "delivery=off", "ack=yes", "moderation=default")
    facts = {"role": "member", "delivery": "admin", "ack": "yes", "moderation": "default"}
    assert known(run)[1:] == [("changed", "ann@example.org", LINE | facts)]
    run("member", "set", ANTS, "bo@example.org", "delivery=off", status=1)
    assert len(known(run)) == 2


def test_settings_of_a_list_are_written_down_as_they_are_now(run: Run) -> None:
    run("list", "set", ANTS, "posting.emergency=yes", "posting.banned+=@example.net")
    run("list", "set", ANTS, "posting.banned+=bo@example.org")
    run("list", "set", ANTS, "posting.emergency=no", "posting.size=1", status=1)
    assert known(run) == [
        ("settings", "", LINE | {"posting.emergency": "yes", "posting.banned": "@example.net"}),
        ("settings", "", LINE | {"posting.banned": "@example.net, bo@example.org"}),
    ]


def test_a_list_that_was_renamed_and_removed_is_known_by_its_list_id(run: Run) -> None:
    run("list", "rename", ANTS, "bees@example.org")
    renamed = ("renamed", "", LINE | {"before": ANTS, "now": "bees@example.org"})
    assert known(run, "bees@example.org") == [renamed]
    run("list", "remove", "bees@example.org")
    deleted = ("deleted", "", LINE | {"address": "bees@example.org"})
    for name in ("ants.example.com", "<Ants.Example.com>", ANTS, "ANTS@Example.COM"):
        assert known(run, name) == [renamed, deleted]
    assert "nothing is known" in run("audit", "bees@example.org", status=1).stderr


def test_each_of_many_lists_is_written_down(run: Run) -> None:
    run("list", "create", "a@example.com", "b@example.net")
    for name in ("a@example.com", "b@example.net"):
        assert "created" in run("audit", name).stdout


@pytest.mark.parametrize("name", ["wasps@example.com", "wasps.example.com", "wasps", "@", HOSTILE])
def test_a_list_that_nothing_is_known_of_is_one_sentence(run: Run, name: str) -> None:
    result = run("audit", name, status=2 if name == HOSTILE else 1)
    if name != HOSTILE:
        assert result.stderr.startswith(f"postroom: nothing is known of a list {name}: ")
        assert "kept for 400 days (commands.audit_kept)" in result.stderr
        assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_list_from_before_there_was_an_audit_has_no_change(run: Run, store: Store) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql("DELETE FROM audit")
    assert run("audit", ANTS).stdout == "No change is known.\n"
    assert json.loads(run("audit", ANTS, "--json").stdout) == []


def test_what_strangers_wrote_cannot_steer_the_terminal(run: Run, store: Store) -> None:
    facts = {"how": HOSTILE, HOSTILE: HOSTILE, "reason": "x" * 1000}
    change = Change("ants.example.com", HOSTILE, "ann@example.org", HOSTILE, facts)
    remember(store, change)
    shown = run("audit", ANTS).stdout
    assert len(shown.splitlines()) == 3
    assert shown.replace("\n", "").isprintable()
    assert "\\u202e" in shown
    assert "x" * 61 not in shown
    [_, found] = json.loads(run("audit", ANTS, "--json").stdout)
    assert found["facts"] == facts


@pytest.mark.parametrize(
    ("facts", "how"),
    [
        ({}, []),
        ({"how": "mail"}, ["mail"]),
        ({"asked_by": "bo@example.org"}, ["asked_by=bo@example.org"]),
        ({"how": "mail", "told": True, "x": ["a", 1]}, ["mail", "(told=yes,", "x=a,", "1)"]),
    ],
)
def test_how_it_was_done_is_said_in_words(
    run: Run, store: Store, facts: dict[str, Any], how: list[str]
) -> None:
    remember(store, Change("ants.example.com", "joined", "ann@example.org", "ann", facts))
    assert run("audit", ANTS).stdout.splitlines()[-1].split()[5:] == how
