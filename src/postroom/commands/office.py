"""The office: asks, waits for consent, and carries out who joins, leaves or changes.

For: the command runner and the commands of the shell. Each method works in the caller's
transaction and gives back what is to be handed on in it, so that a letter goes out exactly if
what it tells of was committed. Guarantees: `lists.subscription` decides what follows what; nothing
is changed for an address that has not been shown to be the sender's, or has not confirmed; what
strangers can make us send is limited; every change is in the audit log, with who made it. Fails
with `ListError` (mostly `Refused`) or `Gone`, one sentence each, and then has changed nothing
that the caller's savepoint does not undo.
"""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple, cast

from sqlalchemy import Connection

from postroom.base.settings import Commands
from postroom.commands import sentences
from postroom.commands.sentences import on
from postroom.commands.values import DAY, HOUR, Caller, Listing, Refused, Result
from postroom.lists import audit, pending
from postroom.lists.audit import Change
from postroom.lists.limits import Limit, take
from postroom.lists.naming import named_by
from postroom.lists.pending import Request, Wanted
from postroom.lists.registry import ListError
from postroom.lists.roster import (
    Changes,
    Member,
    add_members,
    change_member,
    memberships,
    person,
    remove_members,
    same_address,
    staff,
)
from postroom.lists.subscription import Action, Event, State, after, policy_for
from postroom.notices import requests
from postroom.notices.courtesy import endpoints_among
from postroom.notices.language import sentence
from postroom.notices.sheet import House, owner_address
from postroom.notices.telling import tell_request
from postroom.spool.handing import Handed

YES: Final = {"yes": True, "no": False}


class Office(NamedTuple):
    """The office of a site. `commands` say how much strangers can make us send."""

    house: House
    commands: Commands

    def join(
        self,
        connection: Connection,
        listing: Listing,
        caller: Caller,
        address: str,
        digest: bool | None,
        now: float,
    ) -> Result:
        """Somebody wants to join, or wants `address` ("": their own) to."""
        email, own = _whose(caller, address)
        member = self._member(connection, listing, email) is not None
        if own and member:
            return Result(sentence("{email} is a member of {list} already.", **on(listing, email)))
        self._admit(connection, listing, email)
        wanted = self._wanted(listing, caller, "join", email, own)
        if not own and wanted.state is State.CLOSED:
            raise Refused(sentences.closed(listing, "join"))
        if member:
            return sentences.neutral(listing, email)
        if digest is not None:
            wanted = wanted._replace(changes={"mode": "digest" if digest else "regular"})
        return self._ask(connection, listing, wanted, own, now)

    def leave(
        self,
        connection: Connection,
        listing: Listing,
        caller: Caller,
        address: str,
        now: float,
    ) -> Result:
        """Somebody wants to leave, or wants `address` ("": their own) to."""
        email, own = _whose(caller, address)
        if self._begins(listing, "leave") is State.CLOSED:
            raise Refused(sentences.closed(listing, "leave"))
        member = self._member(connection, listing, email)
        if member is None:
            return (
                sentences.not_a_member(listing, email) if own else sentences.neutral(listing, email)
            )
        wanted = self._wanted(listing, caller, "leave", member.email, own)
        return self._ask(connection, listing, wanted, own, now)

    def change(
        self,
        connection: Connection,
        listing: Listing,
        caller: Caller,
        changes: Sequence[tuple[str, str]],
        now: float,
    ) -> Result:
        """Somebody wants posts in another way; `changes` are in the words of the roster."""
        known = self._member(connection, listing, caller.email)
        if known is None:
            return sentences.not_a_member(listing, caller.email)
        if known.delivery == "admin" and dict(changes).get("delivery") == "on":
            raise Refused(
                sentence(
                    "The owners of {list} have turned delivery to {email} off. Write to {owner}.",
                    owner=owner_address(listing.of.posting_address),
                    **on(listing, known.email),
                )
            )
        wanted = self._wanted(listing, caller, "change", known.email, True)
        return self._ask(connection, listing, wanted._replace(changes=dict(changes)), True, now)

    def invite(
        self,
        connection: Connection,
        listing: Listing,
        email: str,
        name: str,
        by: str,
        now: float,
    ) -> Result:
        """An owner asks somebody to join."""
        self._admit(connection, listing, email)
        if self._member(connection, listing, email) is not None:
            raise ListError(f"{email} is a member of {listing.of.posting_address} already")
        policy = listing.policies["join"]
        wanted = Wanted("join", email, name, {}, policy, State.INVITED, by, "")
        key, waits = listing.of.key, listing.waits
        request, fresh = pending.ask(connection, self.house.new_id, key, wanted, waits, now)
        lately = request.told_at > now - self.commands.again
        if not fresh and request.state is State.INVITED and lately:
            return Result(sentence("{email} was invited a moment ago.", **on(listing, email)))
        if not fresh:
            request = pending.renew(connection, request, wanted, waits, now)
        self._note(connection, listing, "invited", email, by, {"how": "command line"}, now)
        said = sentence("{email} is invited to {list}.", **on(listing, email))
        return Result(said, handed=(self._letter(listing, request, now),))

    def answer(
        self,
        connection: Connection,
        listing: Listing,
        caller: Caller,
        token: str,
        verb: str,
        reason: str,
        now: float,
    ) -> Result:
        """Somebody who holds the token of a request says yes ("" will do) or no, or decides as an
        owner does (accept, reject, discard)."""
        request = pending.by_token(connection, token, now)
        if request is None or request.list_key != listing.of.key:
            return Result(sentences.NOT_VALID)
        event = _event(request, verb)
        if event is None:
            by_owner = request.state is State.MODERATE
            return Result(sentences.UNDECIDED if by_owner else sentences.UNCLEAR)
        result = self.decide(connection, listing, request, event, caller.email, reason, now, "mail")
        # The letter that says so goes to the address of the request.
        own = same_address(caller.email) == same_address(request.email)
        return result._replace(told=result.told and own)

    def decide(
        self,
        connection: Connection,
        listing: Listing,
        request: Request,
        event: Event,
        by: str,
        reason: str,
        now: float,
        how: str = "command line",
    ) -> Result:
        """Move a request on; `by` says who does, `reason` is for the person who asked."""
        state = after(request.policy, request.state, event)
        if state is None:
            raise Refused(sentences.no_move(listing, request))
        facts = {"action": request.action, "how": how, "asked_by": request.asked_by}
        if state is State.DONE:
            if request.action == "join":
                self._admit(connection, listing, request.email)
                closed = self._begins(listing, "join") is State.CLOSED  # meanwhile
                if closed and request.state is not State.INVITED:
                    raise Refused(sentences.closed(listing, "join"))
            pending.end(connection, request)
            return self._carry_out(connection, listing, request, by, facts, now)
        if state is State.MODERATE:
            self._note(connection, listing, "confirmed", request.email, by, facts, now)
            request = pending.move(connection, request, state, listing.waits, now)
            return self._moderate(connection, listing, request, now)
        pending.end(connection, request)
        self._note(connection, listing, _PAST[event], request.email, by, facts, now)
        about = on(listing, request.email)
        if state is not State.REFUSED:
            return Result(sentence("The request of {email} is dropped.", **about))
        language = listing.settings.notices.language
        letter = requests.refused(self.house, listing.of, request, reason, language, now)
        said = sentence("The request of {email} is refused, and {email} is told so.", **about)
        return Result(said, handed=(letter,))

    def _ask(
        self, connection: Connection, listing: Listing, wanted: Wanted, own: bool, now: float
    ) -> Result:
        """A request has come that the list's policy allows."""
        key, waits = listing.of.key, listing.waits
        quiet = (
            sentences.asked_before(listing, wanted.email)
            if own
            else sentences.neutral(listing, wanted.email)
        )
        with connection.begin_nested() as attempt:
            request, fresh = pending.ask(connection, self.house.new_id, key, wanted, waits, now)
            if request.state is State.CLOSED:  # else an owner has invited them
                raise Refused(sentences.closed(listing, wanted.action))
            if not fresh and request.state is State.MODERATE:
                return sentences.awaits_owners(listing, request) if own else quiet
            if other := not fresh and _goes_on(request, wanted):
                request = pending.renew(connection, request, wanted, waits, now)
            elif not fresh and request.told_at > now - self.commands.again:
                return quiet
            if take(connection, self._limits(listing, request), now) is not None:
                attempt.rollback()
                return Result(sentences.TOO_MUCH, told=True) if own else quiet
        how = {"action": wanted.action, "how": "mail", "source": wanted.source}
        if fresh or other:
            self._note(connection, listing, "asked", wanted.email, wanted.asked_by, how, now)
        if request.state is State.DONE:
            pending.end(connection, request)
            return self._carry_out(connection, listing, request, request.asked_by, how, now)
        if request.state is State.MODERATE:
            return self._moderate(connection, listing, request, now)
        if not fresh:
            request = pending.told(connection, request, now)
        said = quiet.said
        if own:
            said = sentence(
                "A mail has been sent to {email}: answer it, and it is done.",
                **on(listing, request.email),
            )
        return Result(said, handed=(self._letter(listing, request, now),), told=own)

    def _moderate(
        self, connection: Connection, listing: Listing, request: Request, now: float
    ) -> Result:
        """The owners have to agree: tell them."""
        told = tell_request(
            connection, self.house, listing.of, listing.settings.notices, request, now
        )
        return sentences.awaits_owners(listing, request)._replace(handed=tuple(told))

    def _carry_out(
        self,
        connection: Connection,
        listing: Listing,
        request: Request,
        by: str,
        facts: Mapping[str, str],
        now: float,
    ) -> Result:
        """All have agreed: do it."""
        if request.action == "change":
            return self._changed(connection, listing, request, by, facts, now)
        of, ours, email = listing.of, listing.settings.subscriptions, request.email
        language, about = listing.settings.notices.language, on(listing, email)
        what: Literal["joined", "left"] = "joined" if request.action == "join" else "left"
        handed: list[Handed] = []
        if what == "joined":
            added, _ = add_members(connection, of.key, [(email, request.name)], "member")
            if not added:
                if self._member(connection, listing, email) is None:
                    raise ListError(f"{email} could not be added: write to the owners")
                return Result(sentence("{email} is a member of {list} already.", **about))
            if request.changes:
                change_member(connection, of.key, email, **_changes(request.changes))
            said = sentence("{email} is a member of {list} now.", **about)
            if ours.welcome:
                text = ours.welcome_text
                handed.append(
                    requests.welcome(self.house, of, email, request.name, text, language, now)
                )
        else:
            removed, _ = remove_members(connection, of.key, [email], "member")
            if not removed:
                return sentences.not_a_member(listing, email)
            said = sentence("{email} is no member of {list} any more.", **about)
            if ours.goodbye:
                handed.append(requests.goodbye(self.house, of, email, language, now))
        told = bool(handed)
        self._note(connection, listing, what, email, by, facts, now)
        if listing.settings.notices.changes:
            people = [each.email for each in staff(connection, of.key)]
            if people:
                handed.append(
                    requests.change_for_owners(self.house, of, email, what, people, language, now)
                )
        return Result(said, handed=tuple(handed), told=told)

    def _changed(
        self,
        connection: Connection,
        listing: Listing,
        request: Request,
        by: str,
        facts: Mapping[str, str],
        now: float,
    ) -> Result:
        """Do what is to be set."""
        if self._member(connection, listing, request.email) is None:
            return sentences.not_a_member(listing, request.email)
        changed = dict(request.changes)
        change_member(connection, listing.of.key, request.email, **_changes(changed))
        self._note(connection, listing, "changed", request.email, by, {**facts, **changed}, now)
        said = sentence("For {email} on {list} is set now:", **on(listing, request.email))
        words = requests.in_words(changed, listing.settings.notices.language)
        return Result(said, lines=tuple(words))

    def _letter(self, listing: Listing, request: Request, now: float) -> Handed:
        """What asks the address of a request to confirm."""
        language = listing.settings.notices.language
        return requests.confirm(self.house, listing.of, request, language, now)

    def _limits(self, listing: Listing, request: Request) -> list[Limit]:
        """What a request uses up, whoever asked for whom."""
        terms = self.commands
        limits = [
            Limit("address", same_address(request.email), terms.per_address, DAY),
            Limit("list", str(listing.of.key), terms.per_list, HOUR),
            Limit("site", "", terms.per_site, HOUR),
        ]
        if request.source:
            limits.append(Limit("source", request.source, terms.per_source, HOUR))
        return limits

    def _wanted(
        self, listing: Listing, caller: Caller, action: Action, email: str, own: bool
    ) -> Wanted:
        """A request as it begins."""
        policy = policy_for(listing.policies[action], own and caller.shown)
        state = after(policy, State.ASKED, Event.ASK)
        assert state is not None  # whoever may ask, the table says what comes first
        name = caller.name if own else ""
        return Wanted(action, email, name, {}, policy, state, caller.email, caller.source)

    def _begins(self, listing: Listing, action: Action) -> State | None:
        """Where a request begins that nothing speaks against."""
        return after(listing.policies[action], State.ASKED, Event.ASK)

    def _admit(self, connection: Connection, listing: Listing, email: str) -> None:
        """Refuse who may not join, invited or not. Raises `Refused`."""
        if endpoints_among(connection, [email]):
            raise Refused(
                sentence("{email} is an address of this server, and no reader's.", email=email)
            )
        if named_by(listing.settings.posting.banned, [same_address(email)]):
            raise Refused(
                sentence(
                    "{email} may not join {list}. The owners are at {owner}.",
                    owner=owner_address(listing.of.posting_address),
                    **on(listing, email),
                )
            )

    def _member(self, connection: Connection, listing: Listing, email: str) -> Member | None:
        roles = memberships(connection, listing.of.key, [email])
        return next((each for each in roles if each.role == "member"), None)

    def _note(
        self,
        connection: Connection,
        listing: Listing,
        what: str,
        email: str,
        by: str,
        facts: Mapping[str, str],
        now: float,
    ) -> None:
        """Write it down for `postroom audit`."""
        known = {name: value for name, value in facts.items() if value}
        change = Change(listing.of.list_id, what, same_address(email), by, known)
        audit.write(connection, self.house.new_id, [change], now)


_PAST: Final = {
    Event.CANCEL: "cancelled",
    Event.REJECT: "rejected",
    Event.DISCARD: "discarded",
}


def _event(request: Request, verb: str) -> Event | None:
    """What an answer by mail is to a request; None if it decides nothing."""
    if request.state is State.MODERATE:
        owners = {"accept": Event.ACCEPT, "reject": Event.REJECT, "discard": Event.DISCARD}
        return owners.get(verb)
    if verb == "unclear":
        return None
    # Who is asked to confirm that they join, and answers "unsubscribe", does not.
    opposite = {"join": "leave", "leave": "join"}.get(request.action)
    declined = verb in ("no", "reject", "discard", opposite)
    return Event.CANCEL if declined else Event.CONFIRM


def _goes_on(request: Request, wanted: Wanted) -> bool:
    """Whether a request takes the place of one that waits: because it asks for something else
    (a token that was sent confirms what stood beside it, and nothing else), or because it needs
    no confirmation while that one does (which anybody may have asked for)."""
    if request.action == "change" and request.changes != wanted.changes:
        return True
    return request.state is State.CONFIRM and wanted.state in (State.DONE, State.MODERATE)


def _whose(caller: Caller, address: str) -> tuple[str, bool]:
    """The address that is meant, and whether it is the caller's own. Raises `ListError`."""
    if not address or same_address(address) == same_address(caller.email):
        return caller.email, True
    return person(address)[0], False


def _changes(changes: Mapping[str, str]) -> Changes:
    """What a request sets, as the roster takes it."""
    return cast(Changes, {name: YES.get(value, value) for name, value in changes.items()})
