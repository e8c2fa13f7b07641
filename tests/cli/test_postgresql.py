"""The same commands on PostgreSQL."""

import json

import pytest

from postroom.spool import queue
from postroom.store import schema
from postroom.store.engine import Store
from tests.cli.conftest import Post, Run
from tests.peers import Cluster


@pytest.fixture(autouse=True)
def database(place: object, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database, which the settings name."""
    url = cluster.new_database()
    monkeypatch.setenv("POSTROOM_STORE__URL", url)
    return url


def test_a_list_and_its_mail_are_made_shown_and_removed(run: Run, post: Post, store: Store) -> None:
    run("domain", "add", "example.net")
    run("list", "create", "-", stdin="ants@example.com\nants-join@example.com\nb@example.net\n")
    shown = {each["address"] for each in json.loads(run("list", "ls", "--json").stdout)}
    assert shown == {"ants@example.com", "ants-join@example.com", "b@example.net"}
    run("list", "rename", "b@example.net", "bees@example.net")
    [number] = post("ants@example.com", b"Subject: \xff\r\n\r\n\0")
    run("queue", "ls")
    [found] = json.loads(run("queue", "ls", "in", "--json").stdout)
    assert (found["id"], found["list"]) == (number, "ants@example.com")
    raw = run("queue", "show", number, "--raw").stdout_bytes
    assert raw == b"Subject: \xff\r\nX-MailFrom: anne@example.org\r\n\r\n\0"
    with store.begin() as connection:
        [claim] = queue.claim(connection, "in", 1, 60)
        queue.shunt(connection, claim, "bad ant")
    assert "bad ant" in run("queue", "show", number).stdout
    run("queue", "retry", number)
    stats = json.loads(run("queue", "stats", "--json").stdout)
    assert [each["depth"] for each in stats if each["queue"] == "in"] == [1]
    assert "waiting" in run("list", "remove", "ants@example.com", status=1).stderr
    run("list", "remove", "--force", "ants@example.com")
    run("queue", "delete", number)
    assert json.loads(run("queue", "ls", "--json").stdout) == []


def test_people_are_invited_decided_on_and_written_down(run: Run, store: Store) -> None:
    run("list", "create", "ants@example.com")
    run("member", "add", "ants@example.com", "ann@example.org", "cy@example.org")
    run("member", "set", "ants@example.com", "ann@example.org", "ack=yes")
    run("member", "remove", "ants@example.com", "ann@example.org")
    run("member", "invite", "ants@example.com", "bo@example.org", "cy@example.org")
    [found] = json.loads(run("pending", "ls", "--json").stdout)
    assert (found["address"], found["state"]) == ("bo@example.org", "invited")
    assert "waits for bo@example.org" in run("pending", "accept", found["id"], status=1).stderr
    run("pending", "discard", found["id"])
    assert "No request" in run("pending", "ls").stdout
    changes = json.loads(run("audit", "ants@example.com", "--json").stdout)
    assert [(each["what"], each["address"]) for each in changes] == [
        ("created", ""),
        ("added", "ann@example.org"),
        ("added", "cy@example.org"),
        ("changed", "ann@example.org"),
        ("removed", "ann@example.org"),
        ("invited", "bo@example.org"),
        ("discarded", "bo@example.org"),
    ]


def test_a_database_is_made_by_migrations(run: Run) -> None:
    assert f"made, with schema {schema.REVISION}" in run("migrate").stdout
    assert "already" in run("migrate").stdout
    run("list", "create", "ants@example.com")


def test_a_server_that_is_not_there_is_one_sentence(
    run: Run, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = database.replace("postroom@", "postroom:sesame@").replace("host=", "host=/nowhere")
    monkeypatch.setenv("POSTROOM_STORE__URL", secret)
    for arguments in (("list", "ls"), ("migrate",)):
        said = run(*arguments, status=1).stderr
        assert said.startswith("postroom: ")
        assert len(said.splitlines()) == 1
        assert "sesame" not in said
