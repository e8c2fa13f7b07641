"""Destinations: how fast mail for some domains may go out.

For: sites whose mail server, or the providers behind it, ask for patience. Guarantees: for a
domain with limits no more transactions are open at once, and no more recipients are sent to in a
minute, than the site said; other domains cost nothing. Times are those of time.monotonic(). Used
from one event loop. Nothing here can fail.
"""

from collections.abc import Mapping
from typing import NamedTuple

from postroom.lists.endpoint import host_of


class Limit(NamedTuple):
    """At most so many transactions at once, and so many recipients a minute; 0 is no limit."""

    connections: int = 0
    per_minute: int = 0


class _Use:
    """What of a limit is in use. `tokens` are recipients that may go now."""

    def __init__(self, limit: Limit, now: float) -> None:
        self.limit, self.open = limit, 0
        self.most = float(limit.per_minute)
        self.tokens, self.at = self.most, now


class Destinations:
    """All limits, by domain, whose A-labels and Unicode are one."""

    def __init__(self, limits: Mapping[str, Limit]) -> None:
        self._uses = {host_of(domain): _Use(limit, 0.0) for domain, limit in limits.items()}

    def __bool__(self) -> bool:
        return bool(self._uses)

    def limited(self, domain: str) -> bool:
        """Whether a domain has limits."""
        return domain in self._uses

    def room(self, domain: str, now: float) -> int:
        """How many recipients of a limited domain may be in the next transaction."""
        use = self._uses[domain]
        if use.limit.connections and use.open >= use.limit.connections:
            return 0
        if not use.limit.per_minute:
            return 1_000_000
        self._refill(use, now)
        # Not for each recipient who may go: for a tenth of what may go in a minute.
        return int(use.tokens) if use.tokens >= min(use.most, max(1.0, use.most / 10)) else 0

    def begin(self, domain: str, recipients: int) -> None:
        """A transaction begins."""
        use = self._uses[domain]
        use.open += 1
        use.tokens -= recipients if use.limit.per_minute else 0

    def end(self, domain: str) -> None:
        """It has ended, however."""
        self._uses[domain].open -= 1

    def _refill(self, use: _Use, now: float) -> None:
        gained = (now - use.at) * use.limit.per_minute / 60.0
        use.tokens = min(float(use.limit.per_minute), use.tokens + gained)
        use.at = now


def domain_of(email: str) -> str:
    """The domain of an address, folded; in Unicode, however it is written."""
    return host_of(email.rpartition("@")[2])
