"""Free space for the database file.

For: telling a client 452 at MAIL rather than after its data. Never fails: what cannot be
measured is left to the commit to find out.
"""

import shutil
from pathlib import Path


def free_space(database: Path | None) -> int | None:
    """Octets free on the disk of a database file; None if there is no telling."""
    if database is None:
        return None
    try:
        return shutil.disk_usage(database.parent).free
    except OSError:
        return None


def fits(size: int, free: int | None, reserve: int) -> bool:
    """Whether a message of `size` octets leaves `reserve` octets free.

    It is written to the log first and to the database later: twice its size.
    """
    return free is None or free >= reserve + 2 * size
