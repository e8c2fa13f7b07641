"""kill -9 of the runners at each step of a delivery, and at any moment (D4, fault 15).

Every member gets every post. A second copy gets only who was in a transaction that the mail
server took and whose commit was missing: at most one for each connection, each time.
"""

import random
import signal
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

import pytest
from sqlalchemy import func, select, update

from postroom.delivery.ledger import SENT
from postroom.mail.message import message_id
from postroom.spool.queue import ATTEMPTS
from postroom.store.schema import delivery, entry
from postroom.testing.site import Site
from tests.delivery.servers import MailServer
from tests.integration.deliveries import (
    BOTH,
    Hold,
    busy,
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
from tests.peers import Cluster

MEMBERS = people(25)
FIRST, SECOND = MEMBERS[:10], MEMBERS[10:20]  # of three transactions
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
    ("verb", "which", "doubled"),
    [
        ("MAIL", 1, []),
        ("DATA", 2, []),
        ("END", 1, FIRST),  # it is taken when nobody is there to hear so
        ("MAIL", 3, []),  # what was answered is durable before the connection goes on
    ],
)
def test_d4_killed_in_a_transaction_no_more_than_that_one_is_doubled(
    sites: Sites, verb: str, which: int, doubled: Sequence[str]
) -> None:
    step = Hold(verb, which)
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
    dots = Hold("END", times=3)
    with MailServer(dots) as server:
        site = start(sites, server, members, SMTP__CONNECTIONS="3")
        this = post(site)
        dots.wait()
        kill_runners(site)
        server.release()
        server.wait_for(3)
        open_then = Counter(email for taken in server.taken[:3] for email in taken.recipients)
        settle(site)
        assert copies(server, this) == once(*members) + open_then


def test_d4_on_postgresql_too_where_the_lease_has_to_run_out(
    sites: Sites, cluster: Cluster
) -> None:
    dot = Hold("END", 2)
    with MailServer(dot) as server:
        site = start(sites, server, MEMBERS, url=cluster.new_database(), **ONE)
        this = post(site)
        dot.wait()
        kill_all(site)
        server.release()
        server.wait_for(2)
        with site.store.begin() as connection:
            leased = update(entry).where(entry.c.lease.is_not(None))
            assert connection.execute(leased.values(lease_until=0.0)).rowcount == 1
        site.start(roles=BOTH)
        settle(site)
        assert copies(server, this) == once(*MEMBERS, *SECOND)


# At each step of ours


def claimed(site: Site, queue: str) -> bool:
    """Whether a worker has an entry of a queue in hand."""
    leased = select(entry.c.id).where(entry.c.queue == queue, entry.c.lease.is_not(None))
    with site.store.read() as connection:
        return connection.execute(leased).first() is not None


@pytest.mark.parametrize(
    ("never", "reached", "doubled"),
    [
        ("INSERT ON message WHEN NEW.peer = ''", lambda site, _: claimed(site, "in"), []),
        ("INSERT ON delivery", lambda site, _: claimed(site, "out"), []),
        ("INSERT ON transmission", lambda _, server: server.taken, FIRST),
        ("UPDATE ON post", lambda site, _: sent(site) == len(MEMBERS), []),
    ],
    ids=["handing on", "expanding", "recording", "finishing"],
)
def test_fault_15_killed_before_a_commit_it_goes_on_from_the_one_before(
    sites: Sites,
    never: str,
    reached: Callable[[Site, MailServer], object],
    doubled: Sequence[str],
) -> None:
    with MailServer() as server:
        site = start(sites, server, MEMBERS, **ONE)
        with stalled(site.store, never):
            this = post(site)
            eventually(lambda: reached(site, server))
            kill_runners(site)
        settle(site)
        assert copies(server, this) == once(*MEMBERS, *doubled)
        assert in_state(site, this, "sent") == MEMBERS


def sent(site: Site) -> int:
    """How many recipients of all posts were reached, as far as we know."""
    reached = select(func.count()).where(delivery.c.state == SENT)
    with site.store.read() as connection:
        return connection.execute(reached).scalar_one()


# At any moment


def unheard(server: MailServer) -> set[int]:
    """The transactions that were the last ones taken over their connections, by their place."""
    return set({taken.connection: n for n, taken in enumerate(server.taken)}.values())


def test_d4_killed_again_and_again_everybody_gets_every_post_and_few_get_it_twice(
    sites: Sites,
) -> None:
    dice = random.Random()
    members, connections, kills = people(300), 3, 0
    with MailServer() as server:
        site = start(sites, server, members, SMTP__CONNECTIONS=str(connections))
        posts = [post(site) for _ in range(6)]
        for whole in False, False, True, False, False:
            server.wait_for(len(server.taken) + dice.randint(1, 30))
            if whole:
                kill_all(site)
                site.start(roles=BOTH)
            else:
                kill_runners(site)
            kills += 1
        posts.append(post(site))
        settle(site)
        for each in posts:
            assert set(copies(server, each)) == set(members)
            assert in_state(site, each, "sent") == members
        assert_few_doubled(server, kills * connections)


def assert_few_doubled(server: MailServer, most: int) -> None:
    """Nobody got a post again but those of transactions whose connection did not go on to
    another, and of these there are no more than there can be."""
    copies_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for place, taken in enumerate(server.taken):
        for email in taken.recipients:
            copies_of[message_id(taken.content), email].append(place)
    doubled = {place for places in copies_of.values() for place in places[:-1]}
    assert doubled <= unheard(server)
    assert len(doubled) <= most


def test_d4_a_post_that_gets_on_is_not_put_aside_however_often_it_is_cut_off(
    sites: Sites,
) -> None:
    first = Hold("MAIL")
    with MailServer(first) as server:
        site = start(sites, server, MEMBERS, **ONE)
        this = post(site)
        first.wait()
        with site.store.begin() as connection:  # this was the last attempt but one
            out = update(entry).where(entry.c.queue == "out")
            connection.execute(out.values(attempts=ATTEMPTS - 1))
        kill_runners(site)
        server.stop()
        second = Hold("MAIL", 2)
        server.hooks.append(second)
        server.start()
        second.wait()
        kill_runners(site)
        server.release()
        settle(site)
        assert copies(server, this) == once(*MEMBERS)


def test_d4_a_post_that_kills_its_process_is_put_aside_and_takes_no_other_with_it(
    sites: Sites,
) -> None:
    first = Hold("MAIL")
    with MailServer(first) as server:
        site = start(sites, server, MEMBERS, **ONE)
        killer, innocent = post(site), post(site)
        first.wait()
        eventually(lambda: in_state(site, innocent, "pending"), "it is taken up")
        with site.store.begin() as connection:
            out = update(entry).where(entry.c.queue == "out")
            connection.execute(out.values(attempts=ATTEMPTS - 1))
        kill_runners(site)
        server.stop()
        second = Hold("MAIL")
        server.hooks.append(second)
        server.start()
        second.wait()
        kill_runners(site)
        server.release()
        eventually(lambda: not busy(site), "one is done, one is put aside")
        assert copies(server, innocent) == once(*MEMBERS)
        assert copies(server, killer) == once()
        (shunted,) = entries(site, "shunt")
        assert shunted.metadata["order"]["message_id"] == killer
