"""Arrivals: how a message came to the door, and what is said of those that go nowhere.

For: the runners of what comes in. Guarantees: what a runner cannot handle for want of its list
goes to `shunt`, where a person finds it.
"""

import time
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, select

from postroom.runners.base import Outcome
from postroom.spool import queue
from postroom.spool.ids import show
from postroom.spool.queue import Claim
from postroom.spool.steps import Step
from postroom.store.schema import message

NO_LIST = "its list was removed: it has nowhere to go"


_ARRIVAL = select(message.c.peer, message.c.lhlo, message.c.received_at).where(
    message.c.id == bindparam("key")
)


class Arrival(NamedTuple):
    """How a message came to the door."""

    peer: str
    lhlo: str
    received_at: float


def arrival_of(connection: Connection, held: Claim) -> Arrival:
    """How this one came."""
    row = connection.execute(_ARRIVAL, {"key": held.message}).first()
    return Arrival(*row) if row else Arrival("", "", time.time())


def received(held: Claim, queue_name: str, arrival: Arrival, known_as: str, name: str) -> Step:
    """The step with which every message begins; `known_as` is its Message-ID, `name` the list's
    address."""
    facts = {
        "peer": arrival.peer,
        "lhlo": arrival.lhlo,
        "sender": held.sender,
        "size": len(held.raw),
        "entry": show(held.id),
        "queue": queue_name,
    }
    return Step(known_as, arrival.received_at, name, "received", facts)


def shunted(held: Claim, queue_name: str, reason: str) -> Outcome:
    """Put aside, for a person."""
    return Outcome(
        lambda connection: queue.shunt(connection, held, reason),
        "shunted",
        {"queue": queue_name, "reason": reason},
        moves=True,
        bad=True,
    )
