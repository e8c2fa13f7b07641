"""What the tests of cooking share: a list, and orders for it."""

from pathlib import Path

from postroom.lists.settings import Dmarc, Headers, ListSettings, Posting
from postroom.mail.fields import take_apart
from postroom.posting.cook import CookInput
from postroom.posting.munge import Policy, authors_of

GOLDEN = Path(__file__).parent / "golden"
NOW = 1_795_168_482.0  # 2026-11-20 09:54:42 UTC
HEADERS = Headers()


def golden(name: str) -> bytes:
    """A file of tests/posting/golden as a message: with CRLF."""
    return (GOLDEN / name).read_bytes().replace(b"\n", b"\r\n")


def order(
    raw: bytes,
    headers: Headers = HEADERS,
    dmarc: Dmarc | None = None,
    policy: Policy | None = "none",
    posting: Posting | None = None,
    approval: str = "",
) -> CookInput:
    """An order to cook this post for the list ants."""
    settings = ListSettings(headers=headers, dmarc=dmarc or Dmarc(), posting=posting or Posting())
    return CookInput(
        list_id="ants.lists.example.com",
        posting_address="ants@lists.example.com",
        display_name="Ants",
        settings=settings,
        hostname="lists.example.com",
        now=NOW,
        policy=policy,
        authors=authors_of(take_apart(raw).fields),
        approval=approval,
        peer="127.0.0.1",
        lhlo="mx.example.com",
        received_at=NOW,
        entry_id="0ca67e92d7f5b000",
    )
