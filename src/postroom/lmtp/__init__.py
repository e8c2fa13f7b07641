"""The LMTP door (RFC 2033): session, framing, server and client.

Knows nothing of lists or storage: the server is handed one `Door` to deliver to.
"""
