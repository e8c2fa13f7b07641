"""One PostgreSQL database for all tests of this package, emptied for each."""

from tests.contract.conftest import kept_database, store_url

__all__ = ["kept_database", "store_url"]
