"""The intake process: everything of the door that touches storage.

For: keeping storage, and the interpreter lock it would contend for, out of the door's
event loop. It reads whatever the door has sent, commits it as one batch and answers.
Guarantees: those of `spool.intake`; questions are answered before the batch they came with
is stored. It ends when the door closes the connection, after storing what had been sent.
Exits 0 then, 1 after an I/O error of the database (never tried again), `UNFIT` when the
database cannot be used. After a commit with work for runners it rings the bell, if it has one,
that wakes the runners.
"""

import argparse
import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Sequence

from postroom.base.loading import load
from postroom.base.observe import Log
from postroom.base.settings import Settings, SettingsError
from postroom.lists.registry import count_lists
from postroom.lists.routing import route
from postroom.mail import reply
from postroom.service.channel import (
    Answers,
    Ask,
    Change,
    Delivery,
    Frames,
    Question,
    Ready,
    Report,
    Room,
    Told,
    decode_request,
    envelope_of,
    frame,
    spell,
)
from postroom.service.journal import journal
from postroom.service.sockets import UNFIT
from postroom.spool.intake import Intake, Item, Replies, Stored, answers
from postroom.spool.receipts import most_to_purge, purge_receipts
from postroom.spool.space import free_space
from postroom.spool.trouble import Trouble
from postroom.store.direct import Direct
from postroom.store.engine import Store, StoreError, open_store
from postroom.watch.counts import CountedWriter, Counts
from postroom.watch.survey import Survey

BATCH_ITEMS, BATCH_OCTETS = 500, 16_777_216  # a batch ends when either is reached
INPUT_OCTETS = 524_288  # read at once
UPKEEP_EVERY = 5.0  # seconds
PURGE_EVERY = 60.0  # seconds


class Process:
    """One run of the intake."""

    def __init__(
        self,
        store: Store,
        settings: Settings,
        log: Log,
        door: socket.socket,
        bell: int | None = None,
    ) -> None:
        """`bell` is the descriptor, which never blocks, of a pipe."""
        self._store, self._settings, self._log, self._door = store, settings, log, door
        self._bell = bell
        self._counts = Counts()
        self._survey = Survey(store, self._counts, log)
        self._writer = CountedWriter(Direct(store), settings.site.owner, self._counts)
        self._intake = Intake(self._writer, self._answer, self._stored, self._trouble)
        self._receipts_kept = settings.store.receipts_kept * 86_400
        self._frames = Frames()
        self._input = memoryview(bytearray(INPUT_OCTETS))
        self._dry = False  # the last look found less than there was room for
        self._open = True
        self._unhealthy = False
        self._upkeep_at = self._purge_at = 0.0
        # Receipts written when it last purged; one less, that short-lived processes purge too.
        self._seen = -1

    def run(self) -> int:
        """Serve the door until it closes; returns the exit status."""
        with self._store.read() as connection:
            lists = count_lists(connection)
        self._send(Ready(self._store.name, lists))
        if self._settings.metrics.listen:
            self._survey.start()
        while not self._unhealthy:
            if time.monotonic() >= self._upkeep_at:
                self._upkeep()
            items, questions = self._gather()
            if questions:
                self._look_up(questions)
            if items:
                self._intake.work(items)
            elif not self._open:
                return 0
            del items  # no message stays in memory while we wait
        return 1

    def _gather(self) -> tuple[list[Item], list[Question]]:
        """What the door has sent by now; waits for the first of it."""
        items: list[Item] = []
        questions: list[Question] = []
        octets, asked = 0, False
        while len(items) < BATCH_ITEMS and octets < BATCH_OCTETS:
            taken = self._frames.take()
            if taken is None:
                if not self._receive(wait=not items and not questions and not asked):
                    break
                continue
            head, raw = taken
            request = decode_request(head)
            if isinstance(request, Delivery):
                number = request.number
                items.append(Item(envelope_of(request, raw), request.deadline, number))
                octets += len(raw)
            elif isinstance(request, Question):
                questions.append(request)
            elif isinstance(request, Ask):
                asked = True  # no reason to put off upkeep, however often it comes
                self._send(Told(self._counts.tally(self._survey.queues)))
            else:
                self._change(request)
        return items, questions

    def _receive(self, wait: bool) -> bool:
        """Read what is there; False if nothing is, or came within a time to `wait`."""
        if not self._open or (self._dry and not wait):
            return False
        if not select.select([self._door], [], [], UPKEEP_EVERY if wait else 0)[0]:
            return False
        try:
            octets = self._door.recv_into(self._input)
        except ConnectionResetError:  # it was killed before it had read all answers
            octets = 0
        # Less than asked for: that was all, and one look at the socket is saved.
        self._dry = octets < len(self._input)
        self._open = octets > 0
        self._frames.feed(self._input[:octets])
        return self._open

    def _change(self, request: Change) -> None:
        self._writer.site_owner = request.site_owner
        self._receipts_kept = request.receipts_kept

    def _look_up(self, questions: Sequence[Question]) -> None:
        outcomes: list[tuple[int, Replies]]
        try:
            with self._store.read() as connection:
                routes = route(
                    connection.exec_driver_sql,
                    self._store.is_sqlite,
                    (box for each in questions for box in each.recipients),
                )
            outcomes = [
                (each.number, answers(each.recipients, routes, reply.RECIPIENT_OK))
                for each in questions
            ]
        except Exception as error:  # the registry is not there: 451, never 550
            reason = getattr(error, "orig", None) or error  # without the whole statement
            self._log.error("look-up failed", reason=" ".join(str(reason).split()))
            outcomes = [
                (each.number, [reply.LOCAL_ERROR] * len(each.recipients)) for each in questions
            ]
        self._answer(outcomes)

    def _answer(self, outcomes: Sequence[tuple[int, Replies]]) -> None:
        if outcomes:
            self._send(
                Answers(
                    [
                        (number, None if replies is None else spell(replies))
                        for number, replies in outcomes
                    ]
                )
            )

    def _send(self, report: Report) -> None:
        with contextlib.suppress(OSError):  # the door is gone, and with it those who wait
            self._door.sendall(b"".join(frame(report)))

    def _stored(self, stored: Sequence[Stored]) -> None:
        if self._bell is not None and any(each.entries for each in stored):
            with contextlib.suppress(OSError):  # full: it rings already; or nobody is there
                os.write(self._bell, b"!")
        journal(self._log, stored)

    def _trouble(self, trouble: Trouble, waiting: int) -> None:
        self._log.error(
            "not stored",
            reason=str(trouble),
            waiting=waiting,
            answer=f"{trouble.reply.code} {trouble.reply.text}",
            trying_again=trouble.retry,
        )
        self._counts.troubled(trouble)
        self._unhealthy = self._unhealthy or trouble.unhealthy

    def _upkeep(self) -> None:
        self._upkeep_at = time.monotonic() + UPKEEP_EVERY
        self._send(Room(free_space(self._store.path)))
        if time.monotonic() < self._purge_at:
            return
        # As many at most as mail allows: a clock that jumped ahead must not expire them all.
        most = most_to_purge(self._writer.receipts - self._seen)
        self._seen = self._writer.receipts
        try:
            gone = self._purge(most)
        except Exception as error:
            self._log.warning("receipts not purged", reason=" ".join(str(error).split()))
            gone = 0
        self._counts.purged += gone
        if gone < max(most, 1):
            self._purge_at = time.monotonic() + PURGE_EVERY

    def _purge(self, most: int) -> int:
        """Forget some old receipts; returns how many. A lock must not hold up the mail."""
        with self._store.engine.connect() as connection:
            if self._store.is_sqlite:
                driver = connection.connection.driver_connection
                assert driver is not None
                driver.execute("PRAGMA busy_timeout = 0")
            else:
                connection.exec_driver_sql("SET LOCAL lock_timeout = '100ms'")
            gone = purge_receipts(connection, time.time() - self._receipts_kept, most)
            connection.commit()
            return gone


def main() -> None:
    """`python -m postroom.service.intake`, started by the door."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config")
    parser.add_argument("--bell", type=int)
    parser.add_argument("door", type=int)
    options = parser.parse_args()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the door says when to stop
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals())
    try:
        settings = load(options.config)
        store = open_store(settings.store.url)
    except (SettingsError, StoreError) as error:
        print(f"postroom: {error}", file=sys.stderr)
        sys.exit(UNFIT)
    door = socket.socket(fileno=options.door)
    status = Process(store, settings, Log(settings.log), door, options.bell).run()
    store.close()
    sys.exit(status)


if __name__ == "__main__":
    main()
