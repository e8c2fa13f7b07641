"""The process that looks for new inputs: `python -m fuzz.engine TARGET [libFuzzer's options]`.

For: `python -m fuzz`, which starts it. Guarantees: what is tried is what the targets check,
with the coverage of postroom's own code as the guide. Ends with a status other than 0 at
the first finding, which libFuzzer writes to a file. Needs atheris.
"""

import importlib
import shlex
import sys
from collections.abc import Callable
from random import Random

import atheris

from fuzz.target import Mutator, Target

# Nothing can be learnt from which way these go, and they are what takes the time.
PLAIN = ["fuzz.ledger", "fuzz.replies", "fuzz.session", "fuzz.target"]


def main() -> None:
    """Never returns."""
    name = sys.argv.pop(1)
    # With -merge libFuzzer starts itself again, by its first argument and a shell.
    sys.argv[0] = shlex.join([sys.executable, "-m", "fuzz.engine", name])
    # Imported here, because what is imported before cannot be instrumented. References are
    # instrumented as well, since a regular expression gives no coverage.
    with atheris.instrument_imports(include=["postroom", "fuzz", "email"], exclude=PLAIN):
        target: Target = importlib.import_module("fuzz.targets").TARGETS[name]
    atheris.instrument_func(target.check)  # the first inputs may reach nothing else
    hooks = {}
    if target.mutate is not None:
        hooks["custom_mutator"] = _mutator(target.mutate)
    atheris.Setup(sys.argv, target.check, **hooks)
    atheris.Fuzz()


def _mutator(mutate: Mutator) -> Callable[[bytes, int, int], bytes]:
    """libFuzzer's own mutations and the target's, in turn."""

    def mutated(data: bytes, longest: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return bytes(atheris.Mutate(data, longest))
        return mutate(data, random)[:longest]

    return mutated


if __name__ == "__main__":
    main()
