"""Two intakes on one database at once, as with two machines, or while one is replaced."""

import random
from collections.abc import Callable
from functools import partial

import pytest
from sqlalchemy import text

from postroom.mail.envelope import Envelope
from postroom.spool import intake
from postroom.store.direct import Direct
from tests.contract.conftest import NewDesk
from tests.contract.desk import Counts, Desk, counts, envelope, rows
from tests.contract.threads import at_once


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for locks for as long as any of these tests can take."""
    monkeypatch.setattr(intake, "LOCK_WAIT", 50.0)


MESSAGES = [b"%d" % number for number in range(30)]
ENDPOINTS = [
    f"{name}{sub}@example.com" for name in ("ant", "bee") for sub in ("", "-join", "-owner")
]


def overlapping(chance: random.Random) -> list[list[Envelope]]:
    """Batches that send all messages to all endpoints, most more than once."""
    wanted = [envelope(*ENDPOINTS, raw=raw) for raw in MESSAGES]
    wanted += [
        envelope(*chance.sample(ENDPOINTS, 3), raw=raw) for raw in MESSAGES for _ in range(3)
    ]
    chance.shuffle(wanted)
    return [wanted[start : start + 10] for start in range(0, len(wanted), 10)]


@pytest.mark.usefixtures("patient")
def test_overlapping_batches_store_each_endpoint_once(new_desk: NewDesk) -> None:
    one, other = new_desk(), new_desk()
    chance = random.Random(8024)

    def work(desk: Desk, batches: list[list[Envelope]]) -> set[int]:
        answers = [desk.deliver(*batch) for batch in batches]
        return {code for codes in answers for each in codes for code in each or [0]}

    works = [partial(work, desk, overlapping(chance)) for desk in (one, other)]
    assert at_once(works) == [{250}, {250}]
    assert one.troubles + other.troubles == []
    found = [(row.raw, row.endpoint) for row in rows(one.store)]
    assert len(set(found)) == len(found) == len(MESSAGES) * len(ENDPOINTS)
    with one.store.read() as connection:
        orphans = text("SELECT count(*) FROM message WHERE id NOT IN (SELECT message FROM entry)")
        assert connection.scalar(orphans) == 0
    assert counts(one.store).receipts == len(found)


@pytest.mark.usefixtures("patient")
def test_the_same_recipients_in_opposite_order_never_lock_each_other_out(
    new_desk: NewDesk,
) -> None:
    one, other = new_desk(), new_desk()
    recipients = [f"ant-confirm+{number}@example.com" for number in range(400)]
    for attempt in range(4):
        raw = b"%d" % attempt
        there = partial(one.deliver, envelope(*recipients, raw=raw))
        back = partial(other.deliver, envelope(*recipients[::-1], raw=raw))
        assert at_once([there, back]) == [[[250] * 400]] * 2
    assert [str(trouble) for trouble in one.troubles + other.troubles] == []
    assert counts(one.store).entries == 4 * 400


class Watched(Direct):
    """Does something else before it commits."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)  # type: ignore[arg-type]
        self.meanwhile: Callable[[], None] = lambda: None

    def commit(self) -> None:
        self.meanwhile()
        super().commit()


@pytest.mark.parametrize("in_the_end", ["it is stored", "it is not stored"])
def test_of_a_message_under_way_elsewhere_the_outcome_is_waited_for(
    new_desk: NewDesk, monkeypatch: pytest.MonkeyPatch, in_the_end: str
) -> None:
    """A client whose connection was lost sends again before its first attempt has ended."""
    monkeypatch.setattr(intake, "LOCK_WAIT", 0.02)
    first, second = new_desk(Watched), new_desk()
    direct = first.direct
    assert isinstance(direct, Watched)
    sent = envelope("ant@example.com", "bee@example.com")
    fails = in_the_end == "it is not stored"

    def resend() -> None:
        second.at_trouble = direct.discard if fails else partial(Direct.commit, direct)
        assert second.deliver(sent) == [[250, 250]]
        if fails:
            raise RuntimeError("the first attempt failed")

    direct.meanwhile = resend
    assert first.deliver(sent) == ([[451, 451]] if fails else [[250, 250]])
    assert len(second.troubles) == 1  # it did wait
    assert second.stored[0].again == (0 if fails else 2)
    assert counts(first.store) == Counts(2, 1, 2)
