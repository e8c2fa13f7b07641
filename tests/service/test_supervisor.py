"""When a process is started again, after how long, and when it is given up; what systemd hears.

The processes are short scripts: what they do with the control socket and their exit status is
all that the supervisor sees of them.
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
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from postroom.base.observe import Log
from postroom.base.settings import LogSettings, Settings
from postroom.service import child as module
from postroom.service.child import BACKOFF_MOST, Child, Role
from postroom.service.sockets import UNFIT
from postroom.service.supervisor import Supervisor
from postroom.service.systemd import Manager
from tests.integration.processes import eventually

CONTROL = "int(sys.argv[sys.argv.index('--control') + 1])"
SERVED = f"os.write({CONTROL}, b'R'); "
# As a process does when it can act on signals: it is started with them blocked.
UNBLOCK = "signal.pthread_sigmask(signal.SIG_UNBLOCK, signal.valid_signals()); "
PATIENCE = 30.0  # seconds


class Said:
    """What was logged, and what systemd was told."""

    def __init__(self, heard: socket.socket) -> None:
        self._heard, self._log = heard, io.StringIO()
        self.log = Log(LogSettings("json"), self._log)
        self.manager = Manager({"NOTIFY_SOCKET": heard.getsockname(), "WATCHDOG_USEC": "60000000"})

    @property
    def logged(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._log.getvalue().splitlines()]

    @property
    def told(self) -> list[str]:
        """What systemd was told since the last look, but for beats."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(self._heard.recv(65536).decode())
        return [each for each in found if each != "WATCHDOG=1"]

    def hear(self, text: str) -> str:
        """The next thing that systemd is told with `text` in it."""
        while select.select([self._heard], [], [], PATIENCE)[0]:
            told = self._heard.recv(65536).decode()
            if text in told:
                return told
        raise AssertionError(f"systemd was not told {text}")


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Said]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(tmp_path / "notify"))
        heard.setblocking(False)
        yield Said(heard)


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What is run in the place of Python: a file that is not there yet."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    return tmp_path / "python"


PYTHON = sys.executable


def write_script(path: Path, text: str) -> None:
    path.write_text(f"#!{PYTHON} -IS\nimport os, signal, sys\n{text}\n")
    path.chmod(stat.S_IRWXU)


class Run:
    """A child whose process is a script, and what was logged of it."""

    def __init__(self, script: Path, said: Said) -> None:
        self._script, self._said = script, said
        self.child = Child(Role("lmtp", "door"), None, said.log, said.manager)

    def start(self, script: str) -> "subprocess.Popen[bytes]":
        """Start the script."""
        write_script(self._script, script)
        self.child.start()
        assert self.child.start_at is None
        assert self.child.process is not None
        return self.child.process

    def once(self, script: str) -> int | None:
        """Start the script, wait for its end, reap it."""
        self.start(script).wait(PATIENCE)
        return self.child.reap()

    def hear(self) -> None:
        """Wait until the script says something, and hear it."""
        control = self.child.control
        assert control is not None
        assert select.select([control], [], [], PATIENCE)[0]
        self.child.hear()

    @property
    def logged(self) -> list[dict[str, Any]]:
        return self._said.logged

    @property
    def waits(self) -> list[float]:
        """How long it waited each time, in seconds."""
        return [line["again_in"] for line in self.logged]


@pytest.fixture
def run(script: Path, said: Said) -> Iterator[Run]:
    made = Run(script, said)
    yield made
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
    monkeypatch.setattr(module, "STEADY", 0.0)
    run.once("sys.exit(1)")
    monkeypatch.setattr(module, "STEADY", 60.0)
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


def test_it_is_known_whether_this_one_serves_and_whether_any_did(run: Run) -> None:
    assert (run.child.serves, run.child.served, run.child.state) == (False, False, "starting")
    process = run.start(SERVED + "sys.stdin.read(); signal.pause()")
    run.hear()
    assert (run.child.serves, run.child.served, run.child.state) == (True, True, "serves")
    process.kill()
    process.wait()
    run.child.reap()
    assert (run.child.serves, run.child.served, run.child.state) == (False, True, "starting")


def test_one_that_ends_and_never_served_is_failing_until_it_serves(run: Run) -> None:
    run.once("sys.exit(1)")
    assert run.child.state == "failing"
    run.start(SERVED + "signal.pause()")
    assert run.child.state == "failing"
    run.hear()
    assert run.child.state == "serves"


def test_one_that_is_not_vital_is_never_given_up(script: Path, said: Said) -> None:
    run = Run(script, said)
    run.child = Child(Role("runners", "runners", vital=False), None, said.log, said.manager)
    assert run.once(f"sys.exit({UNFIT})") is None
    assert [(line["event"], line["status"]) for line in run.logged] == [
        ("runners process ended", UNFIT)
    ]


def test_beats_are_heard_and_systemd_how_it_ends(run: Run, said: Said) -> None:
    process = run.start(f"os.write({CONTROL}, b'B'); sys.stdin.read(); sys.exit(3)")
    run.hear()
    assert run.child.beaten
    process.wait(PATIENCE)
    assert run.child.reap() is None
    assert said.told == ["STATUS=lmtp process ended; starting it again in 0.1 s"]
    assert not run.child.served


def test_it_is_given_its_arguments_and_its_descriptors_alone(script: Path, said: Said) -> None:
    run = Run(script, said)
    with socket.socket() as given, socket.socket() as other:
        os.set_inheritable(other.fileno(), True)
        role = Role("lmtp", "a.door", ["--lmtp", str(given.fileno())], [given.fileno()])
        run.child = Child(role, "site.toml", said.log, said.manager)
        run.once(
            "words = sys.argv[1:]; os.fstat(int(words[words.index('--lmtp') + 1]))\n"
            "good = words[:3] == ['-m', 'a.door', '--control'] and 'site.toml' in words\n"
            f"try: os.fstat({other.fileno()})\n"
            "except OSError: sys.exit(7 if good else 8)"
        )
    assert run.logged[0]["status"] == 7


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
    monkeypatch.setattr(module, "STARTING", 0.0)
    assert not run.child.excused()


def test_one_that_has_to_show_life_is_asked_to_whatever_the_watchdog_wants(
    script: Path, said: Said
) -> None:
    words = "sys.exit(int(float(sys.argv[sys.argv.index('--beat') + 1])))"
    for patience, watchdog, beat in (
        (30.0, "60000000", 10),
        (90.0, "60000000", 20),
        (90.0, "", 30),
    ):
        run = Run(script, said)
        manager = Manager({"WATCHDOG_USEC": watchdog} if watchdog else {})
        role = Role("runners", "runners", patience=patience)
        run.child = Child(role, None, said.log, manager)
        run.once(words)
        assert run.logged[-1]["status"] == beat


@pytest.fixture
def frozen(script: Path, said: Said) -> Iterator[Run]:
    """A child that serves, shows life when it is told to, and is killed after a minute without."""
    made = Run(script, said)
    role = Role("runners", "runners", vital=False, patience=60.0)
    made.child = Child(role, None, said.log, said.manager)
    beats = f"signal.sigwait([signal.SIGHUP]); os.write({CONTROL}, b'B')"
    made.start(f"{SERVED}\nwhile True: {beats}")
    yield made
    assert made.child.process is not None
    made.child.process.kill()
    made.child.process.wait()
    made.child.reap()


def test_one_that_serves_and_shows_no_life_is_killed_and_started_again(frozen: Run) -> None:
    child = frozen.child
    frozen.hear()
    now = time.monotonic()
    for seconds in (20, 40, 60, 61, 79):  # before the first it had said that it serves
        child.look(now + seconds)
        assert child.serves
    assert frozen.logged == []
    child.look(now + 80)
    assert child.process is not None
    assert child.process.wait(PATIENCE) == -signal.SIGKILL
    assert child.reap() is None
    assert [(line["event"], line["level"]) for line in frozen.logged] == [
        ("runners process killed", "error"),
        ("runners process ended", "error"),
    ]
    assert frozen.logged[0]["reason"] == "it showed no life for 60 s"
    assert child.start_at is not None
    child.start()
    child.look(time.monotonic() + 1000)  # it has not served yet
    assert child.runs


def test_one_that_shows_life_in_time_is_left_alone(frozen: Run) -> None:
    child, now = frozen.child, time.monotonic()
    frozen.hear()
    for look in range(1, 10):
        if look % 3 == 0:
            child.signal(signal.SIGHUP)
            frozen.hear()
        child.look(now + 20 * look)
    assert child.serves
    assert frozen.logged == []


def test_a_supervisor_that_was_stopped_itself_kills_nobody_for_that(frozen: Run) -> None:
    frozen.hear()
    now = time.monotonic()
    for seconds in (20, 1000, 1001, 1020):
        frozen.child.look(now + seconds)
    assert frozen.child.serves


def test_the_door_is_killed_by_nobody(run: Run) -> None:
    run.start(SERVED + "signal.pause()")
    run.hear()
    for seconds in range(0, 1000, 100):
        run.child.look(time.monotonic() + seconds)
    assert run.child.serves


# All of them


class Server:
    """A supervisor in a thread; its processes are scripts, which are told from each other by
    the name of their role."""

    def __init__(self, script: Path, said: Said, signals: tuple[int, int]) -> None:
        self._script, self._said, (self._listens, self._tell) = script, said, signals
        self.children: list[Child] = []
        self.status: int | None = None
        self._thread: threading.Thread

    def start(self, patience: float = 0.0, **scripts: str) -> None:
        """Run these scripts; the first one's role is vital, the others have `patience`."""
        write_script(self._script, f"exec({scripts!r}[sys.argv[2]])")
        first = next(iter(scripts))
        roles = [
            Role(name, name, vital=name == first, patience=0.0 if name == first else patience)
            for name in scripts
        ]
        self.children = [Child(each, None, self._said.log, self._said.manager) for each in roles]
        supervisor = Supervisor(
            Settings(),
            None,
            self._said.log,
            self._said.manager,
            self.children,
            ["127.0.0.1:8024"],
            self._listens,
        )

        def run() -> None:
            with contextlib.ExitStack() as nothing:
                self.status = supervisor.run(nothing)

        self._thread = threading.Thread(target=run)
        self._thread.start()

    def signal(self, number: int) -> None:
        os.write(self._tell, bytes([number]))

    def wait(self) -> int | None:
        """Wait for its end; returns its status."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        return self.status

    def close(self) -> None:
        while self._thread.is_alive():
            self.signal(signal.SIGTERM)
            self._thread.join(0.1)
        for child in self.children:
            if child.control is not None:
                child.control.close()


@pytest.fixture
def server(
    script: Path, said: Said, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    monkeypatch.chdir(tmp_path)
    listens, tell = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    wakeup = signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
    handler = signal.signal(signal.SIGCHLD, lambda *_: None)
    made = Server(script, said, (listens, tell))
    yield made
    made.close()
    signal.signal(signal.SIGCHLD, handler)
    signal.set_wakeup_fd(wakeup)
    os.close(listens)
    os.close(tell)


ENDS_WELL = SERVED + "signal.sigwait([signal.SIGTERM])"
SERVING = "READY=1\nSTATUS=serving on 127.0.0.1:8024"


def fifo(directory: Path) -> Path:
    """Who opens it to read waits until somebody has written."""
    os.mkfifo(directory / "fifo")
    return directory / "fifo"


@contextlib.contextmanager
def held(gate: Path) -> Iterator[None]:
    """Wait until somebody has opened the gate; he waits until this ends."""

    def opened() -> int:
        try:
            return os.open(gate, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads
            return 0

    writer = eventually(opened, "the gate is opened")
    yield
    os.close(writer)


def test_they_are_ready_when_all_serve_and_start_one_after_the_other(
    server: Server, said: Said, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gate = fifo(tmp_path)
    server.start(lmtp=ENDS_WELL, runners=f"open({str(gate)!r}).read(); {ENDS_WELL}")
    with held(gate):  # the runners were started, so the door serves
        assert said.told == []
        assert capsys.readouterr().err == ""
    assert said.hear("READY") == SERVING
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert capsys.readouterr().err == "ready 127.0.0.1:8024\n"
    assert said.told == ["STOPPING=1\nSTATUS=stopping: finishing the messages in hand"]
    assert said.logged == []


def test_the_second_is_not_started_while_the_first_has_never_served(
    server: Server, said: Said
) -> None:
    server.start(lmtp=f"sys.exit({UNFIT})", runners=ENDS_WELL)
    assert server.wait() == 1
    assert server.children[1].process is None
    assert said.told == []


@pytest.mark.parametrize("status", [1, UNFIT])
def test_runners_that_never_come_up_do_not_stop_the_door(
    server: Server, said: Said, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    server.start(lmtp=ENDS_WELL, runners=f"sys.exit({status})")
    said.hear("STATUS=runners process ended; starting it again in 0.1 s")
    assert said.hear("READY") == f"{SERVING}; no runners yet, see the log"
    for wait in "0.2", "0.4":
        said.hear(f"STATUS=runners process ended; starting it again in {wait} s")
    server.signal(signal.SIGTERM)
    assert server.wait() == 0
    assert capsys.readouterr().err == "ready 127.0.0.1:8024\n"  # once
    assert {(line["event"], line["level"]) for line in said.logged} == {
        ("runners process ended", "error")
    }


def test_systemd_hears_when_runners_come_up_after_all(
    server: Server, said: Said, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    late = f"os.path.exists({str(mark)!r}) or sys.exit(1); {ENDS_WELL}"
    server.start(lmtp=ENDS_WELL, runners=late)
    said.hear("; no runners yet, see the log")
    mark.touch()
    assert said.hear("READY") == SERVING


def test_each_that_dies_is_started_again_and_the_others_are_left_alone(
    server: Server, said: Said
) -> None:
    server.start(lmtp=ENDS_WELL, runners=UNBLOCK + SERVED + "signal.pause()")
    said.hear("READY")
    door, runners = (child.process for child in server.children)
    assert door is not None and runners is not None
    runners.kill()
    said.hear("STATUS=runners process ended; starting it again in 0.1 s")
    assert said.hear("READY") == SERVING
    assert server.children[0].process is door
    assert server.children[1].process is not runners


def test_runners_that_are_stopped_while_they_serve_are_killed_and_started_again(
    server: Server, said: Said
) -> None:
    frozen = SERVED + "os.kill(os.getpid(), signal.SIGSTOP)"
    server.start(patience=0.3, lmtp=ENDS_WELL, runners=frozen)
    assert said.hear("READY") == SERVING
    door = server.children[0].process
    said.hear("STATUS=runners process ended; starting it again in 0.1 s")
    killed, ended = said.logged[:2]
    assert (killed["event"], killed["level"]) == ("runners process killed", "error")
    assert (ended["event"], ended["status"]) == ("runners process ended", -signal.SIGKILL)
    assert said.hear("READY") == SERVING
    assert server.children[0].process is door


@pytest.mark.parametrize(("door", "runners"), [(0, 3), (3, 0), (3, 3)])
def test_both_are_told_to_stop_and_the_status_says_whether_both_ended_well(
    server: Server, said: Said, door: int, runners: int
) -> None:
    server.start(lmtp=f"{ENDS_WELL}; sys.exit({door})", runners=f"{ENDS_WELL}; sys.exit({runners})")
    said.hear("READY")
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    ended = [child.process.returncode for child in server.children if child.process]
    assert ended == [door, runners]


def test_a_second_signal_kills_all_that_still_run(server: Server, said: Said) -> None:
    server.start(lmtp=ENDS_WELL, runners=SERVED + "signal.sigwait([signal.SIGUSR1])")
    said.hear("READY")
    server.signal(signal.SIGTERM)
    said.hear("STOPPING")
    server.signal(signal.SIGTERM)
    assert server.wait() == 1
    killed = [line for line in said.logged if line["event"] == "runners process killed"]
    assert [line["reason"] for line in killed] == ["told twice"]
    assert not any(child.runs for child in server.children)


def test_a_reload_ends_when_all_have_done_it(server: Server, said: Said, tmp_path: Path) -> None:
    gate = fifo(tmp_path)
    reloads = SERVED + "signal.sigwait([signal.SIGHUP]); "
    server.start(
        lmtp=reloads + ENDS_WELL, runners=f"{reloads}open({str(gate)!r}).read(); {ENDS_WELL}"
    )
    said.hear("READY")
    server.signal(signal.SIGHUP)
    said.hear("RELOADING")
    with held(gate):
        assert said.told == []
    assert said.hear("READY") == SERVING


def test_a_reload_ends_if_one_dies_of_it(server: Server, said: Said) -> None:
    server.start(lmtp=SERVED + "signal.sigwait([signal.SIGHUP]); " + ENDS_WELL, runners=ENDS_WELL)
    said.hear("READY")
    process = server.children[1].process
    assert process is not None
    server.signal(signal.SIGHUP)
    said.hear("RELOADING")
    process.kill()
    said.hear("READY=1\nSTATUS=settings reloaded")
    assert said.hear("READY") == SERVING
