"""Storage in trouble: 4xx and nothing left behind, and all is well when it ends (faults 1, 7)."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pysqlite3.dbapi2 as sqlite
import pytest

from postroom.lmtp.client import LMTPClient
from postroom.testing.site import Site
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    LOCAL_ERROR,
    NO_ROOM,
    SENDER,
    begin_data,
    create_lists,
    deliver,
    end_data,
    new_message,
    queued,
)
from tests.integration.processes import Follower
from tests.integration.sites import Sites


@contextmanager
def locked(site: Site) -> Iterator[sqlite.Connection]:
    """Somebody else has the write lock; committing gives it back earlier."""
    holder = sqlite.connect(site.url.removeprefix("sqlite:///"), isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    try:
        yield holder
    finally:
        holder.close()


def test_d7_a_lock_past_the_deadline_is_451_and_no_entry_appears_later(sites: Sites) -> None:
    site = sites.start(LIST, LMTP__COMMIT_DEADLINE="0.3")
    late, next_one = new_message(), new_message()
    with site.client() as client:
        with locked(site):
            for answer in deliver(client, [LIST, LIST, "mylist-join@example.com"], late):
                assert answer == LOCAL_ERROR
                assert answer.enhanced_code == "4.3.0"
        # Stored after everything that came before it, if there were any of it.
        assert deliver(client, [LIST], next_one) == [ACCEPTED]
        assert [each.raw for each in queued(site.store)] == [next_one]
        assert deliver(client, [LIST, LIST], late) == [ACCEPTED] * 2
    assert [each.raw for each in queued(site.store)] == [next_one, late]


def test_a_lock_that_ends_in_time_is_waited_for(sites: Sites) -> None:
    site = sites.start(LIST)
    with site.client() as client, locked(site) as holder, Follower(site.log) as log:
        begin_data(client, [LIST])
        with ThreadPoolExecutor(1) as thread:
            replies = thread.submit(end_data, client, new_message(), 1)
            log.wait_for('"event":"not stored"', '"trying_again":true')
            holder.execute("ROLLBACK")
            assert replies.result() == [ACCEPTED]
    assert len(queued(site.store)) == 1


def test_other_clients_are_answered_while_one_waits_for_the_lock(sites: Sites) -> None:
    site = sites.start(LIST)
    with site.client() as waiting, locked(site) as holder, Follower(site.log) as log:
        begin_data(waiting, [LIST])
        with ThreadPoolExecutor(1) as thread:
            replies = thread.submit(end_data, waiting, new_message(), 1)
            log.wait_for('"event":"not stored"')
            with site.client() as other:
                other.lhlo()
                assert other.mail(SENDER).code == 250
                assert not replies.done()
            holder.execute("ROLLBACK")
            assert replies.result() == [ACCEPTED]


def test_a_lock_does_not_hold_up_the_intake_at_its_upkeep(sites: Sites) -> None:
    site = sites.make(LMTP__COMMIT_DEADLINE="0.3", LMTP__REFUSE_UNKNOWN="at-rcpt")
    create_lists(site.store, LIST)
    with locked(site), Follower(site.log) as log:
        site.start()  # there is upkeep to do at once, and it wants the lock, too
        with LMTPClient("127.0.0.1", site.port, timeout=15) as client:
            assert deliver(client, [LIST], new_message()) == [LOCAL_ERROR]
        log.wait_for('"event":"receipts not purged"')
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]


def test_a_lock_does_not_keep_recipients_from_being_looked_up(sites: Sites) -> None:
    site = sites.start(LIST, LMTP__REFUSE_UNKNOWN="at-rcpt")
    with site.client() as client, locked(site):
        client.lhlo()
        client.mail(SENDER)
        assert client.rcpt(LIST).code == 250
        assert client.rcpt("nobody@example.com").code == 550


def test_without_room_for_the_message_mail_is_refused_452(sites: Sites) -> None:
    site = sites.start(LIST, STORE__MIN_FREE_SPACE=str(2**60))
    with site.client() as client:
        client.lhlo()
        for option in [], ["SIZE=100"]:
            answer = client.mail(SENDER, option)
            assert answer == NO_ROOM
            assert answer.enhanced_code == "4.3.1"
        assert client.rcpt(LIST).code == 503


def test_a_message_that_the_memory_budget_cannot_hold_waits_for_its_turn(sites: Sites) -> None:
    size = 400_000
    site = sites.start(LIST, LMTP__MAX_MESSAGE_SIZE=str(size), LMTP__MEMORY_BUDGET=str(7 * size))

    def send(raw: bytes) -> list[tuple[int, str]]:
        with site.client() as client:
            return list(deliver(client, [LIST], raw))

    messages = [new_message(size=size) for _ in range(12)]
    with ThreadPoolExecutor(12) as threads:
        assert list(threads.map(send, messages)) == [[ACCEPTED]] * 12
    assert {each.raw for each in queued(site.store)} == set(messages)


def test_connections_beyond_the_limit_are_told_421(sites: Sites) -> None:
    site = sites.start(LIST, LMTP__MAX_CONNECTIONS="2")
    with site.client(), site.client() as second:
        with pytest.raises(OSError) as refused:
            site.client()
        assert refused.value.args[0] == 421
        assert deliver(second, [LIST], new_message()) == [ACCEPTED]
    with site.client() as client:
        assert client.lhlo().accepted
