"""Sites with a real server, which do not outlive their test."""

from tests.integration.conftest import sites

__all__ = ["sites"]
