"""Orders: what an entry of the queue `out` asks for.

For: the stages that hand a message on to delivery, and delivery itself. Guarantees: an order
says who sends (the envelope sender before VERP) and to whom: all members of its list, or the
addresses it names. It travels as the entry's metadata, under `order`. Fails with ValueError
when read from metadata that holds none.
"""

from typing import Literal

import msgspec
from msgspec import Struct

from postroom.spool.metadata import OUT as OUT
from postroom.spool.metadata import VERSION, Metadata


class Order(Struct, frozen=True, omit_defaults=True):
    """`kind`: a post to the members, mail for the owners, a notice of ours, or a probe: that one
    finds out whether its recipient can be reached, and a token is the detail of its sender.
    `sender` is the envelope sender, "" for the null sender. `recipients` are addresses; a post
    has none, it goes to all members but those named in `authors` who do not want their own
    posts, and those in `named` (To and Cc) who do not want duplicates; both folded. `verp` has
    bounces name the recipient, in addresses that are known as ours if there is a `verp_key`
    (`lists.keys`); `personal` has each recipient get a transaction, and an unsubscribe link, of
    their own. `message_id` is that of the message that goes out."""

    kind: Literal["post", "owner", "notice", "probe"]
    sender: str
    message_id: str = ""
    recipients: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    verp: bool = False
    verp_key: str = ""
    personal: bool = False

    def metadata(self, listname: str, size: int) -> Metadata:
        """As an entry's metadata; `size` is that of the message in octets."""
        asked = msgspec.to_builtins(self)
        facts: Metadata = {"original_size": size, "order": asked, "version": VERSION}
        if listname:
            facts["listname"] = listname
        return facts


def order_of(facts: Metadata) -> Order:
    """The order in an entry's metadata. Raises ValueError."""
    return msgspec.convert(facts.get("order"), Order)
