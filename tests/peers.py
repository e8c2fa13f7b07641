"""Programs of others that tests talk to.

For: finding them, installed or unpacked, skipping a test with a reason where they are missing
(in CI that is a failure: `make peers` gets them), and running PostgreSQL for the tests alone.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NoReturn, Self

import pytest

UNPACKED = Path(__file__).parent.parent / ".peers"
PROGRAMS = {
    "postfix": "postfix",
    "smtp-source": "smtp-source",
    "swaks": "swaks",
    "strace": "strace",
    "postgresql": "initdb",
    "cc": "cc",
}


def find(peer: str) -> str | None:
    """Path of a peer's program, None if it is not installed."""
    program = PROGRAMS[peer]
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/sbin")
    if found is None and peer == "postgresql":
        places = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{program}"))
        found = str(places[-1]) if places else None
    return found


def need(peer: str) -> str:
    """Path of a peer's program; skips the test without it, or fails it in CI."""
    return find(peer) or lacking(f"{peer} is not there: `make peers` gets it")


def unpacked(peer: str) -> Path:
    """Directory with the files of a peer that is not installed but unpacked; else as `need`."""
    place = UNPACKED / peer
    if not (place / ".done").exists():
        lacking(f"{peer} is not there: `make peers` gets it")
    return place


def lacking(reason: str) -> NoReturn:
    """Skip the test, or fail it in CI."""
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


class Cluster:
    """A PostgreSQL server on a unix socket in a temporary directory."""

    def __init__(self) -> None:
        self._bin = Path(need("postgresql")).resolve().parent
        self._temporary = tempfile.TemporaryDirectory(prefix="postroom-pg-")
        self._home = Path(self._temporary.name)
        self._numbers = itertools.count()
        # The server refuses to run as root.
        self._user = "postgres" if os.geteuid() == 0 else None
        if self._user:
            account = pwd.getpwnam(self._user)
            os.chown(self._home, account.pw_uid, account.pw_gid)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._bin / program), *arguments]
        subprocess.run(
            command, user=self._user, cwd=self._home, check=True, stdout=subprocess.DEVNULL
        )

    def __enter__(self) -> Self:
        data = str(self._home / "data")
        self._run("initdb", "-D", data, "-U", "postroom", "-A", "trust", "-N", "-E", "UTF8")
        self.start()
        return self

    def start(self) -> None:
        """Start the server and wait for it."""
        # Real durability is not what these tests look at, except those of crashes.
        options = f"-k {self._home} -c listen_addresses='' -c max_connections=200"
        data, log = str(self._home / "data"), str(self._home / "log")
        self._run("pg_ctl", "-D", data, "-w", "-l", log, "-o", options, "start")

    def stop(self) -> None:
        """Stop the server at once, as a crash would."""
        self._run("pg_ctl", "-D", str(self._home / "data"), "-m", "immediate", "-w", "stop")

    def new_database(self) -> str:
        """URL of a new, empty database."""
        name = f"test{next(self._numbers)}"
        self._run("createdb", "-h", str(self._home), "-U", "postroom", name)
        return f"postgresql://postroom@/{name}?host={self._home}"

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        self._temporary.cleanup()
