"""Binding: all addresses or none, nobody is let in yet, and nobody loses what is theirs."""

import asyncio
import contextlib
import errno
import grp
import os
import socket
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvloop

from postroom.service.sockets import BindError, Listener, address_of, bind, listen


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A place for a socket."""
    return tmp_path / "lmtp.sock"


@contextlib.contextmanager
def one(address: str, mode: int = 0o660, group: str = "") -> Iterator[Listener]:
    """One address, bound."""
    [listener] = bind([address], mode=mode, group=group)
    try:
        yield listener
    finally:
        listener.close()


def refusal(address: str, **more: str) -> str:
    """What is said of an address that cannot be had."""
    with pytest.raises(BindError) as refused:
        bind([address], **more)  # type: ignore[arg-type]
    assert str(refused.value).startswith(f"cannot listen on {address} (")
    return str(refused.value)


def connect(path: Path) -> int:
    """The result of trying to connect, 0 or an errno."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path))


def free(path: Path) -> None:
    """Fails unless the path can be had."""
    with one(f"unix:{path}"):
        pass
    assert not path.exists()


def test_a_bound_socket_does_not_listen_yet() -> None:
    with one("127.0.0.1:0") as listener, socket.socket() as client:
        host, _, port = address_of(listener.socket).rpartition(":")
        assert host == "127.0.0.1"
        assert int(port) != 0
        assert client.connect_ex((host, int(port))) != 0


def test_if_one_address_cannot_be_had_none_is_kept(path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        tcp = f"127.0.0.1:{probe.getsockname()[1]}"
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(BindError, match=f"cannot listen on {taken} .*Address already in use"):
            bind([tcp, f"unix:{path}", taken])
    assert not path.exists()
    free(path)
    with one(tcp) as listener:
        assert address_of(listener.socket) == tcp


def test_of_two_that_bound_the_same_address_the_second_to_listen_is_refused() -> None:
    with one("127.0.0.1:0") as first:
        address = address_of(first.socket)
        with one(address) as second:
            listen([first.socket])
            with pytest.raises(BindError, match=f"{address} .*Address already in use"):
                listen([second.socket])


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("nowhere.invalid:8024", "nowhere.invalid:8024"),
        ("a..b:8024", "a..b:8024"),
        (f"{'x' * 300}:8024", "lmtp.listen"),
        ("192.0.2.1:0", "Cannot assign requested address"),
    ],
)
def test_an_address_that_is_not_ours_is_refused_in_a_sentence(address: str, reason: str) -> None:
    said = refusal(address)
    assert reason in said
    assert said.endswith("`lmtp.listen` names another address, port 0 lets the system choose")


def test_the_setting_to_change_is_named() -> None:
    said = refusal("192.0.2.1:0", setting="maps.listen")
    assert said.endswith("`maps.listen` names another address, or is empty to do without")


def test_an_ipv6_address_is_shown_in_brackets() -> None:
    try:
        [listener] = bind(["[::1]:0"])
    except BindError as error:
        pytest.skip(str(error))
    assert address_of(listener.socket).startswith("[::1]:")
    listener.close()


def test_one_port_can_be_had_on_all_addresses_of_both_families() -> None:
    with one("0.0.0.0:0") as four:
        port = four.socket.getsockname()[1]
        try:
            [six] = bind([f"[::]:{port}"])
        except BindError as error:
            pytest.skip(str(error))
        assert address_of(six.socket) == f"[::]:{port}"
        six.close()


def test_a_unix_socket_does_not_listen_before_it_is_told_to(path: Path) -> None:
    with one(f"unix:{path}") as listener:
        assert address_of(listener.socket) == f"unix:{path}"
        assert connect(path) == errno.ECONNREFUSED
        listen([listener.socket])
        assert connect(path) == 0


@pytest.mark.parametrize("mask", [0, 0o077])
@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666])
def test_a_unix_socket_has_the_mode_of_the_settings_whatever_the_umask(
    path: Path, mask: int, mode: int
) -> None:
    before = os.umask(mask)
    try:
        with one(f"unix:{path}", mode=mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        assert os.umask(mask) == mask
    finally:
        os.umask(before)


def test_until_its_mode_is_set_a_unix_socket_is_closed_to_all(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes = []
    chown = os.chown

    def watched(*arguments: int) -> None:
        modes.append(stat.S_IMODE(path.stat().st_mode))
        chown(*arguments)

    monkeypatch.setattr(os, "chown", watched)
    with one(f"unix:{path}", mode=0o666):
        assert modes == [0]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files to any group")
def test_a_unix_socket_belongs_to_the_group_of_the_settings(path: Path) -> None:
    group = next(each for each in grp.getgrall() if each.gr_gid != os.getegid())
    with one(f"unix:{path}", group=group.gr_name):
        assert path.stat().st_gid == group.gr_gid
        assert path.stat().st_uid == os.geteuid()


def test_a_group_that_does_not_exist_is_refused(path: Path) -> None:
    said = refusal(f"unix:{path}", group="no-such-group")
    assert "(there is no group 'no-such-group'): `lmtp.socket_group` must be one" in said
    assert list(path.parent.iterdir()) == []


def test_a_group_that_may_not_be_given_is_refused_and_leaves_no_socket(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patched:
        patched.setattr(os, "chown", forbidden)
        said = refusal(f"unix:{path}", group=grp.getgrgid(os.getegid()).gr_name)
    assert "make the user a member of that group" in said
    assert not path.exists()
    free(path)


def test_fault_37_a_stale_socket_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(path))
        gone.listen()
    assert connect(path) == errno.ECONNREFUSED
    with one(f"unix:{path}") as listener:
        listen([listener.socket])
        assert connect(path) == 0


def live() -> socket.socket:
    """Somebody who answers."""
    return socket.socket(socket.AF_UNIX)


def datagrams() -> socket.socket:
    """Somebody who speaks another protocol."""
    return socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)


@pytest.mark.parametrize("other", [live, datagrams])
def test_fault_37_a_live_socket_is_left_to_its_owner(
    path: Path, other: Callable[[], socket.socket]
) -> None:
    with other() as owner:
        owner.bind(str(path))
        if owner.type == socket.SOCK_STREAM:
            owner.listen()
        inode = path.stat().st_ino
        assert "(a process answers there): is postroom running already?" in refusal(f"unix:{path}")
        assert path.stat().st_ino == inode


def test_fault_37_a_live_socket_that_is_too_busy_to_answer_is_left_alone(path: Path) -> None:
    with contextlib.ExitStack() as clients, socket.socket(socket.AF_UNIX) as owner:
        owner.bind(str(path))
        owner.listen(0)
        result = 0
        while result == 0:
            client = clients.enter_context(socket.socket(socket.AF_UNIX))
            client.setblocking(False)
            result = client.connect_ex(str(path))
        assert result == errno.EAGAIN
        assert "(a process answers there)" in refusal(f"unix:{path}")
        assert path.exists()


def test_fault_37_a_path_has_one_owner_before_anybody_listens(path: Path) -> None:
    with one(f"unix:{path}"):
        inode = path.stat().st_ino
        said = refusal(f"unix:{path}")
        assert f"(a process holds {path}.lock): is postroom running already?" in said
        assert said.endswith("`lmtp.listen` names another address")
        assert path.stat().st_ino == inode
    free(path)


def test_fault_37_who_got_the_socket_passed_on_does_not_own_the_path(path: Path) -> None:
    [first] = bind([f"unix:{path}"])
    listen([first.socket])
    number = first.socket.fileno()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[number]):
        first.close()
        with one(f"unix:{path}") as second:
            listen([second.socket])
            assert connect(path) == 0


def a_file(path: Path) -> None:
    path.write_text("precious")


def a_directory(path: Path) -> None:
    path.mkdir()


def a_link(path: Path) -> None:
    path.symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("make", [a_file, a_directory, a_link])
def test_fault_38_what_is_no_socket_is_left_as_it_is(
    path: Path, make: Callable[[Path], None]
) -> None:
    make(path)
    before = path.lstat()
    said = refusal(f"unix:{path}")
    assert "(what is there is no socket): it was left alone; move it away, or" in said
    assert path.lstat() == before
    assert list(path.parent.iterdir()) == [path]  # no lock file either


def test_a_directory_that_is_missing_is_named(tmp_path: Path) -> None:
    said = refusal(f"unix:{tmp_path}/run/lmtp.sock")
    assert f"(there is no directory {tmp_path}/run): make it with mkdir, or with Runtime" in said


def test_a_directory_that_is_none_is_refused(path: Path) -> None:
    path.touch()
    said = refusal(f"unix:{path}/lmtp.sock")
    assert "(Not a directory): check owner and mode of it and of its directory" in said


def test_a_lock_that_cannot_be_made_is_refused(path: Path) -> None:
    Path(f"{path}.lock").mkdir()
    assert f"({path}.lock: Is a directory): check owner and mode" in refusal(f"unix:{path}")
    assert not path.exists()


def test_at_the_end_the_socket_is_gone_and_may_be_had_by_another(path: Path) -> None:
    free(path)
    free(path)


def test_at_the_end_a_socket_that_is_not_ours_any_more_is_left_alone(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        with one(f"unix:{path}"):
            path.unlink()
            other.bind(str(path))
        assert path.exists()


def test_at_the_end_a_socket_that_somebody_removed_is_not_missed(path: Path) -> None:
    with one(f"unix:{path}"):
        path.unlink()
    free(path)


def test_an_abstract_address_is_shown_with_an_at_sign() -> None:
    with socket.socket(socket.AF_UNIX) as abstract:
        abstract.bind(f"\0postroom-{os.getpid()}")
        assert address_of(abstract) == f"unix:@postroom-{os.getpid()}"


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_fault_39_a_loop_that_closes_its_listener_leaves_the_path_to_its_owner(
    path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def serve_once(number: int) -> None:
        loop = asyncio.get_running_loop()
        accepted = loop.create_future()

        class Door(asyncio.Protocol):
            def connection_made(self, transport: asyncio.BaseTransport) -> None:
                transport.close()
                accepted.set_result(None)

        server = await loop.create_server(Door, sock=socket.socket(fileno=os.dup(number)))
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            await accepted
        server.close()
        await server.wait_closed()

    with one(f"unix:{path}") as listener:
        inode = path.stat().st_ino
        for _ in range(2):  # as two incarnations of the door do
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(serve_once(listener.socket.fileno()))
            assert path.stat().st_ino == inode
            assert connect(path) == 0
