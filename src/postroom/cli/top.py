"""`postroom top`.

For: watching a server at work. Guarantees: it only reads, a page a second, from the server's
own account of itself (`metrics.listen`); q or Ctrl-C ends it and leaves the terminal as it
was. Fails with a sentence if there is no server to watch; one that goes away is waited for.
"""

import contextlib
import os
import select
import sys
import termios
import time
import tty
from collections import deque
from collections.abc import Callable, Iterator

import click
from rich.console import Console
from rich.live import Live

from postroom.cli.common import Failed, Options, example
from postroom.cli.frame import frame, lost
from postroom.doctor import facts
from postroom.watch.figures import Status

REFRESH = 1.0  # seconds
REMEMBERED = 30  # frames: times to commit are of the last half minute
HEIGHT = 24  # lines, where there is no terminal to say

Quit = Callable[[float], bool]


@click.command(epilog=example("postroom top", "postroom top --once"))
@click.option("--once", is_flag=True, help="Print one frame, of one second, and end.")
@click.pass_context
def top(context: click.Context, once: bool) -> None:
    """Watch the server at work.

    Shows rates, connections, queues and the last refusals; q ends.
    """
    options = context.find_object(Options) or Options()
    address = options.settings().metrics.listen
    seen = deque([_first(options, address)], maxlen=REMEMBERED)
    console = Console()
    if once or not console.is_terminal:
        time.sleep(REFRESH)
        _look(address, seen)
        console.print(frame(seen, HEIGHT))
        return
    with contextlib.suppress(KeyboardInterrupt), _keys() as wants_to_quit:
        _watch(address, seen, console, wants_to_quit)


def _first(options: Options, address: str) -> Status:
    if not address:
        raise Failed("metrics.listen is empty, so the server does not show itself: set it")
    if address.endswith(":0"):
        raise Failed(f"metrics.listen is {address}, where the system chooses: set a port")
    status, trouble = facts.status(address)
    if status is None:
        raise Failed(
            f"no server shows itself on {address} ({trouble}): is "
            f"`{options.command('serve')}` running?"
        )
    return status


def _look(address: str, seen: deque[Status]) -> str:
    """One more look; what went wrong, "" if nothing."""
    status, trouble = facts.status(address)
    if status is None:
        return trouble
    last = seen[-1]
    if status.started_at != last.started_at or status.time <= last.time:
        seen.clear()  # there is nothing to compare it with
    seen.append(status)
    return ""


def _watch(address: str, seen: deque[Status], console: Console, wants_to_quit: Quit) -> None:
    with Live(console=console, screen=True, auto_refresh=False) as live:
        live.update(frame(seen, console.height), refresh=True)
        while not wants_to_quit(REFRESH):
            trouble = _look(address, seen)
            live.update(lost(trouble) if trouble else frame(seen, console.height), refresh=True)


@contextlib.contextmanager
def _keys() -> Iterator[Quit]:
    """Waits so long, less if a key says to quit; then it is true."""
    if not sys.stdin.isatty():

        def sleep(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield sleep
        return
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)

    def wait(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([keyboard], [], [], left)[0]:
                pressed = os.read(keyboard, 1024)
                if not pressed or b"q" in pressed.lower():
                    return True
        return False

    try:
        tty.setcbreak(keyboard)
        yield wait
    finally:
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
