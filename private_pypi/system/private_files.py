"""Writes files that only their owner may read, completely or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path


def write_private(path: Path, text: str, *, replace: bool) -> bool:
    """Write a file that only its owner may read (mode 0600), completely or not at all.

    Returns False if the file exists and `replace` is false.
    """
    if not replace and hasattr(os, "O_TMPFILE"):  # Linux only
        with contextlib.suppress(OSError):  # some file systems do not support it
            return _create_private(path, text)
    descriptor, part = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        _fill(descriptor, text)
        if replace:
            Path(part).replace(path)
        else:
            os.link(part, path)  # unlike a rename, this fails if the file exists
    except FileExistsError:
        return False
    finally:
        with contextlib.suppress(FileNotFoundError):
            Path(part).unlink()
    return True


def _create_private(path: Path, text: str) -> bool:
    """The same with a file that gets its name last, so that a killed process leaves nothing."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        descriptor = os.open(path.parent, os.O_TMPFILE | os.O_WRONLY, 0o600)
        try:
            _fill(os.dup(descriptor), text)
            # Python follows the symbolic link in /proc only if it gets a descriptor of the folder.
            os.link(f"/proc/self/fd/{descriptor}", path.name, dst_dir_fd=folder)
        except FileExistsError:
            return False
        finally:
            os.close(descriptor)
    finally:
        os.close(folder)
    return True


def _fill(descriptor: int, text: str) -> None:
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power cut, as `fsync` does for the content of files."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
