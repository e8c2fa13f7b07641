"""`python -m fuzz`: look for octets that break a promise, or try known ones again.

For: `make fuzz`. Guarantees: each target has a process of its own for its share of the
time, one after the other, so one core is used; Ctrl-C or SIGTERM ends it all. Exits 0 if
there was no finding, 1 if there was one, 2 on wrong usage or if it could not look.
"""

import argparse
import os.path
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from fuzz import run
from fuzz.shrink import shrunk
from fuzz.targets import TARGETS

NO_ATHERIS = (
    "fuzz: atheris is not installed: `make fuzz` installs it, where there is a build of it "
    "(Linux on x86-64, CPython 3.11 to 3.13); --replay works without it"
)


def arguments(words: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Look for octets that break what postroom promises."
    )
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument(
        "--seconds", type=_positive, default=60, metavar="N", help="how long, in all (default: 60)"
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--replay", type=Path, nargs="+", metavar="FILE", help="try these inputs and no others"
    )
    instead.add_argument(
        "--keep",
        action="store_true",
        help="make the corpus anew: the fewest of all known inputs that reach as much as all do",
    )
    options = parser.parse_args(words)
    if options.replay and options.target == "all":
        parser.error("--replay needs one target")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def look(names: Sequence[str], seconds: int) -> int:
    """Fuzz these targets for so long in all; returns the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    shares = sum(TARGETS[name].share for name in names)
    status = 0
    for name in names:
        given = max(1, seconds * TARGETS[name].share // shares)
        print(f"{name}: looking for {given} s", flush=True)
        try:
            done = run.look(name, given)
        except run.RunError as error:
            print(f"fuzz: {error}", file=sys.stderr)
            status = 2
            continue
        verdict = "no finding" if not done.findings else f"stopped by {done.reason}"
        print(f"{name}: {done.tried:,} inputs tried, {done.known:,} known, {verdict}", flush=True)
        for finding in done.findings:
            status = status or 1
            place = os.path.relpath(finding)
            print(f"{name}: to see it: python -m fuzz {name} --replay {place}", flush=True)
    return status


def replay(name: str, files: Sequence[Path]) -> int:
    """Try these inputs; returns the exit status."""
    check = TARGETS[name].check
    status = 0
    for file in files:
        data = file.read_bytes()
        try:
            check(data)
        except Exception as error:
            status = 1
            traceback.print_exception(error)
            print(f"{name}: {file} breaks a promise; in short: {shrunk(check, data)!r}")
        else:
            print(f"{name}: {file} breaks nothing")
    return status


def main(words: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    options = arguments(words)
    names = list(TARGETS) if options.target == "all" else [options.target]
    try:
        if options.replay:
            return replay(options.target, options.replay)
        if find_spec("atheris") is None:
            print(NO_ATHERIS, file=sys.stderr)
            return 2
        if not options.keep:
            return look(names, options.seconds)
        for name in names:
            print(f"{name}: {run.keep(name)} inputs kept", flush=True)
    except (OSError, run.RunError) as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("fuzz: interrupted", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
