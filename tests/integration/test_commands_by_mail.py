"""Commands by mail through real processes: woken, reloaded, locked out, stopped, and with others
at work on the same. Commands of the shell: test_commands.py."""

import json
import os
import random
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pysqlite3.dbapi2 as sqlite
import pytest
from sqlalchemy import select

from postroom.spool.metadata import COMMAND
from postroom.store.schema import entry
from postroom.testing.site import Site
from tests.delivery.servers import MailServer
from tests.integration.asking import (
    FREELY,
    Mail,
    arrived,
    asking,
    audited,
    confirming,
    done,
    each,
    hand_in,
    letters,
    make_all_due,
    office,
    on,
    to,
    undone,
    waits,
)
from tests.integration.deliveries import BOTH, entries, join, make, people
from tests.integration.mail import postroom
from tests.integration.manager import Systemd
from tests.integration.processes import RUNNERS, eventually, process_of
from tests.integration.sites import Sites
from tests.integration.test_trouble import locked
from tests.peers import Cluster

ANNE = "anne@example.org"
OTHER = "other@example.com"


@pytest.fixture
def server() -> Iterator[MailServer]:
    """Where letters end."""
    with MailServer() as made:
        yield made


def run(sites: Sites, site: Site, server: MailServer) -> Site:
    """Runners for a site whose door alone runs, and may have a backlog."""
    runners = make(sites, server, url=site.url, **FREELY)
    runners.start(roles=["runners"])
    return runners


# Imported by every process of ours as it starts.
NEVER_LOOK = """
from postroom.delivery import courier
from postroom.runners import base
base.POLL = courier.POLL = 1000.0
"""


def test_an_answer_goes_out_though_nobody_looks_for_it_by_themselves(
    sites: Sites, server: MailServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NEVER_LOOK)
    paths = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))
    site = office(sites, server, LOG__LEVEL="debug")
    site.start(roles=BOTH)
    hand_in(site, asking("join", [ANNE]))
    server.wait_for(1)
    hand_in(site, confirming(site, [ANNE]))
    server.wait_for(2)
    done(site)
    assert on(site) == [ANNE]
    assert site.log.read_text().count('"event":"bell"') == 2


def test_new_settings_hold_for_the_next_command_and_bad_ones_change_nothing(
    sites: Sites, server: MailServer
) -> None:
    site = office(sites, server)
    with Systemd(site) as systemd:
        site.port = int(systemd.hear_of("READY")["STATUS"].rpartition(":")[2])

        def answer(settings: str) -> bytes:
            site.config.write_text(settings)
            os.kill(systemd.pid, signal.SIGHUP)
            systemd.hear_of("RELOADING")
            systemd.hear_of("READY")
            before = len(server.taken)
            hand_in(site, [Mail(to("request"), ANNE, "status\r\nwho\r\ninfo")])
            return b" ".join(server.wait_for(before + 1)[-1].content.split())

        assert b"a mail may hold 1." in answer("[commands]\nmost = 1\n")
        assert b"a mail may hold 1." in answer("[commands]\nmost = 0\n")
        assert b"a mail may hold 2." in answer("[commands]\nmost = 2\n")
        assert b"a mail may hold" not in answer("")
        done(site)


@contextmanager
def frozen(site: Site, runners: Site) -> Iterator[Callable[[], None]]:
    """The runners stand still, at a moment at which nobody writes; until the block ends, or what
    this gives is called."""
    pid = process_of(runners.supervisor, RUNNERS)
    path = site.url.removeprefix("sqlite:///")
    go_on = partial(os.kill, pid, signal.SIGCONT)

    def freeze() -> bool:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite.connect(path, timeout=0, isolation_level=None)) as probe:
            try:
                probe.execute("BEGIN IMMEDIATE")
            except sqlite.OperationalError:
                go_on()
                return False
        return True

    eventually(freeze, "nobody writes")
    try:
        yield go_on
    finally:
        go_on()


def test_what_cannot_be_done_while_somebody_else_writes_is_done_afterwards_and_once(
    sites: Sites, server: MailServer
) -> None:
    site = office(sites, server)
    site.start()
    many = people(150)
    hand_in(site, asking("join", many))
    runners = run(sites, site, server)
    eventually(partial(done_more, site, 1), "it has begun")
    with frozen(site, runners) as go_on, locked(site):
        go_on()
        before = len(waits(site))
        # People look at it meanwhile, and wait for nothing.
        shown = json.loads(postroom(site, "pending", "ls", "--json").stdout)
        assert len(shown) == before == len(waits(site)) < len(many)
    done(site)
    assert audited(site) == each("asked", many)
    assert letters(site) == arrived(server) == Counter(many)


def done_more(site: Site, number: int) -> bool:
    """Whether so many commands are done."""
    return audited(site).total() >= number


def test_a_stop_in_the_middle_of_a_backlog_loses_nothing_and_does_nothing_twice(
    sites: Sites, server: MailServer
) -> None:
    site = office(sites, server)
    site.start()
    many = people(120)
    hand_in(site, asking("join", many))
    runners = run(sites, site, server)
    for _ in range(2):
        before = audited(site).total()
        eventually(partial(done_more, site, min(before + 15, len(many))), "some are done")
        assert runners.stop() == 0
        assert undone(site, COMMAND) == len(many) - len(waits(site))
        in_hand = entry.c.lease.is_not(None) | (entry.c.attempts > 0)
        waiting = select(entry.c.id).where(entry.c.queue == COMMAND, in_hand)
        with site.store.read() as connection:
            assert connection.execute(waiting).all() == []
        runners.start(roles=["runners"])
    done(site)
    assert audited(site) == each("asked", many)
    assert letters(site) == arrived(server) == Counter(many)


def test_a_list_that_goes_in_the_middle_of_a_backlog_takes_nothing_of_others_with_it(
    sites: Sites, server: MailServer
) -> None:
    site = office(sites, server, OTHER)
    site.start()
    many, others = people(150), [f"o{n}@example.net" for n in range(150)]
    mails = asking("join", many) + asking("join", others, OTHER)
    random.shuffle(mails)
    hand_in(site, mails)
    runners = run(sites, site, server)
    eventually(partial(done_more, site, 20), "some are done")
    with frozen(site, runners):
        postroom(site, "list", "remove", OTHER, "--force")

    def look() -> bool:
        make_all_due(site)
        return not undone(site)

    eventually(look, "all is done, or put aside")
    assert audited(site) == each("asked", many)
    assert waits(site).keys() == set(many)
    # Of the others each was asked, or their command is kept for a person to look at; and so is
    # what asks them, unless it went out in time.
    shunted = entries(site, "shunt")
    put_aside = each("asked", [one.sender for one in shunted if one.sender])
    asked = audited(site, "asked", of="other.example.com")
    assert asked + put_aside == each("asked", others)
    orders = [one.metadata["order"]["recipients"] for one in shunted if not one.sender]
    kept = {email for order in orders for email in order}
    assert set(arrived(server)) | kept == {email for _, email in asked} | set(many)
    assert max(arrived(server).values()) == 1


def test_two_processes_at_one_backlog_do_each_command_once(
    sites: Sites, server: MailServer, cluster: Cluster
) -> None:
    site = office(sites, server, url=cluster.new_database())
    site.start()
    everybody = people(50)
    joining, leaving = everybody[:30], everybody[30:]
    join(site, *leaving)
    # Each twice, in the opposite order: so those two meet in the middle, where each may want
    # the row that the other has.
    mails = asking("join", joining) + asking("leave", leaving)
    hand_in(site, [*mails, *reversed(mails)])
    with site.store.begin() as holder:  # until both are there
        holder.exec_driver_sql("LOCK TABLE entry IN EXCLUSIVE MODE")
        first, second = (run(sites, site, server) for _ in range(2))
    done(site)
    assert audited(site) == each("asked", everybody)
    assert letters(site) == Counter(everybody)
    mails = 2 * confirming(site, everybody)
    random.shuffle(mails)
    hand_in(site, mails)
    done(site)
    assert on(site) == joining
    assert waits(site) == {}
    assert audited(site, "joined", "left") == each("joined", joining) + each("left", leaving)
    # What asked, what tells the end, and what is said to who confirmed twice.
    assert letters(site) == Counter(3 * everybody)
    assert arrived(server) == letters(site)
    for runners in first, second:
        assert '"event":"commands done"' in runners.log.read_text()
