"""Turns: those who ask much without handing mail on wait for each other.

For: keeping the event loop free for those who do. Guarantees: one goes on at a time, in the
order in which they began to wait, with a pause before each; so however many there are, all of
them together take no more than a part of our time. Used in the event loop's thread only.
"""

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """Those who wait. `pause` in seconds."""

    def __init__(self, pause: float) -> None:
        self._pause = pause
        self._waiting: deque[Callable[[], object]] = deque()

    def wait(self, go_on: Callable[[], object]) -> None:
        """Have `go_on` called when it is its turn."""
        self._waiting.append(go_on)
        if len(self._waiting) == 1:
            self._schedule()

    def _schedule(self) -> None:
        asyncio.get_running_loop().call_later(self._pause, self._next)

    def _next(self) -> None:
        # It stays the first until it is done: should it ask for a turn again, one is due only
        # after a pause.
        try:
            self._waiting[0]()
        finally:
            self._waiting.popleft()
            if self._waiting:
                self._schedule()
