"""Commands: what people ask of a list by mail."""
