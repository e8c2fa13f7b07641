"""kill -9 of the runners at each step of a delivery, and at any moment (D4, fault 15).

Every member gets every post. A second copy gets only who was in a transaction that the mail
server took and whose commit was missing: at most one for each connection, each time.
"""

import random
import signal
from collections import Counter, defaultdict
from collections.abc import Sequence

import pytest

from postroom.mail.message import message_id
from postroom.testing.site import Site
from tests.delivery.servers import MailServer
from tests.integration.deliveries import (
    BOTH,
    Hold,
    copies,
    entries,
    in_state,
    kill_runners,
    once,
    people,
    post,
    settle,
    stalled,
    start,
)
from tests.integration.processes import eventually, kill, wait_ended
from tests.integration.sites import Sites, processes_of

MEMBERS = people(25)
FIRST, LAST = MEMBERS[:10], MEMBERS[20:]  # of three transactions
ONE = {"SMTP__CONNECTIONS": "1"}


def kill_all(site: Site) -> None:
    """SIGKILL for every process of a server, the supervisor first."""
    pids = processes_of(site)
    kill(site.supervisor)
    for pid in pids:
        kill(pid)
    assert site.stop() == -signal.SIGKILL
    for pid in pids:
        wait_ended(pid)


# At each step of a transaction


@pytest.mark.parametrize(
    ("verb", "which", "number", "doubled"),
    [
        ("MAIL", 1, 0, []),
        ("RCPT", 2, 5, []),
        ("DATA", 2, 0, []),
        ("END", 1, 0, FIRST),  # it is taken when nobody is there to hear so
        ("END", 3, 0, LAST),
        ("MAIL", 3, 0, []),  # what was answered is durable before the connection goes on
    ],
)
def test_d4_killed_in_a_transaction_no_more_than_that_one_is_doubled(
    sites: Sites, verb: str, which: int, number: int, doubled: Sequence[str]
) -> None:
    step = Hold(verb, which, number)
    with MailServer(step) as server:
        site = start(sites, server, MEMBERS, **ONE)
        this = post(site)
        step.wait()
        kill_runners(site)
        server.release()
        settle(site)
        assert copies(server, this) == once(*MEMBERS, *doubled)
        assert in_state(site, this, "sent") == MEMBERS


def test_d4_killed_with_several_connections_one_transaction_of_each_is_doubled(
    sites: Sites,
) -> None:
    members = people(100)
    steps = [Hold("END", which) for which in (1, 2, 3)]
    with MailServer(*steps) as server:
        site = start(sites, server, members, SMTP__CONNECTIONS="3")
        this = post(site)
        for step in steps:
            step.wait()
        kill_runners(site)
        server.release()
        server.wait_for(3)
        open_then = Counter(email for taken in server.taken[:3] for email in taken.recipients)
        settle(site)
        assert copies(server, this) == once(*members) + open_then


# At each step of ours


@pytest.mark.parametrize(
    ("step", "done", "doubled"),
    [
        ("INSERT ON message WHEN NEW.peer = ''", [], []),  # it was to be handed on to `out`
        ("INSERT ON delivery", [], []),  # it was claimed, and is to be expanded
        ("INSERT ON transmission", FIRST, FIRST),  # answered, and not yet written down
        ("UPDATE ON post", MEMBERS, []),  # all is done but to say so
    ],
)
def test_fault_15_killed_in_a_commit_of_a_post_on_its_way_it_goes_on_from_there(
    sites: Sites, step: str, done: Sequence[str], doubled: Sequence[str]
) -> None:
    with MailServer() as server:
        site = start(sites, server, MEMBERS, **ONE)
        with stalled(site.store, step) as stall:
            this = post(site)
            stall()
            assert copies(server, this) == once(*done)
            kill_runners(site)
        settle(site)
        assert copies(server, this) == once(*MEMBERS, *doubled)
        assert in_state(site, this, "sent") == MEMBERS
