"""The desk: the one thread of delivery that touches the database.

For: keeping storage out of the event loop, and sharing the cost of a flush. Guarantees: `write`
returns when what was written is durable; all that waits is one commit, in which each job has a
savepoint, so one that fails takes no other with it. A commit that fails fails all its jobs.
Used from one event loop.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection

from postroom.spool.trouble import diagnose
from postroom.store.engine import Store

MOST = 100  # jobs in one commit
T = TypeVar("T")


class _Job(NamedTuple):
    act: Callable[[Connection], Any]
    writes: bool
    answer: "asyncio.Future[Any]"


class _Done(NamedTuple):
    job: _Job
    result: Any
    error: BaseException | None


class Desk:
    """A thread that reads and writes for an event loop."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="delivery-desk")
        self._thread.start()

    async def write(self, act: Callable[[Connection], T]) -> T:
        """Have it done in a writing transaction; returns after the commit."""
        return await self._ask(act, writes=True)

    async def read(self, act: Callable[[Connection], T]) -> T:
        """Have it done in a reading transaction."""
        return await self._ask(act, writes=False)

    async def _ask(self, act: Callable[[Connection], T], writes: bool) -> T:
        answer: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put(_Job(act, writes, answer))
        return await answer

    def close(self) -> None:
        """End the thread, when it has done what it was given."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            jobs, ended = [job], False
            while len(jobs) < MOST:
                try:
                    more = self._jobs.get_nowait()
                except queue.Empty:
                    break
                if more is None:
                    ended = True
                    break
                jobs.append(more)
            self._answer(self._do(jobs))
            if ended:
                return

    def _do(self, jobs: list[_Job]) -> list[_Done]:
        done: list[_Done] = []
        reads = [job for job in jobs if not job.writes]
        writes = [job for job in jobs if job.writes]
        for some, begin in (reads, self._store.read), (writes, self._store.begin):
            if not some:
                continue
            try:
                with begin() as connection:
                    if len(some) == 1:  # the transaction itself undoes it
                        results = [_Done(some[0], some[0].act(connection), None)]
                    else:
                        results = [self._one(connection, job) for job in some]
                done += results
            except Exception as error:
                done += [_Done(job, None, error) for job in some]
        return done

    def _one(self, connection: Connection, job: _Job) -> _Done:
        try:
            if not job.writes:
                return _Done(job, job.act(connection), None)
            with connection.begin_nested():
                return _Done(job, job.act(connection), None)
        except Exception as error:
            if not diagnose(error, committing=False).one_envelope:
                raise  # the database's own trouble: the whole commit
            return _Done(job, None, error)

    def _answer(self, done: list[_Done]) -> None:
        def tell() -> None:
            for job, result, error in done:
                if job.answer.done():
                    continue  # whoever asked was cancelled
                if error is None:
                    job.answer.set_result(result)
                else:
                    job.answer.set_exception(error)

        self._loop.call_soon_threadsafe(tell)
