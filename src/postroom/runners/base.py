"""What every runner stands on: claim, process, commit, retry, shunt.

For: serving a queue. A runner says what one entry asks for; the worker does the rest, in a
thread of its own. Guarantees: an entry's effects and its removal are one commit, fenced by the
lease; one that fails takes no other with it, is tried again after a while, and goes to `shunt`
with its traceback in the end, also if all it does is kill the process; a stop ends after the
entry in hand and gives the others back. New work wakes the worker at once, and it looks for
itself every second. When the database is in trouble it waits, and nothing counts as an attempt.
"""

import threading
import time
import traceback
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from sqlalchemy import Connection

from postroom.base.observe import Facts, Log
from postroom.spool import ids, queue
from postroom.spool.queue import Claim, Lost
from postroom.spool.trouble import diagnose, of_the_database
from postroom.store.engine import Store

BATCH, BATCH_OCTETS = 50, 8_388_608  # entries of one claim, and octets of their messages
LEASE = 120.0  # seconds
BATCH_SECONDS = 2.0  # after which a batch ends with what is done
COMMIT_SECONDS = 0.01  # after which a transaction ends: on SQLite the door waits for it
POLL = 1.0  # seconds between looks, when nobody wakes us
MEND_EVERY = 60.0  # seconds
LONGEST_PAUSE = 30.0  # seconds, while the database is in trouble

Act = Callable[[Connection], None]


class Outcome(NamedTuple):
    """What is to become of an entry. `act` does it in the caller's transaction; the entry is
    then removed, unless it `moves`: then the act says itself what becomes of it. `event` and
    `facts` are for the log, written after the commit; as an error if it is `bad`."""

    act: Act
    event: str
    facts: Facts
    moves: bool = False
    bad: bool = False


class Runner(Protocol):
    """One queue's work."""

    queue: str

    def process(self, held: Claim, store: Store) -> Outcome:
        """Decide what an entry asks for. No transaction is open: take reading ones as needed.
        Whatever is raised is the entry's own failure, unless it is the database's."""
        ...


class Worker:
    """Serves one queue with one thread."""

    def __init__(self, store: Store, runner: Runner, log: Log, woken: Callable[[], None]) -> None:
        """`woken` is called after each commit, for those who wait for what was handed on."""
        self._store, self._runner, self._log, self._handed_on = store, runner, log, woken
        self._bell = threading.Event()
        self._stopping = threading.Event()
        self._pause = POLL
        self._mend_at = 0.0
        self._owed: list[Claim] = []  # to be given back as soon as the database allows
        self.failure: BaseException | None = None
        self.turned_at = time.monotonic()
        self.thread = threading.Thread(target=self._run, name=f"runner-{runner.queue}")

    def start(self) -> None:
        """Begin."""
        self.thread.start()

    def wake(self) -> None:
        """There may be something to do."""
        self._bell.set()

    def stop(self) -> None:
        """End after the entry in hand."""
        self._stopping.set()
        self._bell.set()

    @property
    def alive(self) -> bool:
        """Whether it still serves."""
        return self.thread.is_alive()

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self.turned_at = time.monotonic()
                self._bell.clear()
                if not self._careful_turn():
                    self._bell.wait(self._pause)
        except BaseException as error:
            self.failure = error
            self._log.error(f"runner {self._runner.queue} died", exc_info=error)

    def _careful_turn(self) -> bool:
        """One turn; trouble of the database is waited out. Raises what needs a new process."""
        try:
            did = self.turn()
        except Lost as error:
            self._log.warning("lease lost", queue=self._runner.queue, reason=str(error))
            return True
        except Exception as error:
            trouble = diagnose(error, committing=False)
            if trouble.unhealthy or trouble.one_envelope:
                raise
            self._log.error("queue not served", queue=self._runner.queue, reason=str(trouble))
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            return False
        self._pause = POLL
        return did

    def turn(self) -> bool:
        """Serve one batch; False if nothing was due."""
        name = self._runner.queue
        self._let_go([])
        if time.monotonic() >= self._mend_at:
            with self._store.begin() as connection:
                queue.mend(connection, name)
            self._mend_at = time.monotonic() + MEND_EVERY
        with self._store.read() as connection:
            if not queue.is_due(connection, name):
                return False
        with self._store.begin() as connection:
            claims = queue.claim(connection, name, BATCH, LEASE, octets=BATCH_OCTETS)
        try:
            done = self._process(claims)
            self._commit(done, claims[len(done) :])
        except Exception as error:
            # Else it may be one of them that ends this process: then the attempt counts.
            if isinstance(error, Lost) or of_the_database(error):
                self._let_go(claims)
            raise
        return True

    def _process(self, claims: Sequence[Claim]) -> list[tuple[Claim, Outcome | str]]:
        """The outcome of each entry, or its traceback; of fewer if time is up."""
        done: list[tuple[Claim, Outcome | str]] = []
        ends_at = time.monotonic() + BATCH_SECONDS
        for held in claims:
            if self._stopping.is_set() or (done and time.monotonic() >= ends_at):
                break
            self.turned_at = time.monotonic()
            done.append((held, self._outcome(held)))
        return done

    def _outcome(self, held: Claim) -> Outcome | str:
        if held.attempts > queue.ATTEMPTS:
            return f"{held.attempts - 1} attempts ended with the process that made them\n"
        try:
            return self._runner.process(held, self._store)
        except Exception as error:
            if of_the_database(error):
                raise
            return traceback.format_exc()

    def _commit(self, done: Sequence[tuple[Claim, Outcome | str]], rest: Sequence[Claim]) -> None:
        while done or rest:
            done = self._commit_some(done, rest)
            rest = rest if done else ()
            self._handed_on()

    def _commit_some(
        self, done: Sequence[tuple[Claim, Outcome | str]], rest: Sequence[Claim]
    ) -> Sequence[tuple[Claim, Outcome | str]]:
        """Commit outcomes until time is up; returns those that are left. With the last ones the
        rest is given back."""
        said: list[tuple[str, Facts]] = []
        failed: list[tuple[str, Facts]] = []
        with self._store.begin() as connection:
            ends_at = time.monotonic() + COMMIT_SECONDS
            finished = []
            taken = 0
            for held, outcome in done:
                taken += 1
                if isinstance(outcome, Outcome):
                    outcome = self._act(connection, held, outcome)
                if isinstance(outcome, str):
                    failed.append(self._fail(connection, held, outcome))
                else:
                    line = outcome.event, {"entry": ids.show(held.id)} | outcome.facts
                    (failed if outcome.bad else said).append(line)
                    finished += [] if outcome.moves else [held]
                if time.monotonic() >= ends_at:
                    break
            if finished:
                queue.finish(connection, finished)
            for held in rest if taken == len(done) else ():
                queue.give_back(connection, held)
        self._log.write("info", said)
        self._log.write("error", failed)
        return done[taken:]

    def _act(self, connection: Connection, held: Claim, outcome: Outcome) -> Outcome | str:
        """Do what was decided; what fails is undone, and its traceback returned."""
        try:
            with connection.begin_nested():
                outcome.act(connection)
        except Lost:
            raise
        except Exception as error:
            if of_the_database(error):
                raise
            return traceback.format_exc()
        return outcome

    def _fail(self, connection: Connection, held: Claim, reason: str) -> tuple[str, Facts]:
        facts: Facts = {
            "queue": self._runner.queue,
            "entry": ids.show(held.id),
            "attempts": held.attempts,
            "reason": reason.rstrip().rpartition("\n")[2],
        }
        delay = queue.fail(connection, held, reason)
        if delay is None:
            return "shunted", facts
        return "to be tried again", facts | {"again_in": delay}

    def _let_go(self, claims: Sequence[Claim]) -> None:
        """Give entries back that nothing became of: now, or when the database allows."""
        self._owed += claims
        while self._owed:
            try:
                with self._store.begin() as connection:
                    queue.give_back(connection, self._owed[-1])
            except Lost:
                pass
            except Exception as error:
                self._log.warning("entries not given back yet", reason=str(error).split("\n")[0])
                return
            self._owed.pop()
