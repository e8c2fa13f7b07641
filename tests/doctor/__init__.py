"""Tests of postroom.doctor."""
