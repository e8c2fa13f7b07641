"""Draws states from the tables that the server obeys: those of an LMTP session, of a request to
join or leave a list, and of a member whose mail comes back.

`python docs/diagram.py` prints the Mermaid texts that docs/architecture.md,
docs/subscriptions.md and docs/bounces.md hold; a test keeps them the same.
"""

from collections import defaultdict

from postroom.bounces.scoring import MOVES
from postroom.bounces.scoring import State as Known
from postroom.lists.subscription import TABLE, WAITING, Policy
from postroom.lists.subscription import State as Of
from postroom.lmtp.protocol import LEGAL, State


def mermaid() -> str:
    """A session; verbs that change nothing are left out."""
    moves: defaultdict[tuple[State, State], list[str]] = defaultdict(list)
    for verb, legal in LEGAL.items():
        for before, after in legal.items():
            if before is not after or verb == b"RCPT":
                moves[before, after].append(verb.decode())
    moves[State.DATA, State.READY].append("end of data, N replies")
    moves[State.CHUNKS, State.READY].append("last chunk, N replies")
    lines = ["stateDiagram-v2", "    [*] --> greeted: connect, 220"]
    for (before, after), verbs in moves.items():
        lines.append(f"    {before.value} --> {after.value}: {', '.join(verbs)}")
    lines.append("    closed --> [*]")
    return "\n".join(lines)


def subscription() -> str:
    """A request; the policies are named of a move that not all have under which a request can be
    in that state."""
    edges: defaultdict[tuple[Of, Of, str], list[Policy]] = defaultdict(list)
    inside: defaultdict[Of, set[Policy]] = defaultdict(set)
    for policy, moves in TABLE.items():
        for before, event, after in moves:
            edges[before, after, event.value].append(policy)
            inside[before].add(policy)
    labels: defaultdict[tuple[Of, Of, str], list[str]] = defaultdict(list)
    for (before, after, name), policies in edges.items():
        some = "" if set(policies) == inside[before] else f" ({', '.join(policies)})"
        labels[before, after, some].append(name)
    order = list(Of)
    lines = ["stateDiagram-v2", f"    [*] --> {Of.ASKED.value}"]
    for (before, after, some), events in sorted(
        labels.items(), key=lambda each: (order.index(each[0][0]), order.index(each[0][1]))
    ):
        lines.append(f"    {before.value} --> {after.value}: {', '.join(events)}{some}")
    ends = [state for state in Of if state not in (Of.ASKED, *WAITING)]
    lines += [f"    {state.value} --> [*]" for state in ends]
    return "\n".join(lines)


def bounces() -> str:
    """A member whose mail comes back."""
    edges: defaultdict[tuple[Known, Known], list[str]] = defaultdict(list)
    for before, event, after in MOVES:
        edges[before, after].append(event.value)
    lines = ["stateDiagram-v2", f"    [*] --> {Known.FINE.value}"]
    for (before, after), events in edges.items():
        lines.append(f"    {before.value} --> {after.value}: {', '.join(events)}")
    lines.append(f"    {Known.GONE.value} --> [*]")
    return "\n".join(lines)


if __name__ == "__main__":
    print(mermaid(), subscription(), bounces(), sep="\n\n")
