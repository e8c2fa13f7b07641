"""The composition root: every object of the door is made here, once, by hand.

For: seeing how the parts hang together. Guarantees: nothing else constructs or connects
them. Fails with `StoreError` if the database cannot be used.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from postroom.lists.routing import route
from postroom.lmtp.server import Answer, Server, ServerConfig
from postroom.lmtp.session import Limits
from postroom.mail import reply
from postroom.mail.address import Mailbox
from postroom.mail.envelope import Envelope
from postroom.mail.reply import Reply
from postroom.service.journal import journal
from postroom.service.observe import Log
from postroom.service.settings import Settings
from postroom.spool.batches import Batches
from postroom.spool.intake import Done, Intake, Item, Replies, Stored, Writer, answers
from postroom.spool.queue import PURGE_STEP, purge_receipts
from postroom.spool.space import Space
from postroom.spool.trouble import Trouble
from postroom.store.direct import Direct
from postroom.store.engine import Store

PURGE_EVERY = 60.0  # seconds


def server_config(settings: Settings) -> ServerConfig:
    """What of the settings concerns connections."""
    lmtp = settings.lmtp
    return ServerConfig(
        settings.site.hostname,
        lmtp.ident,
        Limits(
            lmtp.max_message_size, lmtp.max_recipients, lmtp.refuse_unknown == "at-rcpt"
        ),
        lmtp.memory_budget,
        lmtp.max_connections,
    )


class _Question(NamedTuple):
    recipients: tuple[Mailbox, ...]
    done: Done


class FrontDoor:
    """What the LMTP server delivers to: the intake, behind two threads."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        log: Log,
        wake: Callable[..., object],
        unhealthy: Callable[[], None],
    ) -> None:
        """`wake(f, *args)` runs `f` in the server's thread; `unhealthy()` asks for a restart."""
        self._store, self._log, self._wake, self._unhealthy = store, log, wake, unhealthy
        self.writer = Writer(Direct(store), settings.site.owner)
        self.reconfigure(settings)
        self._space = Space(store.path, settings.store.min_free_space)
        self._purged = 0.0
        intake = Intake(self.writer, self._answer, self._journal, self._trouble)
        self._deliveries = Batches(
            "intake",
            intake.work,
            self._defect,
            weigh=lambda item: len(item.envelope.raw),
            idle=self._upkeep,
        )
        self._questions = Batches("verify", self._look_up, self._defect)

    def reconfigure(self, settings: Settings) -> None:
        """Use these settings from the next message on."""
        self.writer.site_owner = settings.site.owner
        self._deadline = settings.lmtp.commit_deadline
        self._receipts_kept = settings.store.receipts_kept * 86_400

    def start(self) -> None:
        """Start the threads."""
        self._space.measure()
        self._deliveries.start()
        self._questions.start()

    def close(self) -> None:
        """Store what waits, then end."""
        self._deliveries.close()
        self._questions.close()

    # Called by the server

    def deliver(self, envelope: Envelope, answer: Answer) -> None:
        self._deliveries.put(Item(envelope, time.monotonic() + self._deadline, answer))

    def verify(self, recipients: tuple[Mailbox, ...], answer: Answer) -> None:
        self._questions.put(_Question(recipients, answer))

    def admit(self, size: int) -> Reply | None:
        return self._space.refusal(size)

    def broken(self, peer: str, error: Exception) -> None:
        self._log.error("connection ended by a defect", peer=peer, exc_info=error)

    # Called in the threads

    def _answer(self, outcomes: list[tuple[Done, Replies]]) -> None:
        if outcomes:
            self._wake(_tell, outcomes)

    def _journal(self, stored: Sequence[Stored]) -> None:
        journal(self._log, stored)

    def _trouble(self, trouble: Trouble, waiting: int) -> None:
        self._log.error(
            "not stored", reason=str(trouble), waiting=waiting, answer=trouble.reply.text,
            will_retry=trouble.retry,
        )
        if trouble.unhealthy:
            self._unhealthy()

    def _defect(self, batch: Sequence[Item | _Question], error: Exception) -> None:
        self._log.error("defect in a storage thread", waiting=len(batch), exc_info=error)
        self._unhealthy()

    def _look_up(self, questions: list[_Question]) -> None:
        try:
            with self._store.read() as connection:
                routes = route(
                    connection.exec_driver_sql,
                    self._store.is_sqlite,
                    (box for q in questions for box in q.recipients),
                )
        except Exception as error:
            self._log.error("look-up failed", exc_info=error)
            self._answer([(q.done, [reply.LOCAL_ERROR] * len(q.recipients)) for q in questions])
            return
        self._answer([(q.done, answers(q.recipients, routes, reply.RECIPIENT_OK)) for q in questions])

    def _upkeep(self) -> None:
        self._space.measure()
        if time.monotonic() < self._purged + PURGE_EVERY:
            return
        try:
            with self._store.begin() as connection:
                gone = purge_receipts(connection, time.time() - self._receipts_kept)
        except Exception as error:
            self._log.warning("receipts not purged", reason=str(error))
            gone = 0
        if gone < PURGE_STEP:
            self._purged = time.monotonic()


def _tell(outcomes: list[tuple[Done, Replies]]) -> None:
    for done, replies in outcomes:
        done(replies)


def make_server(
    store: Store, settings: Settings, log: Log, unhealthy: Callable[[], None]
) -> tuple[Server, FrontDoor]:
    """The door of this process; to be called in the running event loop."""
    loop = asyncio.get_running_loop()

    def wake(function: Callable[..., object], *arguments: object) -> None:
        try:
            loop.call_soon_threadsafe(function, *arguments)
        except RuntimeError:
            log.warning("replies not sent: the server has stopped")

    door = FrontDoor(store, settings, log, wake, unhealthy)
    return Server(server_config(settings), door), door
