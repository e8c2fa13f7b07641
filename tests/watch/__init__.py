"""Tests of postroom.watch."""
