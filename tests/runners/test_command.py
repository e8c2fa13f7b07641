"""Commands: what is asked by mail, and what becomes of it, on both databases."""

import pytest
from sqlalchemy import update

from postroom.store import schema
from tests.contract.desk import ANNE, BART
from tests.runners.clerk import LIST, SERVER, Clerk, mail

EVE = "eve@example.net"


def test_who_joins_confirms_by_a_plain_reply(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    assert letter.envelope == ""
    assert letter.recipients == (ANNE,)
    assert letter["Auto-Submitted"].startswith("auto-")
    assert letter["From"] == f"ant-confirm+{letter.token}@example.com"
    assert clerk.members() == []
    [welcome] = clerk.command(
        f"ant-confirm+{letter.token}", mail(subject="Re: " + letter["Subject"])
    )
    assert welcome.recipients == (ANNE,)
    assert clerk.members() == [ANNE]
    assert clerk.pending() == []
    assert clerk.audited() == [("asked", ANNE, ANNE), ("joined", ANNE, ANNE)]


@pytest.mark.parametrize("text", ["cancel", "Unsubscribe!", "nein, danke", "no"])
def test_who_declines_does_not_join(clerk: Clerk, text: str) -> None:
    [letter] = clerk.command("ant-join")
    clerk.command(f"ant-confirm+{letter.token}", mail(text))
    assert (clerk.members(), clerk.pending()) == ([], [])
    assert clerk.audited()[-1] == ("cancelled", ANNE, ANNE)


def test_an_answer_that_is_not_clear_does_nothing(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    [asked] = clerk.command(f"ant-confirm+{letter.token}", mail("I did not ask for this."))
    assert '"yes" or "no"' in " ".join(asked.text.split())
    assert clerk.members() == []
    clerk.command(f"ant-confirm+{letter.token}", mail("ok, subscribe"))
    assert clerk.members() == [ANNE]


def test_who_leaves_confirms_too(clerk: Clerk) -> None:
    clerk.join(ANNE)
    [letter] = clerk.command("ant-leave")
    assert clerk.members() == [ANNE]
    [goodbye] = clerk.command("ant-request", mail(f"confirm {letter.token}"))
    assert goodbye.recipients == (ANNE,)
    assert clerk.members() == []


def test_a_second_join_within_the_time_writes_no_second_letter(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    assert clerk.command("ant-join") == []
    assert clerk.command("ant-request", mail("join")) == []
    clerk.limited(again=0)
    [again] = clerk.command("ant-join")
    assert again.token == letter.token


def test_an_open_list_takes_who_has_shown_that_the_address_is_theirs(clerk: Clerk) -> None:
    clerk.set(subscriptions__join="open")
    [welcome] = clerk.command("ant-join", mail(author="Anne Lee <anne@example.org>"))
    assert clerk.members() == [ANNE]
    assert [each.name for each in clerk.roster()] == ["Anne Lee"]
    assert welcome.recipients == (ANNE,)


def test_another_address_confirms_itself_even_on_an_open_list(clerk: Clerk) -> None:
    clerk.set(subscriptions__join="open")
    letters = clerk.command("ant-request", mail(f"join address={BART}"))
    assert {each.recipients for each in letters} == {(ANNE,), (BART,)}
    assert clerk.members() == []
    [asked] = [each for each in letters if each.recipients == (BART,)]
    clerk.command(f"ant-confirm+{asked.token}", mail(author=BART), BART)
    assert clerk.members() == [BART]


@pytest.mark.parametrize(
    ("sender", "fields"),
    [
        (BART, ""),
        (ANNE, f"Authentication-Results: {SERVER}; dmarc=fail header.from=example.org\n"),
    ],
)
def test_an_author_who_may_be_forged_confirms_even_on_an_open_list(
    clerk: Clerk, sender: str, fields: str
) -> None:
    clerk.set(subscriptions__join="open")
    [letter] = clerk.command("ant-join", mail(fields=fields), sender)
    assert letter.recipients == (ANNE,)
    assert clerk.members() == []
    clerk.command(f"ant-confirm+{letter.token}")
    assert clerk.members() == [ANNE]


def test_owners_decide_who_joins_a_moderated_list_by_reply(clerk: Clerk) -> None:
    clerk.join(BART, role="owner")
    clerk.set(subscriptions__join="moderate")
    letters = clerk.command("ant-join")
    (asked,) = [each for each in letters if each.recipients == (BART,)]
    (told,) = [each for each in letters if each.recipients == (ANNE,)]
    assert "owners" in told.text
    assert asked["Reply-To"] == f"ant-confirm+{asked.token}@example.com"
    answer = clerk.command(f"ant-confirm+{asked.token}", mail(author=BART), BART)
    assert ["Nothing is decided" in each.text for each in answer] == [True]
    letters = clerk.command(f"ant-confirm+{asked.token}", mail("Accept.", author=BART), BART)
    assert {each.recipients for each in letters} == {(ANNE,), (BART,)}
    assert clerk.members() == [ANNE]


def test_the_token_that_the_address_had_decides_nothing_for_the_owners(clerk: Clerk) -> None:
    clerk.join(BART, role="owner")
    clerk.set(subscriptions__join="confirm-then-moderate")
    [letter] = clerk.command("ant-join")
    letters = clerk.command(f"ant-confirm+{letter.token}")
    assert clerk.members() == []
    clerk.command("ant-request", mail(f"accept {letter.token}"))
    assert clerk.members() == []
    (asked,) = [each for each in letters if each.recipients == (BART,)]
    clerk.command("ant-request", mail(f"accept {asked.token}", author=BART), BART)
    assert clerk.members() == [ANNE]


def test_what_owners_reject_is_told_with_their_reason(clerk: Clerk) -> None:
    clerk.join(BART, role="owner")
    clerk.set(subscriptions__join="moderate")
    (asked,) = [each for each in clerk.command("ant-join") if each.recipients == (BART,)]
    raw = mail("reject This list is for ants.", author=BART)
    letters = clerk.command(f"ant-confirm+{asked.token}", raw, BART)
    [refused] = [each for each in letters if each.recipients == (ANNE,)]
    assert "This list is for ants." in refused.text
    assert (clerk.members(), clerk.pending()) == ([], [])


@pytest.mark.parametrize("policy", ["closed", "invite-only"])
def test_a_closed_list_says_so(clerk: Clerk, policy: str) -> None:
    clerk.set(subscriptions__join=policy)
    [letter] = clerk.command("ant-join")
    assert letter.recipients == (ANNE,)
    assert "ant-owner@example.com" in letter.text
    assert clerk.pending() == []


def test_what_is_set_is_confirmed_unless_the_list_says_otherwise(clerk: Clerk) -> None:
    clerk.join(ANNE)
    [letter] = clerk.command("ant-request", mail("set delivery=off digest=yes"))
    assert [each.delivery for each in clerk.roster()] == ["on"]
    clerk.command(f"ant-confirm+{letter.token}")
    assert [(each.delivery, each.mode) for each in clerk.roster()] == [("user", "digest")]
    clerk.set(subscriptions__changes="open")
    clerk.command("ant-request", mail("set delivery=on\nset ack=yes"))
    assert [(each.delivery, each.ack) for each in clerk.roster()] == [("on", True)]


def test_a_token_confirms_what_stood_beside_it_and_nothing_else(clerk: Clerk) -> None:
    clerk.join(ANNE)
    [first] = clerk.command("ant-request", mail("set digest=yes"))
    [second] = clerk.command("ant-request", mail("set delivery=off"))
    assert first.token != second.token
    clerk.command(f"ant-confirm+{first.token}")
    assert [(each.delivery, each.mode) for each in clerk.roster()] == [("on", "regular")]


@pytest.mark.parametrize(
    "raw",
    [
        mail("join", fields="Auto-Submitted: auto-replied\n"),
        mail("join", fields="Precedence: bulk\n"),
        mail("join", fields="List-Id: <bee.example.org>\n"),
        mail("join", author="mailer-daemon@example.org"),
        mail("join", author=LIST),
        mail("join", author=f"{ANNE}, {BART}"),
        mail("join", author="nobody at all"),
    ],
)
def test_what_a_program_sent_is_neither_obeyed_nor_answered(clerk: Clerk, raw: bytes) -> None:
    assert clerk.command("ant-request", raw) == []
    assert clerk.pending() == []
    [line] = clerk.worker.said("command ignored")
    assert line["reason"]
    assert "command" not in clerk.queues()


def test_the_null_sender_is_neither_obeyed_nor_answered(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    assert clerk.command(f"ant-confirm+{letter.token}", mail(), "") == []
    assert clerk.members() == []


def test_a_held_post_is_decided_by_reply(clerk: Clerk) -> None:
    clerk.join(BART, role="owner")
    clerk.come(mail("Cheap.", author=EVE), EVE, "ant")
    clerk.work(clerk.posts)
    (asked,) = [each for each in clerk.letters() if each.recipients == (BART,)]
    assert asked["Reply-To"] == f"ant-confirm+{asked.token}@example.com"
    clerk.command(f"ant-confirm+{asked.token}", mail("accept", author=BART), BART)
    clerk.work(clerk.posts)
    assert [order.kind for order, _ in clerk.orders()].count("post") == 1


def test_several_commands_have_one_answer(clerk: Clerk) -> None:
    clerk.join(ANNE)
    [letter] = clerk.command("ant-request", mail("status\ninfo\nfrobnicate\nhelp\nend\nwho"))
    assert letter.recipients == (ANNE,)
    assert "frobnicate" in letter.text
    assert "member" in letter.text
    assert "> who" in letter.text


def test_a_command_for_a_list_that_was_removed_is_put_aside(clerk: Clerk) -> None:
    number = clerk.come(mail("help"), to="ant-request")
    gone = update(schema.entry).where(schema.entry.c.id == number).values(list=None)
    with clerk.store.begin() as connection:
        connection.execute(gone)
    clerk.work()
    assert set(clerk.queues()) == {"shunt"}
