"""A post under way: which recipients come next."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.delivery import active as module
from postroom.delivery.active import Active, Batch
from postroom.delivery.destinations import Destinations, Limit
from postroom.delivery.ledger import Row
from postroom.delivery.transaction import prepare
from postroom.spool.orders import Order
from postroom.spool.queue import Claim

ANYWHERE = Destinations({})
HELD = Claim(1 << 22, 2, 3, "lease", 1, "", b"Hello", {})


def post(share: float = 0.0, verp: bool = False, personal: bool = False) -> Active:
    order = Order("post", "x@example.com", verp=verp, personal=personal)
    return Active(HELD, order, 0.0, prepare(b"x"), None, share)


def rows(*emails: str, there: bool = True) -> list[Row]:
    return [Row(n, email, n, 0, there) for n, email in enumerate(emails, 1)]


def many(number: int, domain: str = "example.net") -> list[Row]:
    return rows(*(f"p{n}@{domain}" for n in range(number)))


def take(
    active: Active, limit: int = 100, xverp: bool = False, places: Destinations = ANYWHERE
) -> Batch | None:
    return active.take(limit, xverp, places, 0.0)


def drain(active: Active, limit: int = 100, places: Destinations = ANYWHERE) -> list[list[int]]:
    """Take all there is, a transaction after the other; the numbers."""
    batches = []
    while batch := take(active, limit, places=places):
        batches.append([row.n for row in batch.rows])
        if batch.domain:
            places.begin(batch.domain, len(batch.rows))
            places.end(batch.domain)
    return batches


def test_recipients_come_in_order_so_many_at_a_time() -> None:
    active = post()
    active.read(many(7), 100)
    assert active.batches(3) == 3
    assert drain(active, 3) == [[1, 2, 3], [4, 5, 6], [7]]
    assert active.in_hand == 3
    assert take(active) is None


def test_a_pass_is_over_when_all_are_read_and_nobody_has_any() -> None:
    active = post()
    assert active.wants_rows and not active.passed
    active.reading = True
    assert not active.wants_rows
    active.read(many(2), 2)
    assert not active.complete, "there may be more"
    active.reading = False
    assert active.wants_rows
    active.read([], 2)
    assert active.complete and not active.wants_rows and not active.passed
    drain(active)
    assert not active.passed, "they are in somebody's hands"
    active.in_hand = 0
    assert active.passed


def test_the_next_window_begins_after_the_last_one() -> None:
    active = post()
    active.read([Row(5, "a@b.example", 1, 0, True), Row(9, "c@b.example", 2, 0, False)], 2)
    assert active.cursor == 9
    active.read([], 2)
    assert active.cursor == 9
    active.again(77.0)
    assert (active.cursor, active.complete, active.not_before) == (0, False, 77.0)


def test_no_more_is_read_while_there_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOW", 3)
    active = post()
    active.read(many(4), 4)
    assert not active.wants_rows
    take(active, 1)
    assert not active.wants_rows
    take(active, 1)
    assert active.wants_rows


def test_who_left_is_passed_over() -> None:
    active = post()
    active.read([*many(2), Row(3, "gone@example.net", 3, 0, False)], 100)
    assert drain(active) == [[1, 2]]


def test_who_was_not_reached_comes_first_again() -> None:
    active = post()
    active.read(many(6), 100)
    first = take(active, 3)
    assert first is not None
    active.put_back(first.rows[1:], first.single)
    assert drain(active, 3) == [[2, 3, 4], [5, 6]]


def test_in_personal_mode_each_comes_alone_whatever_the_server_offers() -> None:
    active = post(personal=True, verp=True)
    active.read(many(3), 100)
    assert active.batches(100) == 3
    taken = [take(active, xverp=True) for _ in range(4)]
    assert [(len(each.rows), each.single) for each in taken if each] == [(1, True)] * 3


@pytest.mark.parametrize(
    ("share", "verp", "single"), [(1.0, True, 10), (1.0, False, 0), (0.0, True, 0)]
)
def test_who_gets_a_sender_of_their_own_comes_alone(share: float, verp: bool, single: int) -> None:
    active = post(share, verp=verp)
    active.read(many(10), 100)
    batches = [each for _ in range(11) if (each := take(active))]
    assert sum(each.single for each in batches) == single
    assert sorted(row.n for each in batches for row in each.rows) == list(range(1, 11))


def test_a_server_that_makes_the_senders_gets_all_together() -> None:
    active = post(1.0, verp=True)
    active.read(many(10), 100)
    batch = take(active, xverp=True)
    assert batch is not None
    assert (len(batch.rows), batch.single) == (10, False)


def test_who_comes_alone_and_was_not_reached_comes_alone_again() -> None:
    active = post(1.0, verp=True)
    active.read(many(2), 100)
    batch = take(active)
    assert batch is not None
    active.put_back(batch.rows, batch.single)
    again = take(active)
    assert again is not None
    assert (again.rows, again.single) == (batch.rows, True)


# Domains that must wait


def test_a_limited_domain_has_transactions_of_its_own_and_the_others_none_of_it() -> None:
    places = Destinations({"slow.example": Limit(connections=9)})
    active = post()
    active.read(
        rows("a@fast.example", "b@one.example", "c@slow.example", "d@SLOW.example", "e@z.example"),
        100,
    )
    taken = [take(active, places=places) for _ in range(3)]
    assert [(len(each.rows), each.domain) for each in taken if each] == [
        (2, ""),
        (2, "slow.example"),
        (1, ""),
    ]


def test_a_domain_that_must_wait_lets_the_others_pass_and_comes_when_it_may() -> None:
    places = Destinations({"slow.example": Limit(connections=1)})
    active = post()
    active.read(rows("a@slow.example", "b@slow.example", "c@slow.example", "d@z.example"), 100)
    first = take(active, 1, places=places)
    assert first is not None and first.domain == "slow.example"
    places.begin("slow.example", 1)
    assert drain(active, 1, places) == [[4]]
    active.in_hand = 0
    assert active.passed and active.has_waiting
    assert not active.resume(places, 0.0)
    places.end("slow.example")
    assert active.resume(places, 0.0)
    assert drain(active, 5, places) == [[2, 3]]


def test_of_those_who_wait_a_window_is_kept_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 3)
    places = Destinations({"slow.example": Limit(connections=1)})
    places.begin("slow.example", 1)
    active = post()
    active.read(many(10, "slow.example"), 100)
    assert take(active, places=places) is None
    assert active.waiting == {"slow.example"}, "or they would be read again and again"
    places.end("slow.example")
    active.resume(places, 0.0)
    assert drain(active, 100, places) == [[1, 2, 3]]
    active.again(0.0)
    assert active.waiting == set()


@given(
    st.lists(st.sampled_from(["a", "b", "slow", "calm"]), max_size=40),
    st.integers(1, 7),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.data(),
)
def test_each_comes_once_whatever_happens(
    domains: Sequence[str], limit: int, share: float, data: st.DataObject
) -> None:
    places = Destinations({"slow": Limit(connections=1), "calm": Limit(2, 60)})
    active = post(share, verp=True)
    everybody = [Row(n, f"p{n}@{each}", n, 0, True) for n, each in enumerate(sorted(domains), 1)]
    active.read(everybody, 99)
    reached: list[int] = []
    open_now: list[Batch] = []
    now = time.monotonic()
    for _ in range(400):
        now += 10.0
        active.resume(places, now)
        batch = active.take(limit, data.draw(st.booleans()), places, now)
        if batch is not None:
            assert len(batch.rows) <= (1 if batch.single else limit)
            assert len({row.email.partition("@")[2] for row in batch.rows} & {"slow", "calm"}) <= 1
            if batch.domain:
                places.begin(batch.domain, len(batch.rows))
            open_now.append(batch)
        if open_now and (batch is None or data.draw(st.booleans())):
            ended = open_now.pop(0)
            if ended.domain:
                places.end(ended.domain)
            active.in_hand -= 1
            lost = data.draw(st.booleans()) and len(reached) < 20
            if lost:
                active.put_back(ended.rows, ended.single)
            else:
                reached += [row.n for row in ended.rows]
        if active.passed and active.has_waiting:
            active.again(0.0)
            active.read([row for row in everybody if row.n not in reached], 99)
        elif active.passed:
            break
    assert active.passed and not active.has_waiting
    assert sorted(reached) == list(range(1, len(domains) + 1))
