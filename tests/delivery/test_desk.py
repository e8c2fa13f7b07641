"""The desk: a thread that reads and writes for an event loop."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from sqlalchemy import Connection, event, text

from postroom.delivery import desk as module
from postroom.delivery.desk import Desk
from postroom.store.engine import Store
from tests.wire.harness import both_loops, run


@contextlib.asynccontextmanager
async def open_desk(store: Store) -> AsyncIterator[Desk]:
    desk = Desk(store)
    try:
        yield desk
    finally:
        desk.close()


def put(value: int) -> Callable[[Connection], int]:
    """Write this number."""

    def act(connection: Connection) -> int:
        connection.execute(text(f"INSERT INTO note VALUES ({value})"))
        return value

    return act


def notes(connection: Connection) -> list[int]:
    return [number for (number,) in connection.execute(text("SELECT n FROM note ORDER BY n"))]


@pytest.fixture
def noted(store: Store) -> Store:
    """A store with a table for numbers; 13 is not wanted in it, nor is 7 twice."""
    with store.begin() as connection:
        connection.execute(text("CREATE TABLE note (n INTEGER PRIMARY KEY CHECK (n <> 13))"))
    return store


class Blocked:
    """A job that keeps the desk busy, so that others gather."""

    def __init__(self) -> None:
        self.begun, self._go = threading.Event(), threading.Event()

    def __call__(self, connection: Connection) -> None:
        self.begun.set()
        assert self._go.wait(30)

    def go_on(self) -> None:
        self._go.set()


async def together(desk: Desk, *acts: Callable[[Connection], Any]) -> list[Any]:
    """Have these written, all at once; returns results or exceptions."""
    blocked = Blocked()
    first = asyncio.ensure_future(desk.read(blocked))
    await asyncio.to_thread(blocked.begun.wait)
    jobs = [asyncio.ensure_future(desk.write(act)) for act in acts]
    await asyncio.sleep(0)  # they are on the desk now
    blocked.go_on()
    await first
    return await asyncio.gather(*jobs, return_exceptions=True)


def commits(store: Store) -> list[int]:
    made: list[int] = []
    event.listen(store.engine, "commit", lambda connection: made.append(1))
    return made


@both_loops
def test_what_is_written_is_durable_when_it_returns(sqlite_store: Store, loop: str) -> None:
    with sqlite_store.begin() as connection:
        connection.execute(text("CREATE TABLE note (n INTEGER)"))

    async def test() -> None:
        async with open_desk(sqlite_store) as desk:
            assert await desk.write(put(1)) == 1
            with sqlite_store.read() as connection:
                assert notes(connection) == [1]
            assert await desk.read(notes) == [1]

    run(loop, test)


def test_all_that_waits_is_one_commit(noted: Store) -> None:
    async def test() -> None:
        async with open_desk(noted) as desk:
            made = commits(noted)
            assert await together(desk, *(put(n) for n in range(1, 6))) == [1, 2, 3, 4, 5]
            assert len(made) == 1
            assert await desk.read(notes) == [1, 2, 3, 4, 5]

    run("asyncio", test)


def test_a_job_that_fails_is_undone_and_takes_no_other_with_it(noted: Store) -> None:
    def half(connection: Connection) -> None:
        put(3)(connection)
        raise ZeroDivisionError

    async def test() -> None:
        async with open_desk(noted) as desk:
            found = await together(desk, put(1), half, put(13), put(2), put(1))
            assert (found[0], found[3]) == (1, 2)
            assert isinstance(found[1], ZeroDivisionError)
            assert "IntegrityError" in [type(each).__name__ for each in (found[2], found[4])]
            assert await desk.read(notes) == [1, 2]

    run("asyncio", test)


def test_a_job_that_fails_alone_is_undone(noted: Store) -> None:
    def half(connection: Connection) -> None:
        put(3)(connection)
        raise ZeroDivisionError

    async def test() -> None:
        async with open_desk(noted) as desk:
            with pytest.raises(ZeroDivisionError):
                await desk.write(half)
            assert await desk.read(notes) == []
            assert await desk.write(put(4)) == 4

    run("asyncio", test)


def test_d7_a_commit_that_fails_fails_all_of_its_jobs(noted: Store) -> None:
    fails = True

    @event.listens_for(noted.engine, "commit")
    def refuse(connection: Connection) -> None:
        if fails:
            raise OSError("the disk is gone")

    async def test() -> None:
        nonlocal fails
        async with open_desk(noted) as desk:
            found = await together(desk, put(1), put(2))
            assert [type(each) for each in found] == [OSError, OSError]
            fails = False
            assert await desk.read(notes) == []
            assert await desk.write(put(1)) == 1

    run("asyncio", test)


def test_trouble_of_the_database_fails_all_of_the_commit(noted: Store) -> None:
    class Gone(Exception):
        sqlstate = "08006"  # the connection is lost

    def lose(connection: Connection) -> None:
        raise Gone

    async def test() -> None:
        async with open_desk(noted) as desk:
            found = await together(desk, put(1), lose, put(2))
            assert [type(each) for each in found] == [Gone] * 3
            assert await desk.read(notes) == []

    run("asyncio", test)


def test_a_read_that_fails_fails_no_write(noted: Store) -> None:
    async def test() -> None:
        async with open_desk(noted) as desk:
            reads = asyncio.ensure_future(desk.read(lambda connection: 1 // 0))
            assert await desk.write(put(1)) == 1
            with pytest.raises(ZeroDivisionError):
                await reads

    run("asyncio", test)


def test_whoever_is_cancelled_is_no_obstacle_to_the_others(noted: Store) -> None:
    async def test() -> None:
        async with open_desk(noted) as desk:
            blocked = Blocked()
            first = asyncio.ensure_future(desk.read(blocked))
            await asyncio.to_thread(blocked.begun.wait)
            jobs = [asyncio.ensure_future(desk.write(put(n))) for n in (1, 2)]
            await asyncio.sleep(0)
            jobs[0].cancel()
            blocked.go_on()
            await first
            assert await jobs[1] == 2
            assert await desk.read(notes) == [1, 2]

    run("asyncio", test)


def test_a_commit_has_an_end_however_much_waits(
    noted: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 2)

    async def test() -> None:
        async with open_desk(noted) as desk:
            made = commits(noted)
            await together(desk, *(put(n) for n in range(1, 6)))
            assert len(made) == 3

    run("asyncio", test)


def test_what_was_given_before_the_end_is_done(noted: Store) -> None:
    async def test() -> None:
        desk = Desk(noted)
        jobs = [asyncio.ensure_future(desk.write(put(n))) for n in range(1, 6)]
        await asyncio.sleep(0)
        await asyncio.to_thread(desk.close)
        assert await asyncio.gather(*jobs) == [1, 2, 3, 4, 5]
        with noted.read() as connection:
            assert notes(connection) == [1, 2, 3, 4, 5]

    run("asyncio", test)
