"""The rules: what becomes of a post.

For: the incoming runner and `postroom explain`. A rule is a pure function `(list, post, facts)
-> Hit | None`. Guarantees: any post is decided, and nothing a sender writes can raise. A
setting that cannot be read (a pattern, a line of `suspicious`) takes no part; `not_used` tells.

The chain, in order. The first three decide by themselves:

- loop: the list's own List-Id, loop marker or bounce address, or more than 50 Received:
  discarded. A moderator's approval does not help, or it would go round for ever.
- banned: any of its senders is. It holds against a token and a moderator's command, too: one of
  many held posts is soon accepted by mistake, and whoever means it lifts the ban first.
- approved: by the moderators' token, or by a moderator's command when it was held.
- emergency: everything is held.

Of the others the strictest decides (discard, reject, hold), and of equals the first, so that
what nobody wants does not wait for a moderator because it is also too big:

- no-sender: a report or an automatic answer to nobody is discarded; what names no author and
  has the null sender is held. The null sender with an author goes on.
- automatic: an automatic answer with a sender is held.
- suspicious, too-big, too-many-recipients, not-named, administrivia.
- announce-only, member-moderated, nonmember. Owners and moderators post freely here, and only
  here. If any of a post's senders is a member, members' rules hold, else those for nonmembers;
  if there are several, the strictest of their actions does.

A rejection is answered; a post that must not be answered (RFC 3834 2) is discarded instead.
"""

from collections.abc import Callable
from typing import Final

from postroom.lists.naming import named_by
from postroom.lists.patterns import MAX_TEXT, PatternError, Suspicion, compiled, suspicion
from postroom.lists.settings import Action, Posting
from postroom.mail.address import ascii_name, fold
from postroom.mail.loops import MOST_RECEIVED
from postroom.posting.administrivia import command_in
from postroom.posting.decision import SEVERITY, Decision, Hit, ListFacts, Reason, SenderFacts
from postroom.reading.post import HEADER, Post, folded

_SYSTEM: Final = ("mailer-daemon@", "postmaster@")
Rule = Callable[[ListFacts, Post, SenderFacts], Hit | None]


def decide(this: ListFacts, post: Post, facts: SenderFacts) -> Decision:
    """What happens to a post."""
    hits = tuple(hit for _, hit in examine(this, post, facts) if hit is not None)
    if not hits:
        return Decision("accept", "accepted", f"The post goes out to {this.posting_address}.")
    chosen = hits[0]
    if chosen.rule not in DECISIVE:
        chosen = max(hits, key=lambda hit: SEVERITY.index(hit.action))  # the first of equals
    if chosen.action == "reject" and post.automatic:
        told = f"{chosen.sentence} Nobody is told: it was sent by a program."
        return Decision("discard", chosen.rule, told, hits)
    return Decision(chosen.action, chosen.rule, chosen.sentence, hits)


def examine(this: ListFacts, post: Post, facts: SenderFacts) -> list[tuple[Reason, Hit | None]]:
    """What each rule says of a post, in the order of the chain."""
    return [(reason, rule(this, post, facts)) for reason, rule in CHAIN]


def not_used(posting: Posting) -> list[str]:
    """What in a list's settings takes no part because it cannot be read, for people."""
    checks: list[tuple[str, str, Callable[[str], object]]] = [
        *(("banned", line, compiled) for line in posting.banned if line.startswith("^")),
        *(("also_known_as", line, compiled) for line in posting.also_known_as if line[:1] == "^"),
        *(("suspicious", line, suspicion) for line in posting.suspicious),
    ]
    reasons = []
    for name, line, check in checks:
        try:
            check(line)
        except PatternError as error:
            reasons.append(f"posting.{name}: {line!r} takes no part: it {error}")
    return reasons


def loop(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """RFC 5321 6.3, RFC 2919: what has been here, or goes round elsewhere."""
    address = this.posting_address
    ids = {fold(this.list_id), fold(ascii_name(this.list_id))}
    if ids & set(post.list_ids):
        why = f"it has been through {address} already: it holds its List-Id"
    elif ids & set(post.loops):
        why = f"it has been through {address} already: it holds its loop marker"
    elif _is_own_bounce_address(this, post.sender):
        why = f"{address} sent it itself"
    elif post.received > MOST_RECEIVED:
        why = f"it has passed {post.received} servers, more than {MOST_RECEIVED}"
    else:
        return None
    return Hit("loop", "discard", f"The post goes in circles: {why}.")


def _is_own_bounce_address(this: ListFacts, sender: str) -> bool:
    box = folded(sender)
    local, _, domain = this.endpoint("bounces").rpartition("@")
    name, _, host = box.rpartition("@")
    return host == domain and (name == local or name.startswith(f"{local}+"))


def banned(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """Whoever speaks for the post: any author, or the envelope sender."""
    sender = named_by(this.settings.posting.banned, post.senders)
    if not sender:
        return None
    why = f"{sender} may not post to {this.posting_address}"
    return Hit("banned", "reject", f"{why}. {_appeal(this)}")


def approved(this: ListFacts, post: Post, facts: SenderFacts) -> Hit | None:
    """A moderator has let it through."""
    if facts.accepted:
        return Hit("approved", "accept", "A moderator accepted it.")
    if not facts.approved:
        return None
    return Hit("approved", "accept", "The post holds the moderators' token, so it goes out.")


def emergency(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """The list has stopped: everything waits."""
    if not this.settings.posting.emergency:
        return None
    return _hold("emergency", f"{this.posting_address} holds all posts for the time being")


def no_sender(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """The null sender: bounces, and answers of programs to mail that is not theirs."""
    if post.sender:
        return None
    answer = post.report or post.auto_submitted == "auto-replied"
    if answer or any(each.startswith(_SYSTEM) for each in post.authors):
        told = "The post is an automatic answer or a bounce, which is nothing for a list: dropped."
        return Hit("no-sender", "discard", told)
    if post.authors:
        return None
    return _hold("no-sender", "The post does not say who wrote it")


def automatic(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """Answers of programs to what went out (RFC 3834 5), with a sender whom all would see. What
    programs send on their own account (auto-generated: commits, cron) is for a list to want."""
    if not post.sender or post.auto_submitted != "auto-replied":
        return None
    return _hold("automatic", "The post is an automatic answer (Auto-Submitted: auto-replied)")


def suspicious(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """Lines "ACTION Field: PATTERN"; the first that matches decides. "accept" ends the search
    and no more: anybody could write a header that lets a post through."""
    for each in filter(None, map(_suspicion, this.settings.posting.suspicious)):
        if any(each.pattern.search(text[:MAX_TEXT]) for text in post.texts(fold(each.field))):
            if each.action == "accept":
                return None
            why = f"The post's header looks suspicious (field {each.field})"
            return _hit(this, "suspicious", each.action, why)
    return None


def too_big(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """Octets of the whole message, and of a header that nobody can read to its end."""
    most = this.settings.posting.max_size
    if most and post.size > most:
        why = f"The post has {_octets(post.size)}, more than the {_octets(most)} that are allowed"
        return _hold("too-big", why, "A link in place of an attachment helps.")
    if post.header_cut:
        return _hold("too-big", f"The post's header is longer than {_octets(HEADER)}")
    return None


def too_many_recipients(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """Addresses in To and Cc."""
    most = this.settings.posting.max_recipients
    if not most or post.recipients <= most:
        return None
    why = f"The post names {post.recipients} recipients in To and Cc, more than {most}"
    return _hold("too-many-recipients", why)


def not_named(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """A list that stands in Bcc only is where spam, and forgotten recipients, come from."""
    posting = this.settings.posting
    if not posting.require_named:
        return None
    named = (*post.to, *post.cc)
    own = (this.posting_address, *this.aliases, *posting.also_known_as)
    if named_by(own, named):
        return None
    why = f"The post does not name {this.posting_address} in To or Cc"
    return _hold("not-named", why)


def administrivia(this: ListFacts, post: Post, _: SenderFacts) -> Hit | None:
    """Commands that were sent to everybody by mistake."""
    if not this.settings.posting.administrivia:
        return None
    command = command_in(post.subject, post.first_lines, post.is_reply)
    if not command:
        return None
    why = f'The post looks like a command for the server ("{command}")'
    return _hold("administrivia", why, f"Commands go to {this.endpoint('request')}.")


def announce_only(this: ListFacts, post: Post, facts: SenderFacts) -> Hit | None:
    """Only owners and moderators post, and members whose own action is accept."""
    if not this.settings.posting.announce_only or _runs_list(facts):
        return None
    if _own_action(facts, "member") == "accept":
        return None
    why = f"Only a few may post to {this.posting_address}, which is for announcements"
    return _hit(this, "announce-only", "reject", why)


def member_moderated(this: ListFacts, post: Post, facts: SenderFacts) -> Hit | None:
    """Members: their own action, else the list's."""
    if _runs_list(facts) or not _are(facts, "member"):
        return None
    own = _own_action(facts, "member")
    action = own or this.settings.posting.members
    if action == "accept":
        return None
    whose = next(each.email for each in facts.memberships if each.role == "member")
    why = f"Posts of {whose if own else 'members'} to {this.posting_address} are moderated"
    return _hit(this, "member-moderated", action, why)


def nonmember(this: ListFacts, post: Post, facts: SenderFacts) -> Hit | None:
    """Everybody else: their own action if they have one, else the list's."""
    if _runs_list(facts) or _are(facts, "member"):
        return None
    action = _own_action(facts, "nonmember") or this.settings.posting.nonmembers
    if action == "accept":
        return None
    who = post.senders[0] if post.senders else "The author"
    why = f"{who} is not a member of {this.posting_address}"
    return _hit(this, "nonmember", action, why)


CHAIN: Final[tuple[tuple[Reason, Rule], ...]] = (
    ("loop", loop),
    ("banned", banned),
    ("approved", approved),
    ("emergency", emergency),
    ("no-sender", no_sender),
    ("automatic", automatic),
    ("suspicious", suspicious),
    ("too-big", too_big),
    ("too-many-recipients", too_many_recipients),
    ("not-named", not_named),
    ("administrivia", administrivia),
    ("announce-only", announce_only),
    ("member-moderated", member_moderated),
    ("nonmember", nonmember),
)
DECISIVE: Final = frozenset({"loop", "banned", "approved", "emergency"})


def _runs_list(facts: SenderFacts) -> bool:
    return _are(facts, "owner") or _are(facts, "moderator")


def _are(facts: SenderFacts, role: str) -> bool:
    return any(each.role == role for each in facts.memberships)


def _own_action(facts: SenderFacts, role: str) -> Action | None:
    """The strictest of the actions that those in this role have of their own."""
    own = [each.moderation for each in facts.memberships if each.role == role and each.moderation]
    return max(own, key=SEVERITY.index, default=None)


def _suspicion(line: str) -> Suspicion | None:
    try:
        return suspicion(line)
    except PatternError:
        return None


def _hit(this: ListFacts, rule: Reason, action: Action, why: str) -> Hit:
    """A hit whose action is a setting."""
    if action == "hold":
        return _hold(rule, why)
    if action == "reject":
        return Hit(rule, "reject", f"{why}, so the post was not sent out. {_appeal(this)}")
    return Hit(rule, action, f"{why}, so the post was dropped.")


def _hold(rule: Reason, why: str, advice: str = "") -> Hit:
    return Hit(rule, "hold", f"{why}, so a moderator looks at the post first. {advice}".rstrip())


def _appeal(this: ListFacts) -> str:
    return f"If that is a mistake, write to {this.endpoint('owner')}."


def _octets(number: int) -> str:
    """A size for people, never rounded to look allowed."""
    for unit, factor in (("MB", 1_000_000), ("kB", 1000)):
        if number >= factor:
            return f"{number / factor:.3g} {unit}"
    return f"{number} octets"
