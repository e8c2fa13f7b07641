"""Tests that kill, fill and cut off; an external ledger says what must be there afterwards."""
