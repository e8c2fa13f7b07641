"""The wire: golden dialogues, and the server on real sockets."""
