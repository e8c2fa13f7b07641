"""The office: asks, waits for consent, and carries out who joins, leaves or changes.

For: the command runner and the commands of the shell. Each function works at a desk, in its
transaction, and gives back what is to be handed on in it, so that a letter goes out exactly if
what it tells of was committed. Guarantees: `lists.subscription` decides what follows what, by the
list's policy of the moment; nothing is changed for an address that has not been shown to be the
sender's, or has not confirmed; nobody learns from an answer who is on the list. Fails with
`ListError` (mostly `Refused`) or `Gone`, one sentence each, and then has changed nothing that the
caller's savepoint does not undo.
"""

from collections.abc import Sequence
from typing import Final

from postroom.commands import sentences
from postroom.commands.desk import Desk
from postroom.commands.outcome import Agreed, carry_out, refuse_delivery
from postroom.commands.sentences import on
from postroom.commands.values import Caller, Listing, Refused, Result
from postroom.lists import pending
from postroom.lists.pending import Request, Wanted
from postroom.lists.registry import ListError
from postroom.lists.roster import person, same_address
from postroom.lists.subscription import Action, Event, Policy, State, after, policy_for
from postroom.notices import requests
from postroom.notices.language import sentence
from postroom.notices.telling import tell_request
from postroom.spool.handing import Handed

_PAST: Final = {
    Event.CANCEL: "cancelled",
    Event.REJECT: "rejected",
    Event.DISCARD: "discarded",
}


def join(desk: Desk, caller: Caller, address: str, digest: bool | None) -> Result:
    """Somebody wants to join, or wants `address` ("": their own) to."""
    email, own = _whose(caller, address)
    wanted = _wanted(desk.listing, caller, "join", email, own)
    if digest is not None:
        wanted = wanted._replace(changes={"mode": "digest" if digest else "regular"})
    if not own:
        return _for_another(desk, caller, wanted)
    if desk.member(email) is not None:
        return Result(sentence("{email} is a member of {list} already.", **on(desk.listing, email)))
    desk.admit(email)
    return _ask(desk, wanted, caller)


def leave(desk: Desk, caller: Caller, address: str) -> Result:
    """Somebody wants to leave, or wants `address` ("": their own) to."""
    email, own = _whose(caller, address)
    if _begins(desk.listing, "leave") is State.CLOSED:
        raise Refused(sentences.closed(desk.listing, "leave"))
    wanted = _wanted(desk.listing, caller, "leave", email, own)
    if not own:
        return _for_another(desk, caller, wanted)
    roles = desk.roles(email)
    if not any(each.role == "member" for each in roles):
        return sentences.not_a_member(desk.listing, email, roles)
    return _ask(desk, wanted, caller)


def change(desk: Desk, caller: Caller, changes: Sequence[tuple[str, str]]) -> Result:
    """Somebody wants posts in another way; `changes` are in the words of the roster."""
    roles = desk.roles(caller.email)
    known = next((each for each in roles if each.role == "member"), None)
    if known is None:
        return sentences.not_a_member(desk.listing, caller.email, roles)
    refuse_delivery(desk, known.delivery, dict(changes), known.email)
    wanted = _wanted(desk.listing, caller, "change", known.email, True)
    return _ask(desk, wanted._replace(changes=dict(changes)), caller)


def invite(desk: Desk, email: str, name: str, by: str) -> Result:
    """An owner asks somebody to join."""
    desk.admit(email)
    listing = desk.listing
    if desk.member(email) is not None:
        raise ListError(f"{email} is a member of {listing.of.posting_address} already")
    policy = listing.policies["join"]
    wanted = Wanted("join", email, name, {}, policy, State.INVITED, by, "")
    new_id, waits = desk.house.new_id, listing.waits
    request, fresh = pending.ask(desk.connection, new_id, desk.key, wanted, waits, desk.now)
    if not fresh and request.state is State.INVITED and desk.lately(request.told_at):
        return Result(sentence("{email} was invited a moment ago.", **on(listing, email)))
    if not fresh:
        request = pending.renew(desk.connection, request, wanted, waits, desk.now)
    desk.note("invited", email, by, {"how": "command line"})
    said = sentence("{email} is invited to {list}.", **on(listing, email))
    return Result(said, handed=(_letter(desk, request),))


def answer(desk: Desk, caller: Caller, token: str, verb: str, reason: str) -> Result:
    """Somebody who holds the token of a request says yes or no, or decides as an owner does
    (accept, reject, discard)."""
    request = pending.by_token(desk.connection, token, desk.now)
    if request is None or request.list_key != desk.key:
        return Result(sentences.NOT_VALID)
    event = _event(request, verb)
    if event is None:
        by_owner = request.state is State.MODERATE
        return Result(sentences.UNDECIDED if by_owner else sentences.UNCLEAR)
    result = decide(desk, request, event, caller.email, reason, "mail")
    # The letter that says so goes to the address of the request.
    own = same_address(caller.email) == same_address(request.email)
    return result._replace(told=result.told and own)


def decide(
    desk: Desk, request: Request, event: Event, by: str, reason: str, how: str = "command line"
) -> Result:
    """Move a request on; `by` says who does, `reason` is for the person who asked."""
    listing = desk.listing
    state = after(_policy_now(listing, request, event), request.state, event)
    if state is None and event is Event.CONFIRM:
        raise Refused(sentences.closed(listing, request.action))
    if state is None:
        raise Refused(sentences.no_move(listing, request))
    facts = {"action": request.action, "how": how, "asked_by": request.asked_by}
    if state is State.DONE:
        if request.action == "join":
            desk.admit(request.email)
        pending.end(desk.connection, request)
        return carry_out(desk, Agreed(request, by, facts))
    if state is State.MODERATE:
        desk.note("confirmed", request.email, by, facts)
        request = pending.move(desk.connection, request, state, listing.waits, desk.now)
        return _moderate(desk, request)
    pending.end(desk.connection, request)
    desk.note(_PAST[event], request.email, by, facts)
    about = on(listing, request.email)
    if state is not State.REFUSED:
        return Result(sentence("The request of {email} is dropped.", **about))
    letter = requests.refused(desk.house, listing.of, request, reason, desk.language, desk.now)
    said = sentence("The request of {email} is refused, and {email} is told so.", **about)
    return Result(said, handed=(letter,))


def _for_another(desk: Desk, caller: Caller, wanted: Wanted) -> Result:
    """A request for an address that is not the sender's. What is said, and what it costs, is the
    same whatever there is about that address."""
    if wanted.state is State.CLOSED:
        raise Refused(sentences.closed(desk.listing, wanted.action))
    quiet = sentences.neutral(desk.listing, wanted.email)
    if not desk.spend(caller.source):
        return quiet._replace(limited=True)
    joins = wanted.action == "join"
    if (desk.member(wanted.email) is None) is not joins:
        return quiet
    try:
        if joins:
            desk.admit(wanted.email)
        result = _ask(desk, wanted, None)
    except Refused:
        return quiet
    return quiet._replace(handed=result.handed, limited=result.limited)


def _ask(desk: Desk, wanted: Wanted, caller: Caller | None) -> Result:
    """A request has come that nothing speaks against, but perhaps the list's policy. `caller` is
    None if it is not for their own address; what it costs was counted then."""
    key, waits, now = desk.key, desk.listing.waits, desk.now
    quiet = sentences.asked_before(desk.listing, wanted.email)
    shown = caller is not None and caller.shown
    with desk.connection.begin_nested() as attempt:
        request, fresh = pending.ask(desk.connection, desk.house.new_id, key, wanted, waits, now)
        if request.state is State.CLOSED:  # else an owner has invited them
            raise Refused(sentences.closed(desk.listing, wanted.action))
        if not fresh and request.state is State.MODERATE:
            return sentences.awaits_owners(desk.listing, request)
        if other := not fresh and _goes_on(request, wanted, caller is not None):
            request = pending.renew(desk.connection, request, wanted, waits, now)
        elif not fresh and desk.lately(request.told_at):
            return quiet
        if caller is not None and not desk.spend(caller.source):
            attempt.rollback()  # a flood: not a word to anybody
            return Result(sentences.TOO_MUCH, told=True, limited=True)
        if not desk.spend_on(wanted.email, shown):
            attempt.rollback()
            return Result(sentences.TOO_MUCH, told=not shown, limited=True)
    facts = {"action": wanted.action, "how": "mail", "source": wanted.source}
    if fresh or other:
        desk.note("asked", wanted.email, wanted.asked_by, facts)
    if request.state is State.DONE:
        pending.end(desk.connection, request)
        return carry_out(desk, Agreed(request, request.asked_by, facts))
    if request.state is State.MODERATE:
        return _moderate(desk, request)
    if not fresh:
        request = pending.told(desk.connection, request, now)
    said = sentence(
        "A mail has been sent to {email}: answer it, and it is done.",
        **on(desk.listing, request.email),
    )
    letter = _letter(desk, request, caller.message_id if caller else "")
    return Result(said, handed=(letter,), told=True)


def _moderate(desk: Desk, request: Request) -> Result:
    """The owners have to agree: tell them."""
    notices = desk.listing.settings.notices
    told = tell_request(desk.connection, desk.house, desk.listing.of, notices, request, desk.now)
    return sentences.awaits_owners(desk.listing, request)._replace(handed=tuple(told))


def _letter(desk: Desk, request: Request, answers: str = "") -> Handed:
    """What asks the address of a request to confirm."""
    of, language = desk.listing.of, desk.language
    return requests.confirm(desk.house, of, request, language, desk.now, answers)


def _wanted(listing: Listing, caller: Caller, action: Action, email: str, own: bool) -> Wanted:
    """A request as it begins."""
    policy = policy_for(listing.policies[action], own and caller.shown)
    state = after(policy, State.ASKED, Event.ASK)
    assert state is not None  # whoever may ask, the table says what comes first
    name = caller.name if own else ""
    return Wanted(action, email, name, {}, policy, state, caller.email, caller.source)


def _begins(listing: Listing, action: Action) -> State | None:
    """Where a request begins that nothing speaks against."""
    return after(listing.policies[action], State.ASKED, Event.ASK)


def _policy_now(listing: Listing, request: Request, event: Event) -> Policy:
    """The policy that a request is under: what follows a confirmation is as the list wants it
    today, not when it was asked. The other moves are the same under all."""
    if request.state is State.CONFIRM and event is Event.CONFIRM:
        return policy_for(listing.policies[request.action], shown=False)
    return Policy.CONFIRM_THEN_MODERATE


def _event(request: Request, verb: str) -> Event | None:
    """What an answer by mail is to a request; None if it decides nothing."""
    if request.state is State.MODERATE:
        owners = {"accept": Event.ACCEPT, "reject": Event.REJECT, "discard": Event.DISCARD}
        return owners.get(verb)
    if verb in ("yes", "accept", request.action):
        return Event.CONFIRM
    # Who is asked to confirm that they join, and answers "unsubscribe", does not.
    opposite = {"join": "leave", "leave": "join"}.get(request.action)
    return Event.CANCEL if verb in ("no", "reject", "discard", opposite) else None


def _goes_on(request: Request, wanted: Wanted, own: bool) -> bool:
    """Whether a request takes the place of one that waits: because it asks for something else
    (a token that was sent confirms what stood beside it, and nothing else), or because it needs
    no confirmation while that one does (which anybody may have asked for)."""
    if own and wanted.state in (State.DONE, State.MODERATE):
        return True
    other = bool(wanted.changes) and request.changes != wanted.changes
    return own and request.state is State.CONFIRM and other


def _whose(caller: Caller, address: str) -> tuple[str, bool]:
    """The address that is meant, and whether it is the caller's own. Raises `ListError`."""
    if not address:
        return caller.email, True
    email, _ = person(address)
    return email, same_address(email) == same_address(caller.email)
