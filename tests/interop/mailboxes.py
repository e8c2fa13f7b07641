"""Mailboxes behind a mail server.

For: seeing what readers are sent. Guarantees: each letter is a file as the mail server delivered
it, beside those of before; whoever the mail server runs as has room there.
"""

import email
import shutil
import tempfile
from email.message import Message
from pathlib import Path
from typing import NamedTuple, Self

DOMAIN = "example.org"
GONE_DOMAIN = f"gone.{DOMAIN}"
GONE = f"gone@{GONE_DOMAIN}"  # the mail server takes its mail, and then bounces it


class Letter(NamedTuple):
    """A message in a mailbox; its lines end in LF, as they are kept there."""

    raw: bytes

    @property
    def header(self) -> Message:
        """Its fields."""
        return email.message_from_bytes(self.raw.partition(b"\n\n")[0] + b"\n\n")

    @property
    def body(self) -> bytes:
        """What stands below."""
        return self.raw.partition(b"\n\n")[2]

    @property
    def return_path(self) -> str:
        """The envelope sender that it came with."""
        return str(self.header["Return-Path"]).strip("<> ")


class Mailboxes:
    """Maildirs of these users of `domain`; it has no others. A context manager."""

    domain, gone = DOMAIN, GONE_DOMAIN

    def __init__(self, *users: str) -> None:
        self.users = users
        self.directory = Path(tempfile.mkdtemp(prefix="postroom-mail-"))
        self.directory.chmod(0o1777)

    def of(self, user: str, mark: bytes = b"") -> list[Letter]:
        """The letters of a user in which `mark` is."""
        files = sorted((self.directory / user / "new").glob("*"))
        letters = (Letter(file.read_bytes()) for file in files)
        return [each for each in letters if mark in each.raw]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        shutil.rmtree(self.directory)
