"""When a process is started again, after how long, and when it is given up.

The process is a short script in the place of the door: what it does with the control socket
and its exit status is all that the supervisor sees of it.
"""

import io
import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.service import supervisor
from postroom.service.observe import Log
from postroom.service.settings import LogSettings
from postroom.service.sockets import UNFIT, bind
from postroom.service.supervisor import BACKOFF_MOST, Child

SERVED = "os.write(int(sys.argv[sys.argv.index('--control') + 1]), b'R'); "


class Run:
    """A child whose process is a script, and what was logged of it."""

    def __init__(self, script: Path, python: str) -> None:
        self._script, self._python = script, python
        self._log = io.StringIO()
        self.sockets = bind(["127.0.0.1:0"])
        self.child = Child(None, self.sockets, Log(LogSettings("json"), self._log))

    def start(self, script: str) -> "subprocess.Popen[bytes]":
        """Start the script."""
        self._script.write_text(f"#!{self._python} -IS\nimport os, signal, sys\n{script}\n")
        self._script.chmod(stat.S_IRWXU)
        self.child.start()
        assert self.child.start_at is None
        assert self.child.process is not None
        return self.child.process

    def once(self, script: str) -> int | None:
        """Start the script, wait for its end, reap it."""
        self.start(script).wait(timeout=30)
        return self.child.reap()

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @property
    def waits(self) -> list[float]:
        """How long it waited each time, in seconds."""
        return [line["again_in"] for line in self.logged]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    made = Run(tmp_path / "python", sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    yield made
    for each in made.sockets:
        each.close()


def test_waits_grow_to_a_limit_and_it_is_never_given_up(run: Run) -> None:
    for _ in range(12):
        assert run.once("sys.exit(1)") is None
    assert run.waits[:5] == [0.1, 0.2, 0.4, 0.8, 1.6]
    assert run.waits[-3:] == [BACKOFF_MOST] * 3
    assert [line["status"] for line in run.logged] == [1] * 12


def test_the_next_start_is_due_after_the_wait(run: Run) -> None:
    before = time.monotonic()
    run.once("sys.exit(1)")
    after = time.monotonic()
    assert run.child.start_at is not None
    assert before + 0.1 <= run.child.start_at <= after + 0.1
    assert run.child.process is None


def test_after_a_steady_run_waits_begin_anew(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        run.once("sys.exit(1)")
    monkeypatch.setattr(supervisor, "STEADY", 0.0)
    run.once("sys.exit(1)")
    monkeypatch.setattr(supervisor, "STEADY", 60.0)
    run.once("sys.exit(1)")
    assert run.waits == [0.1, 0.2, 0.4, 0.1, 0.2]


def test_one_that_is_unfit_at_its_first_start_ends_the_server(run: Run) -> None:
    assert run.once(f"sys.exit({UNFIT})") == 1
    assert run.logged == []  # it has said why itself


def test_one_that_once_served_is_started_again_even_if_it_is_unfit_now(run: Run) -> None:
    assert run.once(SERVED + f"sys.exit({UNFIT})") is None
    assert run.once(f"sys.exit({UNFIT})") is None
    assert [line["status"] for line in run.logged] == [UNFIT, UNFIT]


def test_one_that_was_killed_is_started_again(run: Run) -> None:
    assert run.once("os.kill(os.getpid(), signal.SIGKILL)") is None
    assert run.logged[0]["status"] == -9


def test_one_that_runs_is_left_alone_and_gets_signals(run: Run) -> None:
    process = run.start("signal.pause()")
    assert run.child.reap() is None
    assert run.child.process is process
    assert run.logged == []
    run.child.signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert run.child.reap() is None
    assert run.logged[0]["status"] == -signal.SIGTERM
    run.child.signal(signal.SIGTERM)  # nobody is there
