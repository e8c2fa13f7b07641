"""Outgoing: what delivery is told of lists and notices, which it does not know.

For: the courier. Guarantees: a post in personalised mode gives each member an unsubscribe link
of their own (RFC 8058), where the site has pages; a notice that could not be delivered is told
to the site's owner, and one that was for the owner ends there.
"""

import time
from typing import NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection

from postroom.delivery.active import Single
from postroom.delivery.ledger import Told
from postroom.lists.keys import site_secret, unsubscribe_token
from postroom.lists.registry import list_of_key
from postroom.mail.address import ascii_name
from postroom.notices.letters import Failed, undeliverable
from postroom.notices.sheet import House
from postroom.posting.own import endpoint, mailto
from postroom.posting.personal import Personal
from postroom.spool.handing import Handed
from postroom.spool.queue import Claim
from postroom.store.engine import Store


class Outgoing(NamedTuple):
    """`web_url` is where members' pages are, "" for nowhere."""

    store: Store
    house: House
    web_url: str

    def personal(self, held: Claim) -> Single | None:
        """What makes the message for each recipient of a post; None where all get the same. It
        reads, so it is called outside the event loop."""
        if not self.web_url or held.list_key is None:
            return None
        with self.store.begin() as connection:
            of = list_of_key(connection, held.list_key)
            secret = site_secret(connection)
        if of is None:
            return None
        divided = Personal(held.raw)
        leave = mailto(endpoint(of.posting_address, "leave"))
        page = f"{self.web_url.rstrip('/')}/unsubscribe/{quote(ascii_name(of.list_id))}"

        def message(email: str) -> bytes:
            token = unsubscribe_token(secret, of.list_id, email)
            return divided.message(f"{page}/{token}", leave)

        return message

    def undeliverable(self, connection: Connection, held: Claim, told: Told) -> Handed | None:
        """What the site's owner is told of a notice that did not reach somebody."""
        failed = Failed(told.email, held.raw, told.reply)
        of = None if held.list_key is None else list_of_key(connection, held.list_key)
        return undeliverable(self.house, failed, of, time.time())
