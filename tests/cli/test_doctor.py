"""`postroom doctor`, on installations that are well and ill."""

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.doctor import handover
from postroom.store.engine import Store
from postroom.testing.sink import Sink
from postroom.testing.site import Site
from tests.cli.conftest import Run
from tests.doctor.certificates import CERTIFICATE, KEY
from tests.watch.watched import Watched

CHECKS = {
    "settings", "database", "integrity", "durability", "space", "inodes", "lmtp", "maps",
    "health", "mail server", "smtp", "owner", "hostname", "clock", "files", "memory",
}  # fmt: skip


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No mail server, and nobody on the ports that a server would have."""
    monkeypatch.setattr(handover, "_find", lambda program: None)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        nobody = f"127.0.0.1:{bound.getsockname()[1]}"
    for name in "LMTP", "MAPS", "METRICS":
        monkeypatch.setenv(f"POSTROOM_{name}__LISTEN", nobody)
    monkeypatch.setenv("POSTROOM_SMTP__HOST", nobody)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A server that runs, for all of them; only its port for LMTP is used."""
    with Site() as made:
        made.start()
        yield made


def found(run: Run, status: int) -> dict[str, dict[str, str]]:
    """The findings by check; none is there twice."""
    every = json.loads(run("doctor", "--json", status=status).stdout)
    by_check = {each["check"]: each for each in every}
    assert len(by_check) == len(every)
    return by_check


def test_an_installation_that_is_well_has_no_failure(
    run: Run, store: Store, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("list", "create", "ants@example.com")
    monkeypatch.setenv("POSTROOM_LMTP__LISTEN", f"127.0.0.1:{site.port}")
    monkeypatch.setenv("POSTROOM_MAPS__LISTEN", "")
    monkeypatch.setenv("POSTROOM_SITE__OWNER", "root@example.org")
    with Watched(store) as watched, contextlib.closing(Sink()) as sink:
        monkeypatch.setenv("POSTROOM_METRICS__LISTEN", str(watched.place))
        monkeypatch.setenv("POSTROOM_SMTP__HOST", f"127.0.0.1:{sink.port}")
        every = found(run, status=0)
        assert sink.look() == []
    assert set(every) == CHECKS - {"maps"}
    assert {each["level"] for each in every.values()} <= {"ok", "warning"}
    for check in "database", "integrity", "durability", "lmtp", "health", "smtp", "owner":
        assert every[check]["level"] == "ok", every[check]
    assert every["mail server"]["level"] == "warning"
    assert "lets ants-bounces@example.com send to root@example.org" in every["smtp"]["text"]


def test_a_site_whose_owner_is_one_of_its_lists_is_warned(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("list", "create", "ants@example.com")
    monkeypatch.setenv("POSTROOM_SITE__OWNER", "ants-owner@example.com")
    every = found(run, status=1)
    assert every["owner"]["level"] == "warning"
    assert "an address of this site" in every["owner"]["text"]


def test_a_server_that_does_not_run_is_a_failure_with_what_to_do(run: Run) -> None:
    run("list", "create", "ants@example.com")
    lines = run("doctor", status=1).stdout.splitlines()
    [line] = [line for line in lines if line.split()[1] == "lmtp"]
    assert line.startswith("failure  lmtp         127.0.0.1:")
    assert line.endswith("(Connection refused): start the server: `postroom serve`, or "
                         "`systemctl start postroom`")  # fmt: skip
    assert {line.split()[0] for line in lines} == {"ok", "warning", "failure"}


def test_every_check_is_made(run: Run) -> None:
    run("list", "create", "ants@example.com")
    every = found(run, status=1)
    assert set(every) == CHECKS
    for each in every.values():
        assert each["level"] == "ok" or each["to_do"], each


def test_settings_that_cannot_be_used_are_all_that_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__PORT", "24")
    [line] = run("doctor", status=1).stdout.splitlines()
    assert line.startswith("failure  settings     environment: lmtp.port: unknown key")


def test_a_database_url_that_is_none_is_all_that_is_said(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_STORE__URL", "mysql://localhost/mail")
    [line] = run("doctor", status=1).stdout.splitlines()
    assert "use sqlite:///PATH or postgresql://HOST/NAME" in line


def test_a_database_that_is_damaged_does_not_hide_the_rest(run: Run, place: Path) -> None:
    (place / "postroom.db").write_bytes(b"no database at all " * 500)
    every = found(run, status=1)
    assert "is damaged" in every["database"]["text"]
    assert "restore a backup" in every["database"]["text"]
    assert {"lmtp", "owner", "clock"} <= set(every)
    assert "integrity" not in every


def test_without_lists_nobody_asks_the_mail_server(run: Run, store: Store) -> None:
    every = found(run, status=1)
    assert every["database"]["level"] == "warning"
    assert "mail server" not in every


def test_files_of_tls_are_looked_at_where_they_are_used(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "tls" not in found(run, status=1)
    (place / "both.pem").write_text(CERTIFICATE + KEY)
    (place / "both.pem").chmod(0o600)
    monkeypatch.setenv("POSTROOM_LMTP__TLS_CERTIFICATE", str(place / "both.pem"))
    assert found(run, status=1)["tls"]["text"].startswith("the certificate")


def test_what_a_stranger_chose_cannot_steer_a_terminal(
    run: Run, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTROOM_LMTP__TLS_CERTIFICATE", f"{place}/\x1b[2J")
    shown = run("doctor", status=1).stdout
    assert all(char.isprintable() or char == "\n" for char in shown)
    assert r"\x1b[2J" in shown
