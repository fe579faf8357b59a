"""The releases of a project and their core metadata, with the rights of the caller."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing

from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.distributions.core_metadata import read_core_metadata
from private_pypi.distributions.filenames import is_version
from private_pypi.errors import (
    FileNotFound,
    InvalidUpload,
    NotFound,
    ProjectNotFound,
)
from private_pypi.index.examining import chunks_of
from private_pypi.model import ListedFile, Redirect
from private_pypi.pages.releases import Release, releases_of, with_metadata_first
from private_pypi.repositories import Found, Grant, whole

_LARGEST_OPENED = 64 * 2**20  # bytes of a file; larger ones are not read for their core metadata
_MOST_OPENED = 3  # files of a release, of which the first one with core metadata is used
_LARGEST_METADATA = 16 * 2**20  # bytes


def find_releases(granted: Grant, project: NormalizedName) -> tuple[tuple[Release, ...], Found]:
    """The releases of a project, newest first, and the project itself.

    Raises `ProjectNotFound`, or `BackendUnavailable` if it is not known whether the project exists.
    """
    found = granted.find(project)
    files = found.files() if isinstance(found, Found) else ()
    if not isinstance(found, Found) or not files:
        raise ProjectNotFound(project)
    return releases_of(files), found


def find_release(releases: Sequence[Release], project: str, version: str) -> Release:
    """The release of a version, in any spelling of PEP 440. Raises `NotFound`."""
    for release in releases:
        if is_version(version, Version(release.version)):
            return release
    raise NotFound(f"no release {version!r} of project {project!r} in this repository")


def core_metadata_of(granted: Grant, release: Release) -> bytes | None:
    """The core metadata of the first file of a release that has any; None if none has.

    Raises what `Grant.open_file` raises if the storage is in trouble.
    """
    for file in with_metadata_first(release.files)[:_MOST_OPENED]:
        try:
            content = _core_metadata(granted, file)
        except (FileNotFound, InvalidUpload):
            continue
        if content is not None:
            return content
    return None


def _core_metadata(granted: Grant, file: ListedFile) -> bytes | None:
    """The core metadata beside the file, or else that in the file if it is small enough."""
    if file.offers_core_metadata:
        opened = whole(granted.open_core_metadata(file))
        if isinstance(opened, Redirect):
            return _all_of(opened, file.filename)
        with closing(opened):
            return opened.read(_LARGEST_METADATA)
    if file.size is None or file.size > _LARGEST_OPENED:
        return None
    opened = whole(granted.open_file(file))
    if isinstance(opened, Redirect):
        return None
    with closing(opened):
        return read_core_metadata(opened, file.filename)


def _all_of(there: Redirect, filename: str) -> bytes | None:
    content = bytearray()
    for chunk in chunks_of(there, filename):
        content += chunk
        if len(content) > _LARGEST_METADATA:
            return None
    return bytes(content)
