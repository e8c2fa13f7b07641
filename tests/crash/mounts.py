"""Small disks of the tests' own. Mounting is root's: without that a test is skipped."""

import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(place: Path, kind: str, device: str, options: Sequence[str]) -> Iterator[Path]:
    """A disk at a new directory, for as long as the block takes."""
    place.mkdir()
    command = ["mount", "-t", kind, "-o", ",".join(options), device, str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"a small disk cannot be mounted: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)
        place.rmdir()


@contextmanager
def memory(place: Path, *options: str) -> Iterator[Path]:
    """A small disk in memory, with these options of tmpfs(5)."""
    with mounted(place, "tmpfs", "tmpfs", options) as disk:
        yield disk


class Ext4:
    """A disk in a file, with the file system of most servers; it can be mounted again."""

    def __init__(self, place: Path, octets: int) -> None:
        self._image, self._place = place / "image", place / "ext4"
        with self._image.open("wb") as image:
            image.truncate(octets)
        make = shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin")
        if make is None:
            pytest.skip("mkfs.ext4 is not installed")
        subprocess.run([make, "-q", "-F", str(self._image)], check=True)

    @contextmanager
    def __call__(self) -> Iterator[Path]:
        """Mount it."""
        options = ["loop", "errors=remount-ro"]
        with mounted(self._place, "ext4", str(self._image), options) as disk:
            yield disk

    def turn_read_only(self) -> None:
        """As if the file system had found an error in itself."""
        for line in Path("/proc/mounts").read_text().splitlines():
            device, place = line.split()[:2]
            if place == str(self._place):
                trigger = Path("/sys/fs/ext4", Path(device).name, "trigger_fs_error")
                try:
                    trigger.write_text("1")
                except OSError as error:
                    pytest.skip(f"a disk cannot be made to fail: {error}")
