"""ARC seals, verified by another program's library (dkimpy)."""

import subprocess
import sys
from base64 import b64decode, b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postroom.mail.fields import take_apart
from postroom.posting.arc import Sealer, SealError
from postroom.posting.cook import cook
from postroom.posting.personal import Personal
from tests.posting.kitchen import NOW, golden, order

dkim = pytest.importorskip("dkim", reason="needs dkimpy")
serialization = pytest.importorskip("cryptography.hazmat.primitives.serialization")
rsa = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.rsa")
padding = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.padding")
hashes = pytest.importorskip("cryptography.hazmat.primitives.hashes")
ec = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ec")

RESULTS = (
    b"Authentication-Results: mx.example.com 1;\r\n"
    b" dkim=pass (good; arc=pass) header.d=example.org;\r\n"
    b'\tspf=pass smtp.mailfrom="a;arc=pass"@example.org\r\n'
)


def pem(key: object) -> bytes:
    return bytes(
        key.private_bytes(  # type: ignore[attr-defined]
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


KEY = rsa.generate_private_key(65537, 2048)
PEM = pem(KEY)
PUBLIC = b64encode(
    KEY.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
)


def published(name: bytes, timeout: float = 5) -> bytes:
    assert name == b"x1._domainkey.lists.example.com."
    return b"v=DKIM1; k=rsa; p=" + PUBLIC


def verified(raw: bytes) -> bytes | None:
    """What a receiver says of the chain: b"pass", b"fail", b"none", None for one that ended."""
    status: bytes | None = dkim.arc_verify(raw, dnsfunc=published)[0]
    return status


SEALER = Sealer(PEM, "lists.example.com", "x1", "MX.example.com")


@pytest.fixture
def sealer() -> Sealer:
    return SEALER


def post(head: bytes = RESULTS) -> bytes:
    raw = golden("plain.eml")
    return cook(head + raw, order(raw)).raw


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\r\n",
        b"Hello.",
        b"Hello.\r\n\r\n\r\n",
        b"a  \t b \r\n \t\r\nc\t\r\n",
        b"\r\n\r\n x",
        b"\xff\x00\r\n.\r\n",
    ],
)
def test_a_sealed_post_is_verified(sealer: Sealer, body: bytes) -> None:
    raw = post().partition(b"\r\n\r\n")[0] + b"\r\n\r\n" + body
    sealed = sealer.seal(raw, NOW)
    assert sealed.note == "ARC seal 1, cv=none"
    assert sealed.raw.endswith(raw)
    assert verified(sealed.raw) == b"pass"
    names = [each.name for each in take_apart(sealed.raw).fields[:3]]
    assert names == ["arc-seal", "arc-message-signature", "arc-authentication-results"]


@given(st.lists(st.text(" \t\r\nab", max_size=20)))
def test_any_white_space_is_canonical(lines: list[str]) -> None:
    text = "".join(lines).replace("\r", "").replace("\n", "\r\n").encode()
    raw = RESULTS + b"From: a@b\r\nSubject:  x\t y\r\n\t z \r\n\r\n" + text + b"\r\n"
    sealed = SEALER.seal(raw, NOW)
    assert verified(sealed.raw) == b"pass"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"Hello", b"Hallo"), (b"Subject: Re", b"Subject: Fw"), (b"cv=none", b"cv=pass")],
)
def test_what_is_changed_after_sealing_is_found(sealer: Sealer, old: bytes, new: bytes) -> None:
    sealed = sealer.seal(post(), NOW).raw
    assert old in sealed
    assert verified(sealed.replace(old, new)) == b"fail"


def test_a_sealed_post_can_be_made_personal(sealer: Sealer) -> None:
    mine = Personal(sealer.seal(post(), NOW).raw).message(
        "https://x.example/1", "mailto:a@b.example"
    )
    assert b"https://x.example/1" in mine
    assert verified(mine) == b"pass"


def test_line_ends_are_sealed_as_they_will_be_on_the_wire(sealer: Sealer) -> None:
    sealed = sealer.seal(post().replace(b"\r\n", b"\n"), NOW).raw
    assert verified(sealed.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")) == b"pass"


def test_all_results_of_our_server_are_kept_and_no_others(sealer: Sealer) -> None:
    head = (
        b"Authentication-Results: mx.example.com; spf=pass\r\n"
        b"Authentication-Results: mx.example.com.evil.example; dkim=pass header.d=bank.example\r\n"
        b"Authentication-Results: evil.example (mx.example.com); arc=pass\r\n"
        b"Authentication-Results: mx.example.com; dkim=fail\r\n"
    )
    found = take_apart(sealer.seal(post(head), NOW).raw).first("arc-authentication-results")
    assert found and found.value == b"i=1; mx.example.com; spf=pass; dkim=fail"


def test_without_results_of_our_server_nothing_is_sealed(sealer: Sealer) -> None:
    raw = post(b"Authentication-Results: other.example; dkim=pass\r\n")
    assert sealer.seal(raw, NOW) == (
        raw,
        "not sealed: no Authentication-Results of mx.example.com",
    )


def again(raw: bytes, result: bytes) -> bytes:
    """The post as it comes back through another list, with what our server found out."""
    return b"Authentication-Results: mx.example.com; " + result + b"\r\n" + raw


def test_a_chain_that_was_checked_is_continued(sealer: Sealer) -> None:
    raw = sealer.seal(post(), NOW).raw
    for number in (2, 3):
        # The mail server removes what stands there in its name (RFC 8601 5).
        raw = take_apart(raw).without(["authentication-results"]).joined()
        sealed = sealer.seal(again(raw, b"spf=pass; arc=pass"), NOW)
        assert sealed.note == f"ARC seal {number}, cv=pass"
        assert verified(sealed.raw) == b"pass"
        raw = sealed.raw


def test_a_chain_that_failed_is_ended_and_never_continued(sealer: Sealer) -> None:
    raw = take_apart(sealer.seal(post(), NOW).raw).without(["authentication-results"]).joined()
    ended = sealer.seal(again(raw.replace(b"Hello", b"Hallo"), b"arc=fail"), NOW)
    assert ended.note == "ARC seal 2, cv=fail"
    assert verified(ended.raw) in (None, b"fail")
    raw = take_apart(ended.raw).without(["authentication-results"]).joined()
    later = again(raw, b"arc=fail")
    assert sealer.seal(later, NOW) == (later, "not sealed: its ARC chain has ended")


def test_the_seal_that_ends_a_chain_covers_its_own_set_alone(sealer: Sealer) -> None:
    """RFC 8617 5.1.2."""
    raw = take_apart(sealer.seal(post(), NOW).raw).without(["authentication-results"]).joined()
    seal, message, results = take_apart(sealer.seal(again(raw, b"arc=fail"), NOW).raw).fields[:3]
    tags, _, signature = seal.raw.rpartition(b"b=")
    relaxed = dkim.canonicalization.Relaxed.canonicalize_headers(
        [each.partition(b":")[::2] for each in (results.raw, message.raw, tags + b"b=\r\n")]
    )
    covered = b"".join(b"%b:%b" % each for each in relaxed).removesuffix(b"\r\n")
    KEY.public_key().verify(
        b64decode(signature), covered, padding.PKCS1v15(), hashes.SHA256()
    )  # raises if it does not hold


@pytest.mark.parametrize(
    "result",
    [
        b"spf=pass",
        b"arc=none",
        b"arc=pass; arc=fail",
        b"spf=pass (arc=pass; arc=pass)",
        b"spf=pass (; arc=pass",
        b'x="; arc=pass"',
    ],
)
def test_a_chain_that_was_not_checked_is_left_alone(sealer: Sealer, result: bytes) -> None:
    raw = take_apart(sealer.seal(post(), NOW).raw).without(["authentication-results"]).joined()
    came = again(raw, result)
    assert sealer.seal(came, NOW) == (
        came,
        "not sealed: the mail server has not checked its ARC chain",
    )


@pytest.mark.parametrize(
    "forged",
    [
        b"ARC-Seal: i=1; cv=none\r\n",
        b"ARC-Seal: nothing\r\n",
        b"ARC-Seal: i=0; cv=none\r\n",
        b"ARC-Seal: i=1\r\nARC-Seal: i=1\r\nARC-Seal: i=1\r\n",
        b"ARC-Seal: i=1\r\nARC-Message-Signature: i=1\r\nARC-Authentication-Results: i=1\r\n"
        b"ARC-Seal: i=1\r\n",
        b"ARC-Seal: i=2\r\nARC-Message-Signature: i=2\r\nARC-Authentication-Results: i=2\r\n",
        b"".join(
            b"ARC-%b: i=%d\r\n" % (name, n)
            for n in range(1, 51)
            for name in (b"Seal", b"Message-Signature", b"Authentication-Results")
        ),
    ],
)
def test_a_broken_or_endless_chain_is_left_alone(sealer: Sealer, forged: bytes) -> None:
    raw = RESULTS.replace(b"spf", b"arc=pass; spf") + forged + b"From: a@b\r\n\r\n"
    assert sealer.seal(raw, NOW) == (raw, "not sealed: its ARC chain is broken or too long")


@given(st.binary(max_size=200), st.text(max_size=50))
def test_any_bytes_can_be_sealed(raw: bytes, said: str) -> None:
    head = b"Authentication-Results: mx.example.com; " + said.encode("utf-8", "replace")
    results = take_apart(head.replace(b"\r", b"").replace(b"\n", b"") + b"\r\n").fields
    came = take_apart(raw).on_top(results).joined()
    before = len(take_apart(came).fields)
    assert len(take_apart(SEALER.seal(came, NOW).raw).fields) in (before, before + 3)


def test_many_fields_of_one_name_are_sealed_up_to_a_bound(sealer: Sealer) -> None:
    raw = RESULTS + b"From: a@b\r\n" + b"To: x@y\r\n" * 1000 + b"\r\n"
    sealed = sealer.seal(raw, NOW).raw
    assert verified(sealed) == b"pass"
    assert sealed.count(b"to :") < 61


@pytest.mark.parametrize(
    ("key", "why"),
    [
        (b"", "arc.key holds no private key"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "arc.key holds no"),
        (pem(rsa.generate_private_key(65537, 1024)), "arc.key must be an RSA key of at least 2048"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "arc.key must be an RSA key"),
        (
            KEY.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(b"x"),
            ),
            "arc.key holds no private key in PEM without passphrase",
        ),
    ],
)
def test_a_key_that_cannot_be_used_is_refused(key: bytes, why: str) -> None:
    with pytest.raises(SealError, match=why):
        Sealer(key, "lists.example.com", "x1", "mx.example.com")


def test_a_key_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "arc.pem"
    with pytest.raises(SealError, match=f"arc.key: {path} cannot be read: No such file"):
        Sealer.of_file(str(path), "lists.example.com", "x1", "mx.example.com")
    path.write_bytes(PEM)
    sealer = Sealer.of_file(str(path), "lists.example.com", "x1", "mx.example.com")
    assert verified(sealer.seal(post(), NOW).raw) == b"pass"


def test_without_the_extra_it_says_what_to_install() -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None\n"
        "from postroom.posting.arc import Sealer, SealError\n"
        "try: Sealer(b'', 'a', 'b', 'c')\n"
        "except SealError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "pip install 'postroom[dkim]'" in done.stdout
