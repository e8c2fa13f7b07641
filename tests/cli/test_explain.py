"""`postroom explain`."""

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from postroom.posting.rules import CHAIN
from postroom.store.engine import Store
from postroom.store.schema import metadata
from tests.cli.conftest import Run

ANTS = "ants@example.com"
POST = (
    b"Received: from a by b\r\nFrom: Anne <anne@example.org>\r\nTo: ants@example.com\r\n"
    b"Subject: Hello\r\nMessage-ID: <ant@example.org>\r\nReturn-Receipt-To: anne@example.org\r\n"
    b"\r\nHello.\r\n"
)


@pytest.fixture(autouse=True)
def ants(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list with a member, on a site that asks no DNS."""
    monkeypatch.setenv("POSTROOM_DNS__OFFLINE", "true")
    run("list", "create", ANTS)
    run("member", "add", ANTS, "anne@example.org")


def explained(run: Run, raw: bytes = POST, *options: str) -> dict[str, Any]:
    found = json.loads(run("explain", ANTS, "-", "--json", *options, stdin=raw).stdout)
    assert isinstance(found, dict)
    return found


def everything(store: Store) -> list[Any]:
    with store.read() as connection:
        return [connection.execute(select(table)).all() for table in metadata.sorted_tables]


def test_a_post_is_explained_rule_by_rule(run: Run, place: Path) -> None:
    (place / "post.eml").write_bytes(POST)
    lines = run("explain", ANTS, "post.eml").stdout.splitlines()
    assert "Envelope sender    <anne@example.org>" in lines
    assert "Known to the list  anne@example.org (member)" in lines
    first = next(place for place, line in enumerate(lines) if line.startswith("RULE"))
    assert [line.split()[0] for line in lines[first + 1 : first + 1 + len(CHAIN)]] == [
        rule for rule, _ in CHAIN
    ]
    assert "Decision: accept (accepted)" in lines
    assert "The post goes out to ants@example.com." in lines
    assert "- Return-Receipt-To: anne@example.org" in lines
    assert "+ List-Id: ants <ants.example.com>" in lines
    assert "* removed: requests for receipts" in lines
    assert not [line for line in lines if line.endswith(": Hello")]  # it does not change


def test_programs_are_told_the_same(run: Run) -> None:
    found = explained(run)
    assert (found["action"], found["reason"]) == ("accept", "accepted")
    assert found["known"] == [
        {"email": "anne@example.org", "role": "member", "moderation": None, "ack": False}
    ]
    assert [each["rule"] for each in found["rules"]] == [rule for rule, _ in CHAIN]
    assert found["changes"]["removed"] == ["Return-Receipt-To: anne@example.org"]
    assert any(each.startswith("List-Unsubscribe: <") for each in found["changes"]["added"])


def test_what_is_hit_is_said_with_its_reason(run: Run) -> None:
    run("list", "set", ANTS, "posting.max_size=10", "posting.nonmembers=reject")
    found = explained(run, POST, "--sender", "")
    hits = {each["rule"]: each["action"] for each in found["rules"] if each["action"]}
    assert hits == {"too-big": "hold"}
    found = explained(run, POST.replace(b"anne@", b"x@"))
    hits = {each["rule"]: each["action"] for each in found["rules"] if each["action"]}
    assert hits == {"too-big": "hold", "nonmember": "reject"}
    assert (found["action"], found["reason"]) == ("reject", "nonmember")
    text = run("explain", ANTS, "-", stdin=POST.replace(b"anne@", b"x@")).stdout
    assert "Decision: reject (nonmember)" in text
    assert "What would change:" in text


@pytest.mark.parametrize(
    ("added", "options", "sender"),
    [
        (b"", (), "anne@example.org"),
        (b"Return-Path: <bo@example.net>\r\n", (), "bo@example.net"),
        (b"Return-Path: <bo@example.net>\r\nX-MailFrom: cy@example.net\r\n", (), "cy@example.net"),
        (b"Return-Path: <>\r\n", (), ""),
        (b"Return-Path: <>\r\n", ("--sender", "<dee@example.net>"), "dee@example.net"),
        (b"", ("--sender", ""), ""),
    ],
)
def test_the_envelope_sender_is_given_or_found_in_the_message(
    run: Run, added: bytes, options: tuple[str, ...], sender: str
) -> None:
    assert explained(run, added + POST, *options)["sender"] == sender


def test_the_moderators_token_is_looked_at_and_does_not_go_out(run: Run) -> None:
    run("member", "add", ANTS, "olga@example.org", "--role", "owner")
    token = run("member", "token", ANTS, "olga@example.org").stdout.strip()
    run("list", "set", ANTS, "posting.emergency=yes")
    found = explained(run, f"Approved: {token}\r\n".encode() + POST)
    assert (found["approved"], found["reason"]) == (True, "approved")
    assert f"Approved: {token}" in found["changes"]["removed"]


def test_a_post_that_would_show_a_token_is_held_as_the_server_does(run: Run) -> None:
    run("member", "add", ANTS, "olga@example.org", "--role", "owner")
    token = run("member", "token", ANTS, "olga@example.org").stdout.strip()
    assert explained(run)["reason"] == "accepted"
    found = explained(run, POST + f"\r\n{token}\r\n".encode())
    assert (found["action"], found["reason"]) == ("hold", "token-visible")
    assert "without the token" in found["sentence"]


def test_a_policy_is_not_asked_for_offline_and_munging_is_shown(run: Run) -> None:
    run("list", "set", ANTS, "dmarc.always=yes")
    found = explained(run)
    assert "From: Anne <anne@example.org>" in found["changes"]["removed"]
    assert [each for each in found["changes"]["added"] if each.startswith("From: Anne")]


def test_a_stored_setting_that_cannot_be_read_is_a_warning(run: Run, store: Store) -> None:
    with store.begin() as connection:
        connection.exec_driver_sql(
            """UPDATE mailing_list SET settings = '{"posting": {"banned": ["^("]}}'"""
        )
    result = run("explain", ANTS, "-", stdin=POST)
    assert "warning: posting.banned: '^(' takes no part: it is no regular" in result.stderr
    assert "Decision: accept (accepted)" in result.stdout


def test_nothing_is_posted_or_written(run: Run, store: Store) -> None:
    before = everything(store)
    explained(run, b"Approved: x\r\n" + POST)
    run("explain", ANTS, "-", stdin=POST.replace(b"anne@", b"x@"))
    assert everything(store) == before


def test_what_a_stranger_wrote_cannot_steer_a_terminal(run: Run) -> None:
    hostile = b"From: a@example.org\r\nX-MailFrom: \x1b[2J@x\r\nBcc: \x1b]0;x\x07\r\n\r\n"
    output = run("explain", ANTS, "-", stdin=hostile).output
    assert "\x1b" not in output
    assert "\x07" not in output


@pytest.mark.parametrize("raw", [b"", b"\x00\xff", b": \r\n" * 3000, b"Subject: =?x\r\n" * 500])
def test_any_file_is_explained(run: Run, raw: bytes) -> None:
    assert "Decision: hold (no-sender)" in run("explain", ANTS, "-", stdin=raw).stdout


def test_of_many_fields_some_are_shown(run: Run) -> None:
    raw = b"Bcc: x@example.org\r\n" * 500 + POST
    assert "- and 401 more: --json shows all" in run("explain", ANTS, "-", stdin=raw).stdout
    assert len(explained(run, raw)["changes"]["removed"]) == 501


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("none@example.com", "-"), "list none@example.com does not exist"),
        ((ANTS, "nowhere.eml"), "nowhere.eml cannot be read (No such file or directory): name"),
        ((ANTS, "."), ". cannot be read (Is a directory)"),
    ],
)
def test_what_cannot_be_explained_is_one_sentence(
    run: Run, arguments: tuple[str, ...], sentence: str
) -> None:
    result = run("explain", *arguments, status=1, stdin=POST)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert result.stdout == ""
