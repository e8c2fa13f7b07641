"""`postroom list`."""

import ast
import contextlib
import json
import os
import pty
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta

import click
import pytest
from sqlalchemy import Engine, event

from postroom.cli import lists
from postroom.lists.preferences import KINDS
from postroom.spool.care import entries
from postroom.store.engine import Store
from tests.cli.conftest import Post, Run


def addresses(run: Run) -> list[str]:
    """The lists there are."""
    return [each["address"] for each in json.loads(run("list", "ls", "--json").stdout)]


def test_no_lists_yet_says_what_to_do(run: Run) -> None:
    assert run("list", "ls").stdout == "No lists yet: postroom list create mylist@example.com\n"
    assert json.loads(run("list", "ls", "--json").stdout) == []


def test_a_list_is_created_with_its_domain_and_the_next_step_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", "[::1]:2400, 127.0.0.1:8024")
    said = run("list", "create", "MyList@Example.COM").stdout
    assert said.startswith("created mylist@example.com\n")
    assert 'smtplib.LMTP("::1", 2400, ' in said
    steps = [line.split()[:3] for line in said.splitlines() if line.startswith("  ")]
    assert [each[:2] for each in steps] == [
        ["postroom", "member"],
        ["python3", "-c"],
        ["postroom", "trace"],
        ["postroom", "mta"],
        ["postroom", "doctor"],
    ]
    assert addresses(run) == ["mylist@example.com"]
    assert "example.com" in run("domain", "ls").stdout


def test_what_is_said_after_a_list_was_created_leads_to_a_post_that_goes_out(run: Run) -> None:
    said = [line.strip() for line in run("list", "create", "ants@example.com").stdout.splitlines()]
    [join] = [line for line in said if line.startswith("postroom member")]
    [python] = [line for line in said if line.startswith("python3 -c")]
    [trace] = [line for line in said if line.startswith("postroom trace")]
    run(*join.split()[1:])
    [call] = [
        each
        for each in ast.walk(ast.parse(shlex.split(python)[2]))
        if isinstance(each, ast.Call) and getattr(each.func, "attr", "") == "sendmail"
    ]
    sender, recipient, message = map(ast.literal_eval, call.args)
    assert recipient == "ants@example.com"
    told = run("explain", recipient, "-", "--sender", sender, "--json", stdin=message).stdout
    found = json.loads(told)
    assert (found["reason"], found["message_id"]) == ("accepted", f"<{trace.split()[2]}>")


def test_a_port_that_is_not_known_yet_is_left_to_the_reader(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", "127.0.0.1:0")
    assert 'smtplib.LMTP("127.0.0.1", PORT, ' in run("list", "create", "ants@example.com").stdout


def test_several_lists_are_created_a_line_each(run: Run) -> None:
    said = run("list", "create", "ants@example.com", "bees@example.org").stdout
    assert said == "created ants@example.com\ncreated bees@example.org\n"


def test_lists_are_read_from_standard_input_and_blank_lines_ignored(run: Run) -> None:
    stdin = "﻿ants@example.com\r\n\n   \nBees@example.com  \ncats@example.org"
    assert run("list", "create", "-", stdin=stdin).stdout == "created 3 lists\n"
    assert addresses(run) == ["ants@example.com", "bees@example.com", "cats@example.org"]


def test_lists_from_standard_input_are_counted(run: Run) -> None:
    assert run("list", "create", "-", stdin="").stdout == "created 0 lists\n"
    assert run("list", "create", "-", stdin="ants@example.com").stdout == "created 1 list\n"


def test_the_name_of_a_list_is_kept(run: Run) -> None:
    run("list", "create", "ants@example.com", "--name", "All about ants")
    assert json.loads(run("list", "show", "ants@example.com", "--json").stdout)["name"] == (
        "All about ants"
    )


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("ants", "'ants' has no domain: use name@domain"),
        ("ants@", "'ants@' is no address"),
        ("@example.com", "'@example.com' is no address"),
        ("a b@example.com", "'a b@example.com' is no address"),
        ("ants@@example.com", "is no address"),
        ("ants@exa_mple.com", "cannot be a list"),
        ("ants@example.com@example.com", "is no address"),
        ("postmaster@example.com", "postmaster@example.com is the site owner's"),
        ("there@example.com", "list there@example.com exists already"),
        ("THERE@example.COM", "list there@example.com exists already"),
        ("bees@example.com", "bees@example.com is named twice"),
        ("ants@example.net", "example.net is an alias of example.com"),
        ("old@example.com", "list-id old.example.com is already that of list new@example.com"),
    ],
)
def test_one_bad_address_and_no_list_is_created(run: Run, given: str, sentence: str) -> None:
    run("list", "create", "there@example.com", "old@example.com")
    run("list", "rename", "old@example.com", "new@example.com")
    run("domain", "add", "example.net", "--alias-of", "example.com")
    before = addresses(run), run("domain", "ls", "--json").stdout
    result = run("list", "create", "bees@example.com", given, "new@example.org", status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""
    assert (addresses(run), run("domain", "ls", "--json").stdout) == before


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("a@example.com\n\nb\n", "line 3: 'b' has no domain"),
        ("a@example.com\nb@example.com\nA@example.com\n", "line 3: a@example.com is named twice"),
        (b"a@example.com\nb\xff@example.com\n", "line 2: b'b\\xff@example.com' is not UTF-8"),
        ("a@example.com\nb\x1b[2J@example.com\n", "line 2: 'b\\x1b[2J@example.com' is no address"),
        ("a@example.com\n\0@example.com\n", "line 2: '\\x00@example.com' is no address"),
    ],
)
def test_a_bad_line_is_named_and_no_list_is_created(
    run: Run, stdin: str | bytes, sentence: str
) -> None:
    result = run("list", "create", "-", stdin=stdin, status=1)
    assert sentence in result.stderr
    assert addresses(run) == []


def test_a_line_that_is_there_twice_is_named_with_the_first_one(run: Run) -> None:
    stdin = "a@example.com\nb@example.com\n\na@example.com\n"
    assert run("list", "create", "-", stdin=stdin, status=1).stderr == (
        "postroom: line 4: a@example.com is named twice, first in line 1; no list was created\n"
    )


def test_a_bad_list_in_a_later_chunk_undoes_the_earlier_ones(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lists, "CHUNK", 2)
    run("list", "create", "there@example.com")
    stdin = "a@example.com\nb@example.com\nc@example.com\nd@example.com\nthere@example.com\n"
    result = run("list", "create", "-", stdin=stdin, status=1)
    assert "list there@example.com exists already" in result.stderr
    assert addresses(run) == ["there@example.com"]


@pytest.mark.parametrize("name", ["ants-join", "ants-subscribe", "ants-bounces"])
def test_a_list_that_takes_the_place_of_an_endpoint_is_created_with_a_warning(
    run: Run, name: str
) -> None:
    run("list", "create", "ants@example.com")
    result = run("list", "create", f"{name}@example.com")
    suffix = name.removeprefix("ants")
    assert result.stderr == (
        f"warning: {name}@example.com was the {suffix} address of ants@example.com; "
        "mail to it now posts to the new list\n"
    )
    assert f"{name}@example.com" in addresses(run)


@pytest.mark.parametrize("name", ["bees-join", "join", "-join", "ants-joiner", "ants"])
def test_a_list_that_takes_no_endpoints_place_is_created_without_a_warning(
    run: Run, name: str
) -> None:
    run("list", "create", "ants@example.net")
    assert run("list", "create", "--", f"{name}@example.com").stderr == ""
    assert f"{name}@example.com" in addresses(run)


def test_lists_created_together_are_warned_of_too(run: Run) -> None:
    stdin = "ants@example.com\nants-join@example.com\nbees@example.com\nants-leave@example.com\n"
    said = run("list", "create", "-", stdin=stdin).stderr.splitlines()
    assert [line.split(" was the ")[0] for line in said] == [
        "warning: ants-join@example.com",
        "warning: ants-leave@example.com",
    ]


@pytest.fixture
def statements() -> Iterator[list[str]]:
    """Every statement that is executed meanwhile."""
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    yield seen
    event.remove(Engine, "before_cursor_execute", note)


def test_statements_do_not_grow_with_the_lists(run: Run, statements: list[str]) -> None:
    run("list", "create", "ants@example.com")
    counted = []
    for number in (2, 900):
        statements.clear()
        names = (f"n{number}-{each}-join@example.com" for each in range(number))
        run("list", "create", "-", stdin="\n".join(names))
        counted.append(len(statements))
    assert counted[0] == counted[1]


def test_progress_is_shown_on_a_terminal_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    stdin = "\n".join(f"list{number}@example.com" for number in range(lists.CHUNK))
    ours, theirs = pty.openpty()
    result = subprocess.run(
        [sys.executable, "-m", "postroom", "list", "create", "-"],
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
    assert b"creating" in shown
    assert result.stdout == f"created {lists.CHUNK} lists\n".encode()
    assert run("list", "create", "-", stdin=stdin.replace("list", "l")).stderr == ""


def test_lists_are_shown_in_order_of_their_domain_and_name(run: Run) -> None:
    run("list", "create", "b@example.com", "a@example.org", "a@example.com")
    shown = [line.split()[0] for line in run("list", "ls").stdout.splitlines()]
    assert shown == ["ADDRESS", "a@example.com", "b@example.com", "a@example.org"]


def test_the_json_of_a_list_has_its_facts(run: Run) -> None:
    run("list", "create", "ants@example.com", "--name", "Ants \N{ANT}")
    [found] = json.loads(run("list", "ls", "--json").stdout)
    shown = json.loads(run("list", "show", "ants@example.com", "--json").stdout)
    assert {key: value for key, value in shown.items() if key != "settings"} == found
    created = datetime.fromisoformat(found.pop("created_at"))
    assert created.utcoffset() == timedelta(0)
    assert abs(created.timestamp() - time.time()) < 3600
    assert found == {
        "address": "ants@example.com",
        "list_id": "ants.example.com",
        "name": "Ants \N{ANT}",
    }


def test_a_list_is_shown_with_its_facts(run: Run) -> None:
    run("list", "create", "ants@example.com")
    said = run("list", "show", "ANTS@example.com").stdout.partition("\n\n")[0]
    facts = dict(line.split("  ", 1) for line in said.splitlines())
    assert facts["address"].strip() == "ants@example.com"
    assert facts["list-id"].strip() == "ants.example.com"
    assert "-join" in facts["also at"]


def settings_lines(run: Run) -> dict[str, list[str]]:
    """What `list show` says of each setting of ants@example.com: the mark, then the rest."""
    said = run("list", "show", "ants@example.com").stdout.partition("\n\n")[2]
    title, *lines = said.splitlines()
    assert title.split() == ["SETTING", "VALUE", "DEFAULT", "MEANING"]
    halves = [line.partition("  ") for line in lines]
    return {rest.split()[0]: [mark, rest.strip()] for mark, _, rest in halves}


def test_every_setting_is_shown_with_value_default_and_meaning(run: Run) -> None:
    run("list", "create", "ants@example.com")
    before = settings_lines(run)
    assert list(before) == list(KINDS)
    assert {mark for mark, _ in before.values()} == {""}
    run("list", "set", "ants@example.com", "posting.nonmembers=reject", "posting.emergency=yes")
    after = settings_lines(run)
    assert [key for key, (mark, _) in after.items() if mark] == [
        "posting.nonmembers",
        "posting.emergency",
    ]
    assert after["posting.nonmembers"][0] == "*"
    assert after["posting.nonmembers"][1].split()[1:3] == ["reject", "hold"]
    for key, (_, line) in after.items():
        assert line.endswith(KINDS[key].meaning)


def test_the_settings_as_json(run: Run) -> None:
    run("list", "create", "ants@example.com")
    run("list", "set", "ants@example.com", "posting.banned=bo@example.org,@example.net")
    found = json.loads(run("list", "show", "ants@example.com", "--json").stdout)["settings"]
    assert list(found) == list(KINDS)
    assert found["posting.banned"] == {
        "value": ["bo@example.org", "@example.net"],
        "default": [],
        "changed": True,
    }
    assert found["posting.emergency"] == {"value": False, "default": False, "changed": False}


def test_what_was_set_is_said(run: Run) -> None:
    run("list", "create", "ants@example.com")
    changes = ("headers.footer=-- \n$list", "posting.banned+=^a{1,2}@", "posting.members=hold")
    assert run("list", "set", "ants@example.com", *changes).stdout.splitlines() == [
        "posting.members = hold",
        "posting.banned = ^a{1,2}@",
        "headers.footer = -- \\n$list",
    ]
    said = run("list", "set", "ants@example.com", "posting.banned-=^a{1,2}@").stdout
    assert said == "posting.banned = \n"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("posting.members", "'posting.members' has no =: use KEY=VALUE"),
        ("=x", "there is no setting ''"),
        ("posting.member=hold", "did you mean posting.members?"),
        ("posting.members=later", "use accept, hold, reject or discard"),
        ("posting.banned=^(a+)+$", "repeats what itself repeats"),
        ("headers.subject_prefix=\x1b[2J", "'\\x1b[2J' holds what cannot be printed"),
        ("headers.footer=" + "x" * 100_000, "use at most 2000 characters"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_and_none_is_set(
    run: Run, change: str, sentence: str
) -> None:
    run("list", "create", "ants@example.com")
    before = run("list", "show", "ants@example.com").stdout
    changes = ("posting.emergency=yes", change)
    result = run("list", "set", "ants@example.com", *changes, status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert run("list", "show", "ants@example.com").stdout == before


@pytest.mark.parametrize("width", ["40", "200"])
def test_a_terminal_of_any_width_shows_the_whole_of_an_address(
    run: Run, monkeypatch: pytest.MonkeyPatch, width: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", width)
    address = "a-rather-long-name-of-a-list@lists.example.com"
    run("list", "create", address)
    shown = click.unstyle(run("list", "ls").stdout)
    assert max(map(len, shown.splitlines())) <= int(width)
    column = shown.splitlines()[0].index("LIST-ID")
    assert "".join(line[:column].strip() for line in shown.splitlines()[1:]) == address


def test_a_renamed_list_keeps_its_list_id_and_its_mail(run: Run, post: Post) -> None:
    run("list", "create", "ants@example.com")
    [entry] = post("ants@example.com")
    said = run("list", "rename", "ants@example.com", "bees@example.org").stdout
    assert said == "ants@example.com is now bees@example.org; its list-id stays ants.example.com\n"
    assert addresses(run) == ["bees@example.org"]
    shown = json.loads(run("queue", "show", entry, "--json").stdout)
    assert (shown["list"], shown["metadata"]["listname"]) == ("bees@example.org",) * 2


def test_a_rename_that_takes_the_place_of_an_endpoint_is_warned_of(run: Run) -> None:
    run("list", "create", "ants@example.com", "bees@example.com")
    result = run("list", "rename", "bees@example.com", "ants-owner@example.com")
    assert "was the -owner address of ants@example.com" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("rename", "none@example.com", "a@example.com"), "list none@example.com does not exist"),
        (("rename", "ants@example.com", "bees@example.com"), "list bees@example.com exists"),
        (("rename", "ants@example.com", "nonsense"), "'nonsense' has no domain"),
        (("show", "none@example.com"), "does not exist: `postroom list ls` shows those there are"),
        (("remove", "none@example.com"), "list none@example.com does not exist"),
        (("set", "none@example.com", "posting.emergency=yes"), "list none@example.com does not"),
    ],
)
def test_what_cannot_be_done_is_refused_and_changes_nothing(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    run("list", "create", "ants@example.com", "bees@example.com")
    before = addresses(run)
    result = run("list", *arguments, status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert addresses(run) == before


@pytest.mark.parametrize("arguments", [("create",), ("show",), ("rename", "a@b.cc"), ("remove",)])
def test_a_missing_address_is_wrong_usage(run: Run, arguments: tuple[str, ...]) -> None:
    assert "Missing argument" in run("list", *arguments, status=2).stderr


def test_a_list_without_mail_is_removed(run: Run) -> None:
    run("list", "create", "ants@example.com")
    assert run("list", "remove", "ants@example.com").stdout == "removed ants@example.com\n"
    assert addresses(run) == []


def test_a_list_with_mail_is_removed_by_force_alone_and_its_mail_goes_to_shunt(
    run: Run, post: Post, store: Store
) -> None:
    run("list", "create", "ants@example.com", "bees@example.com")
    mine = post(["ants@example.com", "ants-join@example.com"])
    [other] = post("bees@example.com")
    refused = run("list", "remove", "ants@example.com", status=1).stderr
    assert refused.startswith("postroom: list ants@example.com has 2 entries waiting")
    assert "--force" in refused
    assert "ants@example.com" in addresses(run)
    with store.read() as connection:
        assert [each.queue for each, _ in entries(connection)] == ["in", "command", "in"]

    said = run("list", "remove", "--force", "ants@example.com").stdout
    assert (
        said == "removed ants@example.com\nentries put into shunt: 2; see postroom queue ls shunt\n"
    )
    assert addresses(run) == ["bees@example.com"]
    shunted = json.loads(run("queue", "ls", "shunt", "--json").stdout)
    assert [each["id"] for each in shunted] == mine
    assert [each["metadata"]["shunted_from"] for each in shunted] == ["in", "command"]
    assert [each["id"] for each in json.loads(run("queue", "ls", "in", "--json").stdout)] == [other]
    assert "was removed: it has nowhere to go" in run("queue", "retry", mine[0], status=1).stderr
