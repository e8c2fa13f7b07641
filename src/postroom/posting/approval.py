"""A moderator's token does not go out.

For: cooking. A post may carry the token in a field, or in its first line ("Approved: TOKEN").
Guarantees: the fields go, the line goes, and a long enough token is blacked out wherever else
it stands, in base64 too; a post that offers no token keeps every octet of its body. Never
raises. Where a token is spelled in some other way (in UTF-16, say) it is not found.
"""

import binascii
import re
from base64 import b64decode, encodebytes
from typing import Final

from postroom.mail.fields import Parts
from postroom.posting.mime import newline_of

FIELDS: Final = ("approved", "approve", "x-approved", "x-approve")
_RUN = re.compile(rb"(?:(?<=[\r\n])|\A)(?:[A-Za-z0-9+/]{4,}+={0,2}[ \t]*+(?:\r\n|\n|\r|\Z))++")
LEAST: Final = 6  # octets; blacking out shorter ones would hit words


def without_approval(parts: Parts, token: str) -> Parts:
    """The message without the fields, and without this token in its body ("": there is none)."""
    parts = parts.without(FIELDS)
    secret = token.strip().encode()
    if not secret:
        return parts
    rest = _cleaned(parts.rest, secret)
    if any(b"base64" in each.value.lower() for each in parts.fields) or b"base64" in rest.lower():
        rest = _RUN.sub(lambda run: _decoded(run[0], secret), rest)
    return parts._replace(rest=rest)


def _cleaned(text: bytes, secret: bytes) -> bytes:
    """Without the line, and without the token elsewhere."""
    quoted = secret.replace(b"=", b"=3D")
    both = re.escape(secret) + (b"|" + re.escape(quoted) if quoted != secret else b"")
    line = rb"(?:\A|(?<=[\r\n]))[ \t]*+approved?[ \t]*:[ \t]*(?:%b)[ \t]*+(?:\r\n|\n|\r|\Z)" % both
    text = re.sub(line, b"", text, count=1, flags=re.IGNORECASE)
    if len(secret) >= LEAST:
        text = text.replace(quoted, b"*" * len(secret)).replace(secret, b"*" * len(secret))
    return text


def _decoded(run: bytes, secret: bytes) -> bytes:
    """A run of base64 as it was, or without the token."""
    try:
        text = b64decode(run)
    except binascii.Error:
        return run
    clean = _cleaned(text, secret)
    return run if clean == text else encodebytes(clean).replace(b"\n", newline_of(run))
