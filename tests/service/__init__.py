"""Tests of the processes and of what is between them."""
