"""What a power cut would leave of a folder: a disk that forgets everything that was not synced."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest


@dataclass(frozen=True)
class _Content:
    data: bytes
    mode: int
    mtime_ns: int


@dataclass
class ForgetfulDisk:
    """Remembers what was synced below `root` since this was made, and what was there before.

    A file has the content of its last sync, a folder has the names of its last sync. A file system
    may keep more than that, but need not. What SQLite does is not seen.
    """

    root: Path
    patch: pytest.MonkeyPatch
    unfinished: list[str] = field(default_factory=list)
    """Names that a file was given before its content was synced. After a power cut there may be
    such a name without the content, because names can be written at any time."""

    def __post_init__(self) -> None:
        # Open descriptors keep the number of an inode from being used for another file.
        self._held: list[int] = []
        self._contents: dict[int, _Content] = {}
        self._names: dict[int, dict[str, tuple[int, bool]]] = {}
        self._fsync = os.fsync
        for folder, _, files in os.walk(self.root):
            for path in (Path(folder), *(Path(folder, name) for name in files)):
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
                self._remember(descriptor)
                os.close(descriptor)
        self.patch.setattr(os, "fsync", self._sync)
        for change in ("link", "rename"):
            self.patch.setattr(os, change, self._checked(getattr(os, change)))

    def close(self) -> None:
        """Forget everything."""
        for descriptor in self._held:
            os.close(descriptor)
        self._held.clear()

    def leave(self, target: Path) -> None:
        """Write into a new folder what a power cut at this moment would leave."""
        self._leave(self.root.stat().st_ino, target)

    def _leave(self, folder: int, target: Path) -> None:
        target.mkdir()
        for name, (inode, is_folder) in self._names.get(folder, {}).items():
            if is_folder:
                self._leave(inode, target / name)
                continue
            content = self._contents.get(inode, _Content(b"", 0o600, 0))
            (target / name).write_bytes(content.data)
            (target / name).chmod(content.mode)
            os.utime(target / name, ns=(content.mtime_ns, content.mtime_ns))

    def _sync(self, descriptor: int) -> None:
        self._remember(descriptor)  # before, because what comes during a sync may come too late
        self._fsync(descriptor)

    def _remember(self, descriptor: int) -> None:
        self._held.append(os.dup(descriptor))
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(descriptor) as entries:
                self._names[status.st_ino] = {
                    entry.name: (entry.inode(), entry.is_dir(follow_symlinks=False))
                    for entry in entries
                }
        else:
            self._contents[status.st_ino] = _read(descriptor, status)

    def _checked(self, change: Any) -> Any:
        def checked(source: Any, target: Any, **options: Any) -> None:
            change(source, target, **options)
            descriptor = os.open(target, os.O_RDONLY, dir_fd=options.get("dst_dir_fd"))
            try:
                status = os.fstat(descriptor)
                path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
                is_staged = "/.private_pypi/tmp/" in path
                now = _read(descriptor, status)
                if not is_staged and self._contents.get(status.st_ino) != now:
                    self.unfinished.append(path)
            finally:
                os.close(descriptor)

        return checked


def _read(descriptor: int, status: os.stat_result) -> _Content:
    # Through another descriptor, because this one may be for writing only.
    data = Path(f"/proc/self/fd/{descriptor}").read_bytes()
    return _Content(data, stat.S_IMODE(status.st_mode), status.st_mtime_ns)
