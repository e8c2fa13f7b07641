"""postroom under test, as a user would start it, with slowed flushes if wanted.

For: a postroom with a database of its own. Guarantees: it is reached by its command line and
its door alone; its data are on the disk of the results, and are removed afterwards. Fails
with `Skip`, which says what went wrong.
"""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from bench import process
from bench.process import Skip

POSTROOM = (sys.executable, "-m", "postroom")
BARE = {"MAPS__LISTEN": "", "METRICS__LISTEN": ""}  # the door alone
SECTIONS = """\
try:
    from postroom.base.settings import Settings
except ImportError:  # an older checkout
    from postroom.service.settings import Settings
print(*Settings.__struct_fields__)
"""


class Server(NamedTuple):
    """A server that answers on 127.0.0.1; `pid` is the root of its process tree."""

    name: str
    port: int
    pid: int


@contextlib.contextmanager
def workplace(out: Path) -> Iterator[Path]:
    """A temporary directory on the disk of the results; an error removes it too."""
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="run-", dir=out.resolve(), ignore_cleanup_errors=True
    ) as path:
        os.chmod(path, 0o711)  # servers that leave root behind must get through
        yield Path(path)


class Postroom:
    """A postroom with its own database below `directory`, used by its command line alone.
    `settings` by SECTION__KEY; `source` is another checkout to run, which may be older."""

    def __init__(
        self,
        directory: Path,
        preload: Mapping[str, str] | None = None,
        settings: Mapping[str, str] | None = None,
        source: Path | None = None,
    ) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.log = directory / "postroom.log"
        empty = directory / "empty.toml"  # so that no configuration of this machine is read
        empty.touch()
        self._environment = process.clean_environment(
            POSTROOM_CONFIG=str(empty),
            POSTROOM_STORE__URL=f"sqlite:///{directory / 'postroom.db'}",
            POSTROOM_LMTP__LISTEN="127.0.0.1:0",
            POSTROOM_LOG__FORMAT="json",
        )
        if source is not None:
            self._environment["PYTHONPATH"] = str(source / "src")
        wanted = BARE | dict(settings or {})
        known = self._sections() if source is not None else None
        self._environment |= {
            f"POSTROOM_{name}": value
            for name, value in wanted.items()
            if known is None or name.partition("__")[0].lower() in known
        }
        self._preload = dict(preload or {})

    def create_lists(self, addresses: Iterable[str]) -> None:
        """Create lists."""
        self._command("list", "create", "-", text="".join(f"{each}\n" for each in addresses))

    def queued(self) -> int:
        """How many entries wait in all queues."""
        return depth(self._command("queue", "stats", "--json"))

    @contextlib.contextmanager
    def serve(self, name: str = "postroom") -> Iterator[Server]:
        """Run `postroom serve`; what it takes stays in its queues."""
        environment = self._environment | self._preload
        command = [*POSTROOM, "serve", "--only", "lmtp"]
        with process.running(command, self.log, self.directory, environment) as serve:
            yield Server(name, process.await_ready(serve, self.log), serve.pid)

    def _sections(self) -> list[str]:
        """The sections that its settings have."""
        command = [sys.executable, "-c", SECTIONS]
        return process.run(command, self.directory, env=self._environment).split()

    def _command(self, *words: str, text: str = "") -> str:
        return process.run([*POSTROOM, *words], self.directory, text, self._environment)


def depth(stats: str) -> int:
    """The number of entries that `postroom queue stats --json` tells of."""
    return sum(int(queue["depth"]) for queue in json.loads(stats))


def slow_flush(directory: Path) -> Path:
    """Build the library that slows and counts flushes. Raises `Skip`."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Skip("there is no C compiler (cc)")
    directory.mkdir(parents=True, exist_ok=True)
    library = directory / "slow_flush.so"
    source = Path(__file__).with_name("slow_flush.c")
    process.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source, "-ldl"], directory)
    return library


class Flushes:
    """The environment that slows flushes by `delay` seconds, and their number."""

    def __init__(self, library: Path, counter: Path, delay: float) -> None:
        counter.write_bytes(bytes(8))
        self._counter = counter
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "SLOW_FLUSH_COUNTER": str(counter),
            "SLOW_FLUSH_NS": str(round(delay * 1e9)),
        }

    def count(self) -> int:
        """Flushes so far."""
        return int.from_bytes(self._counter.read_bytes(), sys.byteorder)
