"""Throwaway sites in number, and a way to make sure that nothing of them is left.

For: fixtures. Guarantees: every process of every site has ended when the block ends, also
if a test failed half-way or cut a process off from its parent.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from postroom.testing.site import Site
from tests.integration.mail import create_lists
from tests.integration.processes import INTAKE, kill, process_of, wait_ended


class Sites:
    """Makes sites. A context manager."""

    def __init__(self) -> None:
        self._made: list[Site] = []

    def make(self, url: str | None = None, **settings: str) -> Site:
        """A site whose server is not started; the arguments are those of `Site`."""
        self._made.append(Site(url, **settings))
        return self._made[-1]

    def start(self, *lists: str, url: str | None = None, **settings: str) -> Site:
        """A site with lists and a running server."""
        site = self.make(url, **settings)
        if lists:
            create_lists(site.store, *lists)
        site.start()
        return site

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.ExitStack() as stack:
            for site in self._made:
                stack.callback(_close, site)


@contextlib.contextmanager
def held(site: Site) -> Iterator[None]:
    """The intake stands still: what the door asks it is answered when this ends."""
    intake = process_of(site.supervisor, INTAKE)
    os.kill(intake, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(intake, signal.SIGCONT)


def processes_of(site: Site) -> list[int]:
    """Every process that works for a site, whoever its parent is."""
    mark = f"POSTROOM_CONFIG={site.config}".encode()
    found = []
    for place in Path("/proc").iterdir():
        with contextlib.suppress(OSError):  # it ended meanwhile
            if place.name.isdigit() and mark in (place / "environ").read_bytes().split(b"\0"):
                found.append(int(place.name))
    return found


def _close(site: Site) -> None:
    try:
        site.close()
    finally:
        for pid in processes_of(site):
            kill(pid)
            wait_ended(pid)
