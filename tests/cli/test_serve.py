"""`postroom serve`, and the tour that the commands propose."""

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from postroom.base.settings import Settings
from postroom.cli import serve as module
from tests.cli.conftest import Postroom, Run

# Other servers on this machine may have the ports that are the default.
ALONE = {"POSTROOM_MAPS__LISTEN": "", "POSTROOM_METRICS__LISTEN": ""}


@pytest.fixture
def served() -> Iterator[str]:
    """A server in a process of its own; the address it chose."""
    with subprocess.Popen(
        [sys.executable, "-m", "postroom", "serve", "--only", "lmtp"],
        env=os.environ | {"POSTROOM_LMTP__LISTEN": "127.0.0.1:0"} | ALONE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        try:
            ready = next(line for line in process.stderr if line.startswith("ready "))
            yield ready.split()[1]
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate()
    assert process.returncode == 0


def test_the_proposed_first_message_arrives_in_its_queue(
    served: str, postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", served)
    said = postroom("list", "create", "it's-ants@example.com").stdout.decode().splitlines()
    steps = [shlex.split(line)[1:] for line in said if line.startswith("  ")]
    join, send, look, *_ = steps
    subprocess.run([sys.executable, *join], capture_output=True, check=True)
    subprocess.run([sys.executable, *send], check=True)

    seen = subprocess.run([sys.executable, *look, "--json"], capture_output=True, check=True).stdout
    [entry] = json.loads(seen)["waiting"]
    assert (entry["queue"], entry["list"]) == ("in", "it's-ants@example.com")
    raw = postroom("queue", "show", entry["id"], "--raw").stdout
    assert raw.endswith(b"X-MailFrom: you@example.org\r\n\r\nHello, list.\r\n")


def test_commands_work_while_the_server_runs(served: str, run: Run) -> None:
    run("list", "create", "ants@example.com")
    run("domain", "add", "example.net", "--alias-of", "example.com")
    run("list", "rename", "ants@example.com", "bees@example.com")
    assert "bees@example.com" in run("list", "ls").stdout
    run("list", "remove", "bees@example.com")
    assert json.loads(run("queue", "stats", "--json").stdout)[0]["queue"] == "in"


def test_an_unknown_role_is_wrong_usage(run: Run) -> None:
    assert "'lmtp', 'runners'" in run("serve", "--only", "web", status=2).stderr


@pytest.mark.parametrize(
    ("arguments", "only"),
    [
        (("--config", "site.toml", "serve"), None),
        (("serve", "--config", "site.toml", "--only", "lmtp"), "lmtp"),
        (
            ("--config", "nowhere.toml", "serve", "--only", "runners", "--config", "site.toml"),
            "runners",
        ),
    ],
)
def test_the_supervisor_is_given_the_settings_and_its_status_is_ours(
    run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], only: str | None
) -> None:
    with open("site.toml", "w", encoding="utf-8") as file:
        file.write('[site]\nhostname = "lists.example.com"\n')
    given: list[tuple[str, str | None, str | None]] = []

    def supervise(settings: Settings, config: str | None, only: str | None) -> int:
        given.append((settings.site.hostname, config, only))
        return 1

    monkeypatch.setattr(module, "run", supervise)
    run(*arguments, status=1)
    assert given == [("lists.example.com", "site.toml", only)]


def test_a_port_in_use_is_one_sentence(
    served: str, postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", served)
    result = postroom("serve")
    assert result.returncode == 1
    assert result.stderr.startswith(b"postroom: cannot listen on %b " % served.encode())
    assert len(result.stderr.splitlines()) == 1


def test_a_database_in_use_by_another_server_is_one_sentence(
    served: str, postroom: Postroom, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", "127.0.0.1:0")
    result = postroom("serve")
    assert result.returncode == 1
    assert b"is served by another postroom" in result.stderr
    assert len(result.stderr.splitlines()) == 1
