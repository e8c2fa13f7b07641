"""Values of the mail world: addresses, replies, envelopes, message bytes.

The ground floor: standard library only, no I/O, nothing that can fail except by
refusing a malformed value with a `ValueError` subclass.
"""
