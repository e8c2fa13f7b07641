"""`postroom config`."""

import json
import tomllib
from pathlib import Path

import msgspec
import pytest

from postroom.base.loading import load
from postroom.base.settings import Settings
from tests.cli.conftest import Run

FILE = """
[site]
hostname = "lists.example.com"
[lmtp]
listen = ["127.0.0.1:0", "[::1]:8024"]
"""


@pytest.fixture
def file(place: Path) -> Path:
    path = place / "postroom.toml"
    path.write_text(FILE)
    return path


def test_what_is_shown_means_the_same_when_it_is_read(run: Run, file: Path) -> None:
    shown = tomllib.loads(run("config", "show").stdout)
    assert msgspec.convert(shown, Settings) == load()


def test_a_setting_is_shown_with_its_origin(run: Run, file: Path) -> None:
    lines = run("config", "show").stdout.splitlines()
    assert lines[0] == f"# {file}, and POSTROOM_STORE__URL"
    assert 'hostname = "lists.example.com"  # postroom.toml' in lines
    assert 'owner = "changeme@example.com"  # default' in lines
    assert any(
        line.startswith("url = ") and line.endswith("# POSTROOM_STORE__URL") for line in lines
    )


def test_the_environment_goes_before_the_file(
    run: Run, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_SITE__HOSTNAME", "mail.example.com")
    shown = json.loads(run("config", "show", "--json").stdout)
    assert shown["site"]["hostname"] == "mail.example.com"
    assert shown["lmtp"]["listen"] == ["127.0.0.1:0", "[::1]:8024"]
    sources = shown["sources"]
    assert sources["site.hostname"] == "POSTROOM_SITE__HOSTNAME"
    assert sources["lmtp.listen"] == "postroom.toml"
    assert sources["lmtp.ident"] == "default"
    assert set(sources) == {
        f"{section}.{key}" for section in shown.keys() - {"sources"} for key in shown[section]
    }


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://anne:sesame@db.example.com/mail",
        "postgresql://anne@db.example.com/mail?password=sesame",
        "postgresql://anne:sesame@db.example.com/mail?password=sesame&sslpassword=sesame",
        "postgresql//anne:sesame@db.example.com/mail",
    ],
)
def test_a_password_is_never_shown(run: Run, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("POSTROOM_STORE__URL", url)
    for arguments in (("show",), ("show", "--json")):
        shown = run("config", *arguments).stdout
        assert "sesame" not in shown
        assert "url" in shown
        assert url not in shown


def test_the_password_for_mail_servers_is_never_shown(run: Run, place: Path) -> None:
    (place / "postroom.toml").write_text('[smtp]\nuser = "anne"\npassword = "sesame"\n')
    for arguments in (("show",), ("show", "--json"), ("check",)):
        assert "sesame" not in run("config", *arguments).stdout
    shown = tomllib.loads(run("config", "show").stdout)
    assert (shown["smtp"]["user"], shown["smtp"]["password"]) == ("anne", "hidden")


def test_the_limits_of_destinations_are_shown_as_they_can_be_written(run: Run, place: Path) -> None:
    (place / "postroom.toml").write_text(
        '[delivery.destinations."example.net"]\nconnections = 1\nper_minute = 600\n'
        '[delivery.destinations."example.org"]\n[smtp]\nhost = ["a", "b:587"]\n'
    )
    shown = tomllib.loads(run("config", "show").stdout)
    assert msgspec.convert(shown, Settings) == load()
    assert shown["delivery"]["destinations"] == {
        "example.net": {"connections": 1, "per_minute": 600},
        "example.org": {"connections": 0, "per_minute": 0},
    }
    assert shown["smtp"]["host"] == ["a", "b:587"]
    sources = json.loads(run("config", "show", "--json").stdout)["sources"]
    assert sources["delivery.destinations"] == "postroom.toml"


def test_rare_characters_are_shown_as_escapes(run: Run, place: Path) -> None:
    (place / "postroom.toml").write_text('[site]\nowner = "a\\u202e\\U0001F41C@b.c"\n')
    shown = run("config", "show").stdout
    assert "\u202e" not in shown
    assert tomllib.loads(shown)["site"]["owner"] == "a\u202e\N{ANT}@b.c"


def test_good_settings_are_ok_with_their_file(run: Run, file: Path) -> None:
    assert run("config", "check").stdout == f"OK: {file}, and POSTROOM_STORE__URL\n"
    assert not (file.parent / "postroom.db").exists()


@pytest.mark.skipif(Path("/etc/postroom/postroom.toml").exists(), reason="a site has settings")
def test_settings_without_a_file_are_ok(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSTROOM_STORE__URL")
    assert run("config", "check").stdout == "OK: defaults (there is no file)\n"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[site", "bad.toml: "),
        ("[sites]\n", "bad.toml: sites: unknown section; there are site, store, lmtp"),
        ("[lmtp]\nport = 24\n", "bad.toml: lmtp.port: unknown key; [lmtp] has listen, socket_mode"),
        ("[lmtp]\nmax_recipients = 'many'\n", "bad.toml: lmtp.max_recipients: Expected `int`"),
        ("[lmtp]\nlisten = ['127.0.0.1:25']\n", "port 25 is SMTP's"),
        ("[store]\nreceipts_kept = -1\n", "bad.toml: store.receipts_kept: Expected `float` > 0"),
    ],
)
@pytest.mark.parametrize("command", ["check", "show"])
def test_bad_settings_are_one_sentence(
    run: Run, place: Path, command: str, content: str, sentence: str
) -> None:
    (place / "bad.toml").write_text(content)
    result = run("--config", "bad.toml", "config", command, status=1)
    assert result.stderr.startswith("postroom: ")
    assert sentence in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


@pytest.mark.parametrize("url", ["nonsense", "mysql://host/mail", "sqlite://"])
def test_a_database_that_cannot_be_is_not_ok(
    run: Run, monkeypatch: pytest.MonkeyPatch, url: str
) -> None:
    monkeypatch.setenv("POSTROOM_STORE__URL", url)
    result = run("config", "check", status=1)
    assert result.stderr.startswith("postroom: store.url")
    assert result.stdout == ""
