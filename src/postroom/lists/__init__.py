"""Domains, lists, and where an address leads."""
