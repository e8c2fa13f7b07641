"""Opening a database that can be used."""

import os
from pathlib import Path

import pytest

from postroom.store.engine import open_store


def test_new_directories_are_flushed_into_those_above_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []
    real = os.fsync

    def fsync(number: int) -> None:
        flushed.append(os.readlink(f"/proc/self/fd/{number}"))
        real(number)

    monkeypatch.setattr(os, "fsync", fsync)
    open_store(f"sqlite:///{tmp_path}/deep/down/postroom.db").close()
    assert sorted(flushed) == [str(tmp_path), str(tmp_path / "deep")]
    open_store(f"sqlite:///{tmp_path}/deep/down/other.db").close()
    assert len(flushed) == 2  # nothing new there: SQLite flushes the last one for its files


def test_a_directory_that_cannot_be_flushed_is_no_reason_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(number: int) -> None:
        raise OSError("not supported")

    monkeypatch.setattr(os, "fsync", fsync)
    open_store(f"sqlite:///{tmp_path}/new/postroom.db").close()
    assert (tmp_path / "new" / "postroom.db").is_file()
