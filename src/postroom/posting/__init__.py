"""A post: what the rules say of it, and what it looks like when it goes out."""
