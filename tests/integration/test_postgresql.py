"""The same server on PostgreSQL, which may go away and come back (fault 8)."""

import pytest

from postroom.lmtp.client import LMTPClient
from tests.integration.mail import (
    ACCEPTED,
    LIST,
    LOCAL_ERROR,
    NO_MAILBOX,
    SENDER,
    deliver,
    depth,
    new_message,
    postroom,
    queued,
)
from tests.integration.processes import DOOR, Follower, descendants, kill, process_of
from tests.integration.sites import Sites
from tests.peers import Cluster


def test_it_delivers_to_postgresql(sites: Sites, cluster: Cluster) -> None:
    site = sites.start(LIST, url=cluster.new_database())
    raw = new_message()
    with site.client() as client:
        recipients = [LIST, "nobody@example.com", "mylist-owner@example.com"]
        assert deliver(client, recipients, raw) == [ACCEPTED, NO_MAILBOX, ACCEPTED]
        assert deliver(client, recipients, raw) == [ACCEPTED, NO_MAILBOX, ACCEPTED]
        postroom(site, "list", "create", "other@example.com")
        assert deliver(client, ["other@example.com"], new_message()) == [ACCEPTED]
    found = queued(site.store)
    assert [each.queue for each in found] == ["in"] * 3
    assert [each.raw for each in found[:2]] == [raw] * 2
    assert site.stop() == 0


@pytest.mark.parametrize("mode", ["after-data", "at-rcpt"])
def test_a_session_survives_the_database_going_away_and_coming_back(
    sites: Sites, cluster: Cluster, mode: str
) -> None:
    site = sites.start(
        LIST,
        url=cluster.new_database(),
        LMTP__COMMIT_DEADLINE="0.5",
        LMTP__REFUSE_UNKNOWN=mode,
    )
    meanwhile = new_message()
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
        processes = descendants(site.supervisor).keys()
        cluster.stop()
        try:
            try_later(client, mode, meanwhile)
            with site.client() as other:
                other.lhlo()
                try_later(other, mode, meanwhile)
        finally:
            cluster.start()
        assert deliver(client, [LIST, LIST], meanwhile) == [ACCEPTED] * 2
    assert depth(site.store) == 2
    assert descendants(site.supervisor).keys() == processes


def try_later(client: LMTPClient, mode: str, raw: bytes) -> None:
    """Everybody is told 451, also who would be refused for good."""
    if mode == "after-data":
        assert deliver(client, [LIST, "nobody@example.com"], raw) == [LOCAL_ERROR] * 2
        return
    assert client.mail(SENDER).code == 250
    assert client.rcpt(LIST) == LOCAL_ERROR
    assert client.rcpt("nobody@example.com") == LOCAL_ERROR
    assert client.docmd("DATA").code == 503
    assert client.rset().code == 250


def test_a_lock_past_the_deadline_is_451_and_no_entry_appears_later(
    sites: Sites, cluster: Cluster
) -> None:
    site = sites.start(LIST, url=cluster.new_database(), LMTP__COMMIT_DEADLINE="0.3")
    late, next_one = new_message(), new_message()
    with site.client() as client:
        with site.store.begin() as holder:
            holder.exec_driver_sql("LOCK TABLE entry IN ACCESS EXCLUSIVE MODE")
            assert deliver(client, [LIST], late) == [LOCAL_ERROR]
        assert deliver(client, [LIST], next_one) == [ACCEPTED]
    assert [each.raw for each in queued(site.store)] == [next_one]


def test_a_server_that_cannot_reach_its_database_after_a_restart_keeps_trying(
    sites: Sites, cluster: Cluster
) -> None:
    site = sites.start(LIST, url=cluster.new_database())
    with Follower(site.log) as log:
        cluster.stop()
        try:
            kill(process_of(site.supervisor, DOOR))
            log.wait_for("cannot be")
            log.wait_for('"event":"lmtp process ended"', '"status":78')
        finally:
            cluster.start()
        log.wait_for("ready ")
    with site.client() as client:
        assert deliver(client, [LIST], new_message()) == [ACCEPTED]
