"""The processes of a running server, and how they are kept together."""
