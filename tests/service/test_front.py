"""The door's end of the channel, with a scripted intake at the other."""

import asyncio
import io
import json
import socket
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TypeVar

import msgspec
import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings, Settings
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope, Peer
from postroom.mail.reply import Reply
from postroom.service.channel import (
    Answers,
    Ask,
    Change,
    Delivery,
    Frames,
    Question,
    Ready,
    Room,
    Told,
    decode_request,
    frame,
    spell,
)
from postroom.service.front import REMEMBERED, Front, LookUps
from postroom.watch.figures import Tally
from tests.watch.statuses import tally

ANNE, BOB = Mailbox("anne", "example.com"), Mailbox("bob", "example.com")
WHOLE = 10.0  # seconds; a wait that takes as long has failed

_Value = TypeVar("_Value")
Heard = Delivery | Question | Change | Ask


def envelope(*recipients: Mailbox, raw: bytes = b"Subject: hello\r\n") -> Envelope:
    return Envelope("cris@example.org", recipients, raw, Peer("127.0.0.1:5", "client"), 1.5)


class Scripted:
    """An intake that says and does what the test wants, and the front that talks to it."""

    def __init__(self, settings: Settings) -> None:
        self._theirs, self._ours = socket.socketpair()
        self._ours.setblocking(False)
        self._frames = Frames()
        self.reads = 0
        self.logged = io.StringIO()
        self.ended = 0
        self.front = Front(settings, Log(LogSettings("json"), self.logged), self._ended)

    def _ended(self) -> None:
        self.ended += 1

    async def begin(self, ready: bool = True) -> None:
        """Connect them; `ready` lets the intake say that it is."""
        loop = asyncio.get_running_loop()
        await loop.create_unix_connection(lambda: self.front, sock=self._theirs)
        if ready:
            await self.say(Ready("sqlite:///mail.db", 3))
            assert await soon(self.front.ready) == Ready("sqlite:///mail.db", 3)

    async def hear(self) -> tuple[Heard, bytes]:
        """The next thing that the front says."""
        while (taken := self._frames.take()) is None:
            data = await soon(asyncio.get_running_loop().sock_recv(self._ours, 1_048_576))
            if not data:
                raise EOFError
            self.reads += 1
            self._frames.feed(data)
        return decode_request(taken[0]), taken[1]

    async def say(self, report: Ready | Room | Answers | Told) -> None:
        await asyncio.get_running_loop().sock_sendall(self._ours, b"".join(frame(report)))

    async def answer(self, number: int, replies: Sequence[Reply] | None) -> None:
        await self.say(Answers([(number, None if replies is None else spell(replies))]))

    def leave(self) -> None:
        """End, as a killed process does."""
        self._ours.close()


async def soon(what: Awaitable[_Value]) -> _Value:
    return await asyncio.wait_for(asyncio.ensure_future(what), WHOLE)


class Asked:
    """An answer to wait for; it must come once."""

    def __init__(self) -> None:
        self._came: asyncio.Future[Sequence[Reply] | None] = asyncio.Future()

    def __call__(self, replies: Sequence[Reply] | None) -> None:
        self._came.set_result(replies)

    async def get(self) -> Sequence[Reply] | None:
        return await soon(self._came)

    @property
    def came(self) -> bool:
        return self._came.done()


Script = Callable[[Scripted], Awaitable[None]]


def play(script: Script, settings: Settings | None = None, ready: bool = True) -> Scripted:
    """Run a script; both ends are closed afterwards."""

    async def run() -> Scripted:
        intake = Scripted(settings or Settings())
        await intake.begin(ready)
        try:
            await script(intake)
        finally:
            intake.leave()
            intake.front.close()
        return intake

    return asyncio.run(run())


def changed(section: str, **values: object) -> Settings:
    return msgspec.convert({section: values}, Settings)


def test_an_envelope_arrives_as_it_is_with_the_time_by_which_it_must_be_stored() -> None:
    async def script(intake: Scripted) -> None:
        before = time.monotonic()
        intake.front.deliver(envelope(ANNE, BOB), Asked())
        after = time.monotonic()
        heard, raw = await intake.hear()
        assert isinstance(heard, Delivery)
        assert (heard.sender, heard.recipients) == ("cris@example.org", (ANNE, BOB))
        assert (heard.peer, heard.received_at) == (Peer("127.0.0.1:5", "client"), 1.5)
        assert raw == b"Subject: hello\r\n"
        assert before + 7 <= heard.deadline <= after + 7

    play(script, changed("lmtp", commit_deadline=7))


def test_answers_reach_who_asked_whatever_their_order() -> None:
    async def script(intake: Scripted) -> None:
        asked = [Asked() for _ in range(3)]
        intake.front.deliver(envelope(ANNE), asked[0])
        intake.front.verify((ANNE, BOB), asked[1])
        intake.front.deliver(envelope(BOB, BOB), asked[2])
        heard = [(await intake.hear())[0] for _ in range(3)]
        assert [type(each) for each in heard] == [Delivery, Question, Delivery]
        first, second, third = (
            each.number for each in heard if isinstance(each, Delivery | Question)
        )
        await intake.answer(third, [reply.ACCEPTED, reply.NO_MAILBOX])
        assert await asked[2].get() == [reply.ACCEPTED, reply.NO_MAILBOX]
        assert not asked[0].came
        await intake.say(
            Answers(
                [
                    (second, spell([reply.RECIPIENT_OK, reply.NO_MAILBOX])),
                    (first, spell([reply.ACCEPTED])),
                ]
            )
        )
        assert await asked[0].get() == [reply.ACCEPTED]
        assert await asked[1].get() == [reply.RECIPIENT_OK, reply.NO_MAILBOX]

    play(script)


def test_an_outcome_that_is_not_known_is_none() -> None:
    async def script(intake: Scripted) -> None:
        asked = Asked()
        intake.front.deliver(envelope(ANNE), asked)
        heard, _ = await intake.hear()
        assert isinstance(heard, Delivery)
        await intake.answer(heard.number, None)
        assert await asked.get() is None

    play(script)


def test_all_of_one_turn_leaves_in_one_write() -> None:
    class Transport(asyncio.Transport):
        def __init__(self) -> None:
            super().__init__()
            self.writes: list[bytes] = []

        def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
            self.writes.append(b"".join(list_of_data))

    async def script() -> None:
        front = Front(Settings(), Log(LogSettings("json"), io.StringIO()), lambda: None)
        transport = Transport()
        front.connection_made(transport)
        for _ in range(5):
            front.deliver(envelope(ANNE), Asked())
            front.verify((BOB,), Asked())
        await asyncio.sleep(0)
        [whole] = transport.writes
        frames = Frames()
        frames.feed(whole)
        assert sum(1 for _ in iter(frames.take, None)) == 10

    asyncio.run(script())


def test_when_the_intake_is_gone_nobody_is_told_what_cannot_be_known() -> None:
    async def script(intake: Scripted) -> None:
        delivery, question = Asked(), Asked()
        intake.front.deliver(envelope(ANNE, BOB), delivery)
        intake.front.verify((ANNE, BOB), question)
        await intake.hear()
        assert intake.ended == 0
        intake.leave()
        assert await delivery.get() is None  # it may have been stored
        assert await question.get() == [reply.LOCAL_ERROR] * 2
        assert intake.ended == 1

    play(script)


def test_after_the_intake_is_gone_everybody_is_told_451_at_once() -> None:
    async def script(intake: Scripted) -> None:
        lost = Asked()
        intake.front.deliver(envelope(ANNE), lost)
        intake.leave()
        await lost.get()
        delivery, question = Asked(), Asked()
        intake.front.deliver(envelope(ANNE, BOB, ANNE), delivery)
        intake.front.verify((ANNE,), question)
        assert await delivery.get() == [reply.LOCAL_ERROR] * 3
        assert await question.get() == [reply.LOCAL_ERROR]
        intake.front.reconfigure(Settings())  # harmless
        await asyncio.sleep(0)
        assert intake.ended == 1

    play(script)


def test_an_intake_that_ends_before_it_was_ready_is_told_once_only() -> None:
    async def script(intake: Scripted) -> None:
        intake.leave()
        assert await soon(intake.front.ready) is None
        assert intake.ended == 0

    play(script, ready=False)


def test_mail_is_let_in_as_long_as_there_is_room() -> None:
    async def script(intake: Scripted) -> None:
        front = intake.front
        assert front.admit(10**12) is None  # nobody has said yet
        for free, size, refusal in [
            (1000, 100, None),
            (1199, 100, reply.NO_ROOM),  # 1000 are to stay free, and it is written twice
            (1200, 100, None),
            (999, 0, reply.NO_ROOM),
            (None, 10**12, None),
        ]:
            reserve = 1000 if refusal or free == 1200 else 0
            front.reconfigure(changed("store", min_free_space=reserve))
            await intake.hear()
            asked = Asked()
            front.verify((), asked)
            heard, _ = await intake.hear()
            assert isinstance(heard, Question)
            await intake.say(Room(free))
            await intake.answer(heard.number, [])
            await asked.get()  # so the room was heard of, too
            assert front.admit(size) == refusal

    play(script)


def test_new_settings_are_used_from_the_next_message_on_and_told_to_the_intake() -> None:
    async def script(intake: Scripted) -> None:
        new = msgspec.convert(
            {
                "site": {"owner": "boss@example.com"},
                "store": {"receipts_kept": 2},
                "lmtp": {"commit_deadline": 1000},
            },
            Settings,
        )
        intake.front.deliver(envelope(ANNE), Asked())
        intake.front.reconfigure(new)
        intake.front.deliver(envelope(ANNE), Asked())
        before, change, after = [(await intake.hear())[0] for _ in range(3)]
        assert change == Change("boss@example.com", 172_800.0)
        assert isinstance(before, Delivery) and isinstance(after, Delivery)
        assert after.deadline - before.deadline >= 900

    play(script)


def test_a_large_message_arrives_whole() -> None:
    raw = bytes(range(256)) * 40_000

    async def script(intake: Scripted) -> None:
        intake.front.deliver(envelope(ANNE, raw=raw), Asked())
        assert (await intake.hear())[1] == raw
        assert intake.reads > 1

    play(script)


def test_what_was_handed_over_still_leaves_when_the_front_closes() -> None:
    async def script(intake: Scripted) -> None:
        intake.front.deliver(envelope(ANNE, raw=b"x" * 5_000_000), Asked())
        intake.front.close()
        assert len((await intake.hear())[1]) == 5_000_000
        with pytest.raises(EOFError):
            await intake.hear()

    play(script)


def test_a_connection_that_a_defect_ended_is_logged_with_its_traceback() -> None:
    async def script(intake: Scripted) -> None:
        intake.front.broken("127.0.0.1:5", ZeroDivisionError("oops"))

    line = json.loads(play(script).logged.getvalue())
    assert (line["level"], line["peer"]) == ("error", "127.0.0.1:5")
    assert "ZeroDivisionError: oops" in line["exception"]


class Curious:
    """Somebody who asked how it is going."""

    def __init__(self) -> None:
        self.came: asyncio.Future[Tally | None] = asyncio.Future()

    def __call__(self, found: Tally | None) -> None:
        self.came.set_result(found)


def test_the_intake_is_asked_once_however_many_want_to_know() -> None:
    async def script(intake: Scripted) -> None:
        curious = [Curious() for _ in range(3)]
        for each in curious:
            intake.front.stats(each)
        intake.front.verify((ANNE,), Asked())
        heard = [(await intake.hear())[0] for _ in range(2)]
        assert [type(each) for each in heard] == [Ask, Question]
        await intake.say(Told(tally(messages=7)))
        assert [await soon(each.came) for each in curious] == [tally(messages=7)] * 3
        intake.front.stats(Curious())  # the next one asks anew
        assert isinstance((await intake.hear())[0], Ask)

    play(script)


def test_who_asks_an_intake_that_is_gone_is_told_so() -> None:
    async def script(intake: Scripted) -> None:
        before, after = Curious(), Curious()
        intake.front.stats(before)
        await intake.hear()
        assert intake.front.connected
        intake.leave()
        assert await soon(before.came) is None
        intake.front.stats(after)
        assert await soon(after.came) is None
        assert not intake.front.connected

    play(script)


def test_it_knows_when_the_intake_last_said_something() -> None:
    async def script(intake: Scripted) -> None:
        before = intake.front.heard_at
        asked = Asked()
        intake.front.verify((), asked)
        heard, _ = await intake.hear()
        assert isinstance(heard, Question)
        await intake.answer(heard.number, [])
        await asked.get()
        assert before < intake.front.heard_at <= time.monotonic()

    play(script)


def test_refusals_are_remembered_with_who_was_refused_what() -> None:
    async def script(intake: Scripted) -> None:
        asked = Asked()
        intake.front.deliver(envelope(ANNE, BOB, ANNE), asked)
        heard, _ = await intake.hear()
        assert isinstance(heard, Delivery)
        await intake.answer(heard.number, [reply.ACCEPTED, reply.NO_MAILBOX, reply.NO_ROOM])
        await asked.get()
        first, second = intake.front.refusals
        assert (first.peer, first.sender) == ("127.0.0.1:5", "cris@example.org")
        assert (first.recipient, first.reply) == (
            "bob@example.com",
            "550 5.1.1 Requested action not taken: mailbox unavailable",
        )
        assert (second.recipient, second.reply[:9]) == ("anne@example.com", "452 4.3.1")
        assert first.time == pytest.approx(time.time(), abs=60)

    play(script)


def test_a_recipient_refused_at_rcpt_is_remembered_and_a_look_up_is_not() -> None:
    async def script(intake: Scripted) -> None:
        for ask, told in ((intake.front.verify, 1), (LookUps(intake.front).verify, 1)):
            asked = Asked()
            ask((ANNE, BOB), asked)
            heard, _ = await intake.hear()
            assert isinstance(heard, Question)
            await intake.answer(heard.number, [reply.RECIPIENT_OK, reply.NO_MAILBOX])
            assert await asked.get() == [reply.RECIPIENT_OK, reply.NO_MAILBOX]
            assert [each.recipient for each in intake.front.refusals] == ["bob@example.com"] * told

    play(script)


def test_only_the_last_refusals_are_kept_and_what_is_unknown_is_none() -> None:
    many = [Mailbox(f"bee{number}", "example.com") for number in range(REMEMBERED * 2)]

    async def script(intake: Scripted) -> None:
        for replies in [reply.NO_MAILBOX] * len(many), None, [reply.ACCEPTED] * len(many):
            asked = Asked()
            intake.front.deliver(envelope(*many), asked)
            heard, _ = await intake.hear()
            assert isinstance(heard, Delivery)
            await intake.answer(heard.number, replies)
            await asked.get()
            kept = [each.recipient for each in intake.front.refusals]
            assert kept == [str(box) for box in many[-REMEMBERED:]]

    play(script)
