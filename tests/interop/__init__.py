"""Tests with mail programs of others as clients."""
