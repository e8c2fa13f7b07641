"""The book: what is written when nobody knows whether it was, and how much of it."""

import contextlib
from collections.abc import Iterator

import pytest
from sqlalchemy import Connection, select

from postroom.delivery.courier import LONGEST_REPLY
from postroom.delivery.ledger import Told
from postroom.delivery.policy import Limits
from postroom.spool.handing import Handed, Letter
from postroom.spool.metadata import BOUNCES
from postroom.spool.queue import Claim
from postroom.store import schema
from postroom.store.engine import Store
from tests.delivery.office import RAW, Office, mails, people
from tests.delivery.servers import MailServer, Said, at, refusing
from tests.runners.scripted import Gone
from tests.wire.harness import run

pytestmark = pytest.mark.usefixtures("brisk")
FAR = Limits(3600.0, 14_400.0)  # nobody is due again before the test is over
BAD = {
    "p2@example.net": "550 5.1.1 No such user",
    "p5@example.net": "552 5.2.2 Mailbox full",
}


class Unsure:
    """Writing transactions, one of which ends without an answer: it was committed, or it was
    not."""

    def __init__(self, store: Store, committed: bool) -> None:
        self._begin, self._committed = store.begin, committed
        self.left = -1  # transactions before that one; negative if there is none to come
        self.lost = False  # whether there was one

    @contextlib.contextmanager
    def begin(self) -> Iterator[Connection]:
        hit, self.left = self.left == 0, self.left - 1
        with self._begin() as connection:
            yield connection
            if hit and not self._committed:
                self.lost = True
                raise Gone
        if hit:
            self.lost = True
            raise Gone


@pytest.fixture(params=[True, False], ids=["committed", "not committed"])
def unsure(
    request: pytest.FixtureRequest, any_office: Office, monkeypatch: pytest.MonkeyPatch
) -> Unsure:
    """Transactions of that office whose outcome can be lost."""
    made = Unsure(any_office.store, request.param)
    monkeypatch.setattr(any_office.store, "begin", made.begin)
    return made


@pytest.mark.parametrize("step", ["expand", "record", "settle"])
def test_d7_a_commit_of_unknown_outcome_doubles_nothing(
    any_office: Office, unsure: Unsure, step: str
) -> None:
    """Each is one commit, and they come one after the other."""
    office = any_office
    office.join(*people(6))

    async def test() -> None:
        with MailServer(refusing(BAD)) as server:
            number = office.post()
            # It has freed what others lost, and claimed this, before.
            unsure.left = 2 + ["expand", "record", "settle"].index(step)
            async with office.working(server):
                await office.done(number)
        assert unsure.lost
        assert mails(server) == sorted({*people(6)} - {*BAD})
        assert [many for many, _ in office.transactions(number)] == [6]
        assert {each.attempts for each in office.recipients(number)} == {1}
        assert office.of(number, "refused") == {"p2", "p5"}
        [facts] = office.facts("bounces")
        assert [each["email"] for each in facts["refused"]] == sorted(BAD)
        assert [what for what, _ in office.steps()] == ["expanded", "done"]

    run("asyncio", test)


def test_d7_a_commit_of_unknown_outcome_tells_of_nobody_twice(
    any_office: Office, unsure: Unsure
) -> None:
    office = any_office

    def report(connection: Connection, held: Claim, told: Told) -> Handed | None:
        return Handed(BOUNCES, None, {"version": 1}, Letter(told.email.encode(), ""))

    def lose(said: Said) -> None:
        if said.verb == "END":
            unsure.left = 0

    async def test() -> None:
        with MailServer(lose, refusing(BAD)) as server:
            number = office.notice(*people(6))
            async with office.working(server, undeliverable=report):
                await office.done(number)
        assert unsure.lost
        assert len(server.taken) == 1
        letters = office.look(select(schema.message.c.raw).order_by(schema.message.c.raw))
        assert sorted(bytes(raw).decode() for (raw,) in letters) == sorted(BAD)

    run("asyncio", test)


def test_of_several_records_those_that_were_not_written_are_written(
    any_office: Office, unsure: Unsure
) -> None:
    """Transactions that end while the first commit is lost are in the next one."""
    office = any_office
    office.join(*people(60))

    def lose(said: Said) -> None:
        if said.verb == "END" and len(server.heard("END")) in (1, 4):
            unsure.left = 0

    with MailServer(lose) as server:

        async def test() -> None:
            number = office.post()
            async with office.working(server, recipients=10, connections=3):
                await office.done(number)
            assert unsure.lost
            assert mails(server) == sorted(people(60))
            assert [many for many, _ in office.transactions(number)] == [10] * 6
            assert {each.attempts for each in office.recipients(number)} == {1}

        run("asyncio", test)


def long_reply(code: str) -> str:
    """A reply of many lines, each as long as they may be."""
    return "\r\n".join([*(f"{code[:3]}-{code[4:]} {'x' * 480}" for _ in range(5)), f"{code} Bye"])


def test_of_a_long_reply_only_the_beginning_is_kept(office: Office) -> None:
    office.join(*people(3))
    bad = {
        "p1@example.net": long_reply("550 5.1.1"),
        "p2@example.net": long_reply("451 4.2.0"),
    }

    async def test() -> None:
        with MailServer(refusing(bad), at("END", long_reply("250 2.0.0"))) as server:
            number = office.post()
            async with office.working(server, limits=FAR):
                await office.put_off(number)
        one, two, _ = office.recipients(number)
        assert one.reply is not None and two.reply is not None
        assert one.reply.startswith("550 5.1.1 xxx") and two.reply.startswith("451 4.2.0 xxx")
        assert len(one.reply) == len(two.reply) == LONGEST_REPLY == 1000
        [(_, reply)] = office.transactions(number)
        assert reply.startswith("250 2.0.0 xxx") and len(reply) == LONGEST_REPLY
        [facts] = office.facts("bounces")
        assert [each["reply"] for each in facts["refused"]] == [one.reply]

    run("asyncio", test)


def test_a_bounce_holds_the_header_of_a_large_post_and_lets_go_of_the_rest(
    office: Office,
) -> None:
    office.join(*people(3))
    large = RAW + b"ants\r\n" * 20_000

    async def test() -> None:
        with MailServer(at("RCPT", "550 5.1.1 No such user")) as server:
            number = office.post(large)
            async with office.working(server):
                await office.done(number)
        assert len(office.facts("bounces")[0]["refused"]) == 3
        [(raw,)] = office.look(select(schema.message.c.raw))
        assert bytes(raw).rstrip() == RAW.partition(b"\r\n\r\n")[0]

    run("asyncio", test)
