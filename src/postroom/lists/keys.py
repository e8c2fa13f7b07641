"""Keys: what this site signs, so that it can tell its own links and tokens from forged ones.

For: the unsubscribe link of a post (RFC 8058), the token by which an owner or moderator
approves a post by mail, the one by which those who were told of a held post decide on it, and the
tags in the envelope senders of posts, by which an address that a bounce comes to is known as ours.
Guarantees: without the site's secret none can be made; each is bound to its purpose, to one
list (by its list-id, which never changes) and to one address or post, and is compared in
constant time. A wrong one is told from a right one by the value returned: nothing
raises but the database.

Formats. MAC is HMAC-SHA256 over PURPOSE NUL LIST-ID NUL ADDRESS, the address in the form of
`roster.same_address`; for moderators NUL and the time when they got the role follow, as Python
writes a float. Neither purpose nor list-id can hold NUL.

- unsubscribe token: base64url(ADDRESS) "." base64url(the first 16 octets of MAC), unpadded
- moderator token: base32(the first 10 octets of MAC), in groups of four with hyphens
  between, as in ABCD-EFGH-IJKL-MNOP; read in any case, hyphens and blanks ignored
- token of a held post: base32(ID, 8 octets, the highest first, and the first 16 octets of MAC),
  unpadded, in lower case; read in any case. In MAC the id, in decimal, stands for the address
- VERP key of a list: base64url(the first 16 octets of MAC), unpadded; ADDRESS is empty
- VERP tag: base32(the first 5 octets of HMAC-SHA256 over ADDRESS, with the VERP key, as that text,
  for its key), in lower case; of an empty ADDRESS it is the tag that all readers of a list share

Tokens do not expire: they end with the membership, or when the post is decided on, which whoever
reads them must look up. Who is made moderator once more gets another token, so one that became
known can be taken back; that of a held post is the same for all who are told of it. A tag is
short, for the sake of addresses: who has to guess one of 40 bits sends a lot of mail.
"""

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable
from typing import Final

from sqlalchemy import Connection, select
from sqlalchemy.dialects import postgresql, sqlite

from postroom.lists.roster import same_address
from postroom.store.schema import address, member
from postroom.store.schema import secret as secrets_table

SECRET_SIZE: Final = 32  # octets
LONGEST: Final = 1024  # characters of a token that is looked at
_NAME: Final = "site"
_UNSUBSCRIBE: Final = b"unsubscribe"
_MODERATOR: Final = b"moderator"
_HELD: Final = b"held"
_VERP: Final = b"verp"
_PLAIN: Final = re.compile(r"[A-Z2-7]{16}")
_HELD_FORM: Final = re.compile(r"[A-Za-z2-7]{39}")


def site_secret(connection: Connection) -> bytes:
    """The site's secret; made the first time, so a writing transaction is needed until then."""
    known = select(secrets_table.c.value).where(secrets_table.c.name == _NAME)
    found = connection.scalar(known)
    if found is None:
        insert = sqlite.insert if connection.dialect.name == "sqlite" else postgresql.insert
        made = insert(secrets_table).values(name=_NAME, value=secrets.token_bytes(SECRET_SIZE))
        connection.execute(made.on_conflict_do_nothing())
        found = connection.scalar(known)  # another one may have been first
        assert found is not None
    return bytes(found)


def unsubscribe_token(secret: bytes, list_id: str, email: str) -> str:
    """A token that lets its holder take this address off the list. Pure."""
    folded = same_address(email)
    return f"{_web(folded.encode())}.{_web(_unsubscribe_mac(secret, list_id, folded))}"


def read_unsubscribe_token(secret: bytes, list_id: str, token: str) -> str | None:
    """The address (folded) that an unsubscribe token was made for; None if it is not ours for
    this list. Pure; any text will do."""
    if len(token) > LONGEST:
        return None
    text = token.partition(".")[0]
    try:
        email = base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    # Compared as text, so that there is one spelling of a token.
    wanted = f"{_web(email.encode())}.{_web(_unsubscribe_mac(secret, list_id, email))}"
    return email if _same(wanted, token) else None


def moderator_token(secret: bytes, list_id: str, email: str, since: float) -> str:
    """The token by which this owner or moderator, in that role `since` then, approves posts to
    the list. Pure."""
    mac = _mac(secret, _MODERATOR, list_id, f"{same_address(email)}\0{since!r}")
    text = base64.b32encode(mac[:10]).decode()
    return "-".join(text[first : first + 4] for first in range(0, len(text), 4))


def moderator_tokens(connection: Connection, list_key: int, list_id: str) -> frozenset[str]:
    """All tokens that approve posts to a list, without hyphens; one statement. Nothing is
    written: where there is no secret yet there is no token either."""
    ours = (member.c.list == list_key) & member.c.role.in_(["owner", "moderator"])
    found = (
        select(address.c.folded, member.c.joined_at, secrets_table.c.value)
        .join_from(member, address)
        .join(secrets_table, secrets_table.c.name == _NAME)
        .where(ours)
    )
    return frozenset(
        plain_token(moderator_token(bytes(key), list_id, email, since))
        for email, since, key in connection.execute(found)
    )


def plain_token(text: str) -> str:
    """A moderator token that somebody wrote, without hyphens and blanks; "" if this text has not
    the form of one. Pure; any text will do."""
    if len(text) > LONGEST:
        return ""
    plain = "".join(text.replace("-", " ").split()).upper()
    return plain if _PLAIN.fullmatch(plain) else ""


def is_moderator_token(tokens: Iterable[str], text: str) -> bool:
    """Whether this is one of these tokens (see `moderator_tokens`). Pure; any text will do."""
    plain = plain_token(text)
    same = [_same(each, plain) for each in tokens]  # all of them, so that time tells nothing
    return bool(plain) and any(same)


def held_token(secret: bytes, list_id: str, number: int) -> str:
    """A token that lets its holder decide on the held post with this id; 39 characters. Pure."""
    mac = _mac(secret, _HELD, list_id, str(number))
    return base64.b32encode(number.to_bytes(8) + mac[:16]).decode().rstrip("=").lower()


def read_held_token(secret: bytes, list_id: str, text: str) -> int | None:
    """The id of the post that a token was made for; None if it is not ours for this list. Pure;
    any text will do."""
    if len(text) > LONGEST:
        return None
    token = text.strip()
    if not _HELD_FORM.fullmatch(token):
        return None
    number = int.from_bytes(base64.b32decode(f"{token.upper()}=")[:8])
    # Compared as text, so that but for its case there is one spelling of a token.
    return number if _same(held_token(secret, list_id, number), token.lower()) else None


def verp_key(secret: bytes, list_id: str) -> str:
    """What the VERP tags of a list are made with; 22 characters that need no quoting. It tells
    nothing of the secret, so it may stand in an order. Pure."""
    return _web(_mac(secret, _VERP, list_id, "")[:16])


def verp_tag(key: str, email: str = "") -> str:
    """The tag that stands before this address (folded) in an envelope sender, with the list's
    VERP key; without an address the one that all its readers share. 8 characters a-z2-7. Pure."""
    mac = hmac.new(key.encode(), email.encode(), hashlib.sha256).digest()
    return base64.b32encode(mac[:5]).decode().lower()


def _unsubscribe_mac(secret: bytes, list_id: str, folded: str) -> bytes:
    return _mac(secret, _UNSUBSCRIBE, list_id, folded)[:16]


def _mac(secret: bytes, purpose: bytes, list_id: str, folded: str) -> bytes:
    text = b"\0".join((purpose, list_id.encode(), folded.encode()))
    return hmac.new(secret, text, hashlib.sha256).digest()


def _web(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def _same(wanted: str, given: str) -> bool:
    return hmac.compare_digest(wanted.encode(), given.encode("utf-8", "surrogatepass"))
