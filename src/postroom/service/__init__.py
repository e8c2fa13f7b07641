"""Composition: settings, building, processes, logs."""
