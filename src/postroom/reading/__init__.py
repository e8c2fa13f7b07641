"""Reading: what a message says, whoever wrote it."""
