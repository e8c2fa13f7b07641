"""The memory budget: first come, first served, and never more than there is."""

from hypothesis import given
from hypothesis import strategies as st

from postroom.lmtp.budget import Budget, Ticket

TOTAL = 100


class Desk:
    """Requests and the order in which they were granted."""

    def __init__(self) -> None:
        self.budget = Budget(TOTAL)
        self.granted: list[int] = []
        self.tickets: list[Ticket] = []

    def request(self, octets: int) -> Ticket:
        number = len(self.tickets)
        ticket = self.budget.request(octets, lambda: self.granted.append(number))
        self.tickets.append(ticket)
        return ticket


def test_room_is_granted_at_once_while_there_is_some() -> None:
    desk = Desk()
    assert [desk.request(60).octets, desk.request(40).octets] == [60, 40]
    assert desk.granted == [0, 1]


def test_who_waits_is_served_in_order_even_if_a_later_one_would_fit() -> None:
    desk = Desk()
    first, large, small = desk.request(60), desk.request(80), desk.request(10)
    assert (large.octets, small.octets) == (0, 0)
    desk.budget.release(first)
    assert desk.granted == [0, 1, 2]
    assert (large.octets, small.octets) == (80, 10)


def test_who_gives_up_waiting_gets_nothing_and_lets_the_next_pass() -> None:
    desk = Desk()
    desk.request(60)
    large, small = desk.request(80), desk.request(10)
    desk.budget.release(large)
    assert desk.granted == [0, 2]
    assert (large.octets, small.octets) == (0, 10)


def test_room_is_given_back_once() -> None:
    desk = Desk()
    first = desk.request(60)
    desk.budget.release(first)
    desk.budget.release(first)
    assert desk.request(100).octets == 100
    assert desk.request(1).octets == 0


def test_a_holder_grows_only_if_nobody_waits() -> None:
    desk = Desk()
    first = desk.request(60)
    assert desk.budget.grow(first, 40) and first.octets == 100
    desk.budget.release(first)
    first = desk.request(60)
    assert not desk.budget.grow(first, 41) and first.octets == 60
    waiting = desk.request(50)
    assert not desk.budget.grow(first, 1)
    desk.budget.release(waiting)
    assert desk.budget.grow(first, 1) and first.octets == 61


def test_a_larger_total_serves_who_waits_and_a_smaller_one_waits_for_room() -> None:
    desk = Desk()
    first, second = desk.request(60), desk.request(60)
    desk.budget.resize(20)
    assert second.octets == 60
    desk.budget.resize(-70)
    desk.budget.release(first)
    assert desk.request(1).octets == 0  # 60 of 50 are out still
    desk.budget.release(second)
    assert desk.granted == [0, 1, 2]


_requests = st.tuples(st.just("request"), st.integers(1, TOTAL + 20))
_releases = st.tuples(st.just("release"), st.integers(0, 30))
_growths = st.tuples(st.just("grow"), st.integers(0, 30))


@given(st.lists(st.one_of(_requests, _requests, _releases, _growths), max_size=40))
def test_whatever_happens_never_more_than_the_budget_is_out_and_the_order_is_kept(
    steps: list[tuple[str, int]],
) -> None:
    desk = Desk()
    for kind, number in steps:
        if kind == "request":
            desk.request(number)
        elif desk.tickets:
            ticket = desk.tickets[number % len(desk.tickets)]
            if kind == "release":
                desk.budget.release(ticket)
            elif ticket.octets:
                desk.budget.grow(ticket, number)
        held = sum(ticket.octets for ticket in desk.tickets)
        assert 0 <= held <= TOTAL
        assert desk.granted == sorted(set(desk.granted))
        # Nobody waits for what is there.
        waiting = desk.budget._waiting
        assert not waiting or waiting[0]._wanted > TOTAL - held
