"""This checkout beside another one of postroom: has the door become slower?

For: `python -m bench --against DIR`, DIR being for instance a `git worktree` of the commit
before. Guarantees: the same interpreter, libraries, load and number of messages for both, run
by run in turn. Raises `Skip` and `LoadError`.
"""

from contextlib import ExitStack
from pathlib import Path

from bench.figures import Against, AgainstRow, Ledger, Rate, ratio, summarise
from bench.load import LIST, Load
from bench.measure import Measurements, Plan, Tell, Trial
from bench.servers import Postroom

OURS, OTHER = "postroom", "the other"


def against(plan: Plan, place: Path, other: Path, tell: Tell) -> Against:
    """The door of this checkout and that of `other`, in turn."""
    work = Measurements(plan, tell)
    rows = []
    with ExitStack() as stack:
        postrooms = {
            OURS: Postroom(place / "ours"),
            OTHER: Postroom(place / "other", source=other),
        }
        servers = []
        for name, each in postrooms.items():
            each.create_lists([LIST])
            servers.append(stack.enter_context(each.serve(name)))
        for sessions in plan.sessions:
            trials = [Trial(server, Load(sessions)) for server in servers]
            messages = min(work.size(trial) for trial in trials)
            rates: dict[str, list[float]] = {name: [] for name in postrooms}
            for number in range(plan.rounds):
                for trial in trials if number % 2 else reversed(trials):
                    name = trial.server.name
                    done = work.run(trial, messages)
                    rates[name].append(done.rate)
                    tell(
                        f"round {number + 1} of {plan.rounds}: {name}, {sessions} sessions: "
                        f"{done.rate:,.0f} messages/s"
                    )
            ours, theirs = (
                Rate(name, sessions, messages, summarise(each)) for name, each in rates.items()
            )
            rows.append(AgainstRow(ours, theirs, ratio(ours.rate.median, theirs.rate.median)))
        ledgers = {name: Ledger(work.sent[name], each.queued()) for name, each in postrooms.items()}
    return Against(str(other), rows, ledgers)
