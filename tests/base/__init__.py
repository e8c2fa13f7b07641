"""Tests of postroom.base."""
