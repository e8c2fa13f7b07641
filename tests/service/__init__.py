"""Tests of the service's own parts: channel, front, supervisor, settings, logs."""
