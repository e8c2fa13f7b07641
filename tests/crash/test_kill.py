"""kill -9 at any moment, under load: every 250 is kept, and kept once (promises 1 and 4)."""

import random
import signal

from postroom.testing.site import Site
from tests.crash.ledger import Ledger
from tests.integration.mail import queued
from tests.integration.processes import DOOR, INTAKE, kill, process_of
from tests.integration.sites import Sites
from tests.peers import Cluster

LISTS = ("mylist@example.com", "other@example.com")
ROUND = ("door", "intake", "everything", "door and intake", "everything")


def strike(site: Site, what: str) -> None:
    """Kill a part of the server; all of it is started again, by a person if need be."""
    pids = {"door": process_of(site.supervisor, DOOR)}
    pids["intake"] = process_of(site.supervisor, INTAKE)
    pids["supervisor"] = site.supervisor
    whole = what == "everything"
    victims = [pid for name, pid in pids.items() if whole or name in what]
    random.shuffle(victims)
    for pid in victims:
        kill(pid)
    if whole:
        assert site.stop() == -signal.SIGKILL
        site.start()


def run(site: Site, kills: int) -> None:
    """Kill so many times while the ledger sends, then compare."""
    dice = random.Random()
    with Ledger(site.port) as ledger:
        for number in range(kills):
            ledger.wait_for(dice.randint(1, 60))
            strike(site, ROUND[number % len(ROUND)])
        ledger.wait_for(1)
        ledger.settle()
    ledger.check(queued(site.store))
    messages = {number for number, _ in ledger.promised}
    assert ledger.attempts > len(messages)  # some were cut off and sent again


def test_d16_killed_many_times_under_load_it_keeps_every_promise_once(sites: Sites) -> None:
    site = sites.start(*LISTS)
    run(site, kills=25)
    assert site.stop() == 0


def test_d16_on_postgresql_too(sites: Sites, cluster: Cluster) -> None:
    site = sites.start(*LISTS, url=cluster.new_database())
    run(site, kills=5)
    assert site.stop() == 0


def test_fault_16_a_postgresql_server_that_crashes_under_load_keeps_every_promise_once(
    sites: Sites, cluster: Cluster
) -> None:
    site = sites.start(*LISTS, url=cluster.new_database())
    with Ledger(site.port) as ledger:
        for more in (1, 40):
            ledger.wait_for(more)
            cluster.stop()  # at once, and its log is played back when it starts
            cluster.start()
        ledger.wait_for(1)
        ledger.settle()
    ledger.check(queued(site.store))
    assert site.stop() == 0
