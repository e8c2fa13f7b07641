"""A server's `Status` for tests, well and busy unless told otherwise."""

from typing import Any

import msgspec

from postroom.watch.counts import BATCHES, SECONDS
from postroom.watch.figures import Buckets, Depth, Memory, Refusal, Status, Tally

NOW = 1_800_000_000.0


def buckets(bounds: Any, *values: float) -> Any:
    """A histogram of some values."""
    made = Buckets(bounds)
    for value in values:
        made.add(value)
    return made.histogram()


def tally(**changes: Any) -> Tally:
    """What an intake says."""
    usual = Tally(
        batches=buckets(BATCHES, 1, 12, 12),
        commits=buckets(SECONDS, 0.0004, 0.003, 0.004),
        messages=20,
        octets=80_000,
        recipients={"post": 18, "join": 2, "unknown": 5},
        again=3,
        troubles={"busy": 1, "no_room": 0},
        purged=7,
        queues={
            "in": Depth(18, NOW - 90.0, due=NOW - 30.0),
            "command": Depth(2, NOW - 5.0),
            "out": Depth(0, None),
        },
        failed="",
    )
    return msgspec.structs.replace(usual, **changes)


def status(**changes: Any) -> Status:
    """What a server says."""
    usual = Status(
        version="1.2.3",
        hostname="lists.example.com",
        time=NOW,
        started_at=NOW - 3_600.0,
        replies={"220": 9, "250": 60, "550": 5},
        connections={"ready": 3, "data": 1},
        max_connections=1000,
        open_files=65_536,
        accepted=9,
        refused={"too many": 2},
        timed_out=1,
        octets_in=90_000,
        memory=Memory(134_000_000, 100_000_000, 0),
        max_message_size=26_214_400,
        free=83_000_000_000,
        reserve=67_108_864,
        unbound=(),
        ready=True,
        connected=True,
        heard_ago=0.25,
        tally=tally(),
        refusals=(
            Refusal(
                NOW - 2, "127.0.0.1:4025", "anne@example.org", "nope@example.com", "550 5.1.1 No"
            ),
        ),
    )
    return msgspec.structs.replace(usual, **changes)
