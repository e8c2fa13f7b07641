"""What the doctor gathers: from sick and sound databases, listeners, files."""

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import insert

from postroom.base.settings import Lmtp
from postroom.doctor import facts
from postroom.doctor.findings import Answer, Certificate
from postroom.lists import registry
from postroom.service.netstring import netstring
from postroom.store import schema
from postroom.store.engine import Store
from postroom.testing.site import Site
from tests.doctor.certificates import CERTIFICATE, ENDS, KEY, LOCKED_KEY, OTHER_KEY
from tests.watch.watched import Watched


def url_of(store: Store) -> str:
    return store.engine.url.render_as_string(hide_password=False)


def test_a_sound_database_is_told_with_what_it_holds(store: Store) -> None:
    with store.begin() as connection:
        for address in ("ants@example.com", "bees@example.com", "cats@example.net"):
            registry.create_list(connection, address)
        registry.add_domain(connection, "alias.example.org", "example.com")
        registry.add_domain(connection, "empty.example.org")
        for number, accepted_at in ((1, 9e9), (2, 1234.5)):
            row = {"entry": number, "key": b"%d" % number, "accepted_at": accepted_at}
            connection.execute(insert(schema.receipt).values(row))
    found = facts.database(url_of(store))
    assert (found.trouble, found.not_writable, found.damage) == ("", "", "")
    assert (found.lists, found.domains, found.newest) == (3, 4, 1234.5)
    assert found.addresses == (
        "ants@alias.example.org",
        "postmaster@empty.example.org",
        "ants@example.com",
        "cats@example.net",
    )
    assert found.version.split()[0] in ("SQLite", "PostgreSQL")
    expected = {"journal_mode": "wal", "synchronous": "full"}
    if not store.is_sqlite:
        # What the server was started with is its own affair; ours is this.
        assert set(found.settings) == {"fsync", "full_page_writes", "synchronous_commit"}
        expected = {"synchronous_commit": "on"}
    assert expected.items() <= found.settings.items()


def test_the_doctor_changes_nothing(sqlite_store: Store) -> None:
    path = str(sqlite_store.path)
    sqlite_store.close()
    before = Path(path).read_bytes()
    facts.database(f"sqlite:///{path}")
    assert Path(path).read_bytes() == before


def test_a_database_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    found = facts.database(f"sqlite:///{tmp_path}/none.db")
    assert "does not exist" in found.trouble
    assert os.listdir(tmp_path) == []


def test_damage_is_found(sqlite_store: Store) -> None:
    with sqlite_store.begin() as connection:
        registry.create_list(connection, "ants@example.com")
    path = str(sqlite_store.path)
    sqlite_store.close()
    with open(path, "r+b") as file:
        file.seek(-4096, os.SEEK_END)
        file.write(os.urandom(4096))
    found = facts.database(f"sqlite:///{path}")
    assert found.damage or found.trouble


def test_a_database_too_large_to_be_checked_in_time_is_said_to_be(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with sqlite_store.begin() as connection:
        boxes = [registry.posting_address(f"list{n}@example.com") for n in range(3000)]
        registry.create_lists(connection, boxes)
    monkeypatch.setattr(facts, "CHECKING", -1.0)
    assert facts.database(url_of(sqlite_store)).damage is None


def test_a_database_that_is_held_cannot_be_written(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "PATIENCE", 0.01)
    with sqlite_store.begin():
        assert "locked" in facts.database(url_of(sqlite_store)).not_writable
    assert facts.database(url_of(sqlite_store)).not_writable == ""


def test_a_disk_has_octets_and_inodes(sqlite_store: Store, tmp_path: Path) -> None:
    found = facts.disk(url_of(sqlite_store))
    assert found is not None
    assert found.path == str(tmp_path)
    assert found.free > 0 and found.inodes_free <= found.inodes
    assert facts.disk("sqlite:////nowhere/at/all.db") is None
    assert facts.disk("postgresql://localhost/mail") is None


# Listeners


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """A running server, for all of them."""
    with Site() as made:
        made.start()
        yield made


def test_a_server_that_runs_answers(site: Site) -> None:
    assert facts.lmtp(f"127.0.0.1:{site.port}") == Answer(f"127.0.0.1:{site.port}", "")


@contextlib.contextmanager
def speaking(*said: bytes) -> Iterator[str]:
    """Somebody who says one thing to each client, reads what it says, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as bound:

        def serve() -> None:
            for text in said:
                client, _ = bound.accept()
                with client:
                    client.sendall(text)
                    client.recv(4096)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"127.0.0.1:{bound.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (b"220 mail.example.org ESMTP\r\n500 5.5.1 what?\r\n", "500 what?"),
        (b"421 4.3.2 Too many connections\r\n", "421"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", ""),
        (b"", "timed out"),
    ],
)
def test_what_is_no_lmtp_server_of_ours_is_a_trouble(
    monkeypatch: pytest.MonkeyPatch, said: bytes, told: str
) -> None:
    if not said:
        monkeypatch.setattr(facts, "PATIENCE", 0.05)
    with speaking(said) as address:
        trouble = facts.lmtp(address).trouble
    assert trouble and told in trouble


@pytest.mark.parametrize("ask", [facts.lmtp, facts.maps])
def test_where_nobody_listens_is_a_trouble(ask: Callable[[str], Answer], tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        address = f"127.0.0.1:{bound.getsockname()[1]}"
    assert ask(address).trouble == "Connection refused"
    assert ask(f"unix:{tmp_path}/none").trouble == "No such file or directory"
    assert ask("127.0.0.1:0") == Answer("127.0.0.1:0", "")


@pytest.mark.parametrize(
    ("said", "trouble"),
    [
        (netstring(b"NOTFOUND "), ""),
        (netstring(b"TEMP look-up failed"), "TEMP look-up failed"),
        (b"220 hello\r\n", "no length"),
        (b"", "it closed the connection"),
    ],
)
def test_maps_answer_or_do_not(said: bytes, trouble: str) -> None:
    with speaking(said) as address:
        assert facts.maps(address).trouble == trouble


def test_a_server_shows_itself_or_not(sqlite_store: Store) -> None:
    with Watched(sqlite_store) as watched:
        found, trouble = facts.status(str(watched.place))
        assert found is not None and trouble == ""
        assert found.tally is not None
    assert facts.status(str(watched.place)) == (None, "Connection refused")
    assert facts.status("") == facts.status("127.0.0.1:0") == (None, "")
    page = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with speaking(page, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n") as address:
        assert "another version" in facts.status(address)[1]
        assert facts.status(address) == (None, "HTTP 404")


# Files


def written(path: Path, **files: str) -> Lmtp:
    """TLS settings with these files."""
    for name, text in files.items():
        (path / name).write_text(text)
        (path / name).chmod(0o600)
    key = str(path / "key") if "key" in files else ""
    return Lmtp(tls_certificate=str(path / "certificate"), tls_key=key)


def test_files_of_tls_that_fit_are_told_with_their_end(tmp_path: Path) -> None:
    apart = written(tmp_path, certificate=CERTIFICATE, key=KEY)
    assert facts.certificate(apart) == Certificate("", ENDS)
    assert facts.certificate(written(tmp_path, certificate=CERTIFICATE + KEY)).trouble == ""
    (tmp_path / "key").chmod(0o644)
    assert facts.certificate(apart).exposed


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"key": KEY}, "certificate cannot be read (No such file or directory)"),
        ({"certificate": CERTIFICATE}, "certificate cannot be used"),  # there is no key in it
        ({"certificate": KEY, "key": KEY}, "there is no certificate in it"),
        ({"certificate": CERTIFICATE, "key": OTHER_KEY}, "(KEY_VALUES_MISMATCH)"),
        ({"certificate": CERTIFICATE, "key": "nothing"}, "key and its certificate"),
        ({"certificate": CERTIFICATE, "key": LOCKED_KEY}, "key and its certificate"),
    ],
)
def test_files_of_tls_that_do_not_fit_are_a_trouble(
    tmp_path: Path, files: dict[str, str], told: str
) -> None:
    assert told in facts.certificate(written(tmp_path, **files)).trouble


# The machine


def test_the_machine_is_as_it_is() -> None:
    found = facts.machine("localhost")
    assert found.resolves
    assert found.now == pytest.approx(time.time(), abs=60)
    assert found.memory is not None and found.memory > 100_000_000
    assert not facts.machine("nowhere.invalid").resolves


@pytest.mark.parametrize(
    ("said", "expected"), [("yes", True), ("no", False), ("", None), ("what?", None)]
)
def test_the_machine_says_whether_its_clock_is_synchronised(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, expected: bool | None
) -> None:
    program = tmp_path / "timedatectl"
    program.write_text(f'#!/bin/sh\n[ -n "{said}" ] && echo "{said}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.machine("localhost").synchronised is expected
    program.unlink()
    assert facts.machine("localhost").synchronised is None


def test_a_database_of_another_program_is_told_apart(tmp_path: Path) -> None:
    other = sqlite.connect(f"{tmp_path}/other.db")
    other.execute("CREATE TABLE t (x)")
    other.close()
    assert "is not a postroom database" in facts.database(f"sqlite:///{tmp_path}/other.db").trouble
