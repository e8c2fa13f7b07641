"""What systemd hands over and is told; the unit files that are shipped."""

import configparser
import contextlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from postroom.base.settings import default_store_url
from postroom.service import systemd
from postroom.service.sockets import BindError, address_of
from postroom.service.systemd import Manager, take_sockets

HERE = str(os.getpid())
PLACE = 500  # where descriptors are handed over, as 3 is not free in this process
UNITS = Path(__file__).parents[2] / "contrib" / "systemd"


@contextlib.contextmanager
def handed(*sockets: socket.socket) -> Iterator[None]:
    """These sockets stand where systemd puts them."""
    for place, each in enumerate(sockets):
        os.dup2(each.fileno(), PLACE + place)
        each.close()
    yield
    for place in range(len(sockets)):
        with contextlib.suppress(OSError):  # it was refused, or is closed by who took it
            os.close(PLACE + place)


@pytest.fixture(autouse=True)
def place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(systemd, "_FIRST", PLACE)


def listener() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def taken(environment: dict[str, str]) -> dict[str, list[str]]:
    """The addresses of the sockets that are taken, by kind."""
    found = {}
    for kind, sockets in take_sockets(environment).items():
        found[kind] = [address_of(each) for each in sockets]
        for each in sockets:
            each.close()
    return found


def test_sockets_are_told_apart_by_their_names() -> None:
    sockets = [listener() for _ in range(5)]
    one, two, three, four, five = map(address_of, sockets)
    with handed(*sockets):
        environment = {
            "LISTEN_PID": HERE,
            "LISTEN_FDS": "5",
            "LISTEN_FDNAMES": "metrics:postroom.socket:maps:lmtp",
        }
        assert taken(environment) == {"metrics": [one], "lmtp": [two, four, five], "maps": [three]}


def test_sockets_without_names_are_for_lmtp() -> None:
    sockets = [listener(), listener()]
    addresses = list(map(address_of, sockets))
    with handed(*sockets):
        assert taken({"LISTEN_PID": HERE, "LISTEN_FDS": "2"}) == {"lmtp": addresses}


def test_a_unix_socket_is_taken(tmp_path: Path) -> None:
    made = socket.socket(socket.AF_UNIX)
    made.bind(str(tmp_path / "lmtp.sock"))
    made.listen()
    with handed(made):
        [address] = taken({"LISTEN_PID": HERE, "LISTEN_FDS": "1"})["lmtp"]
    assert address == f"unix:{tmp_path}/lmtp.sock"
    assert (tmp_path / "lmtp.sock").exists()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"LISTEN_FDS": "1"},
        {"LISTEN_PID": "1", "LISTEN_FDS": "1"},
        {"LISTEN_PID": HERE},
        {"LISTEN_PID": HERE, "LISTEN_FDS": "many"},
        {"LISTEN_PID": HERE, "LISTEN_FDS": "0"},
    ],
)
def test_fault_39_sockets_that_are_for_another_process_are_not_touched(
    environment: dict[str, str],
) -> None:
    with handed(listener()):
        assert take_sockets(environment) == {}
        assert socket.socket(fileno=os.dup(PLACE)).detach()


def test_nobody_else_acts_on_what_was_for_us() -> None:
    environment = {
        "LISTEN_PID": "1",
        "LISTEN_FDS": "1",
        "LISTEN_FDNAMES": "lmtp",
        "NOTIFY_SOCKET": "/nowhere",
        "WATCHDOG_USEC": "1000000",
        "WATCHDOG_PID": "1",
        "LANG": "C.UTF-8",
    }
    take_sockets(environment)
    Manager(environment)
    assert environment == {"LANG": "C.UTF-8"}


def test_a_socket_that_was_taken_is_passed_on_to_nobody_by_accident() -> None:
    with handed(listener()):
        assert os.get_inheritable(PLACE)
        [[one]] = take_sockets({"LISTEN_PID": HERE, "LISTEN_FDS": "1"}).values()
        with one:
            assert not one.get_inheritable()


def deaf() -> socket.socket:
    made = socket.socket()
    made.bind(("127.0.0.1", 0))
    return made


def datagrams() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM)


def connected() -> socket.socket:
    one, other = socket.socketpair()
    other.close()
    return one


def smtp() -> socket.socket:
    made = socket.socket()
    try:
        made.bind(("127.0.0.25", 25))
    except PermissionError:
        made.close()
        pytest.skip("this user may not use port 25")
    made.listen()
    return made


def abstract() -> socket.socket:
    made = socket.socket(socket.AF_UNIX)
    made.bind(f"\0postroom-test-{HERE}")
    made.listen()
    return made


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (deaf, "does not listen"),
        (datagrams, "is no stream socket of TCP or a path"),
        (connected, "does not listen"),
        (smtp, "has an address that cannot be used .*RFC 2033 5.*"),
        (abstract, "has an address that cannot be used .*an absolute path.*"),
    ],
)
def test_a_socket_that_is_not_fit_is_refused_in_a_sentence(
    make: Callable[[], socket.socket], fault: str
) -> None:
    with (
        handed(make()),
        pytest.raises(BindError, match=f"descriptor {PLACE}, which systemd .* {fault}: use Listen"),
    ):
        take_sockets({"LISTEN_PID": HERE, "LISTEN_FDS": "1"})


def test_a_descriptor_that_is_no_socket_is_refused() -> None:
    with open(os.devnull, encoding="ascii") as file:
        os.dup2(file.fileno(), PLACE)
    with pytest.raises(BindError, match="is no socket"):
        take_sockets({"LISTEN_PID": HERE, "LISTEN_FDS": "1"})
    os.close(PLACE)
    with pytest.raises(BindError, match=r"is no socket \(Bad file descriptor\)"):
        take_sockets({"LISTEN_PID": HERE, "LISTEN_FDS": "1"})


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_what_it_is_told_arrives_one_line_each(tmp_path: Path, kind: str) -> None:
    name = str(tmp_path / "notify") if kind == "path" else f"@postroom-test-{HERE}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name.replace("@", "\0"))
        heard.settimeout(30)
        manager = Manager({"NOTIFY_SOCKET": name})
        manager.tell("READY=1", "STATUS=first line\nMAINPID=1\r\n\ud800")
        assert heard.recv(1000) == b"READY=1\nSTATUS=first line MAINPID=1 \\ud800"


def test_without_systemd_nobody_is_told(tmp_path: Path) -> None:
    Manager({}).tell("READY=1")
    assert Manager({}).watchdog is None


def test_a_manager_that_is_gone_or_does_not_read_is_no_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = str(tmp_path / "notify")
    manager = Manager({"NOTIFY_SOCKET": name})
    manager.tell("READY=1")
    monkeypatch.setattr(systemd, "_PATIENCE", 0.01)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(name)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
            other.setblocking(False)
            with pytest.raises(BlockingIOError):
                while True:
                    other.sendto(b"other", name)
            manager.tell("READY=1")
        heard.setblocking(False)
        assert set(iter(lambda: received(heard), b"")) == {b"other"}
        manager.tell("READY=1")
        assert heard.recv(1000) == b"READY=1"


def received(heard: socket.socket) -> bytes:
    """The next datagram, b"" if there is none."""
    try:
        return heard.recv(1000)
    except BlockingIOError:
        return b""


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({"WATCHDOG_USEC": "2500000"}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": HERE}, 2.5),
        ({"WATCHDOG_USEC": "2500000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({}, None),
    ],
)
def test_the_watchdog_is_ours_if_it_is_on_and_for_this_process(
    environment: dict[str, str], seconds: float | None
) -> None:
    assert Manager({"NOTIFY_SOCKET": "/nowhere", **environment}).watchdog == seconds


def unit(name: str) -> configparser.ConfigParser:
    """A unit file, as far as keys do not repeat."""
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name)
    return parser


def test_the_units_are_what_systemd_understands(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed")
    for path in UNITS.iterdir():
        # It looks whether the program is there.
        text = path.read_text().replace("/opt/postroom/bin/postroom", sys.executable)
        (tmp_path / path.name).write_text(text)
    done = subprocess.run(
        [program, "verify", "--man=no", *sorted(map(str, tmp_path.iterdir()))],
        capture_output=True,
        text=True,
        check=False,
    )
    ours = [line for line in done.stderr.splitlines() if "postroom" in line]
    assert (done.returncode, ours) == (0, [])


def test_the_service_finds_its_database_where_systemd_makes_room_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    service = unit("postroom.service")["Service"]
    name, _, value = service["Environment"].partition("=")
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    database = default_store_url().removeprefix("sqlite:///")
    assert Path(database).parent == Path("/var/lib") / service["StateDirectory"]


def test_the_service_speaks_of_what_the_supervisor_does() -> None:
    service = unit("postroom.service")["Service"]
    assert service["Type"] == "notify"
    assert shlex.split(service["ExecReload"])[1] == "-HUP"
    assert service["KillMode"] == "mixed"  # only the supervisor is told, it tells the others
    assert unit("postroom.socket")["Socket"]["FileDescriptorName"] in systemd.KINDS
