"""`postroom pending`."""

import json
import time
from collections.abc import Callable, Mapping
from datetime import datetime

import pytest
from sqlalchemy import Connection, update

from postroom.lists import pending
from postroom.lists.pending import Request, Wanted
from postroom.lists.registry import find_list
from postroom.lists.subscription import Action, Policy, State
from postroom.spool import ids
from postroom.store.engine import Store
from postroom.store.schema import pending as rows
from tests.cli.conftest import Run, notices

ANTS, BEES = "ants@example.com", "bees@example.com"
ANN, BO = "ann@example.org", "bo@example.org"
HOSTILE = "\x1b[2J\u202e"
DAY = 86_400.0
POLICIES = {
    State.CONFIRM: Policy.CONFIRM_THEN_MODERATE,
    State.MODERATE: Policy.MODERATE,
    State.INVITED: Policy.CLOSED,
}
Ask = Callable[..., str]


@pytest.fixture(autouse=True)
def lists(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists to join, and who calls the commands."""
    monkeypatch.setenv("LOGNAME", "carla")
    run("list", "create", ANTS, BEES)


@pytest.fixture
def ask(store: Store) -> Ask:
    """Makes a request that waits; returns its id."""

    def make(
        email: str = ANN,
        state: State = State.MODERATE,
        action: Action = "join",
        to: str = ANTS,
        name: str = "",
        changes: Mapping[str, str] | None = None,
        ago: float = 0.0,
    ) -> str:
        policy = POLICIES[state]
        wanted = Wanted(action, email, name, changes or {}, policy, state, email, "192.0.2.1")
        with store.begin() as connection:
            key = find_list(connection, to).key
            request, fresh = pending.ask(
                connection, ids.IdMaker(), key, wanted, 7 * DAY, time.time() - ago
            )
        assert fresh
        return ids.show(request.id)

    return make


def waiting(store: Store) -> list[str]:
    """The ids of what waits."""
    with store.read() as connection:
        return [ids.show(request.id) for request, _ in pending.waiting(connection)]


def tokens(store: Store) -> list[str]:
    with store.read() as connection:
        return [request.token for request, _ in pending.waiting(connection)]


def members(run: Run, of: str = ANTS) -> list[str]:
    return [each["address"] for each in json.loads(run("member", "ls", of, "--json").stdout)]


def audited(run: Run, address: str = ANN) -> list[tuple[str, str, str]]:
    """What was done about an address, by whom and how."""
    found = json.loads(run("audit", ANTS, "--address", address, "--json").stdout)
    return [(each["what"], each["by"], each["facts"]["how"]) for each in found]


def refused(run: Run, *arguments: str, status: int = 1) -> str:
    said = run("pending", *arguments, status=status).stderr
    assert status == 2 or len(said.splitlines()) == 1
    return said


def test_where_nothing_waits_it_says_so(run: Run) -> None:
    assert run("pending", "ls").stdout == "No request waits for anybody.\n"
    assert json.loads(run("pending", "ls", "--json").stdout) == []


def test_requests_are_listed_oldest_first_with_whom_they_wait_for(run: Run, ask: Ask) -> None:
    three = ask(state=State.INVITED, to=BEES)
    one, two = ask(BO, State.CONFIRM, "leave", ago=2 * DAY), ask(ago=DAY)
    title, *lines = run("pending", "ls").stdout.splitlines()
    assert title.split() == ["ID", "LIST", "ACTION", "ADDRESS", "WAITS", "FOR", "SINCE", "UNTIL"]
    shown = [line.split() for line in lines]
    assert [words[:4] for words in shown] == [
        [one, ANTS, "leave", BO],
        [two, ANTS, "join", ANN],
        [three, BEES, "join", ANN],
    ]
    assert [" ".join(words[4:-4]) for words in shown] == [
        "the address",
        "the owners",
        "the address, invited",
    ]
    since, until = (datetime.fromisoformat(" ".join(shown[0][i : i + 2])) for i in (6, 8))
    assert (until - since).days == 7


def test_requests_of_one_list_or_the_oldest_are_chosen(run: Run, ask: Ask) -> None:
    one, two = ask(ago=DAY), ask(to=BEES)
    [found] = json.loads(run("pending", "ls", BEES, "--json").stdout)
    assert found["id"] == two
    limited = run("pending", "ls", "--limit", "1")
    assert [line.split()[0] for line in limited.stdout.splitlines()[1:]] == [one]
    assert limited.stderr == "The 1 oldest; --limit N shows more.\n"
    assert run("pending", "ls", "--limit", "3").stderr == ""
    assert "list wasps@example.com does not exist" in refused(run, "ls", "wasps@example.com")


def test_what_has_expired_waits_for_nobody(run: Run, ask: Ask) -> None:
    ask(ago=8 * DAY)
    assert run("pending", "ls").stdout == "No request waits for anybody.\n"


def test_a_request_is_shown_with_who_asked_for_what(run: Run, ask: Ask) -> None:
    number = ask(state=State.CONFIRM, name="Ann Lee", changes={"mode": "digest"})
    shown = dict(line.split("  ", 1) for line in run("pending", "show", number).stdout.splitlines())
    shown = {name: value.strip() for name, value in shown.items()}
    for name in ("asked", "last told", "until"):
        assert datetime.fromisoformat(shown.pop(name))
    assert shown == {
        "id": number,
        "list": ANTS,
        "action": "join",
        "address": ANN,
        "name": "Ann Lee",
        "with": "mode=digest",
        "waits for": "the address",
        "policy": "confirm-then-moderate",
        "asked by": ANN,
        "from network": "192.0.2.1",
    }


def test_a_request_is_given_to_programs(run: Run, ask: Ask) -> None:
    number = ask(changes={"mode": "digest"})
    found = json.loads(run("pending", "show", number, "--json").stdout)
    assert [found] == json.loads(run("pending", "ls", "--json").stdout)
    for name in ("created_at", "told_at", "expires_at"):
        assert datetime.fromisoformat(found.pop(name)).utcoffset() is not None
    assert found == {
        "id": number,
        "list": ANTS,
        "action": "join",
        "address": ANN,
        "name": "",
        "changes": {"mode": "digest"},
        "state": "moderate",
        "policy": "moderate",
        "asked_by": ANN,
        "source": "192.0.2.1",
    }


@pytest.mark.parametrize("arguments", [("ls",), ("ls", "--json"), ("show",), ("show", "--json")])
def test_no_command_shows_a_token_or_lets_strangers_steer_the_terminal(
    run: Run, store: Store, ask: Ask, arguments: tuple[str, ...]
) -> None:
    number = ask(name=HOSTILE, changes={HOSTILE: HOSTILE})
    with store.begin() as connection:
        connection.execute(update(rows).values(email=HOSTILE, asked_by=HOSTILE))
    ids_of = [number] if arguments[0] == "show" else []
    shown = run("pending", *arguments, *ids_of).stdout
    assert shown.replace("\n", "").isprintable()
    assert "\\u202e" in shown
    [token] = tokens(store)
    assert token not in shown


def test_who_is_decided_on_cannot_steer_the_terminal(run: Run, store: Store, ask: Ask) -> None:
    number = ask()
    with store.begin() as connection:
        connection.execute(update(rows).values(email=HOSTILE))
    said = run("pending", "discard", number).stdout
    assert said.replace("\n", "").isprintable()
    assert "\\u202e" in said


def test_who_is_accepted_is_a_member_and_welcomed(run: Run, store: Store, ask: Ask) -> None:
    number, other = ask(name="Ann Lee", changes={"mode": "digest"}), ask(BO)
    said = run("pending", "accept", number, number).stdout
    assert said == f"accepted {number}: {ANN} is a member of {ANTS} now.\n"
    [ann] = json.loads(run("member", "ls", ANTS, "--json").stdout)
    assert (ann["address"], ann["name"], ann["mode"]) == (ANN, "Ann Lee", "digest")
    assert waiting(store) == [other]
    assert [recipients for recipients, _ in notices(store)] == [(ANN,)]
    assert audited(run) == [("joined", "carla", "command line")]


def test_several_are_decided_on_together(run: Run, store: Store, ask: Ask) -> None:
    run("member", "add", ANTS, BO)
    one, two = ask(), ask(BO, action="leave")
    said = run("pending", "accept", two, one).stdout.splitlines()
    assert [line.split()[1] for line in said] == [f"{one}:", f"{two}:"]
    assert members(run) == [ANN]
    assert waiting(store) == []
    assert audited(run, BO)[-1] == ("left", "carla", "command line")


def test_who_is_rejected_is_told_why(run: Run, store: Store, ask: Ask) -> None:
    number = ask()
    said = run("pending", "reject", number, "--reason", "Ants only.").stdout
    assert said == f"rejected {number}: The request of {ANN} is refused, and {ANN} is told so.\n"
    [(recipients, raw)] = notices(store)
    assert recipients == (ANN,)
    assert b"Ants only." in raw
    assert (members(run), waiting(store)) == ([], [])
    assert audited(run) == [("rejected", "carla", "command line")]


@pytest.mark.parametrize("state", POLICIES)
def test_a_request_is_discarded_without_a_word_whoever_it_waits_for(
    run: Run, store: Store, ask: Ask, state: State
) -> None:
    number = ask(state=state)
    said = run("pending", "discard", number).stdout
    assert said == f"discarded {number}: The request of {ANN} is dropped.\n"
    assert (waiting(store), notices(store), members(run)) == ([], [], [])
    assert audited(run) == [("discarded", "carla", "command line")]


@pytest.mark.parametrize("state", [State.CONFIRM, State.INVITED])
@pytest.mark.parametrize(
    ("verb", "action", "instead"),
    [
        ("accept", "join", f"`postroom member add {ANTS} {ANN}` does it at once"),
        ("accept", "leave", f"`postroom member remove {ANTS} {ANN}` does it at once"),
        ("reject", "join", "`postroom pending discard` drops it"),
    ],
)
def test_nobody_consents_in_place_of_the_address(
    run: Run, store: Store, ask: Ask, state: State, verb: str, action: Action, instead: str
) -> None:
    number = ask(state=state, action=action)
    assert refused(run, verb, number) == (
        f"postroom: {number}: it waits for {ANN} to confirm, not for the owners: {instead}; "
        "nothing was decided\n"
    )
    assert (waiting(store), members(run)) == ([number], [])


@pytest.mark.parametrize("verb", ["accept", "reject", "discard"])
def test_one_that_cannot_be_decided_on_and_none_is(
    run: Run, store: Store, ask: Ask, verb: str
) -> None:
    one, expired = ask(), ask(BO, ago=8 * DAY)
    assert f"{expired}: it has expired" in refused(run, verb, one, expired)
    assert "there is no request 7fffffffffffffff" in refused(run, verb, one, "7fffffffffffffff")
    assert "'xyz' is no id" in refused(run, verb, one, "xyz", status=2)
    assert "Missing argument 'ID...'" in refused(run, verb, status=2)
    assert (waiting(store), members(run), notices(store)) == ([one], [], [])
    assert audited(run) == []


def test_who_decides_second_is_told_so(run: Run, ask: Ask) -> None:
    number = ask()
    run("pending", "accept", number)
    assert f"there is no request {number}: it was answered" in refused(run, "reject", number)
    assert f"there is no request {number}" in refused(run, "show", number)


def test_what_somebody_else_decided_at_this_moment_is_not_decided_again(
    run: Run, store: Store, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = ask(), ask(BO)
    find = pending.find

    def stale(connection: Connection, number: int) -> Request:
        request = find(connection, number)
        return request._replace(token="another") if ids.show(number) == two else request

    monkeypatch.setattr(pending, "find", stale)
    assert "somebody else has answered this request meanwhile" in refused(run, "accept", one, two)
    assert waiting(store) == [one, two]
    assert members(run) == []


def test_what_the_list_allows_no_more_is_refused(run: Run, store: Store, ask: Ask) -> None:
    one, two = ask(BO), ask()
    run("list", "set", ANTS, f"posting.banned={ANN}")
    assert f"{two}: {ANN} may not join {ANTS}" in refused(run, "accept", one, two)
    assert waiting(store) == [one, two]


@pytest.mark.parametrize("verb", ["show", "accept"])
def test_a_request_that_cannot_be_read_is_one_sentence(
    run: Run, store: Store, ask: Ask, verb: str
) -> None:
    number = ask()
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE pending SET action = 'sing'")
    assert f"the request {number} cannot be read" in refused(run, verb, number)
    assert run("pending", "ls").stdout == "No request waits for anybody.\n"


def test_settings_of_a_list_that_cannot_be_read_are_one_sentence(
    run: Run, store: Store, ask: Ask
) -> None:
    number = ask()
    with store.begin() as connection:
        connection.exec_driver_sql("UPDATE mailing_list SET settings = '{'")
    assert f"the settings of list {ANTS} cannot be read" in refused(run, "accept", number)
    assert ANN in run("pending", "show", number).stdout


def test_requests_go_with_their_list(run: Run, store: Store, ask: Ask) -> None:
    ask()
    other = ask(to=BEES)
    run("list", "remove", ANTS)
    assert waiting(store) == [other]
