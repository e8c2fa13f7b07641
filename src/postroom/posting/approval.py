"""A moderator's token does not go out.

For: cooking. A post may carry the token in a field, or in its first line ("Approved: TOKEN").
Guarantees: the fields go, the line goes, and the token is blacked out where else it stands in the
body on one line, in base64 too; a post that offers no token keeps every octet of its body. Never
raises. A token that is spelled in some other way is not found here, but by `visible`, which
then keeps the post from going out.
"""

import binascii
import re
from base64 import b64decode, encodebytes

from postroom.lists.keys import plain_token
from postroom.mail.fields import Parts
from postroom.reading.mime import newline_of
from postroom.reading.post import APPROVAL

_RUN = re.compile(rb"(?:(?<=[\r\n])|\A)(?:[A-Za-z0-9+/]{4,}+={0,2}[ \t]*+(?:\r\n|\n|\r|\Z))++")


def without_approval(parts: Parts, token: str) -> Parts:
    """The message without the fields, and without this token in its body; text that has not the
    form of a token is none."""
    parts = parts.without(APPROVAL)
    secret = rb"[ \t-]*+".join(each.encode() for each in plain_token(token))
    if not secret:
        return parts
    rest = _cleaned(parts.rest, secret)
    if any(b"base64" in each.value.lower() for each in parts.fields) or b"base64" in rest.lower():
        rest = _RUN.sub(lambda run: _decoded(run[0], secret), rest)
    return parts._replace(rest=rest)


def _cleaned(text: bytes, secret: bytes) -> bytes:
    """Without the line, and without the token elsewhere; `secret` is a pattern."""
    line = rb"(?:\A|(?<=[\r\n]))[ \t]*+approved?[ \t]*:[ \t]*%b[ \t]*+(?:\r\n|\n|\r|\Z)" % secret
    text = re.sub(line, b"", text, count=1, flags=re.IGNORECASE)
    return re.sub(secret, lambda found: b"*" * len(found[0]), text, flags=re.IGNORECASE)


def _decoded(run: bytes, secret: bytes) -> bytes:
    """A run of base64 as it was, or without the token."""
    try:
        text = b64decode(run)
    except binascii.Error:
        return run
    clean = _cleaned(text, secret)
    return run if clean == text else encodebytes(clean).replace(b"\n", newline_of(run))
