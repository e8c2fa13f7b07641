"""Free space for the database file.

For: telling a client 452 at MAIL rather than after its data. Guarantees: `refusal` never
touches the disk; `measure` does and is called by the writer's thread. A database that is
not a file of ours always has room.
"""

import shutil
from pathlib import Path

from postroom.mail import reply
from postroom.mail.reply import Reply


class Space:
    """Keeps `reserve` octets free on the disk of `path`."""

    def __init__(self, path: Path | None, reserve: int) -> None:
        self._path = path
        self._reserve = reserve
        self._free: int | None = None

    def measure(self) -> None:
        """Look at the disk. What cannot be measured is left to the commit to find out."""
        if self._path is None:
            return
        try:
            self._free = shutil.disk_usage(self._path.parent).free
        except OSError:
            self._free = None

    def refusal(self, size: int) -> Reply | None:
        """452 if a message of `size` octets would leave too little."""
        # Its pages are written to the log and again to the database.
        if self._free is None or self._free >= self._reserve + 2 * size:
            return None
        return reply.NO_ROOM
