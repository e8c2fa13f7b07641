"""Is the server well? One judgement for /healthz, /metrics and people.

For: whoever has to act, a program or a person. Guarantees: failing means that no mail can be
stored now; degraded means that some is put off or will be soon, that accepted mail goes no
further, or that a service beside the door is not there; each says why and what to look at. Pure.
"""

from typing import Final, NamedTuple

from postroom.spool.metadata import OUT, SERVED
from postroom.spool.space import fits
from postroom.watch.figures import Status

OK: Final = "ok"
DEGRADED: Final = "degraded"
FAILING: Final = "failing"
STATES: Final = (OK, DEGRADED, FAILING)
PATIENCE: Final = 2.0  # seconds that the intake has to answer
CROWDED: Final = 0.9  # of the connections that are let in
OVERDUE: Final = 300.0  # seconds that an entry may be due where it is served, and not taken


class Health(NamedTuple):
    """One of `STATES`, and why it is not the first."""

    status: str
    reasons: list[str]


def judge(status: Status) -> Health:
    """The judgement."""
    bad, poor = _failing(status), _degraded(status)
    return Health(FAILING if bad else DEGRADED if poor else OK, bad + poor)


def _failing(status: Status) -> list[str]:
    if not status.ready:
        return ["the database was not found fit yet: the log says more"]
    if not status.connected:
        return ["the intake process is gone: the log says why"]
    tally = status.tally
    if tally is None:
        return [
            f"the intake process did not answer within {PATIENCE:g} s, silent for "
            f"{status.heard_ago:.0f} s: is the database locked, or its disk slow?"
        ]
    if tally.failed:
        return [f"the last commit failed: {tally.failed}"]
    if not fits(0, status.free, status.reserve):
        return [f"the disk is full: {_left(status)}; every message is refused 452"]
    return []


def _degraded(status: Status) -> list[str]:
    reasons = []
    large = status.max_message_size
    if fits(0, status.free, status.reserve) and not fits(large, status.free, status.reserve):
        reasons.append(f"the disk is nearly full: {_left(status)}; large messages are refused 452")
    held = sum(status.connections.values())
    if held >= CROWDED * status.max_connections:
        reasons.append(
            f"{held} of {status.max_connections} connections: more are refused 421 "
            "(lmtp.max_connections)"
        )
    if status.memory.waiting:
        reasons.append(f"{status.memory.waiting} messages wait for memory (lmtp.memory_budget)")
    reasons += _overdue(status)
    reasons += [f"nobody listens on {name}: the log says why" for name in status.unbound]
    return reasons


def _overdue(status: Status) -> list[str]:
    queues = (status.tally and status.tally.queues) or {}
    reasons = []
    for name in SERVED:
        since = queues[name].due if name in queues else None
        if since is not None and status.time - since > OVERDUE:
            ask = "is `postroom serve` running with its runners"
            if name == OUT:
                ask += ", and does the mail server take mail ([smtp], `postroom doctor`)"
            reasons.append(
                f"mail in queue {name} is due for {(status.time - since) / 60:.0f} minutes and no "
                f"runner takes it: {ask}? See the log and `postroom queue ls {name}`"
            )
    return reasons


def _left(status: Status) -> str:
    return f"{status.free} octets free, {status.reserve} must stay (store.min_free_space)"
