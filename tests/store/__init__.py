"""Tests of `postroom.store`."""
