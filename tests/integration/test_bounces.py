"""Mail that comes back, through real processes: what is known of members afterwards."""

import json
from collections.abc import Iterator

import pytest

from postroom.testing.site import Site
from tests.delivery.servers import MailServer, refusing
from tests.integration.deliveries import copies, once, people, post, settle, start
from tests.integration.mail import LIST, postroom
from tests.integration.returning import NO_USER, Back, come_back
from tests.integration.sites import Sites

MEMBERS = people(3)
GONE = MEMBERS[1]


@pytest.fixture
def server() -> Iterator[MailServer]:
    """A mail server that takes everything."""
    with MailServer() as running:
        yield running


def listed(site: Site) -> list[tuple[str, str, float, str]]:
    """What `postroom bounce ls` says: who, how it is with them, and why."""
    found = json.loads(postroom(site, "bounce", "ls", LIST, "--json").stdout)
    return [(each["address"], each["state"], each["score"], each["reason"]) for each in found]


def test_whom_the_mail_server_refuses_for_good_is_listed_with_its_words(
    sites: Sites, server: MailServer
) -> None:
    server.hooks.append(refusing({GONE: NO_USER}))
    site = start(sites, server, MEMBERS)
    this = post(site)
    settle(site)
    assert copies(server, this) == once(*MEMBERS) - once(GONE)
    assert listed(site) == [(GONE, "counting", 1.0, NO_USER)]


def test_what_comes_back_to_the_sender_of_a_copy_is_counted_against_its_reader(
    sites: Sites, server: MailServer
) -> None:
    site = start(sites, server, MEMBERS, DELIVERY__VERP_SHARE="1")
    post(site)
    settle(site)
    assert listed(site) == []
    senders = {taken.recipients: taken.sender for taken in server.taken}
    assert len(set(senders.values())) == len(MEMBERS)
    # Whoever forwards it calls the address something else.
    come_back(site, [Back(senders[GONE,], "elsewhere@example.com")])
    settle(site)
    assert listed(site) == [(GONE, "counting", 1.0, NO_USER)]
