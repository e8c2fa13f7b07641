"""Moderation: deciding on a held post, by mail or by a command of the shell.

For: whoever decides. Works in the caller's transaction. Guarantees: the decision, its step and
the notice to the author are one; of two who decide at once one does, and the other is told.
Fails with `QueueError`, one sentence.
"""

from typing import Literal, NamedTuple

from sqlalchemy import Connection

from postroom.lists.registry import MailingList
from postroom.notices.language import Sentence, say, sentence
from postroom.notices.sheet import House
from postroom.notices.telling import tell_rejected
from postroom.reading.post import read
from postroom.spool import held, steps
from postroom.spool.handing import Handed
from postroom.spool.held import Held
from postroom.spool.ids import show

Verb = Literal["accept", "reject", "discard"]
DONE: dict[Verb, str] = {"accept": "accepted", "reject": "rejected", "discard": "discarded"}
REFUSED = sentence("A moderator of the list decided so.")


class Decided(NamedTuple):
    """The post, the notice to its author, if there is one, and if not, why not ("" where nobody
    is told in any case)."""

    post: Held
    notice: Handed | None = None
    untold: str = ""


def decide(
    connection: Connection,
    house: House,
    of: MailingList,
    number: int,
    verb: Verb,
    reason: str,
    by: str,
    language: str,
    now: float,
) -> Decided:
    """Decide on a held post of a list; `reason` is for its author."""
    if verb == "accept":
        decided = Decided(held.accept(connection, number, by).post)
    else:
        post, head = held.discard(connection, number)
        decided = Decided(post)
        if verb == "reject":
            told = tell_rejected(
                connection,
                house,
                of,
                post,
                head,
                reason or say(REFUSED, language),
                read(head, post.sender).automatic,
                now,
                every=0.0,
                language=language,
            )
            decided = Decided(post, None, told) if isinstance(told, str) else Decided(post, told)
    facts = {"entry": show(number), "by": by}
    what = f"{DONE[verb]} by a moderator"
    step = steps.Step(decided.post.message_id, now, of.posting_address, what, facts)
    steps.write(connection, house.new_id, [step])
    return decided


def said(verb: Verb, post: Held) -> Sentence:
    """What whoever decided is told."""
    author = post.author or post.sender or "<>"
    if verb == "accept":
        return sentence("The post of {author} is accepted.", author=author)
    if verb == "reject":
        return sentence("The post of {author} is rejected.", author=author)
    return sentence("The post of {author} is discarded.", author=author)
