"""A process's end of the line to its supervisor, and the event loop that it runs.

For: saying that it serves and that it is alive, and learning that the supervisor is gone.
Guarantees: to say something never fails, and never waits.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable

from postroom.base.observe import Log
from postroom.service.sockets import BEAT, READY

loop_factory: Callable[[], asyncio.AbstractEventLoop] | None
try:
    from uvloop import new_event_loop as loop_factory
except ImportError:
    loop_factory = None


class Control:
    """The line to the supervisor. `beat` is how often, in seconds, it wants to hear that we
    are alive; 0 if it does not."""

    def __init__(self, line: socket.socket, beat: float, log: Log) -> None:
        self._line, self._beat_every, self._log = line, beat, log
        self._gone: Callable[[], None]
        self._alive: Callable[[], bool]

    def open(self, gone: Callable[[], None], alive: Callable[[], bool] = lambda: True) -> None:
        """Call `gone` when the supervisor has ended; beat as long as the running loop turns
        and `alive()` holds."""
        self._gone, self._alive = gone, alive
        self._line.setblocking(False)
        asyncio.get_running_loop().add_reader(self._line, self._heard)
        if self._beat_every:
            self._beat()

    def ready(self) -> None:
        """Say that we serve, with the latest settings."""
        self._say(READY)

    def close(self) -> None:
        """Listen no more; beats go on."""
        asyncio.get_running_loop().remove_reader(self._line)

    def _beat(self) -> None:
        if self._alive():
            self._say(BEAT)
        asyncio.get_running_loop().call_later(self._beat_every, self._beat)

    def _say(self, octet: bytes) -> None:
        with contextlib.suppress(OSError):  # it is gone, which is noticed elsewhere
            self._line.send(octet)

    def _heard(self) -> None:
        # Its end comes as a reset if it had not read all that we said.
        with contextlib.suppress(ConnectionResetError):
            if self._line.recv(1):
                return
        self._log.warning("supervisor is gone")
        self.close()
        self._gone()
