"""Commands in the hands of those who mean no good, on both databases."""

import pytest
from sqlalchemy import update

from postroom.lists.roster import change_member
from postroom.store import schema
from tests.contract.desk import ANNE, BART
from tests.runners.clerk import LIST, SERVER, Clerk, Letter, mail

FORGED = f"Authentication-Results: {SERVER}; dmarc=fail header.from=example.org\n"


def to(letters: list[Letter], email: str) -> list[Letter]:
    return [each for each in letters if each.recipients == (email,)]


def test_forged_joins_write_no_more_than_the_configured_few(clerk: Clerk) -> None:
    clerk.limited(per_list=3)
    written = [clerk.command("ant-join", mail(author=f"v{n}@example.org"), BART) for n in range(10)]
    assert [len(each) for each in written] == [1] * 3 + [0] * 7
    assert len(clerk.pending()) == 3
    lines = clerk.worker.said("commands done")
    assert [line.get("limited") for line in lines] == [None] * 3 + [1] * 7


def test_nobody_is_told_of_a_limit_that_others_used_up(clerk: Clerk) -> None:
    clerk.limited(per_list=2)
    written = []
    for n in range(6):
        written += clerk.command("ant-join", mail(author=f"v{n}@example.org"), f"v{n}@example.org")
    assert len(written) == 2


@pytest.mark.parametrize(("limit", "letters"), [("per_site", 2), ("per_address", 4)])
def test_each_limit_holds_by_itself(clerk: Clerk, limit: str, letters: int) -> None:
    clerk.limited(**{limit: 2})
    written = []
    for n in range(4):
        written += clerk.command("ant-join", mail(author=f"v{n}@example.org"), BART)
    assert len(written) == letters


def test_what_comes_from_one_network_is_limited(clerk: Clerk) -> None:
    clerk.limited(per_source=2)
    written = []
    for n in range(4):
        trace = "Received: from x (x [198.51.100.7]) by mx.example.com; now\n"
        raw = mail(author=f"v{n}@example.org", fields=trace)
        written += clerk.command("ant-join", raw, BART)
    assert len(written) == 2
    assert clerk.pending()[0].source == "198.51.100.7"


def test_one_mailbox_is_one_whatever_follows_a_plus(clerk: Clerk) -> None:
    clerk.limited(per_address=2)
    written = []
    for n in range(4):
        written += clerk.command("ant-join", mail(author=f"anne+{n}@example.org"), BART)
    assert len(written) == 2


def test_what_others_ask_for_in_her_name_uses_up_nothing_of_hers(clerk: Clerk) -> None:
    clerk.limited(per_address=1)
    assert len(clerk.command("ant-request", mail(f"join address={ANNE}", author=BART), BART)) == 2
    clerk.limited(per_address=1, again=0)
    [letter] = clerk.command("ant-join")
    assert letter.recipients == (ANNE,)
    [said] = clerk.command("ant-join")
    assert "Too much" in said.text


def test_an_answer_does_not_tell_who_is_on_the_list(clerk: Clerk) -> None:
    clerk.join("member@example.org")
    clerk.set(posting__banned="banned@example.org")
    said = []
    for name in ("member", "nobody", "banned"):
        for verb in ("join", "leave"):
            raw = mail(f"{verb} address={name}@example.org", author=BART)
            [answer] = to(clerk.command("ant-request", raw, BART), BART)
            said.append(answer.text.replace(name, "X").replace("leave", "join"))
    assert len(set(said)) == 1


def test_limits_do_not_tell_who_is_on_the_list(clerk: Clerk) -> None:
    clerk.join("member@example.org")
    for name in ("member", "nobody"):
        clerk.limited(per_list=1)
        with clerk.store.begin() as connection:
            connection.execute(schema.tally.delete())
        clerk.command("ant-request", mail(f"join address={name}@example.org", author=BART), BART)
        letters = clerk.command("ant-join", mail(author="eve@example.net"), BART)
        assert letters == []


def test_who_was_turned_off_by_an_owner_stays_so(clerk: Clerk) -> None:
    clerk.join(ANNE)
    clerk.set(subscriptions__changes="open")
    with clerk.store.begin() as connection:
        key = clerk.key_of(connection)
        change_member(connection, key, ANNE, delivery="admin")
    for text in ("set delivery=on", "set delivery=off"):
        [said] = clerk.command("ant-request", mail(text))
        assert "ant-owner@example.com" in said.text
    assert [each.delivery for each in clerk.roster()] == ["admin"]


def test_a_token_asked_for_before_does_not_turn_it_on_either(clerk: Clerk) -> None:
    clerk.join(ANNE)
    [letter] = clerk.command("ant-request", mail("set delivery=on"))
    with clerk.store.begin() as connection:
        change_member(connection, clerk.key_of(connection), ANNE, delivery="admin")
    clerk.command(f"ant-confirm+{letter.token}")
    assert [each.delivery for each in clerk.roster()] == ["admin"]


def test_a_list_that_was_closed_meanwhile_lets_nobody_in(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    clerk.set(subscriptions__join="closed")
    clerk.command(f"ant-confirm+{letter.token}")
    assert clerk.members() == []


def test_owners_decide_if_the_list_wants_that_by_now(clerk: Clerk) -> None:
    clerk.join(BART, role="owner")
    [letter] = clerk.command("ant-join")
    clerk.set(subscriptions__join="moderate")
    [asked] = to(clerk.command(f"ant-confirm+{letter.token}"), BART)
    assert clerk.members() == []
    clerk.command("ant-request", mail(f"accept {asked.token}", author=BART), BART)
    assert clerk.members() == [ANNE]


def test_who_was_banned_meanwhile_does_not_join(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    clerk.set(posting__banned=ANNE)
    clerk.command(f"ant-confirm+{letter.token}")
    assert clerk.members() == []


def test_what_strangers_wrote_is_not_sent_on(clerk: Clerk) -> None:
    text = "help\n\nBuy my ants."
    for raw, sender in ((mail(text), ANNE), (mail(text, fields=FORGED), ANNE)):
        [said] = clerk.command("ant-request", raw, sender)
        assert "> Buy my ants." not in said.text.partition("Your message was")[2]
    clerk.join(ANNE)
    [said] = clerk.command("ant-request", mail(text))
    assert "> Buy my ants." in said.text.partition("Your message was")[2]


def test_who_does_not_understand_is_helped_once_a_day(clerk: Clerk) -> None:
    assert len(clerk.command("ant-request", mail("Your ticket has number 1."))) == 1
    assert clerk.command("ant-request", mail("Your ticket has number 2.")) == []
    assert len(clerk.command("ant-request", mail("help"))) == 1


@pytest.mark.parametrize("email", ["mailer-daemon@example.org", "bee-request@example.org", LIST])
def test_programs_do_not_join(clerk: Clerk, email: str) -> None:
    assert to(clerk.command("ant-request", mail(f"join address={email}")), email) == []
    assert clerk.pending() == []


def test_one_person_has_one_spelling(clerk: Clerk) -> None:
    clerk.set(subscriptions__join="open")
    clerk.command("ant-join", mail(author=r'"anne"@EXAMPLE.org'), r'"anne"@EXAMPLE.org')
    clerk.command("ant-join", mail(author="Anne@example.ORG"), "Anne@example.ORG")
    assert len(clerk.members()) == 1


def test_a_long_name_is_cut(clerk: Clerk) -> None:
    clerk.set(subscriptions__join="open")
    clerk.command("ant-join", mail(author=f"{'Anne ' * 90} <{ANNE}>"))
    [anne] = clerk.roster()
    assert 100 < len(anne.name) <= 200


@pytest.mark.parametrize("changes", ['{"foo":"bar"}', '{"delivery":"nonsense"}'])
def test_a_request_with_garbage_in_it_does_nothing(clerk: Clerk, changes: str) -> None:
    clerk.join(ANNE)
    [letter] = clerk.command("ant-request", mail("set digest=yes"))
    with clerk.store.begin() as connection:
        connection.execute(update(schema.pending).values(changes=changes))
    clerk.command(f"ant-confirm+{letter.token}")
    assert [(each.delivery, each.mode) for each in clerk.roster()] == [("on", "regular")]
    assert set(clerk.queues()) == {"out"}


def test_a_request_that_cannot_be_read_makes_room(clerk: Clerk) -> None:
    clerk.command("ant-join")
    with clerk.store.begin() as connection:
        connection.execute(update(schema.pending).values(state="of another age"))
    [letter] = clerk.command("ant-join")
    clerk.command(f"ant-confirm+{letter.token}")
    assert clerk.members() == [ANNE]


def test_a_clock_that_was_ahead_keeps_nobody_waiting(clerk: Clerk) -> None:
    clerk.command("ant-join")
    with clerk.store.begin() as connection:
        connection.execute(update(schema.pending).values(told_at=9e9))
    assert len(clerk.command("ant-join")) == 1


def test_an_encrypted_answer_is_no_yes(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    fields = "MIME-Version: 1.0\nContent-Type: application/pkcs7-mime\n"
    clerk.command(f"ant-confirm+{letter.token}", mail("MIAGCSqGSIb3DQEHA", fields=fields))
    assert clerk.members() == []


def test_an_answer_with_a_signature_is_a_yes(clerk: Clerk) -> None:
    [letter] = clerk.command("ant-join")
    raw = mail("\nBest regards,\nAnne Lee\nAnts Inc.", author=f"Anne Lee <{ANNE}>")
    clerk.command(f"ant-confirm+{letter.token}", raw)
    assert clerk.members() == [ANNE]


def test_who_runs_the_list_twice_is_told_once(clerk: Clerk) -> None:
    clerk.join(BART, role="owner")
    clerk.join(BART, role="moderator")
    clerk.set(notices__changes="yes", subscriptions__join="open", subscriptions__welcome="no")
    [told] = to(clerk.command("ant-join"), BART)
    assert ANNE in told.text
