"""Memory for messages in flight, shared by all sessions.

For: bounding memory when many clients send large messages at once. A message that
outgrows its small allowance reserves what it may still need, in one piece, before it
goes on; so those that hold a piece can always finish and there is no deadlock.
Guarantees: first come, first served; never more than the budget is out. A wait that is
given up gets nothing. Used in the event loop's thread only.
"""

from collections import deque
from collections.abc import Callable


class Ticket:
    """A request for room. `octets` is what it holds: 0 while it waits and after release."""

    __slots__ = ("_granted", "_wanted", "octets")

    def __init__(self, wanted: int, granted: Callable[[], object]) -> None:
        self._wanted = wanted
        self._granted = granted
        self.octets = 0


class Budget:
    """`total` octets to share out."""

    def __init__(self, total: int) -> None:
        self._total = self._free = total
        self._waiting: deque[Ticket] = deque()

    def request(self, octets: int, granted: Callable[[], object]) -> Ticket:
        """Ask for `octets`; `granted()` is called, perhaps before this returns, when they
        are there."""
        ticket = Ticket(octets, granted)
        self._waiting.append(ticket)
        self._serve()
        return ticket

    def grow(self, ticket: Ticket, octets: int) -> bool:
        """Add `octets` to what `ticket` holds if they are there now and nobody waits."""
        if self._waiting or octets > self._free:
            return False
        ticket.octets += octets
        self._free -= octets
        return True

    def release(self, ticket: Ticket) -> None:
        """Give back what `ticket` holds, or stop waiting."""
        if ticket in self._waiting:
            self._waiting.remove(ticket)
        self._free += ticket.octets
        ticket.octets = 0
        self._serve()

    def resize(self, by: int) -> None:
        """Change the total; a smaller one takes effect as room is given back."""
        self._total += by
        self._free += by
        self._serve()

    @property
    def total(self) -> int:
        """Octets there are to share out."""
        return self._total

    @property
    def free(self) -> int:
        """Octets that nobody holds; below 0 while a smaller total takes effect."""
        return self._free

    @property
    def waiting(self) -> int:
        """How many wait for octets."""
        return len(self._waiting)

    def _serve(self) -> None:
        while self._waiting and self._waiting[0]._wanted <= self._free:
            ticket = self._waiting.popleft()
            ticket.octets = ticket._wanted
            self._free -= ticket.octets
            ticket._granted()
