"""One frame of `postroom top`: a server at a glance, in 80 by 24 characters.

For: showing a `Status`, with the rates since an earlier one. Guarantees: no line is wider
than the terminal and no frame higher; what a stranger wrote cannot steer it; what is not
known is shown as "-". Pure.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import Group
from rich.text import Text

from postroom.cli.common import safe
from postroom.cli.output import duration
from postroom.watch import health
from postroom.watch.figures import Histogram, Status, Tally

_COLOURS = {health.OK: "green", health.DEGRADED: "yellow", health.FAILING: "bold red"}
_QUEUES_ABREAST = 2
MOST_CODES = 5


def frame(seen: Sequence[Status], height: int) -> Group:
    """A frame for the last of these; the others came before it, oldest first."""
    now = seen[-1]
    before = next((each for each in reversed(seen) if each.time < now.time), None)
    lines = [
        *_head(now),
        Text(),
        _fact("messages", _messages(now, before)),
        _fact("recipients", _recipients(now, before)),
        _fact("replies", _replies(now, before)),
        _fact("connections", _connections(now)),
        _fact("commits", _commits(now, seen[0])),
        _fact("room", _room(now)),
        Text(),
        *_queues(now),
        Text(),
    ]
    return _group([*lines, *_refusals(now, height - len(lines) - 1)][:height])


def _group(lines: Sequence[Text]) -> Group:
    for line in lines:
        line.no_wrap, line.overflow = True, "ellipsis"
    return Group(*lines)


def lost(trouble: str) -> Group:
    """A frame for a server that does not answer any more."""
    line = Text(f"no answer ({safe(trouble)}), trying again; q ends")
    return _group([Text("postroom", style="bold"), Text(), line])


def _head(now: Status) -> Iterator[Text]:
    found = health.judge(now)
    yield Text.assemble(
        (f"postroom {now.version} on {safe(now.hostname)}", "bold"),
        "  ",
        (found.status, _COLOURS[found.status]),
        f"  up {duration(now.time - now.started_at)}  {_clock(now.time)}",
    )
    yield Text(safe("; ".join(found.reasons)), style=_COLOURS[found.status])


def _fact(name: str, value: str) -> Text:
    return Text.assemble((f"{name:<12}", "bold"), value)


def _messages(now: Status, before: Status | None) -> str:
    octets = _rate(now, before, lambda each: each.octets)
    rate = _per_second(_rate(now, before, lambda each: each.messages))
    total = f"{now.tally.messages:,}" if now.tally else "-"
    again = f"{now.tally.again:,}" if now.tally else "-"
    return f"{rate}, {_octets(octets)}/s; {total} stored, {again} recipients had theirs before"


def _recipients(now: Status, before: Status | None) -> str:
    return _rates(now, before, lambda each: each.tally.recipients if each.tally else None)


def _replies(now: Status, before: Status | None) -> str:
    return _rates(now, before, lambda each: each.replies)


def _rates(
    now: Status, before: Status | None, counts: Callable[[Status], Mapping[str, int] | None]
) -> str:
    """The most frequent, with their rates."""
    new, old = counts(now), counts(before) if before else None
    if new is None or old is None or before is None:
        return "-"
    span = now.time - before.time
    found = sorted(((new[name] - old.get(name, 0), name) for name in new), reverse=True)
    shown = [f"{name} {_number(count / span)}" for count, name in found if count > 0]
    return "  ".join(shown[:MOST_CODES]) + ("  per second" if shown else "none now")


def _rate(now: Status, before: Status | None, figure: Callable[[Tally], int]) -> float | None:
    if before is None or now.tally is None or before.tally is None:
        return None
    return (figure(now.tally) - figure(before.tally)) / (now.time - before.time)


def _connections(now: Status) -> str:
    held = sum(now.connections.values())
    states = "  ".join(
        f"{state} {count:,}" for state, count in sorted(now.connections.items()) if count
    )
    refused = sum(now.refused.values())
    text = f"{held:,} of {now.max_connections:,}; {refused:,} refused, {now.timed_out:,} timed out"
    return f"{text}; {states}" if states else text


def _commits(now: Status, first: Status) -> str:
    """Of the frames that are remembered, or of all if nothing came since."""
    if now.tally is None:
        return "-"
    commits, batches = now.tally.commits, now.tally.batches
    if first.tally is not None and (new := commits.since(first.tally.commits)).quantile(1):
        commits, batches = new, batches.since(first.tally.batches)
    if not sum(commits.counts):
        return "none yet"
    each = batches.total / max(1, sum(batches.counts))
    return (
        f"half within {_milliseconds(commits, 0.5)}, 99 % within "
        f"{_milliseconds(commits, 0.99)}; {each:.1f} messages each"
    )


def _milliseconds(found: Histogram, part: float) -> str:
    value = found.quantile(part)
    return "-" if value is None else f"{value * 1000:,.1f} ms"


def _room(now: Status) -> str:
    memory = now.memory
    used = f"{_octets(memory.total - memory.free)} of {_octets(memory.total)} memory"
    disk = "" if now.free is None else f"; {_octets(now.free)} free on disk"
    return f"{used}, {memory.waiting} messages wait{disk}"


def _queues(now: Status) -> list[Text]:
    title = f"{'QUEUE':<10}{'DEPTH':>12}{'OLDEST':>14}"
    lines = [Text("    ".join([title] * _QUEUES_ABREAST), style="bold")]
    queues = now.tally.queues if now.tally else None
    if queues is None:
        return [*lines, Text("-")]
    cells = [
        f"{safe(name):<10}{depth.entries:>12,}"
        f"{'-' if depth.oldest is None else duration(max(0.0, now.time - depth.oldest)):>14}"
        for name, depth in queues.items()
    ]
    rows = -(-len(cells) // _QUEUES_ABREAST)
    return lines + [Text("    ".join(cells[row::rows])) for row in range(rows)]


def _refusals(now: Status, room: int) -> list[Text]:
    """The last ones that there is room for, newest first."""
    newest = list(now.refusals)[::-1][: max(0, room)]
    lines = [
        Text(
            safe(
                f"{_clock(each.time)}  {each.reply[:3]} {each.recipient} from "
                f"{each.sender or '<>'} ({each.peer or '-'}): {each.reply[4:]}"
            )
        )
        for each in newest
    ]
    return [Text("LAST REFUSALS", style="bold"), *(lines or ([Text("none")] if room > 0 else []))]


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().strftime("%H:%M:%S")


def _per_second(value: float | None) -> str:
    return "-" if value is None else f"{_number(value)}/s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _octets(value: float | None) -> str:
    if value is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if abs(value) < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
