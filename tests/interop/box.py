"""A root of its own for a mail server that cannot be installed beside another.

For: running the programs that `make peers` has unpacked as they come, with the paths and
users they were made for. Guarantees: they see the machine's files with the package's added;
what they write goes to memory, except below the directory of temporary files, which they
share with everybody; they have no name server; what they tell syslog is in `log`; none of
their processes outlives the block, nor the tests if those are killed. Needs root.
"""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

from tests.integration.processes import descendants
from tests.peers import lacking, unpacked

FIRST_ID = 61_000  # of the users that a package would have made
_SYSTEM_FILES = {
    "resolv.conf": "nameserver 127.0.0.1\n",  # where nobody answers
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
    "hosts": "127.0.0.1 localhost\n127.0.0.1 mta.example.net\n",
    "hostname": "mta.example.net\n",
}
# Where the first process ends all end, and it does when its input does.
_APART = ["unshare", "--mount", "--pid", "--fork", "--propagation=private"]
# Arguments: the package's files, our home, the directory of temporary files.
_SETUP = """\
set -e
mount -t tmpfs -o mode=755 box "$2/box"
cd "$2/box"
mkdir upper work root
cp -R --preserve=mode,links,timestamps "$1/." upper
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work box root
cp --remove-destination "$2"/etc/* root/etc
mount -t proc proc root/proc
mount -t tmpfs -o mode=755 run root/run
mount -t tmpfs -o mode=755 dev root/dev
for device in null zero full random urandom; do
    touch "root/dev/$device"
    mount --bind "/dev/$device" "root/dev/$device"
done
ln -s /proc/self/fd root/dev/fd
ln -s "$2/syslog" root/dev/log
mkdir -m 1777 root/dev/shm
mount --bind "$3" "root$3"
cd root
pivot_root . mnt
umount -l /mnt
echo ready
exec cat
"""


class Box:
    """`peer` is what `make peers` has unpacked; `users` it expects, with their home
    directories, each in a group of the same name. A context manager."""

    def __init__(self, peer: str, users: Mapping[str, str]) -> None:
        self._package = unpacked(peer)
        if os.geteuid() != 0:
            pytest.skip(f"to run {peer} one has to be root")
        self.home = Path(tempfile.mkdtemp(prefix=f"postroom-{peer}-"))
        self.home.chmod(0o755)  # its processes are those of other users
        self.log = self.home / "log"
        self.log.touch()
        self._ends = contextlib.ExitStack()
        self._ends.callback(shutil.rmtree, self.home)
        self._started: list[subprocess.Popen[bytes]] = []
        self._enter: list[str] = []
        (self.home / "box").mkdir()
        self._write_system_files(users)

    def _write_system_files(self, users: Mapping[str, str]) -> None:
        files = self.home / "etc"
        files.mkdir()
        for name, content in _SYSTEM_FILES.items():
            (files / name).write_text(content)
        known = {account.pw_name for account in pwd.getpwall()}
        passwd, group = Path("/etc/passwd").read_text(), Path("/etc/group").read_text()
        for number, (user, home) in enumerate(users.items(), FIRST_ID):
            if user not in known:
                passwd += f"{user}:x:{number}:{number}::{home}:/usr/sbin/nologin\n"
                group += f"{user}:x:{number}:\n"
        (files / "passwd").write_text(passwd)
        (files / "group").write_text(group)

    def run(self, *command: str, status: int = 0, input: bytes = b"") -> str:
        """What a command says, which must end with this status."""
        done = subprocess.run(
            [*self._enter, *command],
            input=input,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=60,
            check=False,
        )
        told = done.stdout.decode(errors="replace")
        assert done.returncode == status, f"{command}: {done.returncode}\n{told}"
        return told

    def start(self, *command: str) -> None:
        """Start a program that stays; what it prints goes into `log`."""
        with self.log.open("ab") as log:
            started = subprocess.Popen(
                [*self._enter, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self._started.append(started)

    def _reap(self) -> None:
        for each in self._started:
            each.wait()

    def __enter__(self) -> Self:
        try:
            self._listen_to_syslog()
            self._ends.callback(self._reap)
            places = str(self._package), str(self.home), tempfile.gettempdir()
            box = self._ends.enter_context(
                subprocess.Popen(
                    [*_APART, "sh", "-c", _SETUP, "sh", *places],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            assert box.stdout is not None
            if box.stdout.readline() != b"ready\n":
                lacking("no root of its own can be made: are overlays and mounts allowed here?")
            [inside] = descendants(box.pid)
            self._enter = ["nsenter", f"--target={inside}", "--mount", "--pid", "--root", "--wd"]
            self.begin()
        except BaseException as error:
            error.add_note(self.log.read_text(errors="replace")[-4000:])
            self.__exit__()
            raise
        return self

    def begin(self) -> None:
        """What the program needs, and its start."""
        raise NotImplementedError

    def _listen_to_syslog(self) -> None:
        listener = self._ends.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
        place = str(self.home / "syslog")
        listener.bind(place)
        os.chmod(place, 0o666)

        def write() -> None:
            with self.log.open("ab", buffering=0) as log:
                while line := listener.recv(65536):
                    log.write(line.partition(b">")[2].rstrip(b"\0\n") + b"\n")

        writer = threading.Thread(target=write)
        writer.start()
        self._ends.callback(writer.join)
        self._ends.callback(self._say_nothing, place)

    @staticmethod
    def _say_nothing(place: str) -> None:
        """The empty line that ends the listener."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as speaker:
            speaker.sendto(b"", place)

    def __exit__(self, *exception: object) -> None:
        self._ends.close()
