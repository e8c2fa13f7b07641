"""DNS: what policy an author's domain publishes for DMARC.

For: runners, before a post is cooked. This is the only place that asks DNS. Guarantees: all
look-ups for one post end within one timeout, whatever servers do; what was learnt is
remembered for as long as its TTL says, within bounds, in bounded memory; threads may share a
resolver. Never raises: what cannot be found out is None, and is asked again half a minute later.
Offline nothing is asked, and every domain is taken to publish nothing.

The policy is that of the domain itself, else that of its organisation, which is found by
walking up the tree as in DMARCbis, so no list of public suffixes is needed (RFC 7489 has one).
Records that are broken, or of which there are several, count as none; `pct` and `t` are not
looked at: to munge a post needlessly does no harm.
"""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

import dns.exception
import dns.message
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver
from dns.rdtypes.txtbase import TXTBase

from postroom.base.places import parse_server
from postroom.posting.munge import Policy

SHORTEST, LONGEST, LONGEST_NO, AGAIN = 60.0, 86_400.0, 3600.0, 30.0  # seconds
MOST_LABELS: Final = 7  # of a name above the author's domain that are asked about
ATTEMPT: Final = 2.0  # seconds that one server is given
_STRICTNESS: Final[tuple[Policy, ...]] = ("none", "quarantine", "reject")


class Record(NamedTuple):
    """A DMARC record: `p`, `sp` (as `p` if it is not said), and whether it is that of a public
    suffix ("y"), surely not ("n"), or not said ("u")."""

    p: Policy
    sp: Policy
    psd: str


class _Known(NamedTuple):
    record: Record | None
    until: float
    failed: bool = False


def strictest(policies: Iterable[Policy | None]) -> Policy | None:
    """The policy that counts for a post with several authors; none if there are no authors."""
    found = list(policies)
    known = [each for each in found if each is not None]
    worst: Policy = max(known, key=_STRICTNESS.index, default="none")
    return None if None in found and worst == "none" else worst


def record_of(text: str) -> Record | None:
    """Read a DMARC record (RFC 7489 6.3); None if it is none, or broken."""
    tags: dict[str, str] = {}
    for number, part in enumerate(text.split(";")):
        name, mark, value = part.partition("=")
        name = name.strip()
        if number == 0 and (name != "v" or value.strip() != "DMARC1"):
            return None
        if mark:
            tags.setdefault(name.lower(), value.strip().lower())
    p = _policy(tags.get("p", ""))
    if p is None:
        return None
    return Record(p, _policy(tags.get("sp", "")) or p, tags.get("psd", "u"))


def _policy(text: str) -> Policy | None:
    return next((each for each in _STRICTNESS if each == text), None)


class Resolver:
    """Asks, and remembers. `timeout` is in seconds for one post, `cache` how many names are
    remembered; `nameservers` are "ADDRESS" or "ADDRESS:PORT", none: those of the system."""

    def __init__(
        self,
        timeout: float = 5.0,
        cache: int = 10_000,
        offline: bool = False,
        nameservers: Sequence[str] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout, self._most, self._offline, self._clock = timeout, cache, offline, clock
        self._known: dict[dns.name.Name, _Known] = {}
        self._lock = threading.Lock()
        self._dns = None if offline else _dns(nameservers)

    def strictest_policy(self, domains: Iterable[str]) -> Policy | None:
        """The policy that counts for a post whose authors are of these domains; None if it
        cannot be found out now. One timeout is for all of them."""
        deadline = time.monotonic() + self._timeout
        return strictest(self.dmarc_policy(each, deadline) for each in domains)

    def dmarc_policy(self, domain: str, deadline: float | None = None) -> Policy | None:
        """The policy for mail from this domain; None if it cannot be found out now. `deadline`
        is as of time.monotonic()."""
        if self._offline:
            return "none"
        try:
            name = dns.name.from_text(domain, idna_codec=dns.name.IDNA_2003_Practical)
            _at(name)
        except (dns.exception.DNSException, UnicodeError):
            return "none"  # no name of DNS, so it publishes nothing
        if len(name) < 2 or domain.startswith("["):
            return "none"
        deadline = time.monotonic() + self._timeout if deadline is None else deadline
        own = self._look(name, deadline)
        if own.record or own.failed:
            return own.record.p if own.record else None
        return self._of_organisation(name, deadline)

    def _of_organisation(self, name: dns.name.Name, deadline: float) -> Policy | None:
        """The policy for subdomains of the organisation's domain: of the names above that have
        a record, the one that says so, else the shortest."""
        found: Record | None = None
        above = name.parent()
        if len(above) - 1 > MOST_LABELS:
            above = dns.name.Name(above.labels[-1 - MOST_LABELS :])
        while len(above) > 1:
            known = self._look(above, deadline)
            if known.failed:
                return None
            if known.record and known.record.psd == "n":
                return known.record.sp
            if known.record and not (known.record.psd == "y" and found):
                found = known.record
            above = above.parent()
        return found.sp if found else "none"

    def _look(self, name: dns.name.Name, deadline: float) -> _Known:
        now = self._clock()
        with self._lock:
            known = self._known.get(name)
        if known is None or known.until <= now:
            left = deadline - time.monotonic()
            if left <= 0:
                return _Known(None, now, failed=True)  # not asked: nothing to remember
            known = self._ask(name, left)
            with self._lock:
                self._known.pop(name, None)
                while len(self._known) >= self._most:
                    del self._known[next(iter(self._known))]  # what was learnt first
                self._known[name] = known
        return known

    def _ask(self, name: dns.name.Name, left: float) -> _Known:
        if self._dns is None:
            return _Known(None, self._clock() + AGAIN, failed=True)
        try:
            answer = self._dns.resolve(
                _at(name), "TXT", raise_on_no_answer=False, lifetime=left, search=False
            )
        except dns.resolver.NXDOMAIN as error:
            ttl = min(map(_ttl, error.kwargs.get("responses", {}).values()), default=SHORTEST)
            return _Known(None, self._clock() + _within(ttl, LONGEST_NO))
        except (dns.exception.DNSException, OSError, ValueError):
            return _Known(None, self._clock() + AGAIN, failed=True)
        texts = [
            b"".join(each.strings).decode("utf-8", "replace")
            for each in answer.rrset or ()
            if isinstance(each, TXTBase)
        ]
        found = [record for text in texts if (record := record_of(text)) is not None]
        record = found[0] if len(found) == 1 else None
        longest = LONGEST if record else LONGEST_NO
        return _Known(record, self._clock() + _within(_ttl(answer.response), longest))


def _at(name: dns.name.Name) -> dns.name.Name:
    return dns.name.Name((b"_dmarc", *name.labels))


def _ttl(response: dns.message.Message) -> float:
    """For how long the answer, or that there is none (RFC 2308), may be remembered."""
    try:
        assert isinstance(response, dns.message.QueryMessage)
        return response.resolve_chaining().minimum_ttl
    except (dns.exception.DNSException, AssertionError):
        return SHORTEST


def _within(ttl: float, longest: float) -> float:
    return min(max(ttl, SHORTEST), longest)


def _dns(nameservers: Sequence[str]) -> dns.resolver.Resolver | None:
    """The system's resolver, or one that asks these servers; None if there are no servers."""
    try:
        resolver = dns.resolver.Resolver(configure=not nameservers)
    except dns.resolver.NoResolverConfiguration:
        return None
    if nameservers:
        resolver.nameservers = [
            dns.nameserver.Do53Nameserver(*parse_server(each, 53)) for each in nameservers
        ]
    resolver.timeout = ATTEMPT
    return resolver
