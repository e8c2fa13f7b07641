"""What the tests of this package share: a spool with lists, and intakes on it."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from postroom.store.direct import Direct
from postroom.store.engine import Store, make_engine
from tests.contract.desk import Desk, make_lists
from tests.contract.queues import Filler
from tests.peers import Cluster

NewDesk = Callable[..., Desk]


@pytest.fixture(scope="session")
def kept_database(cluster: Cluster) -> str:
    """URL of a PostgreSQL database that the tests of this package use in turn: to empty one
    takes less time than to make one."""
    return cluster.new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database: each test that asks for it runs on both kinds."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/postroom.db"
    url: str = request.getfixturevalue("kept_database")
    engine = make_engine(url)
    with engine.begin() as connection:
        connection.execute(text("SET LOCAL lock_timeout = '10s'"))  # of a test that left one
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return url


@pytest.fixture
def spool(store: Store) -> Store:
    """A store with the lists ant@example.com and bee@example.com."""
    make_lists(store, "ant@example.com", "bee@example.com")
    return store


@pytest.fixture
def new_desk(spool: Store) -> Iterator[NewDesk]:
    """Makes intakes on that store; the kind of connection can be given."""
    made: list[Desk] = []

    def make(kind: type[Direct] = Direct) -> Desk:
        made.append(Desk(spool, kind(spool)))
        return made[-1]

    yield make
    for desk in made:
        desk.direct.close()


@pytest.fixture
def desk(new_desk: NewDesk) -> Desk:
    """An intake on that store."""
    return new_desk()


@pytest.fixture
def filled(desk: Desk) -> Filler:
    """Fills the queues of that store."""
    return Filler(desk)
