"""Libraries that come between a process and its system (LD_PRELOAD), made by the tests."""

import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.peers import need

SOURCES = Path(__file__).parent


def build(name: str, place: Path) -> Path:
    """Make a library of `<name>.c` in `place`; skips the test without a compiler."""
    library = place / f"{name}.so"
    flags = ["-Wall", "-Wextra", "-Werror", "-O2", "-shared", "-fPIC"]
    source = SOURCES / f"{name}.c"
    subprocess.run(
        [need("cc"), *flags, "-o", str(library), str(source), "-ldl", "-lpthread"], check=True
    )
    return library


@contextmanager
def environment(settings: Mapping[str, str]) -> Iterator[None]:
    """What is started within finds these in its environment."""
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
