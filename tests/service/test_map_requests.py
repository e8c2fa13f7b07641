"""What look-ups ask and what they are told, without any socket."""

import pytest

from postroom.base.places import Tcp, Unix
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.reply import Reply
from postroom.service.maps import MAPS, Request, answers, next_hop, understand

WHERE = "lmtp:inet:127.0.0.1:8024"
ANTS = Mailbox("ants", "example.com")


@pytest.mark.parametrize(
    ("request_", "recipient"),
    [
        ("recipients ants@example.com", ANTS),
        ("recipients Ants-Owner+x@EXAMPLE.com", Mailbox("Ants-Owner+x", "EXAMPLE.com")),
        ('recipients "ants"@example.com', ANTS),
        ('recipients "a b"@example.com', Mailbox("a b", "example.com")),
        ("recipients grüße@bücher.example", Mailbox("grüße", "bücher.example")),
        ("recipients ants@xn--bcher-kva.example", Mailbox("ants", "xn--bcher-kva.example")),
        ("recipients postmaster@example.com", Mailbox("postmaster", "example.com")),
        ("transport ants@example.com", ANTS),
        ("transport Postmaster@example.com", None),  # that of the mail server
        ("domains example.com", Mailbox("postmaster", "example.com")),
        ("domains nobody@example.com", Mailbox("postmaster", "example.com")),
        ('domains "a b"@example.com', Mailbox("postmaster", "example.com")),
    ],
)
def test_a_key_is_found_if_this_recipient_exists(request_: str, recipient: Mailbox | None) -> None:
    name, _, key = request_.partition(" ")
    assert understand(request_.encode()) == Request(name, key, recipient)


# What other kinds of tables are asked for: part of an address, its domain, a wild card.
@pytest.mark.parametrize("name", ["recipients", "transport"])
@pytest.mark.parametrize(
    "key",
    [
        *("", " ", "*", "ants", "ants@", "@example.com", "example.com", ".example.com"),
        *("postmaster", "<ants@example.com>", "a b@example.com", "ants@example.com "),
        *("ants@@example.com", '""@x.y', "a@b@example.com", "a\0b@example.com"),
        *("a\nb@example.com", f"{'x' * 2000}@example.com"),
    ],
)
def test_whatever_is_no_whole_address_is_not_found_without_asking(name: str, key: str) -> None:
    found = understand(f"{name} {key}".encode())
    assert (found.map, found.recipient, found.refusal) == (name, None, "NOTFOUND ")


@pytest.mark.parametrize(
    "key", ["", " ", "a b", "@", "a@", "example.com ", "<x>", "a b@example.com", "x" * 2000, "a,b"]
)
def test_whatever_is_no_domain_is_not_found_without_asking(key: str) -> None:
    found = understand(f"domains {key}".encode())
    assert (found.map, found.recipient, found.refusal) == ("domains", None, "NOTFOUND ")


@pytest.mark.parametrize("name", MAPS)
def test_a_key_that_is_no_utf_8_is_not_found_without_asking(name: str) -> None:
    found = understand(f"{name} ".encode() + b"gr\xfc\xdfe@example.com")
    assert (found.recipient, found.refusal) == (None, "NOTFOUND ")


@pytest.mark.parametrize(
    "octets",
    [b"", b"recipients", b" ", b" a@b", b"Recipients a@b", b"virtual a@b", b"\xff\0 a@b", b"a\n b"],
)
def test_a_request_that_cannot_be_understood_is_refused_for_good(octets: bytes) -> None:
    found = understand(octets)
    assert (found.map, found.recipient) == ("", None)
    assert found.refusal.startswith("PERM ")
    assert found.refusal.isprintable()


@pytest.mark.parametrize(
    ("said", "recipients", "transport"),
    [
        (reply.RECIPIENT_OK, "OK ants@example.com", f"OK {WHERE}"),
        (reply.NO_MAILBOX, "NOTFOUND ", "NOTFOUND "),
        (reply.LOCAL_ERROR, "TEMP Local trouble, try again later", None),
        (reply.NO_ROOM, "TEMP Out of room for now, try again later", None),
        (None, "TEMP Local trouble, try again later", None),
    ],
)
def test_only_the_registrys_own_word_is_not_found(
    said: Reply | None, recipients: str, transport: str | None
) -> None:
    asked = [
        Request("recipients", "ants@example.com", ANTS),
        Request("transport", "x", None),
        Request("transport", "ants@example.com", ANTS),
        Request("domains", "example.com", ANTS),
    ]
    other = transport or recipients
    assert list(answers(asked, [said] * 3 if said else [], WHERE)) == [
        recipients,
        "NOTFOUND ",
        other,
        other,
    ]


@pytest.mark.parametrize(
    ("place", "hop"),
    [
        (Tcp("127.0.0.1", 8024), "lmtp:inet:127.0.0.1:8024"),
        (Tcp("::1", 8024), "lmtp:inet:[::1]:8024"),
        (Tcp("0.0.0.0", 24), "lmtp:inet:127.0.0.1:24"),
        (Tcp("::", 24), "lmtp:inet:[::1]:24"),
        (Tcp("lists.example.com", 24), "lmtp:inet:lists.example.com:24"),
        (Unix("/run/postroom/lmtp.sock"), "lmtp:unix:/run/postroom/lmtp.sock"),
    ],
)
def test_the_next_hop_is_where_lmtp_is_spoken(place: Tcp | Unix, hop: str) -> None:
    assert next_hop(place) == hop
