"""Databases for the tests of the store.

For: a fresh SQLite file, and a fresh database on a PostgreSQL server of our own. That
server has no TCP port and ends with the tests; where PostgreSQL is not installed the tests
that need it are skipped.
"""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

_numbers = count()


def _binaries() -> Path | None:
    found = shutil.which("initdb")
    if found:
        return Path(found).resolve().parent
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    return versions[-1].parent if versions else None


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[Path]:
    """The directory of the server's socket."""
    binaries = _binaries()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed")
    # It will not run as root, and a socket's path must be short.
    user = "postgres" if os.geteuid() == 0 else None
    place = Path(tempfile.mkdtemp(prefix="postroom-"))
    try:
        if user:
            shutil.chown(place, user)
        data = str(place / "data")
        options = f"-c listen_addresses='' -c unix_socket_directories='{place}' -c fsync=off"

        def run(program: str, *arguments: str) -> None:
            command = [str(binaries / program), "-D", data, *arguments]
            subprocess.run(command, user=user, check=True, stdout=subprocess.DEVNULL, cwd=place)

        run("initdb", "--auth=trust", "--username=postroom")
        run("pg_ctl", "-l", str(place / "log"), "-o", options, "-w", "start")
        try:
            yield place
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(place)


@pytest.fixture
def postgresql_url(postgresql_server: Path) -> str:
    """An empty database on it."""
    name = f"test{next(_numbers)}"
    with psycopg.connect(
        host=str(postgresql_server), user="postroom", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return f"postgresql://postroom@/{name}?host={quote(str(postgresql_server))}"


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that is not there yet."""
    return f"sqlite:///{tmp_path / 'postroom.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """An empty database on each of the two."""
    found: str = request.getfixturevalue(f"{request.param}_url")
    return found
