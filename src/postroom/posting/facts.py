"""Facts: what the database knows that decides about a post.

For: the incoming runner and `postroom explain`, which so decide alike. Guarantees: a constant
number of statements, however many members or senders there are, and nothing is written: a
reading transaction will do. Fails with `ListError` if the list's settings cannot be read or the
list is gone, and with the database's errors.
"""

from sqlalchemy import Connection, select

from postroom.lists.keys import is_moderator_token
from postroom.lists.preferences import preferences
from postroom.lists.registry import MailingList
from postroom.lists.roster import memberships, staff
from postroom.mail.address import Mailbox, parse_mailbox
from postroom.posting.decision import ListFacts, Membership, SenderFacts
from postroom.posting.reading import Post
from postroom.store.schema import domain, secret


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
        Membership(each.email, each.role, each.moderation)
        for each in memberships(connection, found.key, post.senders)
    )
    return this, SenderFacts(known, bool(post.approval) and _is_approved(connection, found, post))


def _is_approved(connection: Connection, found: MailingList, post: Post) -> bool:
    """Whether the post holds the token of an owner or moderator."""
    # Read here: to ask for the secret makes one, and where there is none no token is right.
    key = connection.scalar(select(secret.c.value).where(secret.c.name == "site"))
    return key is not None and any(
        is_moderator_token(bytes(key), found.list_id, each.email, post.approval)
        for each in staff(connection, found.key)
    )
