"""Held posts: what a worker puts before the moderators, and what they do with it."""

import time
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import Connection, text

from postroom.spool.care import remove, requeue
from postroom.spool.held import HEAD, Held, accept, discard, find_held, held, hold, post_of
from postroom.spool.ids import show
from postroom.spool.queue import Lost, QueueError, mend, shunt
from postroom.spool.upkeep import remove_list, rename_list
from postroom.store.engine import Store
from tests.contract.desk import ANNE, BART, NOTHING, Desk, counts, envelope, rows
from tests.contract.queues import Filler, change, do, everything, seen, take
from tests.contract.threads import overlap

Decide = Callable[[Connection, int], object]
WHY = ("nonmember", "You are not a member.", "anne@example.org")


def hold_all(store: Store, now: float | None = None) -> list[int]:
    """Hold what waits in `in`; returns the ids."""
    claims = take(store)
    with store.begin() as connection:
        for each in claims:
            hold(connection, each, *WHY, now)
    return [each.id for each in claims]


def waiting(store: Store, list_key: int | None = None) -> list[Held]:
    with store.read() as connection:
        return [each.post for each in held(connection, list_key)]


def key_of(store: Store, name: str) -> int:
    with store.read() as connection:
        key = connection.scalar(text(f"SELECT id FROM mailing_list WHERE list_name = '{name}'"))
    assert key is not None
    return int(key)


def lose_messages(store: Store) -> None:
    """Damage the database: the messages are gone, their entries are not."""
    if store.path is not None:
        with closing(sqlite.connect(store.path)) as direct:  # without foreign keys
            direct.execute("DELETE FROM message")
            direct.commit()
    else:
        with store.begin() as connection:
            connection.execute(text("ALTER TABLE entry DROP CONSTRAINT fk_entry_message"))
            connection.execute(text("DELETE FROM message"))


def test_a_held_post_says_who_what_and_why(desk: Desk) -> None:
    raw = b"Subject: =?utf-8?q?h=C3=A9llo?=\r\nMessage-ID: <ant>\r\n\r\nHello.\r\n"
    desk.deliver(envelope("ant@example.com", sender=BART, raw=raw))
    now = time.time() + 5
    [number] = hold_all(desk.store, now)
    [post] = waiting(desk.store)
    assert post == Held(
        id=number,
        list_key=key_of(desk.store, "ant"),
        list="ant@example.com",
        sender=BART,
        author=ANNE,
        subject="héllo",
        message_id="<ant>",
        size=len(raw),
        received_at=post.received_at,
        held_at=now,
        reason="nonmember",
        sentence="You are not a member.",
    )
    assert post.received_at < now
    with desk.store.read() as connection:
        assert find_held(connection, number) == (post, raw)


def test_nobody_claims_a_held_post_and_its_lease_is_free(desk: Desk, filled: Filler) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    assert take(desk.store, now=time.time() + 1e6) == []
    entry = seen(desk.store, number)
    assert (entry.queue, entry.attempts, entry.lease_until) == ("held", 0, None)


def test_what_was_held_stays_held_whatever_is_mended(desk: Desk, filled: Filler) -> None:
    filled("ant")
    hold_all(desk.store)
    before = everything(desk.store)
    for queue in ("in", "held"):
        do(desk.store, mend, queue)
    assert everything(desk.store) == before


def test_a_worker_that_lost_its_lease_holds_nothing(desk: Desk, filled: Filler) -> None:
    filled("ant")
    [claim] = take(desk.store, lease=-1.0)
    do(desk.store, mend, "in")
    before = everything(desk.store)
    with pytest.raises(Lost):
        do(desk.store, hold, claim, *WHY)
    take(desk.store)
    with pytest.raises(Lost):
        do(desk.store, hold, claim, *WHY)
    assert [row[1] for row in everything(desk.store)] == [row[1] for row in before]


def test_posts_are_shown_oldest_first_of_one_list_or_all(desk: Desk, filled: Filler) -> None:
    ants = filled("ant", "ant-owner")
    bees = filled("bee")
    hold_all(desk.store)
    assert [each.id for each in waiting(desk.store)] == ants + bees
    assert [each.id for each in waiting(desk.store, key_of(desk.store, "bee"))] == bees
    with desk.store.read() as connection:
        assert [each.post.id for each in held(connection, limit=2)] == ants


def test_d6_a_second_post_with_the_same_message_id_shows_its_own_text(desk: Desk) -> None:
    for text_ in (b"one", b"two"):
        head = b"Subject: " + text_ + b"\r\nMessage-ID: <same@example.org>\r\n\r\n"
        desk.deliver(envelope("ant@example.com", raw=head + b"The text of " + text_))
    one, two = hold_all(desk.store)
    with desk.store.read() as connection:
        shown = {number: find_held(connection, number) for number in (one, two)}
    assert [each.post.message_id for each in shown.values()] == ["<same@example.org>"] * 2
    assert [each.post.subject for each in shown.values()] == ["one", "two"]
    assert shown[one].head.endswith(b"The text of one")
    assert shown[two].head.endswith(b"The text of two")
    do(desk.store, discard, one)
    do(desk.store, accept, two, "carla")
    [claim] = take(desk.store)
    assert claim.raw.endswith(b"The text of two")


def test_an_accepted_post_is_due_in_its_queue_and_carries_the_approval(
    desk: Desk, filled: Filler
) -> None:
    filled("ant")
    before = rows(desk.store)[0].metadata
    [number] = hold_all(desk.store, now=time.time() + 1000)
    do(desk.store, accept, number, "carla")
    [claim] = take(desk.store)
    assert claim.id == number
    assert claim.attempts == 1
    assert claim.metadata == before | {"approved": True, "approved_by": "carla"}
    assert waiting(desk.store) == []


def test_an_accepted_post_may_be_held_again(desk: Desk, filled: Filler) -> None:
    filled("ant")
    for _ in range(2):
        [number] = hold_all(desk.store)
        assert [each.reason for each in waiting(desk.store)] == ["nonmember"]
        do(desk.store, accept, number, "carla")


def test_a_discarded_post_is_gone_with_its_message(desk: Desk, filled: Filler) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    with desk.store.begin() as connection:
        found = discard(connection, number)
    assert (found.post.id, found.post.sender, found.head) == (number, ANNE, b"1")
    assert counts(desk.store)[:2] == NOTHING[:2]


def test_a_discarded_post_leaves_the_message_to_another_list(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com", "bee@example.com"))
    first, second = hold_all(desk.store)
    do(desk.store, discard, first)
    assert [each.id for each in waiting(desk.store)] == [second]
    assert counts(desk.store)[:2] == (1, 1)


each_decision = pytest.mark.parametrize(
    "decide", [partial(accept, by="carla"), discard], ids=["accept", "discard"]
)


def refused(desk: Desk, decide: Decide, number: int) -> str:
    """What a moderator is told; nothing has changed."""
    before = everything(desk.store)
    with pytest.raises(QueueError) as error, desk.store.begin() as connection:
        decide(connection, number)
    assert everything(desk.store) == before
    return str(error.value)


@each_decision
def test_an_unknown_id_is_refused(desk: Desk, decide: Decide) -> None:
    said = refused(desk, decide, 7)
    assert said.startswith(f"there is no held post {show(7)}: it was decided on already")
    assert "`postroom held ls`" in said


@each_decision
def test_an_entry_of_another_queue_is_refused(desk: Desk, filled: Filler, decide: Decide) -> None:
    (number,) = filled("ant-join")
    said = refused(desk, decide, number)
    assert said.startswith(f"{show(number)} is not held but in queue command")


@each_decision
def test_a_post_that_was_accepted_already_is_refused(
    desk: Desk, filled: Filler, decide: Decide
) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    do(desk.store, accept, number, "carla")
    assert "was accepted already" in refused(desk, decide, number)


@each_decision
@pytest.mark.parametrize("first", [partial(accept, by="dan"), discard])
def test_of_two_moderators_at_once_the_second_is_told(
    desk: Desk, filled: Filler, decide: Decide, first: Decide
) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    outcome = overlap(
        desk.store,
        lambda connection: first(connection, number),
        lambda connection: decide(connection, number),
    )
    with pytest.raises(QueueError, match="already"):
        outcome.result()


def test_a_post_without_its_message_can_be_discarded_only(desk: Desk, filled: Filler) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    lose_messages(desk.store)
    with pytest.raises(QueueError, match="its message is not in the database"):
        do(desk.store, accept, number, "carla")
    assert waiting(desk.store)[0].subject == ""
    do(desk.store, discard, number)
    assert waiting(desk.store) == []


def test_unreadable_metadata_can_be_seen_and_discarded_but_not_accepted(
    desk: Desk, filled: Filler
) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    change(desk.store, number, metadata="{broken")
    assert [(each.reason, each.author) for each in waiting(desk.store)] == [("", "")]
    with pytest.raises(QueueError, match="cannot be read"):
        do(desk.store, accept, number, "carla")
    do(desk.store, discard, number)
    assert waiting(desk.store) == []


@pytest.mark.parametrize("metadata", ['{"reason": 7, "author": [], "sentence": null}', "{}", "[]"])
def test_metadata_of_another_kind_hides_no_post(desk: Desk, filled: Filler, metadata: str) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    change(desk.store, number, metadata=metadata)
    assert [each.id for each in waiting(desk.store)] == [number]


@pytest.mark.parametrize("raw", [b"", b"\xff\x00\r\n", b"Subject:\xff\x00\x1b[2J", b"\r\n\r\n"])
def test_any_octets_can_be_held_shown_and_accepted(desk: Desk, raw: bytes) -> None:
    desk.deliver(envelope("ant@example.com", raw=raw))
    [number] = hold_all(desk.store)
    with desk.store.read() as connection:
        assert find_held(connection, number).head == raw
    do(desk.store, accept, number, "carla")
    assert [each.raw for each in take(desk.store)] == [raw]


def test_only_the_beginning_of_a_large_post_is_read(desk: Desk) -> None:
    raw = b"Subject: large\r\n\r\n" + b"x" * 10_000_000
    desk.deliver(envelope("ant@example.com", raw=raw))
    [number] = hold_all(desk.store)
    with desk.store.read() as connection:
        found = find_held(connection, number)
    assert (found.post.subject, found.post.size, len(found.head)) == ("large", len(raw), HEAD)


def test_a_list_that_is_renamed_keeps_its_held_posts(desk: Desk, filled: Filler) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    do(desk.store, rename_list, "ant@example.com", "wasp@example.com")
    assert [each.list for each in waiting(desk.store)] == ["wasp@example.com"]
    do(desk.store, accept, number, "carla")
    assert take(desk.store)[0].metadata["listname"] == "wasp@example.com"


def test_the_posts_of_a_removed_list_are_shunted_not_held(desk: Desk, filled: Filler) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    do(desk.store, remove_list, "ant@example.com", True)
    assert waiting(desk.store) == []
    with pytest.raises(QueueError, match="is not held but in queue shunt"):
        do(desk.store, accept, number, "carla")


def test_an_operator_may_retry_and_delete_held_posts_as_any_entry(
    desk: Desk, filled: Filler
) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    do(desk.store, requeue, number)
    assert [each.id for each in waiting(desk.store)] == [number]
    do(desk.store, remove, number)
    assert waiting(desk.store) == []


def test_a_post_that_is_shunted_while_it_is_decided_comes_back_held(
    desk: Desk, filled: Filler
) -> None:
    filled("ant")
    [number] = hold_all(desk.store)
    [claim] = take(desk.store, name="held")
    do(desk.store, shunt, claim, "why")
    do(desk.store, requeue, number)
    assert [each.id for each in waiting(desk.store)] == [number]


def test_a_claimed_post_reads_like_a_held_one(desk: Desk) -> None:
    desk.deliver(envelope("ant@example.com"))
    [claim] = take(desk.store)
    like = post_of(claim, "ant@example.com", *WHY)
    with desk.store.begin() as connection:
        hold(connection, claim, *WHY)
    with desk.store.read() as connection:
        found = find_held(connection, claim.id)
    received_at, held_at = found.post.received_at, found.post.held_at
    assert like.post._replace(received_at=received_at, held_at=held_at) == found.post
    assert like.head == found.head
