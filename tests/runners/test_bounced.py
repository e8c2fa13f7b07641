"""Bounces: what comes back, and what becomes of members, on both databases."""

import time

import pytest
from sqlalchemy import event, select, update

from postroom.bounces.moving import move_on
from postroom.lists.keys import site_secret, verp_key, verp_tag
from postroom.lists.roster import change_member
from postroom.runners.bounced import Bounced
from postroom.spool.handing import Handed, Letter, hand_on
from postroom.spool.ids import IdMaker
from postroom.spool.metadata import BOUNCES
from postroom.spool.orders import order_of
from postroom.store import schema
from tests.contract.desk import ANNE, BART, Desk
from tests.runners.ants import site
from tests.runners.clerk import Clerk, mail
from tests.runners.clerk import Letter as Mail
from tests.runners.scripted import Watched

DAY = 86_400.0
REPLY = "550 5.1.1 No such user"
DSN = """From: Mail Delivery System <mailer-daemon@mx.example.net>
To: ant-bounces@example.com
Subject: Undelivered Mail Returned to Sender
Message-ID: <dsn{n}@mx.example.net>
Auto-Submitted: auto-replied
MIME-Version: 1.0
Content-Type: multipart/report; report-type=delivery-status; boundary=b

--b
Content-Type: text/plain

It could not be delivered.

--b
Content-Type: message/delivery-status

Reporting-MTA: dns; mx.example.net

Final-Recipient: rfc822; {email}
Action: {action}
Status: {status}
Diagnostic-Code: smtp; {reason}

--b
Content-Type: text/rfc822-headers

Message-ID: <post@example.org>

--b--
"""
ARF = """From: abuse@example.net
To: ant-bounces@example.com
Subject: complaint
Message-ID: <arf@example.net>
MIME-Version: 1.0
Content-Type: multipart/report; report-type=feedback-report; boundary=b

--b
Content-Type: text/plain

This is an abuse report.

--b
Content-Type: message/feedback-report

Feedback-Type: abuse
User-Agent: x/1
Version: 1

--b
Content-Type: text/rfc822-headers

Message-ID: <post@example.org>

--b--
"""


class Postman(Clerk):
    """Takes what comes back to the list."""

    def __init__(self, desk: Desk) -> None:
        super().__init__(desk)
        self.commands = self.worker
        self.worker = Watched(self.store, Bounced(site().house))
        self._number = 0
        with self.store.begin() as connection:
            self.key = verp_key(site_secret(connection), "ant.example.com")

    def tag(self, email: str = "") -> str:
        return verp_tag(self.key, email)

    def back(
        self,
        email: str = ANNE,
        to: str = "ant-bounces",
        action: str = "failed",
        status: str = "5.1.1",
        reason: str = "550 5.1.1 No such user",
    ) -> None:
        """A report on an address comes to the bounce address."""
        self._number += 1
        text = DSN.format(n=self._number, email=email, action=action, status=status, reason=reason)
        self.post(text.replace("\n", "\r\n").encode(), "", to)

    def own(self, email: str = ANNE) -> str:
        """The bounce address that only this member's copies have."""
        return f"ant-bounces+{self.tag(email)}+{email.replace('@', '=')}"

    def pass_on(self, days: float) -> None:
        """Time goes by: all that is known happened so much longer ago."""
        bounce = schema.bounce.c
        seconds = days * DAY
        with self.store.begin() as connection:
            connection.execute(
                update(schema.bounce).values(
                    bounced_at=bounce.bounced_at - seconds,
                    since=bounce.since - seconds,
                    next_at=bounce.next_at - seconds,
                    counted_on=bounce.counted_on - int(days),
                )
            )
            connection.execute(update(schema.tally).values(at=schema.tally.c.at - seconds))

    def upkeep(self) -> list[Mail]:
        """What time does; returns what is written."""
        with self.store.begin() as connection:
            hand_on(
                connection, IdMaker(), move_on(connection, site().house, time.time(), 100).handed
            )
        return self.letters()

    def standing(self) -> dict[str, tuple[str, float]]:
        """State and score of those of whom something is known."""
        found = (
            select(schema.address.c.folded, schema.bounce.c.state, schema.bounce.c.score)
            .join_from(schema.bounce, schema.member)
            .join(schema.address)
        )
        with self.store.read() as connection:
            return {email: (state, score) for email, state, score in connection.execute(found)}

    def delivery(self, email: str = ANNE) -> str:
        [found] = [each.delivery for each in self.roster() if each.email == email]
        return found

    def probed(self) -> Mail:
        """Five bounces on five days bring a probe."""
        for _ in range(5):
            self.back(to=self.own())
            self.pass_on(1)
        [probe] = self.upkeep()
        return probe


@pytest.fixture
def postman(desk: Desk) -> Postman:
    made = Postman(desk)
    made.join(ANNE, BART)
    return made


def test_a_bounce_counts_once_a_day(postman: Postman) -> None:
    postman.back(to=postman.own())
    postman.back(to=postman.own())
    assert postman.standing() == {ANNE: ("counting", 1.0)}
    postman.pass_on(1)
    postman.back(to=postman.own())
    assert postman.standing() == {ANNE: ("counting", 2.0)}


@pytest.mark.parametrize(
    ("to", "score"),
    [
        ("ant-bounces+{own}+anne=example.org", 1.0),
        ("ant-bounces+{all}+anne=example.org", 1.0),
        ("ant-bounces+anne=example.org", 0.5),
        ("ant-bounces+aaaaaaaa+anne=example.org", 0.0),
        ("ant-bounces", 0.5),
    ],
)
def test_what_anybody_may_have_made_up_counts_less(postman: Postman, to: str, score: float) -> None:
    address = to.format(own=postman.tag(ANNE), all=postman.tag())
    postman.back(to=address)
    assert postman.standing().get(ANNE, ("", 0.0))[1] == score


@pytest.mark.parametrize(
    ("action", "status", "score"),
    [("failed", "5.1.1", 1.0), ("delayed", "4.4.1", 0.5), ("delivered", "2.0.0", 0.0)],
)
def test_what_may_pass_counts_less(
    postman: Postman, action: str, status: str, score: float
) -> None:
    postman.back(to=postman.own(), action=action, status=status)
    assert postman.standing().get(ANNE, ("", 0.0))[1] == score


def test_d9_a_bounce_that_is_cut_off_counts_where_its_address_tells(postman: Postman) -> None:
    raw = DSN.format(n=1, email=ANNE, action="failed", status="5.1.1", reason="x")
    head, _, _ = raw.partition("Final-Recipient")
    postman.post(head[:-60].replace("\n", "\r\n").encode(), "", postman.own())
    assert postman.standing() == {ANNE: ("counting", 0.5)}


def test_who_forwards_is_who_bounces(postman: Postman) -> None:
    postman.back("anne@elsewhere.example.net", to=postman.own())
    assert postman.standing() == {ANNE: ("counting", 1.0)}


@pytest.mark.parametrize(
    "raw",
    [
        b"From: anne@example.org\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n",
        b"From: anne@example.org\r\nSubject: Hello\r\n\r\nIs this the list?\r\n",
    ],
)
def test_what_is_no_bounce_counts_nothing(postman: Postman, raw: bytes) -> None:
    postman.post(raw, ANNE, postman.own())
    assert postman.standing() == {}
    assert BOUNCES not in postman.queues()


def test_who_bounces_too_often_is_sent_a_probe(postman: Postman) -> None:
    probe = postman.probed()
    assert probe.recipients == (ANNE,)
    assert probe.envelope.startswith("ant-bounces+")
    assert postman.standing()[ANNE][0] == "probing"
    assert postman.delivery() == "on"
    [row] = postman.queues()["out"]
    assert order_of(row.metadata).kind == "probe"


def test_a_probe_that_comes_back_turns_delivery_off_and_is_warned_of(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0])
    assert postman.delivery() == "bounces"
    assert postman.audited()[-1] == ("stopped", ANNE, "postroom")
    [warning] = postman.upkeep()
    assert warning.recipients == (ANNE,)
    assert warning.envelope == ""
    for left in (True, True, False):
        postman.pass_on(8)
        assert bool(postman.upkeep()) is left
    assert postman.members() == [ANNE, BART]


def test_who_answers_a_warning_gets_posts_again(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0])
    [warning] = postman.upkeep()
    postman.worker, bounces = postman.commands, postman.worker
    postman.command(f"ant-confirm+{warning.token}")
    postman.worker = bounces
    assert postman.delivery() == "on"
    assert postman.standing() == {}


def test_who_never_answers_is_taken_off_if_the_list_wants_that(postman: Postman) -> None:
    postman.set(bounces__remove="yes", bounces__warnings="1")
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0])
    postman.upkeep()
    postman.pass_on(8)
    postman.upkeep()
    assert postman.members() == [BART]
    assert postman.audited()[-1] == ("removed", ANNE, "postroom")


def test_a_probe_that_does_not_come_back_makes_all_good(postman: Postman) -> None:
    postman.probed()
    postman.pass_on(7)
    assert postman.upkeep() == []
    assert postman.standing() == {}


@pytest.mark.parametrize("action", ["delayed", "delivered"])
def test_a_probe_that_is_late_has_not_come_back(postman: Postman, action: str) -> None:
    probe = postman.probed()
    status = "4.4.1" if action == "delayed" else "2.0.0"
    postman.back(to=probe.envelope.partition("@")[0], action=action, status=status)
    assert postman.delivery() == "on"


@pytest.mark.parametrize(
    ("raw", "sender"),
    [
        (b"From: anne@example.org\r\nSubject: Re: probe\r\n\r\nYes, I read it!\r\n", ANNE),
        (b"From: anne@example.org\r\nAuto-Submitted: auto-replied\r\n\r\nI am away.\r\n", ""),
    ],
)
def test_a_probe_that_is_answered_has_not_come_back(
    postman: Postman, raw: bytes, sender: str
) -> None:
    probe = postman.probed()
    postman.post(raw, sender, probe.envelope.partition("@")[0])
    assert postman.delivery() == "on"


def test_a_probe_to_a_mailbox_that_is_still_full_has_come_back(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0], status="5.2.2", reason="552 5.2.2 Full")
    assert postman.delivery() == "bounces"


def test_a_probe_that_is_refused_for_what_it_says_is_about_us(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0], status="5.7.1", reason="550 5.7.1 Spam")
    assert postman.delivery() == "on"


def test_who_turned_posts_off_meanwhile_is_left_alone(postman: Postman) -> None:
    probe = postman.probed()
    with postman.store.begin() as connection:
        change_member(connection, postman.key_of(connection), ANNE, delivery="admin")
    postman.back(to=probe.envelope.partition("@")[0])
    assert postman.delivery() == "admin"
    assert postman.standing() == {}


def test_nothing_bad_for_a_while_is_forgotten(postman: Postman) -> None:
    postman.back(to=postman.own())
    postman.pass_on(8)
    assert postman.upkeep() == []
    assert postman.standing() == {}


def refused(
    postman: Postman, *emails: str, token: str = "", about: str = "recipient", reply: str = REPLY
) -> None:
    """Delivery was refused for good."""
    each = [
        {"email": email, "member": 1, "reply": reply, "about": about} for email in emails or [ANNE]
    ]
    facts: dict[str, object] = {"event": "refused", "refused": each}
    facts["message_id"] = "<post@example.org>"
    if token:
        facts["token"] = token
    with postman.store.begin() as connection:
        key = postman.key_of(connection)
        letter = Letter(b"Message-ID: <post@example.org>\r\n\r\n", "ant-bounces@example.com")
        hand_on(connection, IdMaker(), [Handed(BOUNCES, key, facts, letter)])
    postman.work()


def test_who_is_refused_is_counted_alike(postman: Postman) -> None:
    refused(postman)
    assert postman.standing() == {ANNE: ("counting", 1.0)}


@pytest.mark.parametrize("about", ["message", "us"])
def test_what_is_about_the_message_or_us_counts_against_nobody(
    postman: Postman, about: str
) -> None:
    refused(postman, about=about)
    assert postman.standing() == {}


@pytest.mark.parametrize(
    ("about", "reply"),
    [
        ("message", "not delivered in time; last: no answer"),
        ("message", "421 4.3.2 Shutting down"),
        ("recipient", "550 5.1.8 Your address is no good"),
        ("recipient", "550 Your IP is listed at zen.spamhaus.org"),
    ],
)
def test_a_probe_that_fails_because_of_us_turns_nothing_off(
    postman: Postman, about: str, reply: str
) -> None:
    probe = postman.probed()
    token = probe.envelope.partition("@")[0].partition("+")[2]
    refused(postman, token=token, about=about, reply=reply)
    assert postman.delivery() == "on"


def test_a_probe_that_was_given_up_at_a_dead_server_has_come_back(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0], status="4.4.1", reason="timed out")
    assert postman.delivery() == "bounces"


def test_a_probe_that_is_refused_turns_delivery_off(postman: Postman) -> None:
    probe = postman.probed()
    refused(postman, token=probe.envelope.partition("@")[0].partition("+")[2])
    assert postman.delivery() == "bounces"


def test_a_token_that_is_nobodys_does_nothing(postman: Postman) -> None:
    postman.back(to=f"ant-bounces+{'a' * 26}")
    assert postman.standing() == {}
    assert BOUNCES not in postman.queues()


@pytest.mark.parametrize(
    ("wish", "members", "delivery"),
    [("leave", [BART], ""), ("stop", [ANNE, BART], "user"), ("ignore", [ANNE, BART], "on")],
)
def test_who_complains_is_let_go(
    postman: Postman, wish: str, members: list[str], delivery: str
) -> None:
    postman.set(bounces__complaints=wish)
    postman.post(ARF.replace("\n", "\r\n").encode(), "abuse@example.net", postman.own())
    assert postman.members() == members
    assert not delivery or postman.delivery() == delivery


def test_a_complaint_that_another_may_have_made_is_asked_about(postman: Postman) -> None:
    to = f"ant-bounces+{postman.tag()}+anne=example.org"
    postman.post(ARF.replace("\n", "\r\n").encode(), "abuse@example.net", to)
    assert postman.members() == [ANNE, BART]
    [asked] = postman.letters()
    assert asked.recipients == (ANNE,)


def test_a_complaint_that_shows_nothing_is_ignored(postman: Postman) -> None:
    to = "ant-bounces+anne=example.org"
    postman.post(ARF.replace("\n", "\r\n").encode(), "abuse@example.net", to)
    assert postman.members() == [ANNE, BART]
    assert postman.letters() == []


def test_where_so_many_bounce_at_once_nobody_is_counted(
    postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.bounces.acting.MASS_LEAST", 3)
    postman.join(*(f"m{n}@example.org" for n in range(8)))
    postman.join("owner@example.net", role="owner")
    for n in range(8):
        postman.back(f"m{n}@example.org", to=postman.own(f"m{n}@example.org"))
    assert len(postman.standing()) == 3
    told = [each for each in postman.letters() if "owner@example.net" in each.recipients]
    assert len(told) == 1


def test_forged_reports_do_not_keep_true_ones_from_counting(
    postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.bounces.acting.MASS_LEAST", 3)
    postman.join(*(f"m{n}@example.org" for n in range(8)))
    postman.join("owner@example.net", role="owner")
    for n in range(8):
        postman.back(f"m{n}@example.org")
    assert len(postman.standing()) == 3
    assert postman.letters() == []
    postman.back(to=postman.own())
    assert postman.standing()[ANNE] == ("counting", 1.0)


def test_a_day_on_which_so_many_bounce_says_nothing_of_anybody(
    postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.bounces.acting.MASS_LEAST", 3)
    postman.join("owner@example.net", role="owner")
    probe = postman.probed()
    postman.join(*(f"m{n}@example.org" for n in range(8)))
    for n in range(8):
        postman.back(f"m{n}@example.org", to=postman.own(f"m{n}@example.org"))
    postman.back(to=probe.envelope.partition("@")[0])
    assert postman.delivery() == "on"


def test_of_many_refusals_at_once_as_many_are_counted_as_there_is_room(
    postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.bounces.acting.MASS_LEAST", 3)
    names = [f"m{n}@example.org" for n in range(8)]
    postman.join(*names)
    refused(postman, *names)
    assert len(postman.standing()) == 2


def test_forged_complaints_ask_no_more_than_a_few(
    postman: Postman, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("postroom.bounces.acting.ASKED", 1)
    for email in (ANNE, BART):
        to = f"ant-bounces+{postman.tag()}+{email.replace('@', '=')}"
        raw = ARF.replace("<arf", f"<{email[:4]}").replace("\n", "\r\n").encode()
        postman.post(raw, "abuse@example.net", to)
    assert len(postman.letters()) == 1


def test_no_command_takes_the_place_of_what_a_warning_asks(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0])
    [warning] = postman.upkeep()
    postman.worker, bounces = postman.commands, postman.worker
    postman.command("ant-request", mail("set own=no"), BART)
    postman.command(f"ant-confirm+{warning.token}")
    postman.worker = bounces
    assert postman.delivery() == "on"


def test_who_stops_counting_stops_warning_too(postman: Postman) -> None:
    probe = postman.probed()
    postman.back(to=probe.envelope.partition("@")[0])
    postman.set(bounces__count="no")
    assert postman.upkeep() == []


def test_a_list_that_does_not_count_counts_nothing(postman: Postman) -> None:
    postman.set(bounces__count="no")
    postman.back(to=postman.own())
    assert postman.standing() == {}


def test_a_bounce_for_a_list_that_was_removed_ends(postman: Postman) -> None:
    number = postman.come(b"Subject: x\r\n\r\n", "", "ant-bounces")
    gone = update(schema.entry).where(schema.entry.c.id == number).values(list=None)
    with postman.store.begin() as connection:
        connection.execute(gone)
    postman.work()
    assert BOUNCES not in postman.queues() and "shunt" not in postman.queues()


def test_an_address_that_is_no_member_is_counted_nowhere(postman: Postman) -> None:
    postman.back("nobody@example.org", to="ant-bounces")
    assert postman.standing() == {}
    [line] = postman.worker.said("bounce")
    assert line["unknown"] == 1


def statements(postman: Postman) -> int:
    """How many statements a bounce takes."""
    seen: list[str] = []

    def look(*given: object) -> None:
        seen.append(str(given[2]))

    event.listen(postman.store.engine, "before_cursor_execute", look)
    postman.back(to=postman.own())
    event.remove(postman.store.engine, "before_cursor_execute", look)
    postman.pass_on(1)
    return len(seen)


def test_the_statements_of_a_bounce_do_not_grow(postman: Postman) -> None:
    statements(postman)  # the first one counts the members, too
    before = statements(postman)
    postman.join(*(f"m{n}@example.org" for n in range(300)))
    assert statements(postman) == before
