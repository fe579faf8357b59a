"""What a repository answers to a caller: the contract between the web and the repositories.

There are three questions: which projects there are, what one project has, and the content of a
file. All pages of an index, for tools and for people, are made of the answers.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol

from packaging.utils import NormalizedName

from private_pypi.backend import Secret
from private_pypi.index.local import LocalIndex
from private_pypi.model import DistributionFile, Freshness
from private_pypi.repositories.opening import Opened
from private_pypi.storage.arriving import Arriving


@dataclass(frozen=True, slots=True)
class ProjectList:
    """The projects that a caller may see."""

    kept_in: Hashable
    """Together with the serial, the key under which a page of the list is kept in memory."""
    serial: int  # grows with every change of the list; 0 if callers see different lists
    freshness: Freshness
    read: Callable[[], Sequence[tuple[NormalizedName, int]]]
    """Reads the projects, of which there may be many, ordered by name. Each comes with the serial
    of its page, or with 0 if that is unknown."""

    def names(self) -> list[NormalizedName]:
        """The names only."""
        return [name for name, _ in self.read()]


@dataclass(frozen=True, slots=True)
class Found:
    """A project that the caller may see and that has files."""

    project: NormalizedName
    serial: int  # grows with every change of the project
    freshness: Freshness
    index: LocalIndex

    @property
    def kept_in(self) -> Hashable:
        """Together with the name and the serial, the key under which pages are kept in memory."""
        return self.index

    def files(self) -> tuple[DistributionFile, ...]:
        """Read the files, ordered by version (PEP 440), then by name."""
        return self.index.project_files(self.project)


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The repository has no such project, and clients may ask another index for it."""

    url: str  # of the project's page there


@dataclass(frozen=True, slots=True)
class Absent:
    """The repository has no such project, and clients are sent to no other index."""


class Source(Protocol):
    """The three questions. `secret` is that of the caller; its rights were checked before.

    Trouble is raised as an error (`private_pypi.errors`) and never reported as absence.
    """

    def list_projects(self, secret: Secret) -> ProjectList:
        """The projects that the caller may see."""

    def find(self, project: NormalizedName, secret: Secret) -> Found | Elsewhere | Absent:
        """A project, or whether it may be looked for elsewhere."""

    def open_file(
        self, file: DistributionFile, secret: Secret, awaited: Arriving | None = None
    ) -> Opened:
        """The content of a file of a project that `find` has found.

        `awaited`: what an earlier call returned, if the caller has waited for it since.
        """
