"""What of the spool needs no database."""
