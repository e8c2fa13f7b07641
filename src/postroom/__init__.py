"""postroom: a mailing list server whose front door speaks LMTP (RFC 2033).

The packages form floors; each imports only from those below it. docs/architecture.md
is the map, and the import contracts in pyproject.toml hold it.
"""

__version__ = "0.1.0"
