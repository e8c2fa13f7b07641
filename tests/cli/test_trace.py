"""`postroom trace`."""

import json
import time
from collections.abc import Sequence
from typing import Any

import pytest
from sqlalchemy import insert, update

from postroom.cli.output import local
from postroom.delivery import trace as module
from postroom.delivery.ledger import GONE, PENDING, REFUSED, SENT
from postroom.spool import ids, queue
from postroom.spool.held import hold
from postroom.spool.ids import IdMaker
from postroom.spool.steps import Step, write
from postroom.store.engine import Store
from postroom.store.schema import delivery, post, transmission
from tests.cli.conftest import MESSAGE, Post, Postroom, Run

NAME = "<ant@example.org>"
MADE = 1_700_049_600.0  # at noon in UTC
DAY = local(MADE)[:10]
LATER = time.time() + 86_400
make_id = IdMaker()


@pytest.fixture(autouse=True)
def ants(run: Run) -> None:
    """A list to send to."""
    run("list", "create", "ants@example.com")


def tell(store: Store, *steps: tuple[str, dict[str, Any]]) -> None:
    """Steps, a second after each other."""
    with store.begin() as connection:
        rows = [
            Step(NAME, MADE + n, "ants@example.com", what, facts)
            for n, (what, facts) in enumerate(steps)
        ]
        write(connection, make_id, rows)


def make_post(store: Store, states: Sequence[int], reply: str = "250 2.0.0 Ok") -> str:
    """A post whose recipients were all in one transaction, but for those who are pending;
    returns its id."""
    number, by = make_id(), make_id()
    rows = [
        {
            "post": number,
            "n": n,
            "email": f"m{n}@example.org",
            "state": state,
            "attempts": 0 if state in (PENDING, GONE) else 1,
            "next_at": 0.0 if state == PENDING else None,
            "transmission": None if state in (PENDING, GONE) else by,
            "reply": "550 5.1.1 No such user" if state == REFUSED else None,
        }
        for n, state in enumerate(states, 1)
    ]
    with store.begin() as connection:
        values = {"id": number, "list": 1, "message_id": NAME, "created_at": MADE}
        connection.execute(insert(post).values(**values, recipients=len(states)))
        connection.execute(insert(delivery), rows)
        connection.execute(
            insert(transmission).values(
                id=by,
                post=number,
                at=MADE + 5,
                server="mx.example.org:25",
                recipients=len(states),
                reply=reply,
            )
        )
    return ids.show(number)


def traced(run: Run, *arguments: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run("trace", NAME, "--json", *arguments).stdout)
    return found


def about(shown: str, email: str) -> str:
    """What is said of one recipient."""
    [found] = [line for line in shown.splitlines() if line.startswith(f"  {email} ")]
    return " ".join(found.split()[1:])


def test_of_a_message_that_never_came_one_sentence_says_what_to_look_at(run: Run) -> None:
    for arguments in (("nope@example.org",), ("nope@example.org", "--json")):
        result = run("trace", *arguments, status=1)
        assert result.stdout == ""
        assert result.stderr == (
            "postroom: nothing is known of a message nope@example.org: give its Message-ID "
            "exactly as in the message's source; what became of a message is kept for 7 days "
            "(delivery.kept)\n"
        )


def test_mail_that_was_not_looked_at_is_owned_up_to(
    run: Run, post: Post, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NEWEST", 1)
    post("ants@example.com")
    post("ants@example.com", b"Message-ID: <bee@example.org>\r\n\r\n")
    result = run("trace", NAME, status=1)
    assert result.stderr.endswith("of each queue (`postroom queue ls` shows all)\n")


@pytest.mark.parametrize("name", ["", "<>", " ", "a\nb"])
def test_what_is_no_message_id_is_wrong_usage(run: Run, name: str) -> None:
    assert run("trace", name, status=2).stderr.startswith("Usage: ")


@pytest.mark.parametrize("name", [NAME, "ant@example.org"])
def test_what_waits_is_shown_with_where_it_came_from(run: Run, post: Post, name: str) -> None:
    [number] = post("ants@example.com", received_at=MADE)
    first, second, third = run("trace", name).stdout.splitlines()
    assert first == f"waits in queue in ({number}): due now"
    assert second == "  for ants@example.com"
    assert third.startswith(f"  from 127.0.0.1:4025 (mail.example.org) {DAY} ")
    assert third.endswith(f", envelope sender <anne@example.org>, {len(MESSAGE)} octets")


def test_json_of_what_waits_has_its_facts(run: Run, post: Post) -> None:
    [number] = post("ants-join@example.com", received_at=MADE)
    assert traced(run) == {
        "message_id": NAME,
        "steps": [],
        "waiting": [
            {
                "id": number,
                "queue": "command",
                "list": "ants@example.com",
                "kind": None,
                "reason": None,
                "peer": "127.0.0.1:4025",
                "lhlo": "mail.example.org",
                "sender": "anne@example.org",
                "size": len(MESSAGE),
                "received_at": "2023-11-15T12:00:00.000+00:00",
                "attempts": 0,
                "due_at": "2023-11-15T12:00:00.000+00:00",
                "leased_until": None,
                "last_error": None,
            }
        ],
        "deliveries": [],
    }


def test_who_has_to_act_is_said(run: Run, post: Post, store: Store) -> None:
    numbers = [post("ants@example.com", MESSAGE + b"%d" % n)[0] for n in range(4)]
    with store.begin() as connection:
        held, shunted, retried, _ = queue.claim(connection, "in", 100, 60)
        hold(connection, held, "nonmember", "Anne is no member.", "anne@example.org")
        queue.shunt(connection, shunted, "Traceback\nValueError: bad ant\n")
        queue.retry(connection, retried, 86_400, "no DNS")
    shown = run("trace", NAME).stdout
    assert f"waits in queue held ({numbers[0]}): a moderator decides\n" in shown
    assert "\n  Anne is no member.\n" in shown
    assert f"set aside: `postroom queue show {numbers[1]}` says why, 1 attempt\n" in shown
    assert "\n  ValueError: bad ant\n" in shown
    assert f"waits in queue in ({numbers[2]}): next 2" in shown
    assert f"waits in queue in ({numbers[3]}): in work until 2" in shown


STEPS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("received", {"peer": "192.0.2.1", "lhlo": "mx", "sender": "", "size": 4000}),
    ("decided", {"action": "hold", "reason": "nonmember", "sentence": "No member."}),
    ("held", {}),
    ("accepted by a moderator", {"by": "bart@example.org"}),
    ("accepted", {"reason": "approved", "sentence": "Approved.", "recipients": 5}),
    ("expanded", {"recipients": 3, "kind": "post"}),
    ("digested", {"into": ["a", 5]}),
    ("done", {"sent": 2, "refused": 1, "gone": 0}),
)


def test_each_step_is_shown_with_its_time(run: Run, store: Store) -> None:
    tell(store, *STEPS)
    title, *lines = run("trace", NAME).stdout.splitlines()
    assert title.split() == ["TIME", "LIST", "STEP", "WHAT"]
    assert [line[:10] for line in lines] == [DAY] * len(STEPS)
    assert [" ".join(line.split()[2:]) for line in lines] == [
        "ants@example.com received from 192.0.2.1 (mx), envelope sender <>, 4000 octets",
        "ants@example.com decided hold: No member. (nonmember)",
        "ants@example.com held",
        "ants@example.com accepted by a moderator by bart@example.org",
        "ants@example.com accepted Approved. (approved), recipients 5",
        "ants@example.com expanded recipients: 3, kind post",
        'ants@example.com digested into ["a", 5]',
        "ants@example.com done gone 0, refused 1, sent 2",
    ]


def test_json_has_the_steps_as_they_were_written(run: Run, store: Store) -> None:
    tell(store, *STEPS)
    assert [(each["what"], each["facts"]) for each in traced(run)["steps"]] == list(STEPS)
    assert traced(run)["steps"][1]["at"] == "2023-11-15T12:00:01.000+00:00"


def test_each_recipient_is_shown_with_what_the_mail_server_said(run: Run, store: Store) -> None:
    number = make_post(store, [SENT, REFUSED, PENDING, GONE])
    with store.begin() as connection:
        tried = {"attempts": 3, "next_at": LATER, "reply": "451 4.7.1 Later"}
        connection.execute(update(delivery).where(delivery.c.n == 3).values(**tried))
    tell(store, ("expanded", {"recipients": 4, "kind": "post", "entry": number}))
    shown = run("trace", NAME).stdout
    assert f"delivery {number}, post of ants@example.com: begun {DAY} " in shown
    assert "under way; 1 pending, 1 sent, 1 refused, 1 gone\n" in shown
    said = about(shown, "m1@example.org")
    assert said.startswith(f"sent 250 2.0.0 Ok (mx.example.org:25, {DAY} ")
    said = about(shown, "m2@example.org")
    assert said.startswith(f"refused 550 5.1.1 No such user (mx.example.org:25, {DAY} ")
    assert "pending 451 4.7.1 Later 3 attempts, next 20" in about(shown, "m3@example.org")
    assert about(shown, "m4@example.org") == "gone"


def test_json_has_every_recipient(run: Run, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PAGE", 7)
    number = make_post(store, [SENT, PENDING] * 40)
    other = make_post(store, [REFUSED])
    found, last = traced(run)["deliveries"]
    assert (found["id"], last["id"]) == (number, other)
    assert found["states"] == {"pending": 40, "sent": 40, "refused": 0, "gone": 0}
    assert [each["email"] for each in found["recipients"]] == [
        f"m{n}@example.org" for n in range(1, 81)
    ]
    assert found["recipients"][:2] == [
        {
            "email": "m1@example.org",
            "state": "sent",
            "attempts": 1,
            "next_at": None,
            "reply": "250 2.0.0 Ok",
            "at": "2023-11-15T12:00:05.000+00:00",
            "server": "mx.example.org:25",
        },
        {
            "email": "m2@example.org",
            "state": "pending",
            "attempts": 0,
            "next_at": "2023-11-15T12:00:00.000+00:00",
            "reply": None,
            "at": None,
            "server": None,
        },
    ]


def shown_of(shown: str) -> list[str]:
    return [line.split()[0] for line in shown.splitlines() if line.startswith("  m")]


def test_of_many_recipients_those_in_trouble_are_shown_the_worst_first(
    run: Run, store: Store
) -> None:
    make_post(store, [SENT, PENDING, REFUSED, GONE] + [SENT] * 60)
    shown = run("trace", NAME).stdout
    assert shown_of(shown) == [f"m{n}@example.org" for n in (3, 2, 4)]
    assert "1 pending, 61 sent, 1 refused, 1 gone\n" in shown
    assert len(shown_of(run("trace", NAME, "--all").stdout)) == 64


def test_of_very_many_in_trouble_some_are_shown_and_that_is_said(run: Run, store: Store) -> None:
    make_post(store, [PENDING] * 60 + [REFUSED] * 51)
    shown = run("trace", NAME).stdout
    assert shown_of(shown)[0] == "m61@example.org"
    assert len(shown_of(shown)) == 100
    assert "\n  and 1 more refused: --all shows everyone\n" in shown
    assert shown.endswith("\n  and 10 more pending: --all shows everyone\n")


def test_a_post_of_fifty_is_shown_whole(run: Run, store: Store) -> None:
    make_post(store, [SENT] * 50)
    assert len(shown_of(run("trace", NAME).stdout)) == 50


def test_a_post_that_is_done_says_when(run: Run, store: Store) -> None:
    make_post(store, [SENT])
    with store.begin() as connection:
        connection.execute(update(post).values(done_at=MADE + 90))
    assert f", done {DAY} " in run("trace", NAME).stdout
    assert traced(run)["deliveries"][0]["done_at"] == "2023-11-15T12:01:30.000+00:00"


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_stranger_wrote_cannot_steer_a_terminal(
    run: Run, post: Post, store: Store, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    hostile = "an[red]ne\x1b[2J\u202e\x07\n"
    post("ants@example.com", sender="an[red]ne\u202e@example.org")
    make_post(store, [SENT], reply=f"250 {hostile}")
    tell(store, ("received", {"peer": hostile, "[red]": hostile}), (hostile, {"x": hostile}))
    if terminal:
        monkeypatch.setenv("FORCE_COLOR", "1")
    shown = run("trace", NAME).stdout
    own = shown.replace("\x1b[1m", "").replace("\x1b[0m", "")  # bold titles
    assert all(char.isprintable() or char == "\n" for char in own)
    assert own.count(r"an[red]ne\x1b[2J\u202e\x07\n") == 5
    text = run("trace", NAME, "--json").stdout
    assert text.isascii() and all(char.isprintable() or char == "\n" for char in text)


def test_it_answers_in_a_process_of_its_own(postroom: Postroom, store: Store) -> None:
    make_post(store, [SENT] * 3)
    result = postroom("trace", NAME, "--json")
    assert (result.returncode, result.stderr) == (0, b"")
    [found] = json.loads(result.stdout)["deliveries"]
    assert len(found["recipients"]) == 3
