"""A post for each member: the same bytes but for the way out.

For: delivery in personalised mode. Guarantees: of a cooked message only the field
List-Unsubscribe changes, into the member's own links (RFC 2369, RFC 8058); it is looked for
once, and then a recipient costs one joining of bytes. A link cannot make another field. Never
raises.
"""

from postroom.mail.fields import Parts, take_apart
from postroom.posting.own import UNSUBSCRIBE

_ONE_CLICK = b">\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
_NAMES = (UNSUBSCRIBE.lower(), f"{UNSUBSCRIBE}-Post".lower())
_UNFIT = bytes(range(33)) + b"<>\x7f"


class Personal:
    """A cooked message, divided where the member's links go."""

    def __init__(self, cooked: bytes) -> None:
        parts = take_apart(cooked)
        names = [each.name for each in parts.fields]
        place = names.index(_NAMES[0]) if _NAMES[0] in names else len(names)
        before = Parts(parts.fields[:place], b"").without(_NAMES)
        after = Parts(parts.fields[place:], parts.rest).without(_NAMES)
        self._head = before.with_last(()).joined()[:-2] if before.fields else b""
        self._head += f"{UNSUBSCRIBE}: <".encode()
        self._tail = _ONE_CLICK + after.joined()

    def message(self, unsubscribe_url: str, unsubscribe_mailto: str) -> bytes:
        """The message for a member whose links these are: an https URL, and a mailto URI."""
        url = unsubscribe_url.encode().translate(None, _UNFIT)
        mail = unsubscribe_mailto.encode().translate(None, _UNFIT)
        return b"%b%b>,\r\n <%b%b" % (self._head, url, mail, self._tail)
