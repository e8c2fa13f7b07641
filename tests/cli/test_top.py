"""`postroom top`: its frames, and the terminal that it takes over."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

import pytest
from rich.console import Console

from postroom.cli import top as module
from postroom.cli.frame import frame, lost
from postroom.spool.metadata import QUEUES
from postroom.store.engine import Store
from postroom.watch.counts import BATCHES, SECONDS
from postroom.watch.figures import Depth, Memory, Refusal, Status
from tests.cli.conftest import Run
from tests.watch.statuses import NOW, buckets, status, tally
from tests.watch.watched import Watched, door_figures

PATIENCE = 30.0  # seconds; a wait that takes as long has failed
OTHER_SCREEN, FIRST_SCREEN = b"\x1b[?1049h", b"\x1b[?1049l"


def shown(*seen: Status, width: int = 80, height: int = 24) -> list[str]:
    """The lines of a frame."""
    console = Console(width=width, height=height, color_system=None, force_terminal=False)
    with console.capture() as captured:
        console.print(frame(seen, height))
    return captured.get().splitlines()


def line(lines: list[str], name: str) -> str:
    """What stands behind a name."""
    [found] = [each for each in lines if each.startswith(f"{name} ")]
    return found.removeprefix(name).strip()


BEFORE = status()
AFTER = status(
    time=NOW + 2,
    replies={"220": 9, "250": 160, "550": 6, "451": 4},
    tally=tally(
        messages=1020,
        octets=80_000 + 5_000_000,
        recipients={"post": 418, "join": 2, "unknown": 7},
        commits=buckets(SECONDS, 0.0004, 0.003, 0.004, 0.04, 0.04),
        batches=buckets(BATCHES, 1, 12, 12, 500, 500),
    ),
)


def test_rates_are_of_the_time_between_two_frames() -> None:
    lines = shown(BEFORE, AFTER)
    assert line(lines, "messages").startswith("500/s, 2.5 MB/s; 1,020 stored")
    assert line(lines, "recipients") == "post 200  unknown 1.0  per second"
    assert line(lines, "replies") == "250 50.0  451 2.0  550 0.5  per second"


def test_times_to_commit_are_those_of_the_frames_remembered() -> None:
    assert line(shown(BEFORE, AFTER), "commits") == (
        "half within 35.0 ms, 99 % within 49.7 ms; 500.0 messages each"
    )
    assert "8.3 messages each" in line(shown(BEFORE), "commits")


def test_one_frame_alone_has_no_rates() -> None:
    lines = shown(BEFORE)
    assert line(lines, "messages").startswith("-, -/s; 20 stored")
    assert line(lines, "recipients") == line(lines, "replies") == "-"


def test_nothing_happening_is_said() -> None:
    later = status(time=NOW + 1)
    lines = shown(BEFORE, later)
    assert line(lines, "messages").startswith("0.0/s, 0 B/s")
    assert line(lines, "replies") == "none now"


def test_a_server_is_seen_at_a_glance() -> None:
    lines = shown(BEFORE)
    assert lines[0].startswith("postroom 1.2.3 on lists.example.com  ok  up 1 h 0 min  ")
    assert line(lines, "connections") == ("4 of 1,000; 2 refused, 1 timed out; data 1  ready 3")
    assert "rcpt" not in line(shown(status(connections={"ready": 1, "rcpt": 0})), "connections")
    assert (
        line(lines, "room") == "34.0 MB of 134.0 MB memory, 0 messages wait; 83.0 GB free on disk"
    )
    assert "in                  18    1 min 30 s" in "\n".join(lines)
    assert lines[-2] == "LAST REFUSALS"
    assert lines[-1].endswith(
        "550 nope@example.com from anne@example.org (127.0.0.1:4025): 5.1.1 No"
    )


def test_what_is_wrong_stands_at_the_top() -> None:
    ill = status(unbound=("maps.listen",), memory=Memory(100, 0, 3))
    lines = shown(ill)
    assert "degraded" in lines[0]
    assert lines[1].startswith("3 messages wait for memory (lmtp.memory_budget); nobody listens")


def test_an_intake_that_does_not_answer_leaves_gaps_and_no_traceback() -> None:
    lines = shown(BEFORE, status(tally=None, free=None, time=NOW + 1))
    assert "failing" in lines[0]
    assert line(lines, "messages").startswith("-, -/s; - stored")
    assert line(lines, "commits") == "-"
    assert "free" not in line(lines, "room")
    back = shown(status(tally=None), BEFORE, AFTER)
    assert line(back, "messages").startswith("500/s")
    assert line(shown(status(tally=tally(commits=buckets(SECONDS)))), "commits") == "none yet"


HUGE = status(
    hostname="a" * 200,
    connections={f"state{number}": 10**9 for number in range(9)},
    refused={"too many": 10**12},
    free=10**16,
    unbound=("maps.listen",) * 9,
    tally=tally(
        messages=10**15,
        queues={name: Depth(10**9, 0.0) for name in QUEUES},
        failed="disk full " * 50,
    ),
    refusals=tuple(
        Refusal(NOW, "p" * 50, "s" * 300, "r" * 300, "550 " + "x" * 500) for _ in range(20)
    ),
)


@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 16), (40, 20), (200, 60)])
def test_a_frame_is_never_larger_than_the_terminal(width: int, height: int) -> None:
    lines = shown(HUGE, HUGE, width=width, height=height)  # no time has passed
    assert max(map(len, lines)) <= width
    assert len(lines) == min(height, 38)  # that is all there is


def test_the_newest_refusals_are_shown_as_far_as_there_is_room() -> None:
    many = tuple(Refusal(NOW, "", "", f"r{number}@x", "550 no") for number in range(20))
    lines = shown(status(refusals=many))
    assert len(lines) == 24
    assert "r19@x from <> (-): no" in lines[lines.index("LAST REFUSALS") + 1]
    assert shown(status(refusals=()))[-1] == "none"


def test_what_a_stranger_wrote_cannot_steer_the_terminal() -> None:
    evil = Refusal(NOW, "\x1b[2J", "a\x9b31m@x", "[red]b\u202e\n@x[/red]", "550 \x07no")
    text = "\n".join(shown(status(refusals=(evil,), hostname="\x1b]0;x\x07"), width=200))
    assert all(char.isprintable() or char == "\n" for char in text)
    assert r"[red]b\u202e\n@x[/red] from a\x9b31m@x (\x1b[2J): \x07no" in text


def test_a_server_that_went_away_is_waited_for() -> None:
    console = Console(width=80, color_system=None)
    with console.capture() as captured:
        console.print(lost("Connection refused"))
    assert "no answer (Connection refused), trying again; q ends" in captured.get()


# The command


@pytest.fixture
def watched(store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[Watched]:
    """A server that shows itself where the settings say."""
    with Watched(store) as made:
        made.figures = door_figures(replies={b"250 ok\r\n": 5}, states=["ready"])
        monkeypatch.setenv("POSTROOM_METRICS__LISTEN", str(made.place))
        yield made


def test_one_frame_is_printed_for_scripts(
    run: Run, watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REFRESH", 0.01)
    for arguments in ("top", "--once"), ("top",):  # there is no terminal
        lines = run(*arguments).stdout.splitlines()
        assert lines[0].startswith("postroom ")
        assert "none now" in line(lines, "replies")
        assert line(lines, "connections").startswith("1 of 1,000")


@pytest.mark.parametrize(
    ("listen", "told"),
    [
        ("", "metrics.listen is empty, so the server does not show itself: set it"),
        ("127.0.0.1:0", "where the system chooses: set a port"),
        ("unix:/nowhere/at/all", "(No such file or directory): is `postroom serve` running?"),
    ],
)
def test_without_a_server_to_watch_it_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, listen: str, told: str
) -> None:
    monkeypatch.setenv("POSTROOM_METRICS__LISTEN", listen)
    result = run("top", status=1)
    assert result.stderr.startswith("postroom: ") and told in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_no_server_of_ours_is_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("POSTROOM_METRICS__LISTEN", f"127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr("postroom.doctor.facts.PATIENCE", 0.05)
        assert "timed out" in run("top", status=1).stderr


class Terminal:
    """A terminal of 80 by 24 with `postroom top` in it. A context manager."""

    def __enter__(self) -> "Terminal":
        self._ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
        self.before = termios.tcgetattr(theirs)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "postroom", "top"],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=os.environ | {"TERM": "xterm"},
            start_new_session=True,
        )
        self._theirs = theirs
        self.said = b""
        return self

    def wait_for(self, text: bytes) -> None:
        """Until this is on the screen."""
        deadline = time.monotonic() + PATIENCE
        while text not in self.said:
            left = deadline - time.monotonic()
            assert select.select([self._ours], [], [], max(0.0, left))[0], self.said
            self.said += os.read(self._ours, 65_536)

    def press(self, keys: bytes) -> None:
        os.write(self._ours, keys)

    def end(self) -> int:
        """Its status, once it has ended and left the terminal as it was."""
        self.wait_for(FIRST_SCREEN)
        status = self.process.wait(PATIENCE)
        assert termios.tcgetattr(self._theirs) == self.before
        return status

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


def test_q_ends_it_and_the_terminal_is_as_it_was(watched: Watched) -> None:
    with Terminal() as terminal:
        terminal.wait_for(b"LAST REFUSALS")
        assert OTHER_SCREEN in terminal.said
        text = re.sub(rb"\x1b\[[0-9;?]*[a-zA-Z]", b"", terminal.said)
        assert b"postroom" in text and b"1 of 1,000" in text
        terminal.press(b"xQ")
        assert terminal.end() == 0


def test_ctrl_c_ends_it_and_the_terminal_is_as_it_was(watched: Watched) -> None:
    with Terminal() as terminal:
        terminal.wait_for(b"LAST REFUSALS")
        terminal.process.send_signal(signal.SIGINT)
        assert terminal.end() == 0
        assert b"Aborted" not in terminal.said


def test_a_server_that_goes_away_is_told_and_waited_for(watched: Watched) -> None:
    with Terminal() as terminal:
        terminal.wait_for(b"LAST REFUSALS")
        watched.close()
        terminal.wait_for(b"trying again")
        terminal.press(b"q")
        assert terminal.end() == 0
