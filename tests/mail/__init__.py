"""Tests of `postroom.mail`."""
