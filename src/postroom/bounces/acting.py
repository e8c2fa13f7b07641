"""Acting on what came back: counting, turning off, complaints.

For: the bounce runner, and upkeep. Works in the caller's transaction and gives back what is to be
handed on in it. Guarantees: `scoring` decides; the number of statements for a message does not
grow with the members that it names, but for a few where so many bounce in a day that it must be
about us: then no more are counted than there is room for. Fails with the database's errors.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from sqlalchemy import Connection

from postroom.bounces import scoring, standing
from postroom.bounces.scoring import DAY, Event, Standing
from postroom.bounces.standing import Known
from postroom.bounces.values import Failure, Proof
from postroom.lists import audit, pending
from postroom.lists.audit import Change
from postroom.lists.limits import Limit, take
from postroom.lists.pending import Request, Wanted
from postroom.lists.registry import MailingList
from postroom.lists.roster import Member, change_member, remove_members, same_address
from postroom.lists.settings import ListSettings
from postroom.lists.subscription import Action, Policy
from postroom.lists.subscription import State as Asked
from postroom.notices import requests
from postroom.notices.courtesy import OWNERS, TELL_MASS, US, told_since
from postroom.notices.sheet import House
from postroom.notices.telling import tell_mass
from postroom.spool.handing import Handed

ASKED, HOUR = 50, 3600.0  # so many are asked in an hour whether they want to leave
SPAM: Final = "a report of spam in your name"  # who asked, in a letter
# So many members may bounce in a day, whatever the size of the list; and this share of them.
MASS_LEAST, MASS_SHARE = 10, 0.2


class Case(NamedTuple):
    """One transaction on one list. `readers` tells how many members it has, roughly."""

    house: House
    connection: Connection
    of: MailingList
    settings: ListSettings
    readers: Callable[[], int]
    now: float

    def note(self, what: str, member: Member, reason: str) -> None:
        """Write it down for `postroom audit`, and for the owners' summary."""
        facts = {"how": "bounces"} | ({"reason": reason} if reason else {})
        change = Change(self.of.list_id, what, same_address(member.email), US, facts)
        audit.write(self.connection, self.house.new_id, [change], self.now)


class Counted(NamedTuple):
    """What came of some failures: how many members were counted, of how many addresses nobody
    knows anything, whether too many bounced at once, and what is to be handed on."""

    members: int
    unknown: int
    mass: bool = False
    handed: tuple[Handed, ...] = ()


def count(case: Case, failures: Sequence[tuple[Failure, Proof]]) -> Counted:
    """Count failures against the members that they are about, as far as that is proved."""
    named = {same_address(each.email): (each, proof) for each, proof in failures if each.email}
    found = standing.known(case.connection, case.of.key, named)
    after: dict[int, Standing] = {}
    fresh: list[int] = []
    for email, (failure, proof) in named.items():
        if (known := found.get(email)) is None or known.member.delivery == "admin":
            continue
        if not scoring.weight(case.settings.bounces, failure.final, proof != "none"):
            continue
        key, before = known.member.key, known.standing
        after[key] = _bounced(case, known, failure, proof)
        if before is None or after[key].counted_on != before.counted_on:
            fresh.append(key)
    proof = next((each for _, each in failures), "none")  # of one message all are alike
    room = _room(case, len(fresh), proof)
    told: list[Handed] = []
    for key in fresh[room:]:
        del after[key]
    if room < len(fresh) and proof != "none":
        told = _tell_mass(case)
    standing.save(case.connection, after)
    return Counted(len(after), len(named) - len(found), room < len(fresh), tuple(told))


def _bounced(case: Case, known: Known, failure: Failure, proof: Proof) -> Standing:
    ours = case.settings.bounces
    counts = scoring.weight(ours, failure.final, proof != "none")
    # The words are shown to those who run the list: strangers shall not put some there.
    reason = failure.reason if proof != "none" else ""
    reason = reason or (known.standing.reason if known.standing else "")
    return scoring.bounced(known.standing, ours, counts, failure.status, reason, case.now)


def _most(case: Case) -> int:
    """How many members may bounce in a day."""
    return max(MASS_LEAST, round(MASS_SHARE * case.readers()))


def _room(case: Case, number: int, proof: Proof) -> int:
    """Of how many it may still be counted today that mail came back. What is proved less uses up
    nothing of what is proved more."""
    limit = Limit(f"bounced {proof}", str(case.of.key), _most(case), DAY)
    while number and take(case.connection, [limit], case.now, number) is not None:
        number //= 2
    return number


def mass_lately(case: Case) -> bool:
    """Whether so many bounced within a day that what comes back now says nothing of anybody."""
    key, now = case.of.key, case.now
    return told_since(case.connection, key, TELL_MASS, OWNERS, now - DAY)


def _tell_mass(case: Case) -> list[Handed]:
    """To the owners: this is about us."""
    notices, share = case.settings.notices, round(100 * MASS_SHARE)
    return tell_mass(case.connection, case.house, case.of, notices, _most(case), share, case.now)


def probe_came_back(case: Case, token: str, failure: Failure) -> bool:
    """The address does not work: turn delivery off. False if there is no such probe."""
    found = standing.by_token(case.connection, case.of.key, token)
    if found is None:
        return False
    member, known = found
    if scoring.after(known.state, Event.PROBE_BOUNCED) is None:
        return False
    # They, or an owner, turned it off themselves meanwhile; or so many bounce that it is about us.
    if member.delivery != "on" or mass_lately(case):
        standing.forget(case.connection, [member.key])
        return True
    turn_off(case, member, known, failure)
    return True


def turn_off(case: Case, member: Member, known: Standing, failure: Failure) -> None:
    """No posts for this member, until they want them again; warnings begin at once."""
    change_member(case.connection, case.of.key, member.email, delivery="bounces")
    off = scoring.moved(known, Event.PROBE_BOUNCED, case.now, case.now)._replace(
        bounced_at=case.now,
        status=failure.status,
        reason=failure.reason,  # of the probe, and so nobody's invention
        warned=0,
    )
    standing.save(case.connection, {member.key: off})
    case.note("stopped", member, off.reason)


def complained(case: Case, email: str, proof: Proof) -> tuple[str, list[Handed]]:
    """A member told their provider that a post is spam; returns what came of it. Who may have
    been named by another is asked."""
    wish = case.settings.bounces.complaints
    found = standing.known(case.connection, case.of.key, [email]).get(same_address(email))
    if found is None:
        return "not a member", []
    if wish == "ignore":
        return "ignored, as the list wants it", []
    member = found.member
    if proof == "none":
        return "ignored: nothing shows that it is about this member", []
    if proof == "shared":
        limit = Limit("complaint", str(case.of.key), ASKED, HOUR)
        if take(case.connection, [limit], case.now) is not None:
            return "ignored: too many were asked within an hour", []
        return "the member was asked", _asked(case, member)
    if wish == "stop" and member.delivery != "on":
        return "they get no posts as it is", []
    case.note("complained", member, "")
    if wish == "leave":
        remove_members(case.connection, case.of.key, [member.email], "member")
        return "taken off the list", []
    change_member(case.connection, case.of.key, member.email, delivery="user")
    return "posts turned off", []


def _asked(case: Case, member: Member) -> list[Handed]:
    """Ask a member whether they want to leave."""
    days = case.settings.subscriptions.expire_after
    request, fresh = ask(case, member, "leave", {}, days, SPAM)
    if not fresh:
        return []
    language = case.settings.notices.language
    return [requests.confirm(case.house, case.of, request, language, case.now)]


def ask(
    case: Case,
    member: Member,
    action: Action,
    changes: Mapping[str, str],
    days: float,
    by: str = US,
) -> tuple[Request, bool]:
    """A request in a member's name, which they confirm by an answer."""
    wanted = Wanted(action, member.email, "", changes, Policy.CONFIRM, Asked.CONFIRM, by, "")
    new_id, key, waits = case.house.new_id, case.of.key, days * DAY
    request, fresh = pending.ask(case.connection, new_id, key, wanted, waits, case.now)
    if not fresh and dict(request.changes) != dict(changes):
        request = pending.renew(case.connection, request, wanted, waits, case.now)
    return request, fresh
