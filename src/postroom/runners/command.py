"""Commands: joining, leaving and whatever else is asked of a list by mail.

For: the queue `command`. Guarantees: what a mail asks for, its answer and the removal of its
entry are one transaction; nothing that a program sent is obeyed or answered (RFC 3834 2), and
the answer goes to nobody but the author. What has no list any more goes to `shunt`.
"""

import time
from collections.abc import Collection

from sqlalchemy import Connection

from postroom.base.observe import Facts
from postroom.commands.desk import Office
from postroom.commands.grammar import read_script
from postroom.commands.performing import Errand, perform
from postroom.commands.values import Caller, Listing
from postroom.lists.preferences import preferences
from postroom.lists.registry import ListError, list_of_key
from postroom.lists.roster import MAX_NAME, person, same_address
from postroom.notices.courtesy import endpoints_among, unanswerable
from postroom.reading.authentication import verdict
from postroom.reading.post import Post, read
from postroom.reading.source import source_of
from postroom.reading.text import own_lines, without_name, without_quotes
from postroom.runners.arrival import NO_LIST, arrival_of, received, shunted
from postroom.runners.base import Outcome
from postroom.spool import steps
from postroom.spool.handing import hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import COMMAND
from postroom.spool.queue import Claim
from postroom.spool.steps import Step
from postroom.store.engine import Store

COPIED = 4000  # characters of what was said that the trace keeps


class Commanded:
    """Serves `command`. `server` is how the mail server calls itself in the field
    Authentication-Results."""

    queue = COMMAND

    def __init__(self, office: Office, server: str) -> None:
        self._office, self._server = office, server
        self._ids = IdMaker()

    def process(self, held: Claim, store: Store) -> Outcome:
        """Decide what an entry asks for."""
        post = read(held.raw, held.sender)
        with store.read() as connection:
            of = None if held.list_key is None else list_of_key(connection, held.list_key)
            if of is None:
                return shunted(held, COMMAND, NO_LIST)
            ours = endpoints_among(connection, {held.sender, *post.authors})
            arrival = arrival_of(connection, held)
        said: Facts = {"list": of.posting_address, "message_id": post.message_id}
        began = received(held, COMMAND, arrival, post.message_id, of.posting_address)
        if reason := unheard(post, ours):
            ended = self._step(post, of.posting_address, "ignored", {"reason": reason})
            return Outcome(
                lambda connection: steps.write(connection, self._ids, [began, ended]),
                "command ignored",
                said | {"sender": held.sender, "reason": reason},
            )
        errand = self._errand(held, post)

        def act(connection: Connection) -> None:
            # Read here, so that what was set or renamed meanwhile counts.
            now_of = list_of_key(connection, of.key) or of
            listing = Listing(now_of, preferences(connection, of.key))
            done = perform(self._office.at(connection, listing, time.time()), errand)
            hand_on(connection, self._ids, done.handed)
            facts: Facts = {"from": errand.caller.email, "letters": len(done.handed)}
            if done.limited:
                facts["limited"] = done.limited
            said.update(facts, commands=len(done.said))  # for the log
            facts["commands"] = " / ".join(done.said)[:COPIED]
            ended = self._step(post, of.posting_address, "commands done", facts)
            steps.write(connection, self._ids, [began, ended])

        return Outcome(act, "commands done", said)

    def _errand(self, held: Claim, post: Post) -> Errand:
        author = post.authors[0]
        # The envelope has the address as its owner writes it.
        same = same_address(held.sender) == author
        email, _ = person(held.sender if same else author)
        forged = verdict(post, self._server) == "fail"
        caller = Caller(
            email,
            post.author_name[:MAX_NAME].strip(),
            shown=same and not forged,
            forged=forged,
            source=source_of(post),
            message_id=post.message_id,
        )
        lines = own_lines(held.raw)
        subaddress = str(held.metadata.get("subaddress", "request"))
        detail = str(held.metadata.get("detail", ""))
        most = self._office.commands.most
        own = without_name(without_quotes(lines), post.author_name)
        script = read_script(subaddress, detail, post.subject, own, most)
        return Errand(caller, script, post.subject, lines)

    def _step(self, post: Post, name: str, what: str, facts: Facts) -> Step:
        return Step(post.message_id, time.time(), name, what, dict(facts))


def unheard(post: Post, ours: Collection[str]) -> str:
    """Why a mail is neither obeyed nor answered; "" if it is. `ours` are those of its addresses
    that are endpoints of this site. Pure."""
    if len(post.authors) != 1:
        return "it names no author" if not post.authors else "it names several authors"
    for address in (post.sender, *post.authors):
        if why := unanswerable(address, post.automatic, address in ours):
            return why
    try:
        person(post.authors[0])
    except ListError as error:
        return str(error)
    return ""
