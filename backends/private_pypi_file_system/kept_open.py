"""Keeps the storage folder and one folder in it open, for reading many files one after another.

To open both again for each file takes longer than to read most files.
"""

from __future__ import annotations

from io import BufferedReader
from pathlib import Path
from typing import Self

from private_pypi.backend.open_folder import OpenFolder, WrongKind


class KeptOpen:
    """The folders that were used last. A context manager, for one thread.

    What is open may have been moved or replaced since. So what is found in it is listed there or
    was so a moment ago, but nothing is known about what is not found.
    """

    def __init__(self, path: Path) -> None:
        """`path` is that of the storage folder. Nothing is opened yet."""
        self._path = path
        self._storage: OpenFolder | None = None
        self._folder: OpenFolder | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._folder, self._storage):
            if each is not None:
                each.close()
        self._folder = self._storage = None

    def folder(self, name: str) -> OpenFolder | None:
        """The folder of this name, which stays open; "": the storage folder. None: not found.

        Do not close it, and use it before the next call.
        """
        try:
            if self._storage is None:
                self._storage = OpenFolder.at(self._path)
            if not name:
                return self._storage
            if self._folder is None or self._folder.name != name:
                before, self._folder = self._folder, None
                if before is not None:
                    before.close()
                self._folder = self._storage.enter(name)
        except (FileNotFoundError, WrongKind):
            return None
        return self._folder

    def open(self, folder_name: str, filename: str) -> BufferedReader | None:
        """Open a file of this folder for reading; None: not found."""
        folder = self.folder(folder_name)
        try:
            return None if folder is None else folder.open(filename)
        except (FileNotFoundError, WrongKind):
            return None
