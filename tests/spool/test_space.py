"""Free space for the database file."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from postroom.spool.space import fits, free_space


def test_the_space_is_that_of_the_disk_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []

    def disk_usage(path: Path) -> SimpleNamespace:
        asked.append(path)
        return SimpleNamespace(free=12345)

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    assert free_space(tmp_path / "postroom.db") == 12345
    assert asked == [tmp_path]


def test_a_real_disk_can_be_measured(tmp_path: Path) -> None:
    assert (free_space(tmp_path / "not there yet.db") or 0) > 0


def test_what_cannot_be_measured_is_no_number(tmp_path: Path) -> None:
    assert free_space(None) is None
    assert free_space(tmp_path / "no directory" / "postroom.db") is None


@pytest.mark.parametrize(
    ("size", "free", "reserve", "expected"),
    [
        (0, 100, 100, True),
        (0, 99, 100, False),
        (10, 120, 100, True),
        (10, 119, 100, False),
        (10**12, None, 100, True),
    ],
)
def test_a_message_fits_if_twice_its_size_leaves_the_reserve(
    size: int, free: int | None, reserve: int, expected: bool
) -> None:
    assert fits(size, free, reserve) is expected
