"""Doing things at once."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from sqlalchemy import Connection, text

from postroom.store.engine import Store

T = TypeVar("T")


def at_once(actions: Sequence[Callable[[], T]]) -> list[T]:
    """Do these in threads that begin together; returns what they return."""
    together = threading.Barrier(len(actions))

    def run(action: Callable[[], T]) -> T:
        together.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as pool:
        return list(pool.map(run, actions))


def overlap(
    store: Store, first: Callable[[Connection], object], then: Callable[[Connection], T]
) -> "Future[T]":
    """Do `then` in a transaction of its own while the one that did `first` is still open, and
    commit that when `then` has ended or waits for it."""

    def run() -> T:
        with store.begin() as connection:
            return then(connection)

    with ThreadPoolExecutor(1) as pool:
        with store.begin() as connection:
            first(connection)
            future = pool.submit(run)
            await_lock(store, future)
        return future


def await_lock(store: Store, future: "Future[T]") -> None:
    """Wait until what `future` stands for has ended or waits for a lock."""
    if store.is_sqlite:
        return  # there is one writer: it cannot do anything before
    waiting = text(
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    give_up = time.monotonic() + 30
    while not future.done():
        with store.read() as connection:
            if connection.scalar(waiting):
                return
        assert time.monotonic() < give_up, "neither done nor waiting"
