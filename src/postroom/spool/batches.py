"""A thread that works on whatever waits, all at once.

For: group commit and grouped look-ups: while one batch is in work the next one gathers.
Guarantees: items are taken in order; a batch holds at least one item and stays within
its bounds of number and weight; `work` never runs twice at the same time. `work` must
not raise: an exception is a defect, given to `failed`, and the thread goes on.
"""

import threading
import time
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Generic, TypeVar

T = TypeVar("T")


class Batches(Generic[T]):
    """`work(batch)` is called in the thread; `idle()` too, between batches, about every
    `idle_every` seconds."""

    def __init__(
        self,
        name: str,
        work: Callable[[list[T]], None],
        failed: Callable[[list[T], Exception], None],
        *,
        weigh: Callable[[T], int] = lambda item: 1,
        max_items: int = 500,
        max_weight: int = 16_777_216,
        idle: Callable[[], None] = lambda: None,
        idle_every: float = 5.0,
    ) -> None:
        self._work, self._failed, self._weigh, self._idle = work, failed, weigh, idle
        self._max_items, self._max_weight, self._idle_every = max_items, max_weight, idle_every
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._kept: T | None = None
        self._closing = False
        self._idle_at = 0.0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, item: T) -> None:
        """Add an item; never waits."""
        self._queue.put(item)

    def close(self) -> None:
        """Work off what waits, then end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while batch := self._gather():
            try:
                self._work(batch)
            except Exception as error:
                self._failed(batch, error)
            batch.clear()  # nothing is held while we wait

    def _gather(self) -> list[T]:
        """The next batch; empty at the end."""
        first = self._kept if self._kept is not None else self._wait()
        self._kept = None
        if first is None:
            return []
        batch, weight = [first], self._weigh(first)
        while len(batch) < self._max_items and not self._closing:
            try:
                item = self._queue.get_nowait()
            except Empty:
                break
            if item is None:
                self._closing = True
                break
            weight += self._weigh(item)
            if weight > self._max_weight:
                self._kept = item
                break
            batch.append(item)
        return batch

    def _wait(self) -> T | None:
        while not self._closing:
            if time.monotonic() >= self._idle_at:
                self._idle()
                self._idle_at = time.monotonic() + self._idle_every
            try:
                return self._queue.get(timeout=self._idle_every)
            except Empty:
                continue
        return None
