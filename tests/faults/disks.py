"""Small and read-only disks, each in a mount namespace of one server alone."""

from __future__ import annotations

import functools
import os
import subprocess
from pathlib import Path

import pytest

from tests.faults.servers import Server

MIB = 2**20
SIZE = 96 * MIB  # more than the 64 MiB that a server keeps for itself

_NAMESPACE = ("unshare", "--mount") if os.geteuid() == 0 else ("unshare", "--mount", "-r")


@functools.cache
def _may_mount() -> bool:
    try:
        ended = subprocess.run(
            [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
            stderr=subprocess.DEVNULL,
            check=False,
        )
    except FileNotFoundError:
        return False
    return ended.returncode == 0


def need_mounts() -> None:
    """Skip the test where nobody may mount anything."""
    if not _may_mount():
        pytest.skip("this user may not mount; the tests that need no mount still run")


def small_disk(folder: Path) -> list[str | Path]:
    """What to put before a command, so that `folder` is a small disk for it."""
    need_mounts()
    folder.mkdir(parents=True)
    mount = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
    return [*_NAMESPACE, "sh", "-c", mount, "sh", str(SIZE), folder]


def only_writable(folder: Path) -> list[str | Path]:
    """What to put before a command that shall find no other folder of a disk to write to."""
    need_mounts()
    folder.mkdir(parents=True)
    script = """
        mount --bind "$1" "$1" || exit
        for point in / /tmp /var/tmp /usr/tmp /dev/shm /run /home "$HOME"; do
            if mountpoint -q "$point"; then mount -o remount,bind,ro "$point" || exit; fi
        done
        shift
        exec "$@"
    """
    return [*_NAMESPACE, "sh", "-c", script, "sh", folder]


class Disk:
    """A small disk as its server sees it."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.folder = Path(f"/proc/{server.process.pid}/root{folder}")
        self._ballast = self.folder / "ballast"

    @property
    def free(self) -> int:
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self, leave: int = 0) -> None:
        with self._ballast.open("ab") as file:
            while (free := self.free) > leave:
                file.write(bytes(min(MIB, free - leave)))
                file.flush()

    def empty(self) -> None:
        self._ballast.unlink()
