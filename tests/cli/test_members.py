"""`postroom member`."""

import contextlib
import json
import os
import pty
import subprocess
import sys
from datetime import datetime
from typing import Any

import pytest

from postroom.cli import given
from postroom.lists import keys, registry
from postroom.store.engine import Store
from tests.cli.conftest import Run, notices

ANTS = "ants@example.com"


@pytest.fixture(autouse=True)
def ants(run: Run) -> None:
    """A list."""
    run("list", "create", ANTS)


def listed(run: Run, *more: str) -> list[dict[str, Any]]:
    """Who is on the list."""
    found: list[dict[str, Any]] = json.loads(run("member", "ls", ANTS, "--json", *more).stdout)
    return found


def emails(run: Run, *more: str) -> list[str]:
    """Their addresses."""
    return [each["address"] for each in listed(run, *more)]


def test_nobody_yet_says_what_to_do(run: Run) -> None:
    assert run("member", "ls", ANTS).stdout == (
        "No members yet: postroom member add ants@example.com ann@example.org\n"
    )
    assert run("member", "ls", ANTS, "--role", "owner").stdout == (
        "No owners yet: postroom member add ants@example.com ann@example.org --role owner\n"
    )
    assert listed(run) == []


def test_people_are_added_and_shown(run: Run) -> None:
    said = run("member", "add", ANTS, "Ann@example.org", '"Lee, Bo" <bo@example.net>').stdout
    assert said == "added 2 members to ants@example.com\n"
    bo, ann = listed(run)
    assert datetime.fromisoformat(bo.pop("joined_at")).utcoffset() is not None
    assert bo == {
        "address": "bo@example.net",
        "name": "Lee, Bo",
        "role": "member",
        "delivery": "on",
        "mode": "regular",
        "moderation": None,
        "own_posts": True,
        "duplicates": True,
        "ack": False,
    }
    assert (ann["address"], ann["name"]) == ("Ann@example.org", "")
    title, first, second = run("member", "ls", ANTS).stdout.splitlines()
    assert title.split()[:2] == ["ADDRESS", "NAME"]
    assert first.split() == ["bo@example.net", "Lee,", "Bo", "member", "on"]
    assert second.split() == ["Ann@example.org", "member", "on"]


def test_one_is_added_by_name_and_in_a_role(run: Run) -> None:
    said = run("member", "add", ANTS, "ann@example.org", "--name", "Ann  Lee", "--role", "owner")
    assert said.stdout == "added 1 owner to ants@example.com\n"
    [ann] = listed(run, "--role", "owner")
    assert (ann["name"], ann["role"]) == ("Ann Lee", "owner")
    assert listed(run, "--role", "member") == []


def test_those_who_are_there_in_any_case_are_counted(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    said = run("member", "add", ANTS, "ANN@Example.org", "bo@example.org", "Bo <BO@example.org>")
    assert said.stdout == "added 1 member to ants@example.com (2 were there already)\n"
    assert emails(run) == ["ann@example.org", "bo@example.org"]


def test_people_are_read_from_standard_input(run: Run) -> None:
    stdin = "\ufeffAnn <ann@example.org>\r\n\n  \nbo@example.org  \n\u00c4nne <\u00e4@example.org>"
    said = run("member", "add", ANTS, "-", "cy@example.org", stdin=stdin).stdout
    assert said == "added 4 members to ants@example.com\n"
    assert {each["name"] for each in listed(run)} == {"Ann", "", "\u00c4nne"}
    assert run("member", "add", ANTS, "-", stdin="").stdout.startswith("added 0 members")


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("a@example.org\n\nb\n", "line 3: 'b' has no domain: use name@domain"),
        (b"a@example.org\nb\xff@example.org\n", "line 2: b'b\\xff@example.org' is not UTF-8"),
        ("a@example.org\nB\x1b[2J <b@example.org>\n", "line 2: 'B\\x1b[2J <b@example.org>' holds"),
        ("a@example.org\nb\0@example.org\n", "line 2: 'b\\x00@example.org' holds what cannot"),
        ("a@example.org\n" + "b" * 300 + "@example.org\n", "is longer than 254 octets"),
        ("a@example.org\n" + "b" * 100_000, "is no address (address too long)"),
        ("N" * 100_000 + " <a@example.org>\n", "line 1: the name 'NNN"),
        ("a@example.org\nAnts-Owner@Example.com\n", "an address of ants@example.com itself"),
    ],
)
def test_one_bad_line_and_nobody_is_added(run: Run, stdin: str | bytes, sentence: str) -> None:
    result = run("member", "add", ANTS, "-", stdin=stdin, status=1)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stderr) < 500
    assert emails(run) == []


def test_one_bad_line_after_thousands_and_nobody_is_added(run: Run) -> None:
    stdin = "".join(f"p{number}@example.org\n" for number in range(3000)) + "nonsense\n"
    result = run("member", "add", ANTS, "-", stdin=stdin, status=1)
    assert result.stderr == (
        "postroom: line 3001: 'nonsense' has no domain: use name@domain; nothing was done\n"
    )
    assert emails(run) == []


def test_progress_is_shown_on_a_terminal_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stdin = "\n".join(f"p{number}@example.org" for number in range(given.MANY))
    ours, theirs = pty.openpty()
    result = subprocess.run(
        [sys.executable, "-m", "postroom", "member", "add", ANTS, "-"],
        input=stdin.encode(),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the end, on Linux
        while more := os.read(ours, 65_536):
            shown += more
    os.close(ours)
    assert b"checking" in shown
    assert b"adding" in shown
    assert result.stdout == f"added {given.MANY} members to {ANTS}\n".encode()
    assert run("member", "add", ANTS, "-", stdin=stdin).stderr == ""


def test_people_are_removed_in_one_role(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org", "bo@example.org", "cy@example.org")
    run("member", "add", ANTS, "ann@example.org", "--role", "owner")
    said = run("member", "remove", ANTS, "Ann <ANN@example.org>", "dee@example.org")
    assert said.stdout == "removed 1 member from ants@example.com\n"
    assert said.stderr == "not member: dee@example.org\n"
    assert [(each["address"], each["role"]) for each in listed(run)] == [
        ("ann@example.org", "owner"),
        ("bo@example.org", "member"),
        ("cy@example.org", "member"),
    ]
    stdin = "bo@example.org\nCy <cy@example.org>\n"
    said = run("member", "remove", ANTS, "-", stdin=stdin)
    assert (said.stdout, said.stderr) == ("removed 2 members from ants@example.com\n", "")
    run("member", "remove", ANTS, "ann@example.org", "--role", "owner")
    assert emails(run) == []


def test_if_nobody_is_there_to_be_removed_it_is_an_error(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    stdin = "\n".join(f"p{number}@example.org" for number in range(12))
    said = run("member", "remove", ANTS, "-", stdin=stdin, status=1).stderr.splitlines()
    assert said[0] == "not member: p0@example.org"
    assert said[-2:] == ["and 2 more", "postroom: nobody was removed from ants@example.com"]
    bad = run("member", "remove", ANTS, "-", stdin="ann@example.org\nx\n", status=1).stderr
    assert bad.startswith("postroom: line 2: 'x' has no domain")
    assert emails(run) == ["ann@example.org"]


def test_what_is_set_of_a_member_is_said_and_shown(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    changes = ("delivery=off", "moderation=hold", "own_posts=no", "duplicates=no", "ack=yes")
    said = run("member", "set", ANTS, "ANN@example.org", *changes, "name=Ann Lee")
    assert said.stdout.splitlines() == [
        "delivery = admin",
        "moderation = hold",
        "own_posts = no",
        "duplicates = no",
        "ack = yes",
        "name = Ann Lee",
    ]
    assert said.stderr == ""
    [ann] = listed(run)
    keys_of = ("delivery", "moderation", "own_posts", "duplicates", "ack", "name")
    assert [ann[key] for key in keys_of] == ["admin", "hold", False, False, True, "Ann Lee"]
    line = run("member", "ls", ANTS).stdout.splitlines()[1]
    for words in ("off by admin", "hold", "no own posts, no duplicates, ack"):
        assert words in line
    back = ("delivery=on", "moderation=default", "own_posts=yes", "duplicates=yes", "ack=no")
    said = run("member", "set", ANTS, "ann@example.org", *back, "name=")
    assert "moderation = default\n" in said.stdout
    [ann] = listed(run)
    assert [ann[key] for key in keys_of] == ["on", None, True, True, False, ""]


def test_whoever_asks_for_digests_is_told_that_there_are_none_yet(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    said = run("member", "set", ANTS, "ann@example.org", "mode=digest")
    assert said.stdout == "mode = digest\n"
    assert "posts come one by one" in said.stderr
    assert "digest" in run("member", "ls", ANTS).stdout
    assert run("member", "set", ANTS, "ann@example.org", "mode=regular").stderr == ""


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("delivery", "'delivery' has no =: use KEY=VALUE"),
        ("delivery=bounces", "delivery: 'bounces' is not allowed: use on or off"),
        ("mode=weekly", "use regular or digest"),
        ("moderation=", "use accept, hold, reject, discard or default"),
        ("own_posts=maybe", "use yes or no"),
        ("colour=red", "there is no 'colour': use delivery, mode, moderation, own_posts, dupl"),
        ("name=\x1b[2J", "the name '\\x1b[2J' holds what cannot be printed"),
        ("name=" + "N" * 201, "use at most 200 characters"),
    ],
)
def test_what_cannot_be_set_is_refused_and_nothing_is(run: Run, change: str, sentence: str) -> None:
    run("member", "add", ANTS, "ann@example.org")
    before = listed(run)
    result = run("member", "set", ANTS, "ann@example.org", "delivery=off", change, status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert listed(run) == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("add", "none@example.com", "a@b.org"), "list none@example.com does not exist"),
        (("ls", "none@example.com"), "list none@example.com does not exist"),
        (("remove", "none@example.com", "a@b.org"), "list none@example.com does not exist"),
        (("invite", "none@example.com", "a@b.org"), "list none@example.com does not exist"),
        (("token", "none@example.com", "a@b.org"), "list none@example.com does not exist"),
        (("set", ANTS, "bo@example.org", "mode=digest"), "'bo@example.org' is not member of"),
        (("set", ANTS, "ann@example.org", "mode=digest", "--role", "owner"), "but member"),
        (("add", ANTS, "a@b.org", "c@d.org", "--name", "A"), "--name is for one address"),
        (("add", ANTS, "a@b.org", "--name", "A" * 201), "use at most 200 characters"),
        (("add", ANTS, "Ant@"), "postroom: 'Ant@' is no address"),
        (("invite", ANTS, "Ant@"), "postroom: 'Ant@' is no address"),
        (("invite", ANTS, "ants-owner@example.com"), "is an address of this server"),
        (("token", ANTS, "ann@example.org"), "is neither owner nor moderator of ants@example.com"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    run("member", "add", ANTS, "ann@example.org")
    before = listed(run)
    result = run("member", *arguments, status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert listed(run) == before


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", ANTS),
        ("invite", ANTS),
        ("set", ANTS, "ann@example.org"),
        ("add", ANTS, "ann@example.org", "--role", "king"),
        ("add", ANTS, "ann\x1b@example.org"),
        ("ls",),
    ],
)
def test_wrong_usage_is_said(run: Run, arguments: tuple[str, ...]) -> None:
    assert "Usage: postroom member" in run("member", *arguments, status=2).stderr


def test_who_is_invited_gets_a_letter_and_is_no_member_yet(run: Run, store: Store) -> None:
    run("list", "set", ANTS, "subscriptions.join=invite-only")
    run("member", "add", ANTS, "cy@example.org")
    said = run("member", "invite", ANTS, "Ann Lee <ann@example.org>", "bo@example.org")
    assert said.stdout == "invited 2 people to ants@example.com\n"
    assert [to for to, _ in notices(store)] == [("ann@example.org",), ("bo@example.org",)]
    assert emails(run) == ["cy@example.org"]
    found = json.loads(run("pending", "ls", "--json").stdout)
    assert [(each["address"], each["name"], each["state"]) for each in found] == [
        ("ann@example.org", "Ann Lee", "invited"),
        ("bo@example.org", "", "invited"),
    ]


def test_members_and_those_who_are_named_twice_are_not_invited(run: Run, store: Store) -> None:
    run("member", "add", ANTS, "ann@example.org")
    run("member", "add", ANTS, "bo@example.org", "--role", "owner")
    stdin = "ANN@example.org\n\nBo <bo@example.org>\nBO@Example.org\n"
    said = run("member", "invite", ANTS, "-", stdin=stdin).stdout
    assert said == "invited 1 person to ants@example.com (1 is a member already)\n"
    assert [to for to, _ in notices(store)] == [("bo@example.org",)]
    said = run("member", "invite", ANTS, "ann@example.org").stdout
    assert said == "invited 0 people to ants@example.com (1 is a member already)\n"


def test_who_was_invited_a_while_ago_can_be_invited_again(
    run: Run, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("member", "invite", ANTS, "ann@example.org")
    said = run("member", "invite", ANTS, "Ann@example.org").stdout
    assert said == f"invited 0 people to {ANTS} (1 asked a short while ago)\n"
    assert len(notices(store)) == 1
    monkeypatch.setenv("POSTROOM_COMMANDS__AGAIN", "0")
    run("member", "invite", ANTS, "Ann@example.org")
    assert len(notices(store)) == 2
    assert len(json.loads(run("pending", "ls", "--json").stdout)) == 1


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("a@example.org\nb\n", "line 2: 'b' has no domain: use name@domain; nothing was done"),
        ("a@example.org\nb@example.net\n", "line 2: b@example.net may not join ants@example.com"),
        ("a@example.org\nants@example.com\n", "line 2: ants@example.com is an address of this"),
        ("\n".join(f"p{n}@example.org" for n in range(1001)), "1001 are too many at once"),
    ],
)
def test_one_bad_line_and_nobody_is_invited(
    run: Run, store: Store, stdin: str, sentence: str
) -> None:
    run("list", "set", ANTS, "posting.banned=@example.net")
    result = run("member", "invite", ANTS, "-", stdin=stdin, status=1)
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert notices(store) == []
    assert json.loads(run("pending", "ls", "--json").stdout) == []


@pytest.mark.parametrize("role", ["owner", "moderator"])
def test_the_token_of_who_runs_the_list_is_theirs_alone(run: Run, store: Store, role: str) -> None:
    run("member", "add", ANTS, "ann@example.org", "bo@example.org", "--role", role)
    said = run("member", "token", ANTS, "ANN@example.org")
    token = said.stdout.strip()
    assert f"Approved: {token}" in said.stderr
    assert run("member", "token", ANTS, "ann@example.org").stdout == said.stdout
    assert run("member", "token", ANTS, "bo@example.org").stdout != said.stdout
    with store.read() as connection:
        found = registry.find_list(connection, ANTS)
        tokens = keys.moderator_tokens(connection, found.key, found.list_id)
    assert keys.is_moderator_token(tokens, token)


def test_who_is_removed_and_added_again_has_another_token(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org", "--role", "moderator")
    before = run("member", "token", ANTS, "ann@example.org").stdout
    run("member", "remove", ANTS, "ann@example.org", "--role", "moderator")
    run("member", "add", ANTS, "ann@example.org", "--role", "moderator")
    assert run("member", "token", ANTS, "ann@example.org").stdout != before


def test_members_go_with_their_list(run: Run) -> None:
    run("member", "add", ANTS, "ann@example.org")
    run("list", "rename", ANTS, "bees@example.com")
    assert "ann@example.org" in run("member", "ls", "bees@example.com").stdout
    run("list", "remove", "bees@example.com")
    run("list", "create", "bees@example.com")
    assert "No members yet" in run("member", "ls", "bees@example.com").stdout
