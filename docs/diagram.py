"""Draws the states of an LMTP session from the table that the session obeys.

`python docs/diagram.py` prints the Mermaid text that docs/architecture.md holds; a test
keeps the two the same.
"""

from collections import defaultdict

from postroom.lmtp.protocol import LEGAL, State


def mermaid() -> str:
    """The diagram; verbs that change nothing are left out."""
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


if __name__ == "__main__":
    print(mermaid())
