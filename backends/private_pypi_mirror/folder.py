"""An index that is a folder of this machine: `<project>/index.html` and the files it links to.

Files are read in this folder and in the one that it is in, as in `simple/demo/index.html` with a
link to `../../packages/demo-1.0.zip`. Only distribution files and their core metadata are read,
because other files beside the index are no part of it. No symbolic link is followed (see
`private_pypi.backend.open_folder`).
"""

from __future__ import annotations

import contextlib
import errno
import os
import time
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from private_pypi.backend import system_errors
from private_pypi.backend.open_folder import OpenFolder, WrongKind
from private_pypi.distributions.filenames import parse_filename, project_name
from private_pypi.errors import (
    BackendError,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
    ProjectNotFound,
)

_PAGE: Final = "index.html"
_CLOCK_TICK: Final = 2.0  # seconds; the coarsest resolution of modification times
_ABSENT: Final = (errno.ENOENT, errno.ENOTDIR)


class Folder:
    """The folder of an index."""

    def __init__(self, url: str) -> None:
        """`url` is a checked address that begins with `file:`."""
        self._path = path_of(url)

    def page_url(self, project: str) -> str:
        """The address of the page of a project, to which its links are relative."""
        return f"file://{quote(str(self._path / project))}/{_PAGE}"

    def read_page(self, project: str, validator: str, most: int) -> tuple[bytes, str] | None:
        """The page of a project, at most `most` bytes of it, and its validator.

        None: it has not changed since `validator` was returned. Raises `ProjectNotFound`.
        """
        with self._opened() as root:
            try:
                folder = root.enter(project)
            except FileNotFoundError:
                if not root.names():
                    # The disk of it may not be mounted.
                    raise BackendError(f"{str(self._path)!r} is empty, so it is no index") from None
                raise ProjectNotFound(project) from None
            with folder:
                try:
                    file = folder.open(_PAGE)
                except FileNotFoundError:
                    raise BackendError(f"{folder.path!r} has no file {_PAGE!r}") from None
                with file:
                    status = os.fstat(file.fileno())
                    # A file that was written just now may change once more at the same moment.
                    is_old = not 0 <= time.time() - status.st_ctime < _CLOCK_TICK
                    found = f"{status.st_ino} {status.st_size} {status.st_ctime_ns}"
                    if is_old and found == validator:
                        return None
                    return file.read(most), found if is_old else ""

    def projects(self) -> list[str]:
        """The names of the folders in it."""
        with self._opened() as root, root.entries() as entries:
            names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        found = sorted(name for name in names if project_name(name) is not None)
        if not found:
            raise BackendError(f"{str(self._path)!r} has no folder of a project")
        return found

    def open_file(self, location: str, filename: str) -> BufferedReader:
        """A file that a page links to, open; raises `FileNotFound` and `InvalidUpload`.

        `filename` must be the last component of its address.
        """
        try:
            parse_filename(filename.removesuffix(".metadata"))
        except InvalidFilename:
            raise FileNotFound(filename) from None
        try:
            steps = path_of(location).parts
        except ValueError as error:
            raise BackendError(f"the address of {filename} is not used: {error}") from None
        with self._opened() as root, contextlib.ExitStack() as opened:
            folder, below = self._nearest(root, steps, opened)
            if not below:
                raise BackendError(
                    f"the address of {filename} is not used: it is neither in {str(self._path)!r} "
                    "nor in the folder above"
                )
            if below[-1] != filename:
                raise FileNotFound(filename)
            try:
                for step in below[:-1]:
                    folder = opened.enter_context(folder.enter(step))
                return folder.open(filename)
            except OSError as error:
                if error.errno in _ABSENT:
                    raise FileNotFound(filename) from None
                raise
            except WrongKind as error:
                raise InvalidUpload(
                    f"{filename}: {error}; it is not served, put the file itself there"
                ) from None

    def _nearest(
        self, root: OpenFolder, steps: tuple[str, ...], opened: contextlib.ExitStack
    ) -> tuple[OpenFolder, tuple[str, ...]]:
        """The folder that files may be read in, and the steps from there; no steps: none may."""
        for path in (self._path, self._path.parent):
            above = path.parts
            # The folder that has everything is not one that belongs to the index.
            if len(above) > 1 and steps[: len(above)] == above:
                is_own = path == self._path
                folder = root if is_own else opened.enter_context(OpenFolder.at(path))
                return folder, steps[len(above) :]
        return root, ()

    @contextlib.contextmanager
    def _opened(self) -> Iterator[OpenFolder]:
        with system_errors(f"cannot read the index in {str(self._path)!r}"):
            try:
                with OpenFolder.at(self._path) as root:
                    yield root
            except WrongKind as error:
                raise BackendError(f"{error}; links are not followed") from None


def path_of(url: str) -> Path:
    """The normalised path of an address that begins with `file:`; raises `ValueError` for others.

    The path has no component `..`.
    """
    parts = urlsplit(url)
    path = unquote(parts.path)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or "\0" in path:
        raise ValueError("not the address of a file of this machine")
    # `urljoin` has removed these from links, but not if they were written as %2e.
    if ".." in path.split("/"):
        raise ValueError("the address leads upwards")
    return Path("/", path.lstrip("/"))
