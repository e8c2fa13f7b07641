"""Sites for the fuzzer of the running server, and the profile of a long run:
`pytest tests/fuzz --hypothesis-profile=fuzz`."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.integration.sites import Sites

settings.register_profile("fuzz", max_examples=5000)


@pytest.fixture
def sites() -> Iterator[Sites]:
    """Makes throwaway sites; whatever happens, none of their processes is left."""
    with Sites() as made:
        yield made
