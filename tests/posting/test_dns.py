"""The policy of an author's domain, asked of a real name server on this machine."""

import socket
import threading
from collections import Counter
from collections.abc import Iterator

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.rrset
import pytest

from postroom.posting.dns import LONGEST, LONGEST_NO, SHORTEST, Record, Resolver, record_of
from postroom.posting.dns import strictest as strictest_of
from postroom.posting.munge import Policy

SOA = "ns.example. admin.example. 1 60 60 60 120"


class NameServer:
    """A name server over UDP. `texts` holds the TXT records of names (a tuple: the strings of
    one record); `failing` answers SERVFAIL, `silent` nothing, `garbage` octets, `cut` says that
    the answer is truncated, and it cannot be had over TCP."""

    def __init__(self) -> None:
        self.texts: dict[str, list[str | tuple[str, ...]]] = {}
        self.ttl = 300
        self.failing: set[str] = set()
        self.silent: set[str] = set()
        self.garbage: set[str] = set()
        self.cut: set[str] = set()
        self.asked: Counter[str] = Counter()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.place = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def publish(self, domain: str, *texts: str | tuple[str, ...]) -> None:
        self.texts[f"_dmarc.{domain}."] = list(texts)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            octets, client = self._socket.recvfrom(4096)
            if not octets:
                return
            query = dns.message.from_wire(octets)
            name = query.question[0].name.to_text().lower()
            self.asked[name] += 1
            if name in self.silent:
                continue
            answer = b"\xff" * 40 if name in self.garbage else self._answer(query, name)
            self._socket.sendto(answer, client)

    def _answer(self, query: dns.message.Message, name: str) -> bytes:
        response = dns.message.make_response(query)
        top = name.split(".")[-2] + "."
        zone = dns.rrset.from_text(top, self.ttl, "IN", "SOA", SOA)
        if name in self.failing:
            response.set_rcode(dns.rcode.SERVFAIL)
        elif name in self.cut:
            response.flags |= dns.flags.TC
        elif self.texts.get(name):
            spelled = [
                " ".join(f'"{part}"' for part in ((text,) if isinstance(text, str) else text))
                for text in self.texts[name]
            ]
            response.answer.append(dns.rrset.from_text(name, self.ttl, "IN", "TXT", *spelled))
        else:
            if name not in self.texts:
                response.set_rcode(dns.rcode.NXDOMAIN)
            response.authority.append(zone)
        return response.to_wire()


class Clock:
    """Time that a test moves on."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[NameServer]:
    server = NameServer()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolver(server: NameServer, clock: Clock) -> Resolver:
    return Resolver(nameservers=[server.place], clock=clock)


@pytest.mark.parametrize("policy", ["none", "quarantine", "reject"])
def test_the_policy_of_the_domain_itself_counts(
    server: NameServer, resolver: Resolver, policy: Policy
) -> None:
    server.publish("example.org", f"v=DMARC1; p={policy}; sp=none; rua=mailto:x@example.org")
    assert resolver.dmarc_policy("example.org") == policy


def test_a_domain_that_publishes_nothing_has_no_policy(
    server: NameServer, resolver: Resolver
) -> None:
    server.publish("empty.example")  # the name is there, without TXT
    assert resolver.dmarc_policy("empty.example") == "none"
    assert resolver.dmarc_policy("nowhere.example") == "none"


def test_the_strings_of_a_record_are_joined(server: NameServer, resolver: Resolver) -> None:
    server.publish("example.org", ("v=DMARC1; p=rej", "ect; pct=10"))
    assert resolver.dmarc_policy("example.org") == "reject"


def test_a_subdomain_has_the_policy_that_its_organisation_says_for_subdomains(
    server: NameServer, resolver: Resolver
) -> None:
    server.publish("example.org", "v=DMARC1; p=none; sp=reject")
    server.publish("example.net", "v=DMARC1; p=quarantine")
    assert resolver.dmarc_policy("a.b.example.org") == "reject"
    assert resolver.dmarc_policy("mail.example.net") == "quarantine"


def test_of_several_names_above_the_shortest_is_the_organisation(
    server: NameServer, resolver: Resolver
) -> None:
    server.publish("b.example.org", "v=DMARC1; p=none")
    server.publish("example.org", "v=DMARC1; p=reject")
    assert resolver.dmarc_policy("a.b.example.org") == "reject"


def test_a_name_that_says_it_is_no_public_suffix_is_the_organisation(
    server: NameServer, resolver: Resolver
) -> None:
    server.publish("b.example.org", "v=DMARC1; p=quarantine; psd=n")
    server.publish("example.org", "v=DMARC1; p=reject")
    assert resolver.dmarc_policy("a.b.example.org") == "quarantine"


def test_a_public_suffix_counts_only_where_the_organisation_says_nothing(
    server: NameServer, resolver: Resolver
) -> None:
    server.publish("bank", "v=DMARC1; p=reject; psd=y")
    server.publish("ours.bank", "v=DMARC1; p=none")
    assert resolver.dmarc_policy("a.ours.bank") == "none"
    assert resolver.dmarc_policy("theirs.bank") == "reject"


def test_a_long_name_takes_few_questions(server: NameServer, resolver: Resolver) -> None:
    server.publish("example.org", "v=DMARC1; p=reject")
    assert resolver.dmarc_policy("x." * 60 + "example.org") == "reject"
    assert server.asked.total() == 8


@pytest.mark.parametrize(
    "text",
    [
        "",
        "v=spf1 -all",
        "v=DMARC2; p=reject",
        "v=dmarc1; p=reject",
        "p=reject; v=DMARC1",
        "v=DMARC1",
        "v=DMARC1; p=",
        "v=DMARC1; p=refuse",
        "v=DMARC1; sp=reject",
        "V=DMARC1; p=reject",
    ],
)
def test_a_broken_record_counts_as_none(text: str) -> None:
    assert record_of(text) is None


def test_a_record_is_read_with_blanks_and_in_any_case() -> None:
    assert record_of("v = DMARC1 ;P= Reject;; sp=none ; psd=y; =x") == Record("reject", "none", "y")
    assert record_of("v=DMARC1;p=quarantine;sp=what") == Record("quarantine", "quarantine", "u")


def test_broken_records_beside_a_good_one_are_ignored_but_two_good_ones_are_none(
    server: NameServer, resolver: Resolver
) -> None:
    server.publish("one.example", "v=spf1 -all", "v=DMARC1; p=x", "v=DMARC1; p=reject")
    server.publish("two.example", "v=DMARC1; p=reject", "v=DMARC1; p=quarantine")
    assert resolver.dmarc_policy("one.example") == "reject"
    assert resolver.dmarc_policy("two.example") == "none"


def test_a_name_in_unicode_is_asked_for_in_a_labels(server: NameServer, resolver: Resolver) -> None:
    server.publish("xn--bcher-kva.example", "v=DMARC1; p=reject")
    assert resolver.dmarc_policy("bücher.example") == "reject"


@pytest.mark.parametrize(
    "domain", ["", ".", "a..b", "x" * 64 + ".example", "x." * 130, "[192.0.2.1]", "\ud800.example"]
)
def test_what_is_no_name_of_dns_publishes_nothing_and_is_not_asked_for(
    server: NameServer, resolver: Resolver, domain: str
) -> None:
    assert resolver.dmarc_policy(domain) == "none"
    assert not server.asked


def test_hostile_names_ask_only_what_they_say(server: NameServer, resolver: Resolver) -> None:
    assert resolver.dmarc_policy("a b\n;\0.example") == "none"
    assert all(name.startswith("_dmarc.") for name in server.asked)


@pytest.mark.parametrize("trouble", ["failing", "garbage", "cut"])
def test_a_failure_is_not_known_and_asked_again_later(
    server: NameServer, clock: Clock, trouble: str
) -> None:
    resolver = Resolver(timeout=0.5, nameservers=[server.place], clock=clock)
    server.publish("example.org", "v=DMARC1; p=reject")
    getattr(server, trouble).add("_dmarc.example.org.")
    assert resolver.dmarc_policy("example.org") is None
    asked = server.asked.total()
    assert resolver.dmarc_policy("example.org") is None
    assert server.asked.total() == asked
    getattr(server, trouble).clear()
    clock.now += 31
    assert resolver.dmarc_policy("example.org") == "reject"


def test_a_failure_on_the_way_up_is_not_known_either(
    server: NameServer, resolver: Resolver
) -> None:
    server.failing.add("_dmarc.example.org.")
    assert resolver.dmarc_policy("mail.example.org") is None


def test_a_server_that_never_answers_ends_with_the_timeout(
    server: NameServer, clock: Clock
) -> None:
    server.silent.add("_dmarc.example.org.")
    resolver = Resolver(timeout=0.2, nameservers=[server.place], clock=clock)
    assert resolver.dmarc_policy("example.org") is None
    assert resolver.dmarc_policy("other.example") == "none"


def test_the_timeout_is_for_the_whole_walk(server: NameServer, clock: Clock) -> None:
    """When it has run out below, nothing is asked above."""
    server.silent.add("_dmarc.mail.example.org.")
    resolver = Resolver(timeout=0.2, nameservers=[server.place], clock=clock)
    assert resolver.dmarc_policy("mail.example.org") is None
    assert set(server.asked) == {"_dmarc.mail.example.org."}


def test_no_server_at_all_is_not_known(server: NameServer) -> None:
    place = server.place
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    assert Resolver(timeout=0.3, nameservers=[place]).dmarc_policy("example.org") is None


def test_offline_asks_nothing(server: NameServer) -> None:
    server.publish("example.org", "v=DMARC1; p=reject")
    resolver = Resolver(offline=True, nameservers=[server.place])
    assert resolver.dmarc_policy("example.org") == "none"
    assert not server.asked


@pytest.mark.parametrize(
    ("ttl", "published", "kept"),
    [
        (300, True, 300.0),
        (1, True, SHORTEST),
        (10_000_000, True, LONGEST),
        (300, False, 120.0),  # as the zone says
        (1, False, SHORTEST),
    ],
)
def test_an_answer_is_remembered_as_long_as_it_says_within_bounds(
    server: NameServer,
    resolver: Resolver,
    clock: Clock,
    ttl: int,
    published: bool,
    kept: float,
) -> None:
    server.ttl = ttl
    if published:
        server.publish("example.org", "v=DMARC1; p=reject")
    expected = "reject" if published else "none"
    assert kept <= (LONGEST if published else LONGEST_NO)
    for moved, times in [(0.0, 1), (kept - 1, 1), (2.0, 2)]:
        clock.now += moved
        assert resolver.dmarc_policy("EXAMPLE.org") == expected
        assert server.asked["_dmarc.example.org."] == times


def test_the_memory_is_bounded_and_what_was_learnt_first_is_forgotten(
    server: NameServer, clock: Clock
) -> None:
    for name in "abc":
        server.publish(f"{name}.example", "v=DMARC1; p=reject")
    resolver = Resolver(nameservers=[server.place], cache=2, clock=clock)
    for name in "abca":
        assert resolver.dmarc_policy(f"{name}.example") == "reject"
    assert server.asked["_dmarc.a.example."] == 2
    assert resolver.dmarc_policy("c.example") == "reject"
    assert server.asked["_dmarc.c.example."] == 1


def test_threads_may_share_a_resolver(server: NameServer, resolver: Resolver) -> None:
    server.publish("example.org", "v=DMARC1; p=reject")
    found: list[Policy | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(resolver.dmarc_policy("example.org")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["reject"] * 8


@pytest.mark.parametrize(
    ("policies", "worst"),
    [
        ([], "none"),
        (["none", "quarantine"], "quarantine"),
        (["reject", "quarantine", None], "reject"),
        (["none", None], None),
        ([None], None),
    ],
)
def test_of_several_authors_the_strictest_policy_counts(
    policies: list[Policy | None], worst: Policy | None
) -> None:
    assert strictest_of(policies) == worst


def test_all_authors_of_a_post_share_one_timeout(server: NameServer) -> None:
    names = [f"{letter}.example" for letter in "abcd"]
    server.silent = {f"_dmarc.{name}." for name in names}
    resolver = Resolver(timeout=0.3, nameservers=[server.place])
    assert resolver.strictest_policy(names) is None
    assert set(server.asked) == {"_dmarc.a.example."}  # then there was no time left


def test_what_was_not_asked_for_want_of_time_is_asked_the_next_time(server: NameServer) -> None:
    server.silent = {"_dmarc.a.example."}
    server.publish("b.example", "v=DMARC1; p=reject")
    resolver = Resolver(timeout=0.3, nameservers=[server.place])
    assert resolver.strictest_policy(["a.example", "b.example"]) is None
    assert resolver.strictest_policy(["a.example", "b.example"]) == "reject"
