"""Tests of `postroom.lmtp`, without the dialogues of `tests/wire`."""
