"""What lists, spool and store promise, held on both databases."""
