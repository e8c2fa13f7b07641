"""In whose name a command acts, and what it writes down about that.

For: commands that change lists and members, or decide. Guarantees: what the audit says was done
is written in the transaction that does it, a row for each person or list, in a few statements
however many there are. Fails with the database's errors.
"""

import getpass
import os
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from postroom.lists import audit
from postroom.mail.address import Mailbox
from postroom.spool.ids import IdMaker

HOW = {"how": "command line"}  # of everything that is written here
CHUNK = 5000  # changes per statement


def who() -> str:
    """Who calls the command, as the operating system knows them."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name
        return f"user {os.getuid()}"


def note(connection: Connection, what: str, about: Sequence[tuple[str, str]], **facts: Any) -> None:
    """Write down that `what` was done. `about` are a list-id and an address each, "" for what
    concerns the list itself."""
    by, new_id, facts = who(), IdMaker(), HOW | facts
    for first in range(0, len(about), CHUNK):
        audit.write(
            connection,
            new_id,
            [
                audit.Change(list_id, what, email, by, facts)
                for list_id, email in about[first : first + CHUNK]
            ],
        )


def first_list_id(box: Mailbox) -> str:
    """The list-id that a list gets when it is created at an address, and keeps ever after."""
    return f"{box.local}.{box.domain}"
