"""What every mail server does with our mail: delivers, bounces and tries again."""

import contextlib
import functools
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import NamedTuple

import pytest

from postroom.base.places import Tcp, Unix
from postroom.testing.site import Site
from tests.integration.mail import depth, new_message
from tests.integration.sites import Sites
from tests.interop.exim import Exim
from tests.interop.mail import (
    ANNE,
    HUGE,
    NO_MAILBOX,
    MailServer,
    Routes,
    Since,
    arrived,
    hand_in,
    kill_and_restart,
    ledger,
    listening_at,
    message_id,
    unix_socket,
    until,
    wait_for_depth,
)
from tests.interop.opensmtpd import OpenSMTPD
from tests.interop.postfix import Postfix
from tests.interop.sendmail import Sendmail

PROGRAMS: dict[str, Callable[[Routes], AbstractContextManager[MailServer]]] = {
    "postfix": Postfix,
    "exim": Exim,
    "opensmtpd": OpenSMTPD,
    "sendmail": Sendmail,
}
# By domain: over TCP, over a unix socket, over TCP to a server that refuses at RCPT.
TCP, UNIX, STRICT = "tcp.example.com", "unix.example.com", "strict.example.com"
# OpenSMTPD does not read a reply for each recipient, and its mail.lmtp takes every refusal for
# a temporary one: see test_opensmtpd.py.
ONE_REPLY = {("opensmtpd", TCP), ("opensmtpd", UNIX), ("opensmtpd", STRICT)}
NEVER_BOUNCES = {("opensmtpd", UNIX)}
# They do not offer SMTPUTF8; Exim's lmtp transport does not ask for it.
ONLY_ASCII = {
    ("exim", UNIX),
    *((each, where) for each in ("opensmtpd", "sendmail") for where in (TCP, UNIX)),
}


class Door(NamedTuple):
    """A server that has the list of a domain, and where it listens for mail to it."""

    site: Site
    place: Tcp | Unix


class Route(NamedTuple):
    """A program that delivers mail to a server with the list of a domain."""

    program: str
    server: MailServer
    site: Site
    domain: str

    @property
    def list(self) -> str:
        return f"mylist@{self.domain}"


@pytest.fixture(scope="module")
def doors() -> Iterator[dict[str, Door]]:
    """Two servers."""
    with unix_socket() as unix, Sites() as made:
        lax = listening_at(made, unix, f"mylist@{TCP}", f"mylist@{UNIX}")
        strict = made.start(f"mylist@{STRICT}", LMTP__REFUSE_UNKNOWN="at-rcpt")
        yield {
            TCP: Door(lax, Tcp("127.0.0.1", lax.port)),
            UNIX: Door(lax, unix),
            STRICT: Door(strict, Tcp("127.0.0.1", strict.port)),
        }


@pytest.fixture(scope="module")
def running(doors: dict[str, Door]) -> Iterator[Callable[[str], MailServer]]:
    """Starts programs when they are first asked for."""
    routes = {domain: door.place for domain, door in doors.items()}
    with contextlib.ExitStack() as stack:

        @functools.cache
        def start(program: str) -> MailServer:
            return stack.enter_context(PROGRAMS[program](routes))

        yield start


@pytest.fixture
def route(
    request: pytest.FixtureRequest,
    running: Callable[[str], MailServer],
    doors: dict[str, Door],
) -> Route:
    """What `every` says."""
    program, domain = request.param
    return Route(program, running(program), doors[domain].site, domain)


def every(*domains: str, without: Collection[tuple[str, str]] = ()) -> pytest.MarkDecorator:
    """Run a scenario with every program and these domains."""
    pairs = [(program, domain) for program in PROGRAMS for domain in domains]
    kept = [pair for pair in pairs if pair not in without]
    return pytest.mark.parametrize("route", kept, indirect=True, ids="-".join)


@every(TCP, UNIX, STRICT)
def test_a_post_arrives_with_its_envelope_sender(route: Route) -> None:
    raw = new_message("Good morning.")
    log = Since(route.server)
    hand_in(route.server, [route.list], raw)
    log.line(route.server.says_sent(route.list))
    [entry] = arrived(route.site, route.server, message_id(raw))
    assert (entry.queue, entry.sender) == ("in", ANNE)
    assert entry.where == (route.list, "", "")
    assert entry.raw.endswith(b"\r\n\r\nGood morning.\r\n")


@every(TCP, UNIX, STRICT, without=ONE_REPLY)
def test_of_a_mixed_set_the_valid_are_sent_and_the_unknown_bounced(route: Route) -> None:
    raw = new_message()
    valid = [route.list, f"mylist-leave@{route.domain}"]
    unknown = [f"nobody@{route.domain}", f"mylist-bogus@{route.domain}"]
    log = Since(route.server)
    hand_in(route.server, [unknown[0], valid[0], unknown[1], valid[1]], raw)
    for recipient in valid:
        log.line(route.server.says_sent(recipient))
    for recipient in unknown:
        log.line(route.server.says_bounced(recipient))
    found = arrived(route.site, route.server, message_id(raw), 2)
    assert sorted(each.where[1] for each in found) == ["", "leave"]


@every(TCP, UNIX, without=NEVER_BOUNCES)
def test_a_bounce_with_the_null_sender_reaches_the_bounces_endpoint(route: Route) -> None:
    # What a list sends to a member who is gone: the program itself then writes the bounce.
    detail = f"ab23cd45+{route.program}=example.com"
    verp = f"mylist-bounces+{detail}@{route.domain}"
    hand_in(route.server, [f"gone@{route.domain}"], new_message(), sender=verp)
    [entry] = arrived(route.site, route.server, verp.encode())
    assert (entry.queue, entry.sender) == ("bounces", "")
    assert entry.where == (route.list, "bounces", detail)
    assert NO_MAILBOX.encode() in b" ".join(entry.raw.split())


@every(TCP, UNIX, without=ONLY_ASCII)
def test_addresses_beyond_ascii_arrive(route: Route) -> None:
    raw = new_message()
    recipient, sender = f"mylist-confirm+grüße@{route.domain}", "änne@example.org"
    hand_in(route.server, [recipient], raw, sender, ["SMTPUTF8", "BODY=8BITMIME"])
    [entry] = arrived(route.site, route.server, message_id(raw))
    assert (entry.where, entry.sender) == ((route.list, "confirm", "grüße"), sender)


@every(TCP)
def test_a_message_of_almost_the_largest_size_arrives_whole(route: Route) -> None:
    raw = new_message(size=HUGE)
    hand_in(route.server, [route.list], raw)
    [entry] = arrived(route.site, route.server, message_id(raw))
    assert entry.raw.endswith(raw.partition(b"\r\n\r\n")[2])


@every(TCP)
def test_a_server_that_ends_in_mid_stream_gets_every_message_once(route: Route) -> None:
    site, server = route.site, route.server
    messages = [new_message(size=random.randint(200, 40_000)) for _ in range(60)]
    before = depth(site.store)
    with ThreadPoolExecutor(4) as threads:
        handed_in = [threads.submit(hand_in, server, [route.list], raw) for raw in messages]
        wait_for_depth(site, server, before + 10)
        kill_and_restart(site, "door")
        wait_for_depth(site, server, before + 20)
        site.stop()
        site.start()
        for each in handed_in:
            each.result()
    wait_for_depth(site, server, before + len(messages))
    until(server, lambda: not server.waiting(), "nothing left to deliver")
    ids = Counter(map(message_id, messages))
    assert ledger(site, ids) == ids
