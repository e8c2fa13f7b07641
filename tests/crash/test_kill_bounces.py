"""kill -9 of the runners while what came back is worked off: it counts exactly once.

A probe may be delivered twice, if it was in the transaction in hand; it is the same letter.
"""

import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import pytest
from sqlalchemy import update

from postroom.bounces.scoring import DAY, State
from postroom.lists.registry import find_list
from postroom.lists.roster import members
from postroom.spool.metadata import BOUNCES
from postroom.store.schema import entry
from postroom.testing.site import Site
from tests.crash.test_kill_commands import kill_after, writing
from tests.crash.test_kill_runners import claimed, kill_all
from tests.delivery.servers import MailServer
from tests.integration.asking import arrived, audited, each, letters, office, undone
from tests.integration.deliveries import (
    BOTH,
    bounced,
    join,
    kill_runners,
    people,
    prefer,
    settle,
    stalled,
)
from tests.integration.mail import LIST
from tests.integration.processes import eventually
from tests.integration.returning import (
    NO_USER,
    Back,
    bounce_address,
    come_back,
    own,
    probes,
    refuse,
)
from tests.integration.sites import Sites
from tests.peers import Cluster

READERS = people(1600)  # so many that what comes back is not about us
GONE, LATE, FORGED, REFUSED = READERS[:100], READERS[100:200], READERS[200:250], READERS[250:310]
DOUBTED = [*GONE, *REFUSED]  # who are sent a probe
LATER = "452 4.2.2 Mailbox full"
# One bounce that is final brings a probe; of others it takes more than two, since they count on
# two days if midnight comes meanwhile.
STRICT = {"bounces.threshold": "1", "bounces.temporary": "0.4", "bounces.unsigned": "0.4"}


class Known(NamedTuple):
    """What is known of a member, but for its times."""

    state: State
    score: float
    status: str
    reason: str
    warned: int = 0


PROBED = Known(State.PROBING, 1.0, "5.1.1", NO_USER)
OFF = PROBED._replace(state=State.OFF, warned=1)
FULL = Known(State.COUNTING, 0.4, "4.2.2", LATER)
UNSIGNED = Known(State.COUNTING, 0.4, "5.1.1", "")


def prepared(sites: Sites, server: MailServer, *readers: str, url: str = "") -> Site:
    """A site with these readers, not started."""
    site = office(sites, server, url=url)
    join(site, *readers)
    prefer(site, STRICT)
    return site


def backlog(site: Site) -> None:
    """All comes back twice: 500 reports, and what was refused. Nobody has looked at it yet."""
    backs = [Back(own(site, email), email) for email in GONE]
    backs += [Back(own(site, email), email, "delayed", "4.2.2", LATER) for email in LATE]
    backs += [Back(bounce_address(), email) for email in FORGED]
    backs *= 2
    random.shuffle(backs)
    site.start()
    for some in backs[:250], backs[250:]:
        come_back(site, some)
        for first in range(0, len(REFUSED), 20):
            refuse(site, REFUSED[first : first + 20])
    site.stop()
    assert undone(site, BOUNCES) == 500 + 6


def assert_known(site: Site, since: float, *those: tuple[Sequence[str], Known]) -> None:
    """This is known of these, and nothing of anybody else. `since` is when the first of it came:
    who counts is counted once a day."""
    wanted = {email: known for emails, known in those for email in emails}
    found = {
        email: Known(*(getattr(known, name) for name in Known._fields))
        for email, known in bounced(site).items()
    }
    days = 1 + time.time() // DAY - since // DAY
    assert found.keys() == wanted.keys()
    for email, known in wanted.items():
        assert known.score <= found[email].score <= known.score * days
        assert found[email]._replace(score=known.score) == known


def assert_letters(site: Site, server: MailServer, wanted: Mapping[str, int]) -> None:
    """So many went to each."""
    assert letters(site) == arrived(server) == Counter(wanted)


def stopped(site: Site) -> list[str]:
    """Who gets no posts, since mail came back."""
    with site.store.read() as connection:
        every = members(connection, find_list(connection, LIST).key, "member")
        return sorted(one.email for one in every if one.delivery == "bounces")


def restart(site: Site) -> None:
    """SIGKILL for all of it, and a new start: who is killed alone too often comes back late."""
    kill_all(site)
    site.start(roles=BOTH)


def assert_probed_once(site: Site, server: MailServer) -> None:
    """All who are in doubt have a probe, and their bounces will be known as its."""
    eventually(lambda: len(probes(site)) == len(DOUBTED), "all have a probe")
    settle(site)
    assert_letters(site, server, dict.fromkeys(DOUBTED, 1))
    senders = {taken.recipients: taken.sender for taken in server.taken}
    assert senders == {(email,): sender for email, sender in probes(site).items()}


def test_killed_again_and_again_each_bounce_counts_once_and_no_probe_goes_out_twice(
    sites: Sites,
) -> None:
    dice, since = random.Random(), time.time()
    with MailServer() as server:
        site = prepared(sites, server, *READERS)
        backlog(site)
        site.start(roles=BOTH)
        for whole in False, False, True, False:
            kill_after(site, dice.randint(1, 120), whole, BOUNCES)
        eventually(lambda: not undone(site, BOUNCES), "all is counted")
        restart(site)  # upkeep, which sends probes, begins when the runners do
        for least in dice.randint(1, 80), dice.randint(81, 160):
            eventually(partial(has_probes, site, least), "some have a probe")
            kill_runners(site)
        assert_probed_once(site, server)
        known = (LATE, FULL), (FORGED, UNSIGNED)
        assert_known(site, since, (DOUBTED, PROBED), *known)
        senders, lost = probes(site), [*GONE[:50], *REFUSED[:30]]
        restart(site)
        for number, email in enumerate(lost):
            if number in (30, 60):
                kill_runners(site)
            if email in GONE:
                come_back(site, [Back(senders[email], email)] * 2)
            else:
                refuse(site, [email], senders[email].partition("+")[2].partition("@")[0])
        eventually(lambda: not undone(site, BOUNCES), "all have come back")
        restart(site)
        eventually(lambda: letters(site).total() == len(DOUBTED) + len(lost), "they are told")
        settle(site)
        assert_known(site, since, (lost, OFF), ([*GONE[50:], *REFUSED[30:]], PROBED), *known)
        assert_letters(site, server, Counter(DOUBTED) + Counter(lost))
        assert stopped(site) == sorted(lost)
        assert audited(site) == each("stopped", lost)


def has_probes(site: Site, least: int) -> bool:
    return len(probes(site)) >= least


def test_on_postgresql_too_where_the_lease_has_to_run_out(sites: Sites, cluster: Cluster) -> None:
    since = time.time()
    with MailServer() as server:
        site = prepared(sites, server, *READERS, url=cluster.new_database())
        backlog(site)
        site.start(roles=BOTH)
        eventually(lambda: undone(site, BOUNCES) < 450, "some are counted")
        kill_all(site)
        free(site)
        site.start(roles=BOTH)
        eventually(lambda: not undone(site, BOUNCES), "all is counted")
        site.stop()
        site.start(roles=BOTH)
        eventually(partial(has_probes, site, 20), "some have a probe")
        kill_all(site)
        free(site)
        site.start(roles=BOTH)
        assert_probed_once(site, server)
        assert_known(site, since, (DOUBTED, PROBED), (LATE, FULL), (FORGED, UNSIGNED))


def free(site: Site) -> None:
    """All leases have run out."""
    leased = update(entry).where(entry.c.lease.is_not(None))
    with site.store.begin() as connection:
        connection.execute(leased.values(lease_until=0.0))


# At each step of ours


def stuck(site: Site) -> bool:
    """Whether somebody has the lock for writing, and keeps it for longer than mail does."""
    return all(writing(site) for _ in range(10_000))


@pytest.mark.parametrize("step", ["INSERT ON tally", "INSERT ON bounce", "DELETE ON entry"])
def test_killed_before_a_commit_nothing_is_counted_and_once_afterwards(
    sites: Sites, step: str
) -> None:
    ann, since = people(1)[0], time.time()
    with MailServer() as server:
        site = prepared(sites, server, ann)
        prefer(site, {"bounces.threshold": "5"})
        site.start(roles=BOTH)
        with stalled(site.store, step):
            come_back(site, [Back(own(site, ann), ann)])
            eventually(lambda: claimed(site, BOUNCES) and stuck(site), "it is being counted")
            kill_runners(site)
            assert (bounced(site), undone(site, BOUNCES)) == ({}, 1)
        settle(site)
        assert_known(site, since, ([ann], PROBED._replace(state=State.COUNTING)))


@pytest.mark.parametrize(
    "step", ["INSERT ON tally", "UPDATE ON bounce WHEN NEW.token IS NOT NULL", "INSERT ON entry"]
)
def test_killed_before_a_commit_no_probe_is_out_and_one_is_afterwards(
    sites: Sites, step: str
) -> None:
    ann, since = people(1)[0], time.time()
    with MailServer() as server:
        site = prepared(sites, server, ann)
        site.start(roles=BOTH)
        come_back(site, [Back(own(site, ann), ann)])
        eventually(lambda: ann in bounced(site), "it is counted")
        with stalled(site.store, step):
            kill_runners(site)
            eventually(lambda: stuck(site), "the probe is being made")
            kill_runners(site)
            assert (probes(site), letters(site)) == ({}, {})
        eventually(lambda: probes(site), "the probe is made")
        settle(site)
        assert_letters(site, server, {ann: 1})
        assert_known(site, since, ([ann], PROBED))
