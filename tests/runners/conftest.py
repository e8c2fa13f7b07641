"""Fixtures of the runners' tests: a spool with lists, and intakes on it, on each database."""

import pytest

from tests.contract.conftest import desk, filled, kept_database, new_desk, spool, store_url
from tests.contract.desk import Desk
from tests.runners.ants import Ants
from tests.runners.clerk import Clerk

__all__ = ["desk", "filled", "kept_database", "new_desk", "spool", "store_url"]


@pytest.fixture
def ants(desk: Desk) -> Ants:
    """A list of nobody, and a worker that nobody has started."""
    return Ants(desk)


@pytest.fixture
def clerk(desk: Desk) -> Clerk:
    """The same list, and a worker for its commands."""
    return Clerk(desk)
