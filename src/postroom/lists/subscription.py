"""The work flow of a subscription: who has to agree before somebody joins, leaves or changes.

For: whoever handles a request. Pure: a table of what may follow what, from which the diagram in
the documentation is drawn. Guarantees: a request by somebody who has not shown that the address
is theirs is always confirmed by that address first, whatever the list's policy; nothing but the
table moves a request; what the table does not hold is no move.
"""

from enum import StrEnum
from itertools import pairwise
from typing import Final, Literal, NamedTuple

# To resume: posts again for a member whose mail came back; so no other change takes its place.
Action = Literal["join", "leave", "change", "resume"]
Gate = Literal["confirm", "moderate"]


class Policy(StrEnum):
    """What a list asks of those who join or leave."""

    OPEN = "open"
    CONFIRM = "confirm"
    MODERATE = "moderate"
    CONFIRM_THEN_MODERATE = "confirm-then-moderate"
    INVITE_ONLY = "invite-only"
    CLOSED = "closed"


class State(StrEnum):
    """Where a request is. The last four are ends: nothing waits any more."""

    ASKED = "asked"  # it has just come
    CONFIRM = "confirm"  # the address has to confirm
    MODERATE = "moderate"  # the owners have to agree
    INVITED = "invited"  # an owner asked, the address has to agree
    DONE = "done"
    REFUSED = "refused"  # and the person is told
    DROPPED = "dropped"  # and nobody is
    CLOSED = "closed"  # the policy lets nobody ask


class Event(StrEnum):
    """What moves a request."""

    ASK = "ask"
    INVITE = "invite"
    CONFIRM = "confirm"  # by whoever has the token that was sent to the address
    CANCEL = "cancel"  # by the same
    ACCEPT = "accept"  # by an owner or moderator
    REJECT = "reject"
    DISCARD = "discard"
    EXPIRE = "expire"


WAITING: Final = (State.CONFIRM, State.MODERATE, State.INVITED)
GATES: Final[dict[Policy, tuple[Gate, ...]]] = {
    Policy.OPEN: (),
    Policy.CONFIRM: ("confirm",),
    Policy.MODERATE: ("moderate",),
    Policy.CONFIRM_THEN_MODERATE: ("confirm", "moderate"),
}
_AT: Final[dict[Gate, State]] = {"confirm": State.CONFIRM, "moderate": State.MODERATE}
_STRICTER: Final = {
    Policy.OPEN: Policy.CONFIRM,
    Policy.MODERATE: Policy.CONFIRM_THEN_MODERATE,
}


class Move(NamedTuple):
    """One move that is legal."""

    before: State
    event: Event
    after: State


def _moves(policy: Policy) -> tuple[Move, ...]:
    """All legal moves of requests under a policy."""
    found = [
        Move(State.ASKED, Event.INVITE, State.INVITED),
        Move(State.INVITED, Event.CONFIRM, State.DONE),
        Move(State.INVITED, Event.CANCEL, State.DROPPED),
        Move(State.INVITED, Event.DISCARD, State.DROPPED),
        Move(State.INVITED, Event.EXPIRE, State.DROPPED),
    ]
    if policy not in GATES:
        return (Move(State.ASKED, Event.ASK, State.CLOSED), *found)
    passed = [*(_AT[gate] for gate in GATES[policy]), State.DONE]
    found.insert(0, Move(State.ASKED, Event.ASK, passed[0]))
    for here, then in pairwise(passed):
        if here is State.CONFIRM:
            found.append(Move(here, Event.CONFIRM, then))
            found.append(Move(here, Event.CANCEL, State.DROPPED))
        else:
            found.append(Move(here, Event.ACCEPT, then))
            found.append(Move(here, Event.REJECT, State.REFUSED))
        found.append(Move(here, Event.DISCARD, State.DROPPED))
        found.append(Move(here, Event.EXPIRE, State.DROPPED))
    return tuple(found)


TABLE: Final = {policy: _moves(policy) for policy in Policy}
_AFTER: Final = {
    (policy, move.before, move.event): move.after
    for policy, moves in TABLE.items()
    for move in moves
}


def policy_for(wanted: Policy, shown: bool) -> Policy:
    """The policy that a request is under, if the list asks for `wanted`. `shown` says whether
    whoever asked has shown, as far as mail can, that the address is theirs."""
    return wanted if shown else _STRICTER.get(wanted, wanted)


def after(policy: Policy, state: State, event: Event) -> State | None:
    """What a request becomes; None if this cannot happen to it."""
    return _AFTER.get((policy, state, event))
