"""When a process is started again, after how long, and when it is given up; what systemd hears.

The process is a short script in the place of the door: what it does with the control socket
and its exit status is all that the supervisor sees of it.
"""

import contextlib
import io
import json
import os
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings
from postroom.service import supervisor
from postroom.service.sockets import UNFIT, address_of, bind
from postroom.service.supervisor import BACKOFF_MOST, Child, Listeners
from postroom.service.systemd import Manager

CONTROL = "int(sys.argv[sys.argv.index('--control') + 1])"
SERVED = f"os.write({CONTROL}, b'R'); "
# As the door does when it can act on signals: it is started with them blocked.
UNBLOCK = "signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals()); "


class Run:
    """A child whose process is a script, and what was logged of it."""

    def __init__(self, script: Path, python: str, heard: socket.socket) -> None:
        self._script, self._python, self._heard = script, python, heard
        self._log = io.StringIO()
        self.sockets = bind(["127.0.0.1:0"])
        manager = Manager({"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "60000000"})
        log = Log(LogSettings("json"), self._log)
        self.child = Child(None, Listeners(self.sockets), log, manager)

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

    def hear(self) -> None:
        """Wait until the script says something, and hear it."""
        control = self.child.control
        assert control is not None
        assert select.select([control], [], [], 30)[0]
        self.child.hear()

    @property
    def told(self) -> list[str]:
        """What systemd was told since the last look."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._heard.recv(65536).decode())
        return found

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @property
    def waits(self) -> list[float]:
        """How long it waited each time, in seconds."""
        return [line["again_in"] for line in self.logged]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        made = Run(tmp_path / "python", sys.executable, heard)
        monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
        yield made
        for each in made.sockets:
            each.close()
        if made.child.process is not None:
            made.child.process.kill()
            made.child.process.wait()
            made.child.reap()


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
    process = run.start(UNBLOCK + "signal.pause()")
    assert run.child.reap() is None
    assert run.child.process is process
    assert run.logged == []
    run.child.signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert run.child.reap() is None
    assert run.logged[0]["status"] == -signal.SIGTERM
    assert not run.child.signal(signal.SIGTERM)  # nobody is there


def test_a_signal_that_comes_before_it_can_act_on_it_is_not_lost(run: Run) -> None:
    process = run.start(f"os.write({CONTROL}, b'B'); sys.exit(signal.sigwait([signal.SIGTERM]))")
    assert run.child.signal(signal.SIGTERM)
    assert process.wait(timeout=30) == signal.SIGTERM
    assert signal.SIGTERM not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_one_that_cannot_be_started_now_is_tried_again_after_a_wait(run: Run) -> None:
    files = len(os.listdir("/proc/self/fd"))
    for _ in range(2):
        run.child.start()  # there is no script yet
        assert run.child.start_at is not None
        assert run.child.process is None
        assert run.child.reap() is None
    assert run.waits == [0.1, 0.2]
    assert {line["event"] for line in run.logged} == {"lmtp process not started"}
    assert {line["reason"] for line in run.logged} == {"No such file or directory"}
    assert len(os.listdir("/proc/self/fd")) == files
    assert run.once("sys.exit(1)") is None
    assert run.waits == [0.1, 0.2, 0.4]


def test_systemd_hears_that_it_serves_as_soon_as_it_says_so(run: Run) -> None:
    run.start(SERVED + "signal.pause()")
    run.hear()
    assert run.child.served
    place = address_of(run.sockets[0].socket)
    assert run.told == [f"READY=1\nSTATUS=serving on {place}"]


def test_systemd_does_not_hear_that_it_serves_once_it_is_to_stop(run: Run) -> None:
    process = run.start("signal.sigwait([signal.SIGTERM]); " + SERVED)
    run.child.stop()
    process.wait(timeout=30)
    run.hear()
    assert run.child.served
    assert run.told == []


def test_systemd_hears_every_beat_and_how_it_ends(run: Run) -> None:
    process = run.start(f"os.write({CONTROL}, b'B'); sys.stdin.read(); sys.exit(3)")
    run.hear()
    assert run.told == ["WATCHDOG=1"]
    process.wait(timeout=30)
    assert run.child.reap() is None
    assert run.told == ["STATUS=lmtp process ended; starting it again in 0.1 s"]
    assert not run.child.served


def test_it_is_asked_to_beat_more_often_than_the_watchdog_looks(run: Run) -> None:
    script = "sys.exit(int(float(sys.argv[sys.argv.index('--beat') + 1])))"
    run.once(script)
    assert run.logged[0]["status"] == 20  # of 60 seconds


def test_it_has_to_prove_that_it_is_alive_once_it_runs_or_has_had_time_to(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run.child.excused()  # it is to start
    run.start(f"sys.stdin.read(); os.write({CONTROL}, b'B'); signal.pause()")
    run.hear()
    assert not run.child.excused()
    assert run.child.process is not None
    run.child.process.kill()
    run.child.process.wait()
    run.child.reap()
    assert run.child.excused()
    run.start("signal.pause()")
    assert run.child.excused()  # it is starting
    monkeypatch.setattr(supervisor, "STARTING", 0.0)
    assert not run.child.excused()
