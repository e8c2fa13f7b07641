"""Power loss at every flush: what was answered 250 is there, once and whole (fault 16).

The long run is `python -m tests.crash.power_loss`.
"""

import random
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from postroom.lists.registry import lists
from postroom.store.engine import open_store
from tests.crash.disk import DATABASE, DIRECTORY, FLUSH, LOG, TRUNCATE, read_records
from tests.crash.power_loss import Recording, cuts, images, lay_out, rebuild, record, scratch
from tests.crash.shims import build, environment
from tests.integration.sites import Sites

MESSAGES = 120


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """What a server did under load, stopped and started once."""
    return record(tmp_path_factory.mktemp("recording"), MESSAGES, threads=2)


def test_fault_16_whatever_was_answered_250_is_there_after_a_cut_at_any_flush(
    recording: Recording,
) -> None:
    report = rebuild(recording, ways=3)
    assert report.problems == ()
    kinds = [(each.kind, each.file) for each in read_records(recording.records)]
    assert report.cuts == 1 + sum(kind == FLUSH for kind, _ in kinds)
    assert report.rebuilds > MESSAGES
    # The log was copied back, begun anew and taken away, all under load.
    assert kinds.count((TRUNCATE, DATABASE)) > 3


@pytest.mark.parametrize("file", [LOG, DATABASE, DIRECTORY])
def test_a_disk_that_does_not_flush_is_found_out(recording: Recording, file: int) -> None:
    """Or the test above would say nothing."""
    assert rebuild(recording, ways=1, jobs=4, ignored=frozenset([file])).problems


def test_fault_16_a_list_that_was_created_is_there_after_a_cut_at_any_flush(
    tmp_path: Path,
) -> None:
    created: dict[str, float] = {}
    with Sites() as sites:
        site = sites.make()
        path = site.url.removeprefix("sqlite:///")
        settings = {"LD_PRELOAD": str(build("record_writes", tmp_path)), "RECORD_DATABASE": path}
        with environment(settings | {"RECORD_TO": str(tmp_path / "records")}):
            for address in ("first@example.com", "second@example.net"):
                command = [sys.executable, "-m", "postroom", "list", "create", address]
                subprocess.run(command, env=site.environment, check=True, capture_output=True)
                created[address] = time.monotonic()
    dice, rebuilds = random.Random(0), 0
    with scratch() as place:
        for cut in cuts(tmp_path / "records", None):
            must = {each for each, when in created.items() if when < cut.when}
            for _, image in images(cut.disk, 4, dice):
                url = f"sqlite:///{lay_out(image, place)}"
                with closing(open_store(url)) as store, store.read() as connection:
                    assert must <= {each.posting_address for each in lists(connection)}
                rebuilds += 1
    assert rebuilds > 50
