"""What of addresses and lists needs no database."""
