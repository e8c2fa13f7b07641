"""Databases that nobody has opened yet, for the tests of the store."""

from pathlib import Path

import pytest

from tests.peers import Cluster


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """A database file that is not there yet."""
    return f"sqlite:///{tmp_path}/postroom.db"


@pytest.fixture
def postgresql_url(cluster: Cluster) -> str:
    """An empty database on PostgreSQL."""
    return cluster.new_database()


@pytest.fixture
def url(store_url: str) -> str:
    """Nothing yet, or an empty database, on each kind."""
    return store_url
