"""Posts on their way from the door to every member, through real processes."""

import os
import re
import signal
from collections.abc import Iterator

import pytest

from postroom.delivery.active import WINDOW
from postroom.lists.registry import find_list
from postroom.lists.roster import change_member
from postroom.mail.message import message_id
from postroom.testing.site import Site
from tests.delivery.servers import MailServer, refusing
from tests.integration.deliveries import (
    BOTH,
    Hold,
    busy,
    copies,
    entries,
    in_state,
    join,
    kill_runners,
    leave,
    make,
    make_due,
    new_post,
    once,
    people,
    post,
    prepare,
    settle,
    start,
    wait_put_off,
)
from tests.integration.mail import LIST
from tests.integration.processes import Follower, eventually, wait_ended
from tests.integration.sites import Sites

MEMBERS = people(25)
FIRST = MEMBERS[:10]  # of three transactions
SMALL = "small@example.com"
ONE = {"SMTP__CONNECTIONS": "1"}


@pytest.fixture
def server() -> Iterator[MailServer]:
    """A mail server that takes everything."""
    with MailServer() as running:
        yield running


def stop_with(site: Site, number: int = signal.SIGTERM) -> int:
    """One signal; returns the exit status."""
    os.kill(site.supervisor, number)
    wait_ended(site.supervisor)
    return site.stop()


def test_everybody_who_wants_a_post_gets_it_once_with_the_headers_of_a_list(
    sites: Sites, server: MailServer
) -> None:
    site = start(sites, server, MEMBERS)
    with site.store.begin() as connection:
        key = find_list(connection, LIST).key
        change_member(connection, key, MEMBERS[0], delivery="user")
    join(site, "moderator@example.net", role="moderator")
    this = post(site, new_post(head="Urgent: yes\r\nX-Odd: \xfe\r\n"))
    settle(site)
    assert copies(server, this) == once(*MEMBERS[1:])
    for taken in server.taken:
        assert re.fullmatch(r"mylist-bounces\+[a-z2-7]{8}@example\.com", taken.sender)
        assert b"\r\nList-Id: mylist <mylist.example.com>\r\n" in taken.content
        assert b"\r\nUrgent: yes\r\n" in taken.content
    assert site.stop() == 0


# Stopping


def test_d3_a_stop_finishes_the_transaction_in_hand_and_the_next_start_does_the_rest(
    sites: Sites, server: MailServer
) -> None:
    dot = Hold("END")
    server.hooks.append(dot)
    site = start(sites, server, MEMBERS, **ONE)
    this = post(site)
    dot.wait()
    with Follower(site.log) as log:
        os.kill(site.supervisor, signal.SIGTERM)
        log.wait_for("stopping runners")
        server.release()
    wait_ended(site.supervisor)
    assert site.stop() == 0
    assert in_state(site, this, "sent") == FIRST
    assert copies(server, this) == once(*FIRST)
    assert entries(site, "shunt") == []
    site.start(roles=BOTH)
    settle(site)
    assert copies(server, this) == once(*MEMBERS)


def test_d3_a_stop_does_not_wait_for_a_mail_server_that_does_not_answer(
    sites: Sites, server: MailServer
) -> None:
    mail = Hold("MAIL", 2)
    server.hooks.append(mail)
    site = start(sites, server, MEMBERS, **ONE, SERVICE__DRAIN="0.2")
    this = post(site)
    mail.wait()
    assert stop_with(site) == 0
    assert "work in hand was cut off" in site.log.read_text()
    assert in_state(site, this, "sent") == FIRST
    assert entries(site, "shunt") == []
    server.release()
    site.start(roles=BOTH)
    settle(site)
    assert copies(server, this) == once(*MEMBERS)


def test_new_settings_in_the_middle_of_a_post_cost_nobody_anything(
    sites: Sites, server: MailServer
) -> None:
    dot = Hold("END")
    server.hooks.append(dot)
    site = start(sites, server, MEMBERS, **ONE)
    this = post(site)
    dot.wait()
    with Follower(site.log) as log:
        os.kill(site.supervisor, signal.SIGHUP)
        log.wait_for("settings reloaded")
        log.wait_for("settings reloaded")
        server.release()
    settle(site)
    assert copies(server, this) == once(*MEMBERS)


# Members come and go


def test_who_leaves_while_a_large_post_goes_out_does_not_get_it(
    sites: Sites, server: MailServer
) -> None:
    members = people(2 * WINDOW)
    mail = Hold("MAIL", 2)
    server.hooks.append(mail)
    site = start(sites, server, members, **ONE, SMTP__RECIPIENTS="500")
    this = post(site)
    mail.wait()
    leave(site, members[-1])
    join(site, "late@example.net")
    server.release()
    settle(site)
    assert copies(server, this) == once(*members[:-1])
    assert in_state(site, this, "gone") == [members[-1]]
    after = post(site)
    settle(site)
    assert copies(server, after) == once(*members[:-1], "late@example.net")


def test_who_leaves_before_the_next_attempt_is_not_sent_to(
    sites: Sites, server: MailServer
) -> None:
    gone, there = MEMBERS[2], MEMBERS[13]
    later = "450 4.2.0 Greylisted"
    server.hooks.append(refusing({gone: later, there: later}))
    site = start(sites, server, MEMBERS)
    this = post(site)
    wait_put_off(site, this)
    leave(site, gone)
    server.hooks.clear()
    make_due(site, this)
    settle(site)
    assert copies(server, this) == once(*MEMBERS) - once(gone)
    assert in_state(site, this, "gone") == [gone]


# Nobody waits for another


def test_while_a_large_post_goes_out_others_are_taken_and_a_small_one_is_delivered(
    sites: Sites, server: MailServer
) -> None:
    members = people(300)
    mail = Hold("MAIL", 3, times=2)
    server.hooks.append(mail)
    site = make(sites, server, SMTP__CONNECTIONS="2")
    prepare(site, *members)
    prepare(site, *people(2), to=SMALL)
    site.start(roles=BOTH)
    large = post(site)
    mail.wait()
    with Follower(site.log) as log:
        small = [post(site, to=SMALL) for _ in range(3)]
        for _ in small:
            log.wait_for('"event":"post accepted"', SMALL)
    eventually(lambda: all(in_state(site, each, "pending") for each in small), "they are taken up")
    server.release()
    settle(site)
    for each in small:
        assert copies(server, each) == once(*people(2))
    assert copies(server, large) == once(*members)
    order = [message_id(taken.content) for taken in server.taken]
    last = max(order.index(each) for each in small)
    assert order[last:].count(large) > 15  # of 30: there was much to do still


def test_a_slow_transaction_holds_up_no_other(sites: Sites, server: MailServer) -> None:
    data = Hold("DATA")
    server.hooks.append(data)
    site = start(sites, server, MEMBERS, SMTP__CONNECTIONS="2")
    posts = [post(site) for _ in range(3)]
    data.wait()
    everybody = len(posts) * len(MEMBERS)
    server.wait_until(
        lambda: sum(len(taken.recipients) for taken in server.taken) >= everybody - 10
    )
    server.release()
    settle(site)
    for each in posts:
        assert copies(server, each) == once(*MEMBERS)


def test_while_there_are_no_runners_the_door_takes_posts_and_they_go_out_later(
    sites: Sites, server: MailServer
) -> None:
    site = start(sites, server, MEMBERS)
    with Follower(site.log) as log:
        site.config.write_text("[nonsense]\n")
        kill_runners(site)
        log.wait_for('"event":"runners process ended"', '"status":78')
        posts = [post(site) for _ in range(20)]
        assert busy(site) == len(posts)
        assert server.taken == []
        site.config.write_text("")
    settle(site)
    for each in posts:
        assert copies(server, each) == once(*MEMBERS)
