"""Groups the files of a project into releases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Protocol, TypeVar

from packaging.version import Version

from private_pypi.model import ListedFile


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """The files of one version."""

    version: str
    files: tuple[ListedFile, ...]

    @property
    def is_prerelease(self) -> bool:
        """Whether installers ignore it by default, because it is a pre-release (PEP 440)."""
        return Version(self.version).is_prerelease

    @property
    def is_yanked(self) -> bool:
        """Whether all its files are yanked."""
        return all(file.yanked is not None for file in self.files)

    @property
    def uploaded_at(self) -> datetime | None:
        """When its first file was uploaded (UTC); None if that is unknown."""
        return min((file.uploaded_at for file in self.files if file.uploaded_at), default=None)

    @property
    def yank_reasons(self) -> tuple[str, ...]:
        """The reasons for which its files were yanked, each once."""
        return tuple(dict.fromkeys(file.yanked for file in self.files if file.yanked))

    @property
    def published_name(self) -> str | None:
        """The project's name as spelled in the metadata; None if that is the normalised name."""
        return next((file.published_name for file in self.files if file.published_name), None)

    @property
    def requires_python(self) -> str | None:
        """The `Requires-Python` of the first file that has one."""
        return next((file.requires_python for file in self.files if file.requires_python), None)


def releases_of(files: Sequence[ListedFile]) -> tuple[Release, ...]:
    """The releases, newest first, with wheels first. `files` must be ordered by version."""
    releases = [
        Release(version=version, files=tuple(sorted(group, key=_shown_first)))
        for version, group in groupby(files, key=lambda file: file.version)
    ]
    return tuple(reversed(releases))


class Choosable(Protocol):
    """What decides which release installers take."""

    @property
    def is_prerelease(self) -> bool: ...

    @property
    def is_yanked(self) -> bool: ...


_Choosable = TypeVar("_Choosable", bound=Choosable)


def current_release(releases: Sequence[_Choosable]) -> _Choosable:
    """The release that an installer would take by default.

    That is the newest final release that is not yanked, else the newest that is not yanked, else
    the newest. `releases` are ordered newest first and must not be empty.
    """
    usable = [release for release in releases if not release.is_yanked]
    final = [release for release in usable if not release.is_prerelease]
    return next(iter([*final, *usable, *releases]))


def with_metadata_first(files: Sequence[ListedFile]) -> list[ListedFile]:
    """The files, those first whose core metadata can be fetched most cheaply."""
    return sorted(files, key=lambda file: (not file.offers_core_metadata, file.size or 0))


def _shown_first(file: ListedFile) -> tuple[bool, str]:
    return not file.filename.endswith(".whl"), file.filename
