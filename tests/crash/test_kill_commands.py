"""kill -9 of the runners while commands by mail are worked off: each is done exactly once.

A letter may be delivered twice, if it was in the transaction in hand; it is the same letter.
"""

import random
import time
from collections import Counter

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import update

from postroom.lists.pending import Wanted, ask
from postroom.lists.registry import find_list
from postroom.lists.subscription import Policy, State
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import COMMAND
from postroom.store.schema import entry
from postroom.testing.site import Site
from tests.crash.test_kill_runners import claimed, kill_all
from tests.delivery.servers import MailServer
from tests.integration.asking import (
    Mail,
    arrived,
    asking,
    audited,
    confirming,
    done,
    each,
    hand_in,
    letters,
    office,
    on,
    undone,
    waits,
)
from tests.integration.deliveries import BOTH, join, kill_runners, people, stalled
from tests.integration.mail import LIST
from tests.integration.processes import eventually
from tests.integration.sites import Sites
from tests.peers import Cluster

EVERYBODY = people(90)
NEW, ASKED, MEMBERS = EVERYBODY[:30], EVERYBODY[30:60], EVERYBODY[60:]
DAY = 86_400.0


def prepare(site: Site) -> None:
    """Some are asked to confirm that they join, some are members."""
    join(site, *MEMBERS)
    make_id = IdMaker()
    with site.store.begin() as connection:
        key = find_list(connection, LIST).key
        for email in ASKED:
            wanted = Wanted("join", email, "", {}, Policy.CONFIRM, State.CONFIRM, email, "")
            ask(connection, make_id, key, wanted, DAY, time.time())


def first_round(site: Site) -> list[Mail]:
    """Everybody wants something, in any order."""
    mails = asking("join", NEW) + confirming(site, ASKED) + asking("leave", MEMBERS)
    random.shuffle(mails)
    return mails


def assert_first_round(site: Site, server: MailServer) -> None:
    """Each had what they wanted, once."""
    assert on(site) == sorted(ASKED + MEMBERS)
    assert waits(site).keys() == {*NEW, *MEMBERS}
    assert audited(site) == each("asked", NEW + MEMBERS) + each("joined", ASKED)
    assert letters(site) == arrived(server) == Counter(EVERYBODY)


def assert_second_round(site: Site, server: MailServer) -> None:
    """Those who were asked have confirmed."""
    assert on(site) == sorted(NEW + ASKED)
    assert waits(site) == {}
    assert audited(site) == (
        each("asked", NEW + MEMBERS) + each("joined", NEW + ASKED) + each("left", MEMBERS)
    )
    assert letters(site) == arrived(server) == Counter(EVERYBODY) + Counter(NEW + MEMBERS)


def kill_after(site: Site, some: int, whole: bool = False, queue: str = COMMAND) -> None:
    """SIGKILL once so many more entries were worked off, if there are so many."""
    before = undone(site, queue)
    eventually(lambda: undone(site, queue) <= max(0, before - some), "some are done")
    if whole:
        kill_all(site)
        site.start(roles=BOTH)
    else:
        kill_runners(site)


def test_killed_again_and_again_each_command_is_done_once(sites: Sites) -> None:
    dice = random.Random()
    with MailServer() as server:
        site = office(sites, server)
        prepare(site)
        site.start()
        hand_in(site, first_round(site))
        site.stop()
        site.start(roles=BOTH)
        for whole in False, False, True:
            kill_after(site, dice.randint(1, 25), whole)
        done(site)
        assert_first_round(site, server)
        mails = confirming(site, NEW + MEMBERS)
        dice.shuffle(mails)
        hand_in(site, mails[:40])
        for part in mails[40:50], mails[50:]:
            kill_runners(site)
            hand_in(site, part)
        done(site)
        assert_second_round(site, server)


def test_on_postgresql_too_where_the_lease_has_to_run_out(sites: Sites, cluster: Cluster) -> None:
    with MailServer() as server:
        site = office(sites, server, url=cluster.new_database())
        prepare(site)
        site.start()
        hand_in(site, first_round(site))
        site.stop()
        site.start(roles=BOTH)
        eventually(lambda: undone(site, COMMAND) < 80, "some are done")
        kill_all(site)
        with site.store.begin() as connection:
            leased = update(entry).where(entry.c.lease.is_not(None))
            connection.execute(leased.values(lease_until=0.0))
        site.start(roles=BOTH)
        done(site)
        assert_first_round(site, server)


# At each step of ours


STEPS = {
    "join": ("INSERT ON pending", "INSERT ON tally", "INSERT ON audit"),
    "confirm": ("DELETE ON pending", "INSERT ON member", "DELETE ON entry"),
}


def writing(site: Site) -> bool:
    """Whether somebody has the lock for writing, on SQLite."""
    probe = sqlite.connect(site.url.removeprefix("sqlite:///"), timeout=0, isolation_level=None)
    try:
        probe.execute("BEGIN IMMEDIATE")
    except sqlite.OperationalError as error:
        return "locked" in str(error)
    finally:
        probe.close()
    return False


@pytest.mark.parametrize("what", STEPS)
def test_killed_before_a_commit_nothing_of_it_is_there_and_all_is_done_afterwards(
    sites: Sites, what: str
) -> None:
    with MailServer() as server:
        site = office(sites, server)
        site.start(roles=BOTH)
        many = people(len(STEPS[what]))
        if what == "confirm":
            hand_in(site, asking("join", many))
            done(site)
        before = audited(site), letters(site), waits(site)
        for number, (email, step) in enumerate(zip(many, STEPS[what], strict=True)):
            mails = asking(what, [email]) if what == "join" else confirming(site, [email])
            with stalled(site.store, step):
                hand_in(site, mails)
                eventually(lambda: claimed(site, COMMAND) and writing(site), "it is being done")
                kill_runners(site)
                assert email not in on(site)
                assert (email in waits(site)) == (what == "confirm")
            done(site)
            assert audited(site).total() == before[0].total() + number + 1
        if what == "join":
            assert waits(site).keys() == set(many)
            assert audited(site) == each("asked", many)
        else:
            assert (on(site), waits(site)) == (many, {})
            assert audited(site) == before[0] + each("joined", many)
        assert letters(site) == before[1] + Counter(many) == arrived(server)
