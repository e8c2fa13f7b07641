"""Fixtures that several test packages share: stores on both databases, throwaway sites."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from postroom.store.engine import Store, open_store
from postroom.testing.site import Site
from tests.peers import Cluster, need


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    """An empty database in a new SQLite file."""
    store = open_store(f"sqlite:///{tmp_path}/postroom.db")
    yield store
    store.close()


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A PostgreSQL server of the tests' own."""
    need("postgresql")
    with Cluster() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A new database: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/postroom.db"
    running: Cluster = request.getfixturevalue("cluster")
    return running.new_database()


@pytest.fixture
def store(store_url: str) -> Iterator[Store]:
    """An empty database, on each kind."""
    opened = open_store(store_url)
    yield opened
    opened.close()


@pytest.fixture
def site() -> Iterator[Site]:
    """A throwaway site on SQLite; the test starts its server."""
    with Site() as made:
        yield made
