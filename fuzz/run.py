"""Running libFuzzer on a target.

For: the processes, folders and files of a run. Guarantees: what a run finds worth trying
again goes to fuzz/out and findings to fuzz/findings, both of which may be removed; only
`keep` changes the corpus; no process outlives its call. Raises `RunError`, one sentence.
"""

import re
import shutil
import subprocess
import sys
from hashlib import sha1
from pathlib import Path
from typing import NamedTuple

from fuzz.targets import TARGETS

HERE = Path(__file__).parent
CORPUS, FINDINGS, OUT = HERE / "corpus", HERE / "findings", HERE / "out"
STUCK = 30  # seconds: an input that takes so long is a finding
MEMORY = 1024  # MB: an input that needs more is a finding
_TRIED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_WRITTEN = re.compile(r"Test unit written to (.+)")
_RAISED = re.compile(r"=== Uncaught Python exception: ===\n(.+)")
_STOPPED = re.compile(r"ERROR: libFuzzer: (.+)")


class RunError(Exception):
    """libFuzzer did not do its work; `str()` says where to look."""


class Run(NamedTuple):
    """What came of a run: inputs tried, inputs known by now, inputs that break something,
    and what they did."""

    tried: int
    known: int
    findings: tuple[Path, ...]
    reason: str


def look(name: str, seconds: int) -> Run:
    """Fuzz a target for so long, or until the first finding."""
    target, place = TARGETS[name], _sown(name)
    words = OUT / f"{name}.words"
    words.write_text("".join(f'"{_escaped(token)}"\n' for token in target.tokens))
    log = _libfuzzer(
        name,
        f"-max_total_time={seconds}",
        f"-max_len={target.longest}",
        f"-dict={words}",
        f"-artifact_prefix={FINDINGS}/{name}-",
        f"-timeout={STUCK}",
        f"-rss_limit_mb={MEMORY}",
        "-print_final_stats=1",
        str(place),
        str(CORPUS / name),
    )
    findings = tuple(map(Path, _WRITTEN.findall(log)))
    tried = _TRIED.search(log)
    if tried is None and not findings:
        raise RunError(f"{name}: libFuzzer failed, {OUT / name}.log says why")
    told = _RAISED.search(log) or _STOPPED.search(log)
    known = sum(1 for _ in place.iterdir())
    return Run(int(tried[1]) if tried else 0, known, findings, told[1] if told else "")


def keep(name: str) -> int:
    """Replace a target's corpus by the fewest of all known inputs that reach as much as all
    do; returns how many these are."""
    place, corpus, chosen = _sown(name), CORPUS / name, OUT / f"{name}.chosen"
    shutil.rmtree(chosen, ignore_errors=True)
    chosen.mkdir()
    _libfuzzer(name, "-set_cover_merge=1", str(chosen), str(place), str(corpus))
    inputs = sorted(chosen.iterdir())
    if not inputs:
        raise RunError(f"{name}: nothing was chosen, {OUT / name}.log says why")
    shutil.rmtree(corpus)
    shutil.move(chosen, corpus)
    return len(inputs)


def _sown(name: str) -> Path:
    """The folder of a target's known inputs, with its seeds in it."""
    place = OUT / name
    for folder in (place, CORPUS / name, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    for seed in TARGETS[name].seeds():
        if len(seed) <= TARGETS[name].longest:
            (place / sha1(seed, usedforsecurity=False).hexdigest()).write_bytes(seed)
    return place


def _libfuzzer(name: str, *options: str) -> str:
    """Run it; returns its log, which is in fuzz/out too."""
    command = [sys.executable, "-m", "fuzz.engine", name, *options]
    place = OUT / f"{name}.log"
    with (
        place.open("wb") as log,
        subprocess.Popen(
            command, cwd=HERE.parent, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            process.wait()
        finally:
            process.kill()
    return place.read_text(errors="replace")


def _escaped(token: bytes) -> str:
    r"""As libFuzzer's dictionaries have it: "\xNN" for what is not plain."""
    plain = bytes(range(0x20, 0x7F)).replace(b'"', b"").replace(b"\\", b"")
    return "".join(chr(each) if each in plain else f"\\x{each:02x}" for each in token)
