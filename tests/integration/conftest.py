"""Sites with a real server, which do not outlive their test."""

from collections.abc import Iterator

import pytest

from tests.integration.sites import Sites


@pytest.fixture
def sites() -> Iterator[Sites]:
    """Makes throwaway sites; whatever happens, none of their processes is left."""
    with Sites() as made:
        yield made
