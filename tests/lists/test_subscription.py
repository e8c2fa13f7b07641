"""The work flow of a subscription: every policy's moves, and what holds of all of them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.lists.subscription import TABLE, WAITING, Event, Policy, State, after, policy_for

ENDS = {State.DONE, State.REFUSED, State.DROPPED, State.CLOSED}
POLICIES = st.sampled_from(Policy)
INVITED = {
    "asked invite invited",
    "invited confirm done",
    "invited cancel dropped",
    "invited discard dropped",
    "invited expire dropped",
}
WRITES_BACK = {"confirm cancel dropped", "confirm discard dropped", "confirm expire dropped"}
DECIDED = {
    "moderate accept done",
    "moderate reject refused",
    "moderate discard dropped",
    "moderate expire dropped",
}


@pytest.mark.parametrize(
    ("policy", "own"),
    [
        ("open", {"asked ask done"}),
        ("confirm", {"asked ask confirm", "confirm confirm done"} | WRITES_BACK),
        ("moderate", {"asked ask moderate"} | DECIDED),
        (
            "confirm-then-moderate",
            {"asked ask confirm", "confirm confirm moderate"} | WRITES_BACK | DECIDED,
        ),
        ("invite-only", {"asked ask closed"}),
        ("closed", {"asked ask closed"}),
    ],
)
def test_a_policy_has_these_moves_and_no_others(policy: str, own: set[str]) -> None:
    moves = TABLE[Policy(policy)]
    assert {" ".join(move) for move in moves} == own | INVITED
    assert len(moves) == len(own | INVITED)


def test_a_policy_that_is_new_is_tested() -> None:
    assert len(Policy) == 6


@pytest.mark.parametrize("policy", Policy)
def test_the_table_is_what_moves_a_request_and_nothing_else_does(policy: Policy) -> None:
    table = {(move.before, move.event): move.after for move in TABLE[policy]}
    assert len(table) == len(TABLE[policy])  # one outcome for each
    for state in State:
        for event in Event:
            assert after(policy, state, event) == table.get((state, event))


@pytest.mark.parametrize("policy", Policy)
def test_an_end_is_an_end_and_what_waits_can_always_end(policy: Policy) -> None:
    for state in ENDS:
        assert [event for event in Event if after(policy, state, event)] == []
    reached = {move.after for move in TABLE[policy]} | {State.ASKED}
    assert reached <= {State.ASKED, *WAITING} | ENDS
    for state in reached & set(WAITING):
        assert after(policy, state, Event.EXPIRE) is State.DROPPED
        assert after(policy, state, Event.DISCARD) is State.DROPPED


@given(POLICIES, st.sampled_from([Event.ASK, Event.INVITE]), st.lists(st.sampled_from(Event)))
def test_whatever_happens_a_request_moves_forward_until_it_ends(
    policy: Policy, first: Event, then: list[Event]
) -> None:
    order = [State.ASKED, State.CONFIRM, State.INVITED, State.MODERATE, *ENDS]
    state = State.ASKED
    for event in [first, *then, Event.EXPIRE]:
        moved = after(policy, state, event)
        if moved is not None:
            assert order.index(moved) > order.index(state)
            state = moved
    assert state in ENDS


@given(POLICIES, st.lists(st.sampled_from([each for each in Event if each is not Event.CONFIRM])))
def test_nothing_is_done_for_an_address_that_has_shown_nothing_unless_it_confirms(
    wanted: Policy, events: list[Event]
) -> None:
    policy = policy_for(wanted, shown=False)
    state = State.ASKED
    for event in events:
        state = after(policy, state, event) or state
    assert state is not State.DONE


@pytest.mark.parametrize("wanted", Policy)
def test_who_has_shown_who_they_are_is_under_the_policy_of_the_list(wanted: Policy) -> None:
    assert policy_for(wanted, shown=True) is wanted


@pytest.mark.parametrize(
    ("wanted", "stricter"),
    [
        ("open", "confirm"),
        ("confirm", "confirm"),
        ("moderate", "confirm-then-moderate"),
        ("confirm-then-moderate", "confirm-then-moderate"),
        ("invite-only", "invite-only"),
        ("closed", "closed"),
    ],
)
def test_who_has_not_confirms_first_and_the_owners_still_have_to_agree(
    wanted: str, stricter: str
) -> None:
    assert policy_for(Policy(wanted), shown=False) == stricter


@pytest.mark.parametrize("policy", [Policy.MODERATE, Policy.CONFIRM_THEN_MODERATE])
@given(events=st.lists(st.sampled_from([each for each in Event if each is not Event.ACCEPT])))
def test_where_owners_have_to_agree_nobody_joins_without_them_but_whom_they_invited(
    policy: Policy, events: list[Event]
) -> None:
    state = State.ASKED
    for event in [Event.ASK, *events]:
        state = after(policy, state, event) or state
    assert state is not State.DONE


@pytest.mark.parametrize("policy", [Policy.INVITE_ONLY, Policy.CLOSED])
@given(events=st.lists(st.sampled_from(Event)))
def test_where_nobody_may_ask_nothing_comes_of_asking(policy: Policy, events: list[Event]) -> None:
    state = after(policy, State.ASKED, Event.ASK)
    assert state is State.CLOSED
    assert all(after(policy, state, event) is None for event in events)


@pytest.mark.parametrize("policy", Policy)
def test_who_is_invited_only_has_to_agree_whatever_the_policy(policy: Policy) -> None:
    invited = after(policy, State.ASKED, Event.INVITE)
    assert invited is State.INVITED
    assert after(policy, invited, Event.CONFIRM) is State.DONE
    assert after(policy, invited, Event.CANCEL) is State.DROPPED
    assert after(policy, invited, Event.ACCEPT) is None
