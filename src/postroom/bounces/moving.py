"""Moving on: what time does to members whose mail came back.

For: upkeep. Works in the caller's transaction, on a bounded number of members; gives back what is
to be handed on. Guarantees: `scoring` decides; a probe has a token of its own; no more probes an
hour than `PROBES` for a list, however many are due: the others wait. Fails with the database's
errors; a list whose settings cannot be read is left for later.
"""

from collections.abc import Callable
from typing import Final, NamedTuple

from sqlalchemy import Connection

from postroom.bounces import acting, scoring, standing
from postroom.bounces.acting import Case, ask
from postroom.bounces.reasons import in_words
from postroom.bounces.scoring import DAY, Event, Standing, State
from postroom.bounces.standing import Due
from postroom.lists.limits import Limit, take
from postroom.lists.pending import new_token
from postroom.lists.preferences import preferences
from postroom.lists.registry import ListError, list_of_key
from postroom.lists.roster import Member, remove_members
from postroom.notices import bounces as letters
from postroom.notices.language import say
from postroom.notices.sheet import House
from postroom.spool.handing import Handed

PROBES, HOUR = 200, 3600.0
LATER: Final = 600.0  # seconds until what cannot be done now is looked at again


class Moved(NamedTuple):
    """How many members were moved on, and the letters about it."""

    members: int
    handed: list[Handed]


def move_on(connection: Connection, house: House, now: float, most: int) -> Moved:
    """Move on who is due, at most so many."""
    handed: list[Handed] = []
    cases: dict[int, Case | None] = {}
    found = standing.due(connection, now, most)
    for due in found:
        if due.list_key not in cases:
            cases[due.list_key] = _case(connection, house, due.list_key, now)
        case = cases[due.list_key]
        if case is None:
            _wait(connection, due, now + LATER)
        else:
            handed += _STEPS[due.standing.state](case, due)
    return Moved(len(found), handed)


def _case(connection: Connection, house: House, key: int, now: float) -> Case | None:
    try:
        of = list_of_key(connection, key)
        return Case(house, connection, of, preferences(connection, key), int, now) if of else None
    except ListError:
        return None


def _counting(case: Case, due: Due) -> list[Handed]:
    """Probe who is at the threshold; forget of the others what is long ago."""
    member, known, ours = due.member, due.standing, case.settings.bounces
    quiet = case.now - known.bounced_at > ours.forget_after * DAY
    if not ours.count or quiet or known.score < ours.threshold or member.delivery != "on":
        return _ended(case, due, Event.QUIET)
    if acting.mass_lately(case):
        _wait(case.connection, due, case.now + DAY)
        return []
    limit = Limit("probe", str(case.of.key), PROBES, HOUR)
    if take(case.connection, [limit], case.now) is not None:
        _wait(case.connection, due, case.now + LATER)
        return []
    token = new_token()
    until = case.now + ours.probe_days * DAY
    probing = scoring.moved(known, Event.THRESHOLD, case.now, until)
    standing.save(case.connection, {member.key: probing})
    standing.set_token(case.connection, member.key, token)
    language = case.settings.notices.language
    words = say(in_words(known.status), language)
    return [letters.probe(case.house, case.of, member.email, token, words, "", language, case.now)]


def _probing(case: Case, due: Due) -> list[Handed]:
    """The probe did not come back: it has reached its reader."""
    return _ended(case, due, Event.PROBE_PASSED)


def _off(case: Case, due: Due) -> list[Handed]:
    """Warn once more, or end it."""
    member, known, ours = due.member, due.standing, case.settings.bounces
    if member.delivery != "bounces":  # an owner has turned it on, or off for good
        return _ended(case, due, Event.BACK)
    if not ours.count:
        _wait(case.connection, due, case.now + DAY)
        return []
    if known.warned < ours.warnings:
        return _warn(case, member, known)
    if not ours.remove:
        _wait(case.connection, due, case.now + DAY)  # the owners may want it by then
        return []
    case.note("removed", member, known.reason)
    return _ended(case, due, Event.LAST)


def _warn(case: Case, member: Member, known: Standing) -> list[Handed]:
    ours, language = case.settings.bounces, case.settings.notices.language
    # An answer to any of these letters will do, also to the last one.
    days = ours.warn_every * (ours.warnings + 1)
    request, _ = ask(case, member, "resume", {"delivery": "on"}, days)
    until = case.now + ours.warn_every * DAY
    warned = scoring.moved(known, Event.WARN, case.now, until)._replace(warned=known.warned + 1)
    standing.save(case.connection, {member.key: warned})
    words = say(in_words(known.status), language)
    left = ours.warnings - warned.warned
    return [
        letters.turned_off(
            case.house,
            case.of,
            request,
            words,
            known.reason,
            left,
            ours.remove,
            language,
            case.now,
            known.since,
        )
    ]


def _ended(case: Case, due: Due, event: Event) -> list[Handed]:
    """Nothing more is known of a member: they are fine, or gone."""
    if scoring.moved(due.standing, event, case.now, case.now).state is State.GONE:
        remove_members(case.connection, case.of.key, [due.member.email], "member")
    else:
        standing.forget(case.connection, [due.member.key])
    return []


def _wait(connection: Connection, due: Due, until: float) -> None:
    standing.save(connection, {due.member.key: due.standing._replace(next_at=until)})


_STEPS: Final[dict[State, Callable[[Case, Due], list[Handed]]]] = {
    State.COUNTING: _counting,
    State.PROBING: _probing,
    State.OFF: _off,
}
