"""Measuring: runs of several things, interleaved.

For: fair comparison on a machine that drifts. Guarantees: each round visits everything once,
in an order of its own; what others wrote is on the disk before a run
begins. A trial that fails is not tried again, and its reason is kept.
"""

import os
import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bench.figures import Rate, summarise
from bench.load import Load, LoadError, Run, calibrate, send
from bench.servers import Server

Tell = Callable[[str], object]


class Plan(NamedTuple):
    """How much is measured."""

    rounds: int = 5
    seconds: float = 3.0  # that one run should take
    sessions: tuple[int, ...] = (1, 10, 50)
    lists: tuple[int, ...] = (1, 1_000, 100_000)
    sizes: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000, 10_000_000)
    flood: bool = True
    idle: int = 10_000  # clients that do nothing
    hostile: int = 250  # attackers of each kind


QUICK = Plan(1, 0.5, (1, 10), (1, 1_000), (1_000, 100_000, 1_000_000), False)


class Trial(NamedTuple):
    """A load on a server; `most` messages at a time."""

    server: Server
    load: Load
    most: int | None = None


class Measurements:
    """Runs of trials. `sent` counts by server what was accepted, calibration included."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        self._plan, self._tell = plan, tell
        self.sent: Counter[str] = Counter()
        self.failed: dict[str, str] = {}

    def run(self, trial: Trial, messages: int) -> Run:
        """One run. Raises `LoadError`."""
        os.sync()
        done = send(trial.server.port, trial.load, messages)
        self.sent[trial.server.name] += messages
        return done

    def rates(self, trials: Sequence[Trial]) -> list[Rate]:
        """Measure all trials in rounds; servers that fail are left out and kept in `failed`."""
        sizes = self._sizes(trials)
        runs: dict[Trial, list[Run]] = {trial: [] for trial in sizes}
        for number in range(self._plan.rounds):
            for trial in random.Random(number).sample(list(sizes), len(sizes)):
                name = trial.server.name
                if name in self.failed:
                    continue
                try:
                    done = self.run(trial, sizes[trial])
                except LoadError as error:
                    self.failed[name] = str(error)
                    continue
                runs[trial].append(done)
                self._tell(
                    f"round {number + 1} of {self._plan.rounds}: {name}, "
                    f"{trial.load.sessions} sessions: {done.rate:,.0f} messages/s"
                )
        return [
            Rate(
                trial.server.name,
                trial.load.sessions,
                sizes[trial],
                summarise([each.rate for each in done]),
            )
            for trial, done in runs.items()
            if trial.server.name not in self.failed
        ]

    def size(self, trial: Trial) -> int:
        """How many messages make a run of the wanted length. Raises `LoadError`."""
        self._tell(f"warming up {trial.server.name}, {trial.load.sessions} sessions")
        return calibrate(
            lambda messages: self.run(trial, messages),
            trial.load.sessions,
            self._plan.seconds,
            trial.most,
        )

    def _sizes(self, trials: Sequence[Trial]) -> dict[Trial, int]:
        sizes = {}
        for trial in trials:
            if trial.server.name in self.failed:
                continue
            try:
                sizes[trial] = self.size(trial)
            except LoadError as error:
                self.failed[trial.server.name] = str(error)
        return sizes
