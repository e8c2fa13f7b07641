"""Starting: `ready` when it accepts, otherwise one sentence, status 1 and no socket."""

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest

from postroom.lmtp.client import LMTPClient
from postroom.store.engine import open_store
from postroom.testing.site import Site
from tests.integration.mail import LIST, deliver, new_message, postroom
from tests.integration.processes import INTAKE, listens, process_of
from tests.integration.sites import Sites, processes_of


def serve(site: Site, *arguments: str) -> "subprocess.Popen[bytes]":
    """`postroom serve`, with its stderr in our hands."""
    return subprocess.Popen(
        [sys.executable, "-m", "postroom", "serve", *arguments],
        env=site.environment,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )


def refusal(site: Site, *arguments: str) -> str:
    """The one line that a server says that does not start."""
    server = serve(site, *arguments)
    _, said = server.communicate(timeout=60)
    assert server.returncode == 1, said.decode()
    lines = said.decode().splitlines()
    assert len(lines) == 1, said.decode()
    assert lines[0].startswith("postroom: ")
    return lines[0]


def free_port() -> int:
    """A port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_ready_is_written_in_one_piece_for_the_processes_share_their_stderr(sites: Sites) -> None:
    site = sites.make()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)  # a write, a packet
    with ours:
        ours.settimeout(60)
        server = subprocess.Popen(
            [sys.executable, "-m", "postroom", "serve"],
            env=site.environment,
            stdin=subprocess.DEVNULL,
            stderr=theirs.fileno(),
        )
        theirs.close()
        pieces = iter(lambda: ours.recv(65536), b"")
        piece = next(each for each in pieces if each.startswith(b"ready"))
        server.terminate()
        list(pieces)  # until all who write have ended
        assert server.wait(timeout=60) == 0
    assert piece.startswith(b"ready 127.0.0.1:") and piece.endswith(b"\n")


def test_ready_names_every_address_with_the_port_that_the_system_chose(sites: Sites) -> None:
    site = sites.make(LMTP__LISTEN="127.0.0.1:0, 127.0.0.2:0")
    server = serve(site)
    assert server.stderr is not None
    ready = next(line for line in server.stderr if line.startswith(b"ready ")).decode().split()
    hosts = [address.rpartition(":")[0] for address in ready[1:]]
    assert hosts == ["127.0.0.1", "127.0.0.2"]
    for address in ready[1:]:
        host, _, port = address.rpartition(":")
        with LMTPClient(host, int(port)) as client:
            assert client.greeting is not None and client.greeting.code == 220
    server.terminate()
    server.communicate(timeout=60)
    assert server.returncode == 0


def test_an_ipv6_address_is_shown_in_brackets(sites: Sites) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError as error:
            pytest.skip(f"no IPv6 on this machine: {error.strerror}")
    site = sites.make(LMTP__LISTEN="[::1]:0")
    site.start()
    assert b"ready [::1]:%d\n" % site.port in site.log.read_bytes()
    with LMTPClient("::1", site.port) as client:
        assert client.lhlo().accepted


def test_without_any_list_the_next_command_is_shown(sites: Sites) -> None:
    site = sites.start()
    assert "list create mylist@example.com" in site.log.read_text()


def newer(path: Path) -> None:
    change(path, "UPDATE alembic_version SET version_num = '9999'")


def older(path: Path) -> None:
    change(path, "UPDATE alembic_version SET version_num = '0000'")


def foreign(path: Path) -> None:
    change(path, "CREATE TABLE guests (name TEXT)", made=False)


def corrupt(path: Path) -> None:
    path.write_bytes(b"no database at all " * 500)


def change(path: Path, statement: str, made: bool = True) -> None:
    if made:
        open_store(f"sqlite:///{path}").close()
    connection = sqlite.connect(str(path))
    connection.execute(statement)
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    ("make", "why", "fix"),
    [
        (newer, "was made by a newer postroom", "upgrade postroom"),
        (older, "has schema 0000", "`postroom migrate`"),
        (foreign, "is not a postroom database", "set store.url to another one"),
        (corrupt, "is damaged", "restore a backup"),
    ],
)
def test_an_unfit_database_is_refused_and_nothing_listens(
    sites: Sites, make: Callable[[Path], None], why: str, fix: str
) -> None:
    port = free_port()
    site = sites.make(LMTP__LISTEN=f"127.0.0.1:{port}")
    make(site.directory / "postroom.db")
    said = refusal(site)
    assert why in said
    assert fix in said
    assert not listens(port)


@contextmanager
def looked_at(site: Site) -> Iterator["subprocess.Popen[bytes]"]:
    """A server that has bound its socket and now waits for the lock on its database."""
    open_store(site.url).close()
    path = site.url.removeprefix("sqlite:///")
    with closing(sqlite.connect(path, isolation_level=None)) as holder:
        holder.execute("PRAGMA locking_mode = EXCLUSIVE")
        holder.execute("BEGIN EXCLUSIVE")
        server = serve(site)
        process_of(server.pid, INTAKE)  # the supervisor has bound, the intake wants the database
        yield server


def test_nothing_listens_while_the_database_is_being_looked_at(sites: Sites) -> None:
    port = free_port()
    site = sites.make(LMTP__LISTEN=f"127.0.0.1:{port}")
    with looked_at(site) as server:
        assert not listens(port)
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
    assert server.stderr is not None
    assert any(line.startswith(b"ready ") for line in server.stderr)
    assert listens(port)
    server.terminate()
    server.communicate(timeout=60)


def test_of_two_servers_that_start_at_once_the_second_to_listen_is_refused(sites: Sites) -> None:
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", 0))
        site = sites.make(LMTP__LISTEN=f"127.0.0.1:{other.getsockname()[1]}")
        with looked_at(site) as server:
            other.listen()
        _, said = server.communicate(timeout=60)
    assert server.returncode == 1
    assert said.count(b"\n") == 1
    assert b"(Address already in use): is postroom running already?" in said
    assert processes_of(site) == []


def test_a_port_in_use_is_refused_before_the_database_is_made(sites: Sites) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        site = sites.make(LMTP__LISTEN=address)
        said = refusal(site)
    assert f"cannot listen on {address} (Address already in use)" in said
    assert "is postroom running already?" in said
    assert not (site.directory / "postroom.db").exists()


def test_a_second_server_on_the_same_port_leaves_the_first_alone(sites: Sites) -> None:
    site = sites.start(LIST)
    assert "is postroom running already?" in refusal(site)
    with site.client() as client:
        assert deliver(client, [LIST], new_message())[0].code == 250


@pytest.mark.parametrize(
    ("settings", "reasons"),
    [
        ({"LMTP__LISTEN": "127.0.0.1:25"}, ["port 25", "RFC 2033", "8024"]),
        ({"LMTP__LISTEN": "nowhere.invalid:8024"}, ["cannot listen on nowhere.invalid:8024"]),
        ({"LMTP__LISTEN": "192.0.2.1:0"}, ["cannot listen on 192.0.2.1:0 (Cannot assign"]),
        ({"LMTP__MAX_RECIPIENTS": "many"}, ["environment", "lmtp.max_recipients", "int"]),
        ({"STORE__URL": "sqlite:////proc/postroom/postroom.db"}, ["/proc/postroom", "store.url"]),
        ({"STORE__URL": "mysql://localhost/mail"}, ["use sqlite:///PATH or postgresql://"]),
        (
            {"STORE__URL": "postgresql://postroom:sesame@127.0.0.1:1/mail"},
            ["127.0.0.1:1/mail cannot be", "check that it is there"],
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(
    sites: Sites, settings: dict[str, str], reasons: Sequence[str]
) -> None:
    said = refusal(sites.make(**settings))
    for reason in reasons:
        assert reason in said
    assert "sesame" not in said


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ("[lmtp]\nmax_recipient = 5\n", ["lmtp.max_recipient: unknown key", "max_recipients"]),
        ("[lmpt]\n", ["lmpt: unknown section", "lmtp"]),
        ("[lmtp]\nmax_recipients = 'many'\n", ["lmtp.max_recipients", "int"]),
        ("[lmtp\n", ["line 1"]),
    ],
)
def test_a_bad_settings_file_is_refused_and_named(
    sites: Sites, content: str, reasons: Sequence[str]
) -> None:
    site = sites.make()
    site.config.write_text(content)
    said = refusal(site)
    for reason in [str(site.config), *reasons]:
        assert reason in said
    assert not (site.directory / "postroom.db").exists()


def test_a_settings_file_that_is_not_there_is_refused(sites: Sites) -> None:
    assert "/nowhere/postroom.toml: there is no such file" in refusal(
        sites.make(), "--config", "/nowhere/postroom.toml"
    )


def test_the_file_of_config_is_used(sites: Sites) -> None:
    site = sites.make()
    file = site.directory / "other.toml"
    file.write_text('[lmtp]\nident = "other ident"\n')
    site.start("--config", str(file))
    with site.client() as client:
        assert client.greeting is not None
        assert client.greeting.text.endswith(" other ident")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_database_that_may_not_be_written_is_refused(sites: Sites) -> None:
    site = sites.make()
    open_store(site.url).close()
    (site.directory / "postroom.db").chmod(0o400)
    assert "cannot be written: check owner and mode" in refusal(site)


def test_an_unknown_role_is_wrong_usage(sites: Sites) -> None:
    assert b"runners" in postroom(sites.make(), "serve", "--only", "web", status=2).stderr
