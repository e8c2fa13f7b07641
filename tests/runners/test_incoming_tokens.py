"""Incoming: a moderator's token lets a post through, and is seen by none of its readers; on both
databases."""

import pytest

from postroom.lists.keys import moderator_token, plain_token, site_secret
from postroom.lists.registry import find_list
from postroom.lists.roster import find_member
from postroom.posting.visible import shows
from postroom.spool import held as held_posts
from tests.contract.desk import ANNE
from tests.contract.queues import do
from tests.runners.ants import HEAD, RAW, Ants


def olgas_token(ants: Ants) -> str:
    """Olga is a moderator now, and this is her token."""
    ants.join("olga@example.net", role="moderator")
    with ants.store.begin() as connection:
        found = find_list(connection, "ant@example.com")
        since = find_member(connection, found.key, "olga@example.net", "moderator").joined_at
        secret = site_secret(connection)
    return moderator_token(secret, found.list_id, "olga@example.net", since)


def test_a_moderators_token_lets_a_post_through_and_goes_no_further(ants: Ants) -> None:
    token = olgas_token(ants)
    ants.post(b"Approved: " + token.encode() + b"\r\n" + RAW)
    [(order, row)] = ants.orders()
    assert order.kind == "post"
    assert token.encode() not in row.raw
    assert b"approved:" not in row.raw.lower()
    assert ants.steps()[-1].facts["reason"] == "approved"


@pytest.mark.parametrize("field", ["", "Approved:\r\n", "X-Approved: no\r\n"])
@pytest.mark.parametrize("between", ["-", " ", ""])
def test_a_token_that_is_offered_approves_and_is_taken_out(
    ants: Ants, field: str, between: str
) -> None:
    token = olgas_token(ants)
    line = f"\r\nApproved: {token.replace('-', between)}\r\nHello.\r\n"
    ants.post(field.encode() + HEAD + line.encode())
    [(order, row)] = ants.orders()
    assert order.kind == "post"
    assert not shows(row.raw, [plain_token(token)])
    assert row.raw.endswith(b"\r\n\r\nHello.\r\n")


@pytest.mark.parametrize("approved", [False, True])
@pytest.mark.parametrize(
    ("field", "body"),
    [
        ("", "Hi,\r\nApproved: {}\r\n"),
        ("Subject: {}\r\n", "Hello.\r\n"),
        ("Content-Type: text/html\r\n", "<p>{}</p>\r\n"),
    ],
)
def test_a_post_that_would_show_a_token_is_held_whoever_may_post(
    ants: Ants, field: str, body: str, approved: bool
) -> None:
    token = olgas_token(ants)
    ants.join(ANNE)
    fields = field.format(token) + (f"Approved: {token}\r\n" if approved else "")
    spelled = token.replace("-", "<wbr>") if "html" in field else token
    number = ants.post(fields.encode() + HEAD + b"\r\n" + body.format(spelled).encode())
    if approved and not field.startswith("Subject") and "html" not in field:
        assert "held" not in ants.queues()  # it is blacked out there
        assert token.encode() not in ants.orders()[0][1].raw
        return
    [row] = ants.queues()["held"]
    assert (row.id, row.metadata["reason"]) == (number, "token-visible")
    assert "Send it again without the token" in row.metadata["sentence"]
    assert [order.kind for order, _ in ants.orders() if order.kind == "post"] == []


def test_a_moderator_who_accepts_a_post_that_shows_a_token_does_not_send_it_out(ants: Ants) -> None:
    token = olgas_token(ants)
    number = ants.post(HEAD + b"\r\nHi,\r\n" + token.encode() + b"\r\n", sender="eve@example.org")
    assert ants.queues()["held"][0].metadata["reason"] == "nonmember"
    do(ants.store, held_posts.accept, number, "olga")
    ants.work()
    [row] = ants.queues()["held"]
    assert (row.id, row.metadata["reason"]) == (number, "token-visible")
