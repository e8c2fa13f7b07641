"""Locks: one holder, gone with its process, passed on to nobody."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from postroom.service.locks import LockError, lock_database, sqlite_file, take_lock

HOLD = "import sys; from postroom.service.locks import take_lock; take_lock(sys.argv[1]); "


def test_a_lock_that_is_held_cannot_be_had_until_it_is_closed(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    first = take_lock(path)
    with pytest.raises(BlockingIOError):
        take_lock(path)
    os.close(first)
    os.close(take_lock(path))


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    command = [sys.executable, "-c", HOLD + "print(flush=True); sys.stdin.read()", path]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        with pytest.raises(BlockingIOError):
            take_lock(path)
        holder.kill()
    os.close(take_lock(path))


def test_a_lock_is_not_passed_on_to_processes_that_are_started(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = take_lock(path)
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False):
        os.close(lock)
        os.close(take_lock(path))


def test_a_lock_is_for_its_owner_alone_and_follows_no_link(tmp_path: Path) -> None:
    os.close(take_lock(str(tmp_path / "lock")))
    assert stat.S_IMODE((tmp_path / "lock").stat().st_mode) == 0o600
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        take_lock(str(tmp_path / "link"))
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("sqlite:////var/lib/postroom.db", "/var/lib/postroom.db"),
        ("sqlite+pysqlite:////var/lib/postroom.db?timeout=5", "/var/lib/postroom.db"),
        ("sqlite:////var/lib/post%20room.db", "/var/lib/post room.db"),
        ("sqlite:///postroom.db", os.path.realpath("postroom.db")),
        ("sqlite://", None),
        ("sqlite:///:memory:", None),
        ("postgresql://localhost/mail", None),
        ("mysql://localhost/mail", None),
        ("nonsense", None),
    ],
)
def test_the_file_of_a_database_is_found_in_its_url(url: str, path: str | None) -> None:
    assert sqlite_file(url) == path


@pytest.mark.parametrize("role", ["lmtp", "runners"])
def test_fault_40_a_role_has_one_supervisor_whatever_the_database_is_called(
    tmp_path: Path, role: str
) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "postroom.db")
    lock = lock_database(f"sqlite:///{tmp_path}/postroom.db", role)
    assert lock is not None
    with pytest.raises(LockError) as refused:
        lock_database(f"sqlite:///{tmp_path}/link.db", role)
    assert str(refused.value) == (
        f"{tmp_path}/postroom.db is served by another postroom, which runs {role} and holds "
        f"{tmp_path}/postroom.db.{role}.lock: stop that one first, "
        "or set store.url to another database"
    )
    os.close(lock)
    again = lock_database(f"sqlite:///{tmp_path}/link.db", role)
    assert again is not None
    os.close(again)


def test_fault_40_different_roles_share_a_database(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/postroom.db"
    locks = [lock_database(url, role) for role in ("lmtp", "runners")]
    for each in locks:
        assert each is not None
        os.close(each)


def test_fault_40_many_supervisors_may_share_postgresql() -> None:
    assert lock_database("postgresql://localhost/mail", "lmtp") is None


def test_the_directory_of_a_new_database_is_made(tmp_path: Path) -> None:
    lock = lock_database(f"sqlite:///{tmp_path}/state/postroom/postroom.db", "lmtp")
    assert lock is not None
    os.close(lock)
    assert stat.S_IMODE((tmp_path / "state" / "postroom").stat().st_mode) == 0o750


def test_what_is_no_file_is_left_to_who_opens_it(tmp_path: Path) -> None:
    (tmp_path / "postroom.db").mkdir()
    assert lock_database(f"sqlite:///{tmp_path}/postroom.db", "lmtp") is None
    assert not (tmp_path / "postroom.db.lmtp.lock").exists()


def test_a_lock_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "postroom.db.lmtp.lock").mkdir()
    with pytest.raises(LockError, match=r"lock cannot be locked \(Is a directory\): check owner"):
        lock_database(f"sqlite:///{tmp_path}/postroom.db", "lmtp")
    with pytest.raises(LockError, match=r"\(Not a directory\).*set store\.url"):
        lock_database("sqlite:////dev/null/postroom.db", "lmtp")
