"""Notices: what the server itself writes to people."""
