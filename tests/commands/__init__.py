"""Tests of `postroom.commands`."""
