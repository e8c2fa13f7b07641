"""`postroom bounce`."""

import json
import re
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from postroom.bounces import standing
from postroom.bounces.scoring import Standing, State
from postroom.cli.bounce import NO_DATE, NOTHING, what_follows
from postroom.lists.pending import new_token
from postroom.lists.registry import find_list
from postroom.lists.roster import Delivery, Member, change_member, find_member
from postroom.lists.settings import Bounces
from postroom.store.engine import Store
from tests.cli.conftest import Run

ANTS, BEES = "ants@example.com", "bees@example.com"
ANN, BO, CY = "ann@example.org", "bo@example.org", "cy@example.org"
HOSTILE = "\x1b[2J\u202e"
DAY = 86_400.0
NOW = 1_767_225_600.0
SOME = Standing(State.COUNTING, 1.5, 20_454, NOW, "5.1.1", "550 who?", NOW - DAY, 0, NOW + DAY)
OFF = SOME._replace(state=State.OFF, score=5.0)
Bounce = Callable[..., str]


@pytest.fixture(autouse=True)
def lists(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists with members, and who calls the commands."""
    monkeypatch.setenv("LOGNAME", "carla")
    run("list", "create", ANTS, BEES)
    run("member", "add", ANTS, "Ann@example.org", BO)
    run("member", "add", BEES, ANN)


@pytest.fixture
def came_back(store: Store) -> Bounce:
    """Has mail to a member come back; returns the token of a probe that is out."""

    def put(
        email: str = ANN, what: Standing = SOME, to: str = ANTS, delivery: Delivery = "on"
    ) -> str:
        token = new_token()
        with store.begin() as connection:
            key = find_list(connection, to).key
            member = change_member(connection, key, email, delivery=delivery)
            standing.save(connection, {member.key: what})
            standing.set_token(connection, member.key, token)
        return token

    return put


def listed(run: Run, *arguments: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("bounce", "ls", *arguments, "--json").stdout)
    return found


def shown(run: Run, email: str = ANN, of: str = ANTS) -> dict[str, str]:
    lines = run("bounce", "show", of, email).stdout.splitlines()
    facts = dict(line.split("  ", 1) for line in lines)
    return {name: value.strip() for name, value in facts.items()}


def delivery_of(store: Store, email: str = ANN, of: str = ANTS) -> Delivery:
    with store.read() as connection:
        return find_member(connection, find_list(connection, of).key, email).delivery


def audited(run: Run, of: str = ANTS) -> list[tuple[str, str, dict[str, Any]]]:
    """What was changed of members, by carla."""
    found = json.loads(run("audit", of, "--json").stdout)
    assert {each["by"] for each in found} == {"carla"}
    return [
        (each["what"], each["address"], each["facts"])
        for each in found
        if each["what"] == "changed"
    ]


# Showing


def test_where_no_mail_came_back_it_says_so(run: Run) -> None:
    assert run("bounce", "ls").stdout == "No mail has come back lately.\n"
    assert run("bounce", "ls", ANTS).stdout == "No mail has come back lately.\n"
    assert listed(run) == []


def test_members_are_listed_the_last_bounce_first_with_why(run: Run, came_back: Bounce) -> None:
    came_back(BO, SOME._replace(state=State.PROBING, score=5.0, bounced_at=NOW + 1))
    came_back(ANN, SOME._replace(status="4.2.2", reason="x" * 70))
    came_back(ANN, OFF._replace(bounced_at=NOW + 2, status="", reason=""), BEES, "bounces")
    title, *lines = run("bounce", "ls").stdout.splitlines()
    assert title.split() == ["ADDRESS", "LIST", "SCORE", "STATE", "LAST", "WHY"]
    rows = [re.split(r"  +", line) for line in lines]
    assert [row[:4] for row in rows] == [
        ["Ann@example.org", BEES, "5", "turned off"],
        [BO, ANTS, "5", "probe sent"],
        ["Ann@example.org", ANTS, "1.5", "counting"],
    ]
    assert [datetime.fromisoformat(row[4]).timestamp() - NOW for row in rows] == [2, 1, 0]
    assert [row[5] for row in rows] == [
        "The mail could not be delivered.",
        "There is no such mailbox. 550 who?",
        f"The mailbox is full. {'x' * 60}...",
    ]


def test_members_of_one_list_or_the_newest_are_chosen(run: Run, came_back: Bounce) -> None:
    came_back(ANN)
    came_back(BO, SOME._replace(bounced_at=NOW + 1))
    came_back(ANN, SOME._replace(bounced_at=NOW + 2), BEES)
    assert [(each["address"], each["list"]) for each in listed(run, ANTS)] == [
        (BO, ANTS),
        ("Ann@example.org", ANTS),
    ]
    assert run("bounce", "ls", BEES).stdout.split()[:4] == ["ADDRESS", "SCORE", "STATE", "LAST"]
    limited = run("bounce", "ls", "--limit", "2")
    assert [line.split()[1] for line in limited.stdout.splitlines()[1:]] == [BEES, ANTS]
    assert limited.stderr == "The 2 newest; --limit N shows more.\n"
    assert run("bounce", "ls", "--limit", "4").stderr == ""
    assert [each["list"] for each in listed(run, "--limit", "1")] == [BEES]
    said = run("bounce", "ls", "wasps@example.com", status=1).stderr
    assert "list wasps@example.com does not exist" in said


def test_a_limit_beyond_what_a_database_can_count_is_none(run: Run, came_back: Bounce) -> None:
    came_back()
    assert len(listed(run, "--limit", "9" * 30)) == 1


def test_a_member_is_shown_with_what_is_known_and_what_comes_next(
    run: Run, came_back: Bounce
) -> None:
    soon = time.time() + DAY
    came_back(what=SOME._replace(next_at=soon))
    facts = shown(run)
    for name in ("since", "last"):
        assert datetime.fromisoformat(facts.pop(name))
    before, at, rest = facts.pop("next").partition("on ")
    assert (before, rest[19:]) == (
        "a probe at score 5; forgotten ",
        " if nothing comes back",
    )
    assert at
    assert abs(datetime.fromisoformat(rest[:19]).timestamp() - soon) <= 1
    assert facts == {
        "address": "Ann@example.org",
        "list": ANTS,
        "delivery": "on",
        "state": "counting",
        "score": "1.5 of 5",
        "why": "There is no such mailbox.",
        "status": "5.1.1",
        "they said": "550 who?",
    }


def test_of_whom_nothing_is_known_that_is_said(run: Run) -> None:
    assert shown(run, BO) == {
        "address": BO,
        "list": ANTS,
        "delivery": "on",
        "state": "fine: no mail came back lately",
    }
    found = json.loads(run("bounce", "show", ANTS, BO, "--json").stdout)
    assert found == {
        "address": BO,
        "list": ANTS,
        "delivery": "on",
        "state": "fine",
        "score": 0.0,
        "status": None,
        "why": None,
        "reason": None,
        "warned": 0,
        "since": None,
        "bounced_at": None,
        "next_at": None,
        "next": None,
    }


def test_facts_are_the_same_for_programs(run: Run, came_back: Bounce) -> None:
    came_back(what=OFF._replace(warned=3, next_at=NO_DATE), delivery="bounces")
    found = json.loads(run("bounce", "show", ANTS, ANN, "--json").stdout)
    assert found.pop("next") == NOTHING
    assert [found] == listed(run)
    for name in ("since", "bounced_at"):
        assert datetime.fromisoformat(found.pop(name)).utcoffset() == timedelta(0)
    assert found == {
        "address": "Ann@example.org",
        "list": ANTS,
        "delivery": "bounces",
        "state": "off",
        "score": 5.0,
        "status": "5.1.1",
        "why": "There is no such mailbox.",
        "reason": "550 who?",
        "warned": 3,
        "next_at": None,
    }
    assert shown(run)["delivery"] == "off by bounces"


@pytest.mark.parametrize("email", [CY, "carla@example.org", "nonsense", ""])
def test_who_is_no_member_is_not_shown(run: Run, email: str) -> None:
    run("member", "add", ANTS, "carla@example.org", "--role", "owner")
    said = run("bounce", "show", ANTS, email, status=1).stderr
    assert f"'{email}' is not member of this list" in said


def test_settings_that_cannot_be_read_hide_nothing_that_is_known(
    run: Run, store: Store, came_back: Bounce
) -> None:
    came_back()
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE mailing_list SET settings = '{'")
    facts = shown(run)
    assert f"the settings of list {ANTS} cannot be read" in facts["next"]
    assert (facts["score"], facts["why"]) == ("1.5", "There is no such mailbox.")
    assert shown(run, BO)["state"] == "fine: no mail came back lately"


def test_a_row_that_cannot_be_read_is_like_none(run: Run, store: Store, came_back: Bounce) -> None:
    came_back()
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE bounce SET state = 'asleep'")
    assert listed(run) == []
    assert shown(run)["state"] == "fine: no mail came back lately"


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "--json"), ("show",), ("show", "--json")])
def test_no_command_shows_a_token_or_lets_mail_servers_steer_the_terminal(
    run: Run, came_back: Bounce, arguments: tuple[str, ...]
) -> None:
    token = came_back(what=SOME._replace(status=HOSTILE, reason=HOSTILE))
    of = [ANTS, ANN] if arguments[0] == "show" else []
    said = run("bounce", arguments[0], *of, *arguments[1:]).stdout
    assert said.replace("\n", "").isprintable()
    assert "\\u202e" in said
    assert token not in said


# What comes next

MEMBER = Member(1, ANN, "", "member", "on", "regular", None, True, True, False, NOW)
OFF_BY = {by: MEMBER._replace(delivery=by) for by in ("bounces", "user", "admin")}
PROBED = SOME._replace(state=State.PROBING)
WARNED = OFF._replace(warned=1)


@pytest.mark.parametrize(
    ("member", "known", "ours", "follows"),
    [
        (MEMBER, SOME, Bounces(threshold=2.5), "a probe at score 2.5; forgotten AT if nothing co"),
        (MEMBER, SOME, Bounces(threshold=1.5), "a probe AT"),
        (MEMBER, SOME, Bounces(count=False), "forgotten AT"),
        (OFF_BY["user"], SOME, Bounces(threshold=1.5), "forgotten AT"),
        (MEMBER, PROBED, Bounces(), "forgotten AT, unless the probe comes back: then posts are"),
        (OFF_BY["bounces"], WARNED, Bounces(), "warning 2 of 3 AT"),
        (OFF_BY["bounces"], WARNED, Bounces(warnings=1, remove=True), "taken off the list AT"),
        (OFF_BY["bounces"], WARNED, Bounces(warnings=1), NOTHING),
        (OFF_BY["bounces"], OFF, Bounces(warnings=0), NOTHING),
        (OFF_BY["admin"], WARNED, Bounces(), "forgotten AT"),
        (MEMBER, WARNED, Bounces(), "forgotten AT"),
    ],
)
def test_what_comes_next_is_said_with_when(
    member: Member, known: Standing, ours: Bounces, follows: str
) -> None:
    at = f"on {datetime.fromtimestamp(NOW + DAY):%Y-%m-%d %H:%M:%S}"
    assert what_follows(member, known, ours, NOW).startswith(follows.replace("AT", at))
    late = what_follows(member, known, ours, NOW + DAY)
    assert late.startswith(follows.replace("AT", "at any moment"))


def test_what_never_comes_has_no_date() -> None:
    for next_at in (NO_DATE, 9e15, 1e300):
        known = WARNED._replace(next_at=next_at)
        assert what_follows(OFF_BY["bounces"], known, Bounces(), NOW) == NOTHING


# Resetting


def test_a_reset_forgets_and_turns_posts_on_again(
    run: Run, store: Store, came_back: Bounce
) -> None:
    came_back(ANN, OFF, delivery="bounces")
    came_back(BO)
    came_back(ANN, OFF, BEES, "bounces")
    said = run("bounce", "reset", ANTS, "ANN@example.org", ANN, BO).stdout
    assert said == (
        f"reset 2 members of {ANTS}: posts are on again for 1, the score of 1 is forgotten\n"
    )
    assert [each["list"] for each in listed(run)] == [BEES]
    assert (delivery_of(store), delivery_of(store, of=BEES)) == ("on", "bounces")
    assert audited(run) == [
        ("changed", ANN, {"delivery": "on", "how": "command line"}),
        ("changed", BO, {"score": 0, "how": "command line"}),
    ]


@pytest.mark.parametrize("by", ["user", "admin"])
def test_what_people_turned_off_stays_off(
    run: Run, store: Store, came_back: Bounce, by: Delivery
) -> None:
    came_back(ANN, OFF, delivery=by)
    said = run("bounce", "reset", ANTS, ANN).stdout
    assert said == f"reset 1 member of {ANTS}: the score of 1 is forgotten\n"
    assert delivery_of(store) == by
    assert listed(run) == []


def test_a_reset_where_nothing_is_known_says_so_and_writes_nothing_down(run: Run) -> None:
    said = run("bounce", "reset", ANTS, BO).stdout
    assert said == f"reset 1 member of {ANTS}: nothing was known of 1\n"
    assert audited(run) == []


def test_posts_that_bounces_turned_off_are_on_again_even_if_nothing_else_is_known(
    run: Run, store: Store, came_back: Bounce
) -> None:
    came_back(ANN, OFF, delivery="bounces")
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE bounce SET state = 'asleep'")
    assert "posts are on again for 1" in run("bounce", "reset", ANTS, ANN).stdout
    assert delivery_of(store) == "on"
    with store.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM bounce").scalar() == 0


def test_addresses_are_read_from_a_file(run: Run, came_back: Bounce) -> None:
    came_back(ANN)
    came_back(BO)
    said = run("bounce", "reset", ANTS, "-", stdin=f"{ANN}\n\n{BO}\n").stdout
    assert said == f"reset 2 members of {ANTS}: the score of 2 is forgotten\n"


def test_one_who_is_no_member_and_nobody_is_reset(run: Run, came_back: Bounce) -> None:
    came_back(ANN, OFF, delivery="bounces")
    run("member", "add", ANTS, CY, "--role", "owner")
    for email in (CY, "nonsense"):
        said = run("bounce", "reset", ANTS, "-", stdin=f"{ANN}\n{email}\n", status=1).stderr
        assert said == (f"postroom: line 2: '{email}' is not member of {ANTS}; nothing was done\n")
        said = run("bounce", "reset", ANTS, email, ANN, status=1).stderr
        assert said == f"postroom: '{email}' is not member of {ANTS}; nothing was done\n"
    assert "Missing argument" in run("bounce", "reset", ANTS, status=2).stderr
    [still] = listed(run)
    assert still["state"] == "off"
    assert audited(run) == []
