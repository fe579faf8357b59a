"""The folders of repositories below ROOT. The content of their files is not read here."""

from __future__ import annotations

import os
from pathlib import Path

from private_pypi.backend import Folders
from private_pypi.errors import BackendError, cause_of


def make_folders(root: Path, name: str, tmp: Path) -> Folders:
    """The folders of one repository below ROOT (docs/operations.md lists them)."""
    return Folders(
        cache=made(root / "cache" / name), lock=made(root / "lock" / name), tmp=made(tmp)
    )


def has_state(root: Path, name: str) -> bool:
    """Whether a repository of this name has left files below ROOT.

    Empty folders do not count: they are made before it is known whether a configuration is valid.
    """
    return any(_has_file(root / folder / name) for folder in ("cache", "index"))


def made(folder: Path) -> Path:
    """The folder, after making it if necessary."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _has_file(folder: Path) -> bool:
    def stop(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            raise BackendError(f"{folder} cannot be read: {cause_of(error)}") from error

    if folder.is_symlink():  # only the operator makes one
        return True
    return any(files for _, _, files in os.walk(folder, onerror=stop))
