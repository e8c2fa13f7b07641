"""A certificate for the tests of TLS."""

import ssl

import pytest

from tests.wire.tunnel import server_context


@pytest.fixture(scope="session")
def context(tmp_path_factory: pytest.TempPathFactory) -> ssl.SSLContext:
    """A server's context."""
    return server_context(tmp_path_factory.mktemp("tls"))
