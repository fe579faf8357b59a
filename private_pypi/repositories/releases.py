"""Finds the files of one release among those of a project."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from packaging.version import Version

from private_pypi.distributions.filenames import is_version
from private_pypi.errors import NotFound
from private_pypi.model import ListedFile

ListedFileT = TypeVar("ListedFileT", bound=ListedFile)


def files_of_release(
    all_files: Sequence[ListedFileT], project: str, version: str
) -> Sequence[ListedFileT]:
    """The files of a version, which is compared as PEP 440 says; raises `NotFound`."""
    # If there are both 1.0 and 1.0.0, the exact spelling counts.
    files = tuple(file for file in all_files if file.version == version) or tuple(
        file for file in all_files if is_version(version, Version(file.version))
    )
    if not files:
        raise NotFound(f"no release {version!r} of project {project!r} in this repository")
    return files
