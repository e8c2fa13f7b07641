"""Bounces: mail that comes back, and what it says of members."""
