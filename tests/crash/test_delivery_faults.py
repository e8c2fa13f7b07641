"""A mail server, or a disk, that fails while posts go out: nobody is forgotten, and nobody who
is known to have a copy gets a second one (D2, D5, faults 2, 4, 7)."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, update

from postroom.store import schema
from postroom.testing.site import Site
from tests.crash.mounts import memory
from tests.crash.shims import build, environment
from tests.crash.test_clock import Clock
from tests.crash.test_disk_full import fill
from tests.crash.test_failing_disk import FLUSH, Disk
from tests.delivery.servers import (
    DROP,
    TAKE_AND_DROP,
    Hook,
    MailServer,
    at,
    at_recipient,
    refusing,
    times,
)
from tests.integration.deliveries import (
    BOTH,
    Hold,
    bounced,
    copies,
    in_state,
    leave,
    ledger,
    make,
    make_due,
    once,
    people,
    post,
    prepare,
    settle,
    start,
    wait_put_off,
)
from tests.integration.processes import Follower, eventually
from tests.integration.sites import Sites

MEMBERS = people(25)
FIRST = MEMBERS[:10]  # of three transactions
MIB = 1_048_576
DAY = 86_400.0


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Site, MailServer]]:
    """One site for all: what a test does to it is over when the test is."""
    with MailServer() as server, Sites() as sites:
        yield start(sites, server, MEMBERS, SMTP__CONNECTIONS="1"), server


@pytest.fixture
def site(running: tuple[Site, MailServer]) -> Site:
    """It knows nothing of what came back before."""
    with running[0].store.begin() as connection:
        connection.execute(delete(schema.bounce))
    return running[0]


@pytest.fixture
def server(running: tuple[Site, MailServer]) -> MailServer:
    """It knows nothing of the test before, and has no connection."""
    running[1].stop()
    running[1].hooks.clear()
    running[1].start()
    return running[1]


@pytest.fixture
def log(site: Site) -> Iterator[Follower]:
    """What is logged from now on."""
    with Follower(site.log) as follower:
        yield follower


def reasons(site: Site) -> dict[str, tuple[float, str]]:
    """Whose mail came back, what that counts, and why."""
    return {email: (known.score, known.reason) for email, known in bounced(site).items()}


# A mail server that is in trouble


@pytest.mark.parametrize(
    "fault",
    [
        at("CONNECT", "421 4.3.2 Too busy"),
        at_recipient(5, "421 4.3.2 Bye"),
        at_recipient(10, DROP),
        at("END", "421 4.3.2 Bye"),
    ],
    ids=["greeting", "recipient 5", "lost at recipient 10", "dot"],
)
def test_d2_after_a_421_nobody_is_missing_and_nobody_doubled(
    site: Site, server: MailServer, fault: Hook
) -> None:
    server.hooks.append(times(1, fault))
    this = post(site)
    settle(site)
    assert copies(server, this) == once(*MEMBERS)
    assert in_state(site, this, "sent") == MEMBERS
    assert {each.attempts for each in ledger(site, this).values()} == {1}


def test_while_the_mail_server_is_down_the_door_takes_posts_and_all_go_out_later(
    site: Site, server: MailServer, log: Follower
) -> None:
    server.stop()
    posts = [post(site) for _ in range(3)]
    log.wait_for('"event":"mail server"', "Connection refused")
    server.start()
    log.wait_for('"event":"mail server"', "works again")
    settle(site)
    for this in posts:
        assert copies(server, this) == once(*MEMBERS)


def test_who_leaves_while_the_mail_server_is_away_does_not_get_the_post(
    sites: Sites, tmp_path: Path
) -> None:
    clock = Clock(tmp_path / "clock")
    with MailServer() as server:
        site = make(sites, server)
        prepare(site, *MEMBERS)
        library = build("shift_clock", tmp_path)
        with environment({"LD_PRELOAD": str(library), "SHIFT_BY": str(tmp_path / "clock")}):
            site.start(roles=BOTH)
        server.stop()
        with Follower(site.log) as log:
            this = post(site)
            log.wait_for('"event":"mail server"', "Connection refused")
        leave(site, MEMBERS[3])
        clock.set(30)  # so long it is away
        server.start()
        settle(site)
        assert copies(server, this) == once(*MEMBERS) - once(MEMBERS[3])
        assert in_state(site, this, "gone") == [MEMBERS[3]]


def test_what_the_server_took_without_a_word_is_sent_again_later_and_nothing_else(
    site: Site, server: MailServer
) -> None:
    server.hooks.append(times(1, at("END", TAKE_AND_DROP)))
    this = post(site)
    wait_put_off(site, this)
    assert in_state(site, this, "pending") == FIRST
    assert copies(server, this) == once(*MEMBERS)
    make_due(site, this)
    settle(site)
    assert copies(server, this) == once(*MEMBERS, *FIRST)


def test_what_was_lost_after_the_dot_is_sent_again_later_and_nothing_else(
    site: Site, server: MailServer
) -> None:
    server.hooks.append(times(1, at("END", DROP)))
    this = post(site)
    wait_put_off(site, this)
    assert copies(server, this) == once(*MEMBERS[10:])
    make_due(site, this)
    settle(site)
    assert copies(server, this) == once(*MEMBERS)


# A mail server that says no


def test_d5_who_is_refused_for_good_is_in_bounces_with_the_reply(
    site: Site, server: MailServer
) -> None:
    gone, full = MEMBERS[2], MEMBERS[13]
    said = {gone: "550 5.1.1 No such user", full: "552 5.2.2 Full for years"}
    server.hooks.append(refusing(said))
    this = post(site)
    settle(site)
    assert copies(server, this) == once(*MEMBERS) - once(gone, full)
    assert reasons(site) == {gone: (1.0, said[gone]), full: (0.5, said[full])}
    assert in_state(site, this, "refused") == [gone, full]


def test_d5_who_is_told_to_wait_waits_alone_and_is_given_up_with_the_last_reply(
    site: Site, server: MailServer
) -> None:
    later, never = MEMBERS[2], MEMBERS[13]
    server.hooks.append(times(1, refusing({later: "450 4.2.0 Greylisted"})))
    server.hooks.append(refusing({never: "452 4.2.2 Full"}))
    this = post(site)
    wait_put_off(site, this)
    assert copies(server, this) == once(*MEMBERS) - once(later, never)
    waiting = [each for each in ledger(site, this).values() if each.state == "pending"]
    assert [(each.email, each.attempts) for each in waiting] == [(later, 1), (never, 1)]
    for each in waiting:
        assert each.next_at is not None and time.time() < each.next_at < time.time() + 300
    make_due(site, this)
    eventually(lambda: in_state(site, this, "pending") == [never], "one of them got it")
    wait_put_off(site, this)
    assert reasons(site) == {}
    with site.store.begin() as connection:
        row = schema.post.c
        made = update(schema.post).where(row.message_id == this)
        connection.execute(made.values(created_at=row.created_at - 5 * DAY))
    make_due(site, this)
    settle(site)
    assert copies(server, this) == once(*MEMBERS) - once(never)
    assert reasons(site) == {never: (0.5, "Given up after 5.0 days: 452 4.2.2 Full")}


@pytest.mark.parametrize(
    "refusal",
    [at("RCPT", "554 5.7.1 Relay access denied"), at("MAIL", "530 5.7.0 Log in first")],
    ids=["relay", "login"],
)
def test_a_server_that_does_not_want_us_costs_no_member_anything_and_the_log_is_loud(
    site: Site, server: MailServer, log: Follower, refusal: Hook
) -> None:
    server.hooks.append(refusal)
    this = post(site)
    wait_put_off(site, this)
    log.wait_for('"level":"error","event":"mail server refuses us"')
    assert in_state(site, this, "pending") == MEMBERS
    server.hooks.clear()
    make_due(site, this)
    settle(site)
    assert copies(server, this) == once(*MEMBERS)
    assert reasons(site) == {}


# Storage


def test_fault_7_while_another_holds_the_lock_delivery_waits_and_nothing_is_doubled(
    site: Site, server: MailServer
) -> None:
    dot = Hold("END")
    server.hooks.append(dot)
    this = post(site)
    dot.wait()
    with site.store.begin():
        taken = len(server.taken)
        server.release()
        server.wait_for(taken + 1)
        assert in_state(site, this, "sent") == []
    settle(site)
    assert copies(server, this) == once(*MEMBERS)


def test_fault_2_on_a_full_disk_what_was_reached_is_written_down_when_there_is_room(
    tmp_path: Path,
) -> None:
    dot = Hold("END")
    with (
        memory(tmp_path / "disk", f"size={24 * MIB}") as disk,
        MailServer(dot) as server,
        Sites() as sites,
    ):
        settings = {"url": f"sqlite:///{disk}/postroom.db", "STORE__MIN_FREE_SPACE": "0"}
        site = start(sites, server, MEMBERS, **settings, SMTP__CONNECTIONS="1")
        this = post(site)
        dot.wait()
        ballast = fill(disk, leave=0)
        with Follower(site.log) as log:
            server.release()
            log.wait_for('"event":"queue not served"', "SQLITE_FULL")
        assert in_state(site, this, "sent") == []
        ballast.unlink()
        settle(site)
        assert copies(server, this) == once(*MEMBERS)
        assert site.stop() == 0


def test_fault_4_after_a_flush_that_failed_no_more_than_that_transaction_is_doubled(
    sites: Sites, tmp_path: Path
) -> None:
    disk, dot = Disk(tmp_path / "how"), Hold("END")
    with MailServer(dot) as server:
        site = make(sites, server, SMTP__CONNECTIONS="1")
        prepare(site, *MEMBERS)
        site.store.close()
        settings = {
            "LD_PRELOAD": str(build("fail_writes", tmp_path)),
            "FAIL_DATABASE": site.url.removeprefix("sqlite:///"),
            "FAIL_HOW": str(tmp_path / "how"),
        }
        with environment(settings):
            site.start(roles=BOTH)
        this = post(site)
        dot.wait()
        with Follower(site.log) as log:
            disk.fail(FLUSH, times=1)
            server.release()
            log.wait_for('"event":"runners process ended"', '"status":1')
        assert disk.works
        settle(site)
        # It was written, if not for certain: who opens the log again may find it there.
        assert once(*MEMBERS) <= copies(server, this) <= once(*MEMBERS, *FIRST)
        assert in_state(site, this, "sent") == MEMBERS
