"""The figures as a chart, if matplotlib is there.

For: one picture of a run, as SVG and PNG. Guarantees: every panel shows medians with the
range of the rounds. Without matplotlib `draw` says so and draws nothing.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bench.figures import Door, Flush, ListsRow, Rate, Results, Sizes

try:
    import matplotlib
    from matplotlib import pyplot

    matplotlib.use("Agg")
    AVAILABLE = True
except ImportError:
    AVAILABLE = False

COLOURS = {
    "postroom": "#c0392b",
    "smtp-sink": "#7f8c8d",
    "aiosmtpd": "#2980b9",
    "mailman": "#8e44ad",
    "dovecot": "#27ae60",
}


def draw(results: Results, out: Path) -> list[Path]:
    """Draw what was measured; returns the files, none without matplotlib or figures."""
    panels: list[Callable[[Any], None]] = []
    if results.door:
        panels.append(partial(_door, figures=results.door))
    if results.lists:
        panels.append(partial(_lists, figures=results.lists))
    if results.sizes:
        panels.append(partial(_sizes, figures=results.sizes))
    if results.flush and results.flush.rows:
        panels.append(partial(_flush, figures=results.flush))
    if not AVAILABLE or not panels:
        return []
    figure, axes = pyplot.subplots(
        len(panels), figsize=(9, 4 * len(panels)), layout="constrained", squeeze=False
    )
    for panel, axis in zip(panels, axes[:, 0], strict=True):
        panel(axis)
    files = [out / "bench.svg", out / "bench.png"]
    for path in files:
        figure.savefig(path, dpi=120)
    pyplot.close(figure)
    return files


def _bars(axis: Any, at: Sequence[float], width: float, rates: Sequence[Rate], **how: Any) -> None:
    middle = [each.rate.median for each in rates]
    below = [each.rate.median - each.rate.least for each in rates]
    above = [each.rate.most - each.rate.median for each in rates]
    bars = axis.bar(at, middle, width, yerr=(below, above), capsize=2, **how)
    axis.bar_label(bars, [f"{each:,.0f}" for each in middle], fontsize=7, padding=2)
    axis.set_ylabel("messages/s")
    axis.spines[["top", "right"]].set_visible(False)


def _grouped(axis: Any, groups: dict[str, list[Rate]], colours: dict[str, str]) -> None:
    sessions = sorted({rate.sessions for rates in groups.values() for rate in rates})
    width = 0.8 / len(groups)
    for number, (name, rates) in enumerate(groups.items()):
        at = [sessions.index(rate.sessions) + number * width for rate in rates]
        _bars(axis, at, width, rates, label=name, color=colours.get(name))
    axis.set_xticks(
        [each + 0.4 - width / 2 for each in range(len(sessions))],
        [f"{each} session{'s' * (each != 1)}" for each in sessions],
    )
    axis.margins(y=0.2)
    axis.legend(fontsize=8, frameon=False, ncols=len(groups))


def _door(axis: Any, figures: Door) -> None:
    groups: dict[str, list[Rate]] = {}
    for rate in figures.rates:
        groups.setdefault(rate.name, []).append(rate)
    _grouped(axis, groups, COLOURS)
    medians = [rate.rate.median for rate in figures.rates]
    axis.set_yscale("log")
    # From a whole power of ten, with room for the legend.
    axis.set_ylim(10 ** math.floor(math.log10(min(medians)) - 0.3), max(medians) * 4)
    axis.set_title("The door: 4,000-octet messages (logarithmic)", loc="left")


def _lists(axis: Any, figures: list[ListsRow]) -> None:
    _bars(axis, range(len(figures)), 0.5, [row.rate for row in figures], color=COLOURS["postroom"])
    axis.set_xticks(
        range(len(figures)), [f"{row.lists:,} list{'s' * (row.lists != 1)}" for row in figures]
    )
    axis.set_title("By number of lists", loc="left")


def _sizes(axis: Any, figures: Sizes) -> None:
    octets = [row.size for row in figures.rows]
    axis.plot(octets, [row.megabytes for row in figures.rows], "o-", color=COLOURS["postroom"])
    axis.set_xscale("log")
    axis.set_xlabel("octets of a message")
    axis.set_ylabel("MB/s", color=COLOURS["postroom"])
    memory = axis.twinx()
    peaks = [row.peak_pss.most / 1e6 for row in figures.rows]
    memory.plot(octets, peaks, "s--", color=COLOURS["aiosmtpd"])
    memory.set_ylabel("peak PSS, MB", color=COLOURS["aiosmtpd"])
    for each in (axis, memory):
        each.set_ylim(bottom=0)
        each.spines["top"].set_visible(False)
    axis.set_title("By size of message", loc="left")


def _flush(axis: Any, figures: Flush) -> None:
    groups: dict[str, list[Rate]] = {}
    for row in figures.rows:
        groups.setdefault(f"{row.delay * 1000:.0f} ms added", []).append(row.rate)
    _grouped(axis, groups, {})
    axis.set_title("With slower flushes", loc="left")
