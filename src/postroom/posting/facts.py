"""Facts: what the database knows that decides about a post.

For: the incoming runner and `postroom explain`, which so decide alike. Guarantees: a constant
number of statements, however many members or senders there are, and nothing is written: a
reading transaction will do. Fails with `ListError` if the list's settings cannot be read or the
list is gone, and with the database's errors.
"""

from sqlalchemy import Connection, select

from postroom.lists.keys import is_moderator_token, moderator_tokens
from postroom.lists.preferences import preferences
from postroom.lists.registry import MailingList
from postroom.lists.roster import memberships
from postroom.mail.address import Mailbox, parse_mailbox
from postroom.posting.decision import ListFacts, Membership, SenderFacts
from postroom.reading.post import Post
from postroom.store.schema import domain


def facts_for(
    connection: Connection, found: MailingList, post: Post
) -> tuple[ListFacts, SenderFacts]:
    """What the rules want to know of a list and of a post's senders."""
    box, _ = parse_mailbox(found.posting_address)
    hosts = select(domain.c.mail_host).where(domain.c.alias_of == box.domain)
    this = ListFacts(
        found.posting_address,
        found.list_id,
        found.display_name,
        preferences(connection, found.key),
        tuple(str(Mailbox(box.local, host)) for host in connection.scalars(hosts)),
    )
    known = tuple(
        Membership(each.email, each.role, each.moderation, each.ack)
        for each in memberships(connection, found.key, post.senders)
    )
    tokens = moderator_tokens(connection, found.key, found.list_id)
    return this, SenderFacts(known, is_moderator_token(tokens, post.approval), tokens=tokens)
