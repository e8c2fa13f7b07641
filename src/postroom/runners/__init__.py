"""Runners: what serves the queues."""
