"""Fixtures of delivery: a post office on each database, and pauses that are short."""

from collections.abc import Iterator

import pytest

from postroom.store.engine import Store, open_store
from tests.delivery.office import Office, brisk, clock
from tests.peers import Cluster

__all__ = ["brisk", "clock"]


@pytest.fixture
def office(sqlite_store: Store) -> Iterator[Office]:
    """A post office with a list of nobody."""
    made = Office(sqlite_store)
    yield made
    made.close()


@pytest.fixture
def any_office(store: Store) -> Iterator[Office]:
    """The same, on each kind of database."""
    made = Office(store)
    yield made
    made.close()


@pytest.fixture
def postgresql_office(cluster: Cluster) -> Iterator[Office]:
    """The same, on PostgreSQL."""
    store = open_store(cluster.new_database())
    made = Office(store)
    yield made
    made.close()
    store.close()
