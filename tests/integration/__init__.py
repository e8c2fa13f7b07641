"""Tests with real processes: `postroom serve` as a user runs it."""
