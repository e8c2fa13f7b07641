"""Tests of `postroom.cli`."""
