"""ARC: what our mail server found out about a post, sealed before the list changes it.

For: runners, after a post is cooked; only where a key is configured (`[arc]`). Makes the three
fields of RFC 8617 4.1, so that receivers who trust this site may believe the author's DKIM or
SPF although the list broke it. Guarantees: only Authentication-Results of our own authserv-id
are sealed (the mail server must remove those that others wrote in its name, RFC 8601 5); a chain
that our mail server has not checked, or that has ended, is not continued; sealing never stops a
post: what keeps it from being sealed is said in a sentence. List-Unsubscribe is not covered, so
a sealed post can still be made personal. Linear time.

A key that cannot be used, or one without the extra `dkim` (the package cryptography), is a
`SealError` when the sealer is made, which says what to do.
"""

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from postroom.mail.fields import WIDTH, Field, Parts, field, take_apart

try:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

MOST_INSTANCES: Final = 50  # RFC 8617 4.2.1
LEAST_BITS: Final = 2048  # RFC 8301 3.2
_SET: Final = ("arc-authentication-results", "arc-message-signature", "arc-seal")
_SIGNED: Final = (
    "from",
    "reply-to",
    "subject",
    "date",
    "message-id",
    "to",
    "cc",
    "sender",
    "in-reply-to",
    "references",
    "mime-version",
    "content-type",
    "content-transfer-encoding",
    "list-id",
    "list-post",
    "dkim-signature",
)
_MOST_SIGNED: Final = 60  # fields; of more the last ones, as a verifier counts them
_INSTANCE = re.compile(
    rb"(?:\A|;)[ \t\r\n]*+i[ \t\r\n]*+=[ \t\r\n]*+([0-9]{1,3})[ \t\r\n]*+(?:;|\Z)"
)
_FAILED = re.compile(rb"(?:\A|;)\s*+cv\s*+=\s*+fail\s*+(?:;|\Z)", re.IGNORECASE)
_SERVER = re.compile(rb"([^\s;()]++)(?:\s++[0-9]++)?\s*+;")
_QUOTED = re.compile(rb'"(?:[^"\\]|\\.)*+"')
_ARC_RESULT = re.compile(rb"\s*arc\s*=\s*([a-z]+)", re.IGNORECASE)
_WHITE = re.compile(rb"[ \t]++")


class SealError(Exception):
    """Posts cannot be sealed; `str()` says why and what to do."""


class Sealed(NamedTuple):
    """The message, with an ARC set if it could be sealed, and a sentence."""

    raw: bytes
    note: str


class Sealer:
    """Seals in the name of `domain`, whose public key is at SELECTOR._domainkey.DOMAIN.
    `authserv_id` is how our mail server calls itself in Authentication-Results."""

    def __init__(self, key: bytes, domain: str, selector: str, authserv_id: str) -> None:
        if not INSTALLED:
            raise SealError("arc.key is set, but sealing needs more: pip install 'postroom[dkim]'")
        try:
            private = serialization.load_pem_private_key(key, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise SealError(
                f"arc.key holds no private key in PEM without passphrase: {error}"
            ) from (None)
        if not isinstance(private, rsa.RSAPrivateKey) or private.key_size < LEAST_BITS:
            raise SealError(f"arc.key must be an RSA key of at least {LEAST_BITS} bits")
        self._key, self._domain, self._selector = private, domain, selector
        self._server = authserv_id.encode().lower()

    @classmethod
    def of_file(cls, path: str, domain: str, selector: str, authserv_id: str) -> "Sealer":
        """With the key in this file. Raises `SealError`."""
        try:
            key = Path(path).read_bytes()
        except OSError as error:
            raise SealError(f"arc.key: {path} cannot be read: {error.strerror}") from None
        return cls(key, domain, selector, authserv_id)

    def seal(self, raw: bytes, now: float) -> Sealed:
        """The message as it goes out, sealed."""
        parts = take_apart(raw)
        results = self._results(parts)
        if not results:
            return Sealed(raw, f"not sealed: no Authentication-Results of {self._server.decode()}")
        chain = _chain(parts)
        if chain is None or len(chain) >= MOST_INSTANCES:
            return Sealed(raw, "not sealed: its ARC chain is broken or too long")
        if chain and _FAILED.search(chain[-1][2].raw.partition(b":")[2]):
            return Sealed(raw, "not sealed: its ARC chain has ended")
        status = _status(results) if chain else "none"
        if status not in ("pass", "fail") and chain:
            return Sealed(raw, "not sealed: the mail server has not checked its ARC chain")
        added = self._set(parts, chain if status == "pass" else (), len(chain) + 1, results, status,
                          int(now))  # fmt: skip
        return Sealed(parts.on_top(added).joined(), f"ARC seal {len(chain) + 1}, cv={status}")

    def _results(self, parts: Parts) -> list[bytes]:
        """What our own mail server found out (RFC 8601 2.2), without its name."""
        found = []
        for each in parts.all("authentication-results"):
            match = _SERVER.match(each.value)
            if match and match[1].lower() == self._server:
                found.append(each.value[match.end() :].strip())
        return found

    def _set(
        self,
        parts: Parts,
        chain: Sequence[Sequence[Field]],
        instance: int,
        results: Iterable[bytes],
        status: str,
        now: int,
    ) -> list[Field]:
        """The fields of one instance, in the order in which they stand in the message."""
        said = "; ".join(each.decode("utf-8", "replace") for each in results)
        server = self._server.decode()
        found = field("ARC-Authentication-Results", f"i={instance}; {server}; {said}", utf8=True)
        who = f"d={self._domain}; s={self._selector}; t={now}"
        covered = _covered(parts)
        body = b64encode(sha256(_relaxed_body(parts.rest)).digest()).decode()
        names = " : ".join(each.name for each in covered)
        message = self._signed(
            "ARC-Message-Signature",
            f"i={instance}; a=rsa-sha256; c=relaxed/relaxed; {who}; h={names}; bh={body}; b=",
            covered,
        )
        before = [each for one in chain for each in one]
        seal = self._signed(
            "ARC-Seal",
            f"i={instance}; a=rsa-sha256; cv={status}; {who}; b=",
            [*before, found, message],
        )
        return [seal, message, found]

    def _signed(self, name: str, tags: str, covered: Iterable[Field]) -> Field:
        """A field with a signature over these fields and itself (RFC 6376 3.7)."""
        empty = field(name, tags)
        octets = b"".join(_relaxed(each) + b"\r\n" for each in covered) + _relaxed(empty)
        signature = b64encode(self._key.sign(octets, padding.PKCS1v15(), hashes.SHA256())).decode()
        lines = [signature[at : at + WIDTH - 2] for at in range(0, len(signature), WIDTH - 2)]
        return empty._replace(
            raw=empty.raw[:-2] + "".join(f"\r\n {x}" for x in lines).encode() + b"\r\n"
        )


def _covered(parts: Parts) -> list[Field]:
    """The fields that are signed: of one name the last first (RFC 6376 5.4.2)."""
    found = (each for name in _SIGNED for each in reversed(parts.all(name)))
    return list(islice(found, _MOST_SIGNED))


def _chain(parts: Parts) -> list[tuple[Field, Field, Field]] | None:
    """The sets that are there, the oldest first; None if one is not whole (RFC 8617 5.1.1)."""
    found: dict[tuple[int, str], Field] = {}
    for each in parts.fields:
        if each.name in _SET:
            number = _INSTANCE.search(each.value)
            place = (int(number[1]) if number else 0, each.name)
            if not place[0] or place in found:
                return None
            found[place] = each
    count = len(found) // 3
    sets = []
    for instance in range(1, count + 1):
        one = [found.get((instance, name)) for name in _SET]
        if one[0] is None or one[1] is None or one[2] is None:
            return None
        sets.append((one[0], one[1], one[2]))
    return sets if len(found) == 3 * count else None


def _status(results: Iterable[bytes]) -> str:
    """What our mail server says of the chain, "" if nothing, or more than one thing."""
    said = [
        match[1].decode().lower()
        for each in results
        for part in _plain(each).split(b";")
        if (match := _ARC_RESULT.match(part))
    ]
    return said[0] if len(said) == 1 else ""


def _plain(text: bytes) -> bytes:
    """Without quoted strings and comments, which may hold what a sender wrote."""
    kept, depth = [], 0
    for token in re.split(rb"([()])", _QUOTED.sub(b'""', text)):
        depth = max(depth + (token == b"(") - (token == b")"), 0)
        if not depth and token not in b"()":
            kept.append(token)
    return b" ".join(kept)


def _relaxed(each: Field) -> bytes:
    """RFC 6376 3.4.2, without the line end."""
    _, _, value = each.raw.partition(b":")
    unfolded = value.replace(b"\r", b"").replace(b"\n", b"")
    return each.name.encode() + b":" + _WHITE.sub(b" ", unfolded).strip(b" ")


def _relaxed_body(rest: bytes) -> bytes:
    """RFC 6376 3.4.4, of what begins with the blank line. Lines end as they will on the wire."""
    text = re.sub(rb"\r\n|\r", b"\n", rest).removeprefix(b"\n")
    text = _WHITE.sub(b" ", text).replace(b" \n", b"\n").rstrip(b" \n")
    return text.replace(b"\n", b"\r\n") + b"\r\n" if text else b""
