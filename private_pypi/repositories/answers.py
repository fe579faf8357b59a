"""What a repository answers to a caller, as values. All pages of an index are made of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from packaging.utils import NormalizedName

from private_pypi.index.local import LocalIndex
from private_pypi.index.rows import file_order
from private_pypi.model import Freshness, ListedFile, ProjectPage, ShownColumns
from private_pypi.repositories.opening import Opened


@dataclass(frozen=True, slots=True)
class ProjectList:
    """The projects that a caller may see."""

    kept_in: Hashable
    """Together with the serial, the key under which a page of the list is kept in memory."""
    serial: int  # grows with every change of the list; 0 if callers see different lists
    freshness: Freshness
    read: Callable[[], Iterable[tuple[NormalizedName, int]]]
    """Reads the projects, of which there may be many, ordered by name. Each comes with the serial
    of its page, or with 0 if that is unknown."""

    def names(self) -> list[NormalizedName]:
        """The names only."""
        return [name for name, _ in self.read()]


class StoredPage:
    """Reads a page that has all files of a project in a local index."""

    __slots__ = ("_index", "_project")

    def __init__(self, index: LocalIndex, project: NormalizedName) -> None:
        self._index = index
        self._project = project

    def __call__(self) -> ProjectPage:
        """What the page says."""
        return ProjectPage(self._index.project_files(self._project))

    def rows(self) -> Sequence[ShownColumns]:
        """The part of it that tools are shown, without making a `ListedFile` of each row."""
        return self._index.shown_rows(self._project)


@dataclass(frozen=True, slots=True)
class Found:
    """A project that the caller may see. It may have no files that are shown."""

    project: NormalizedName
    serial: int  # grows with every change of the project
    freshness: Freshness
    kept_in: Hashable
    """Together with the name and the serial, the key under which pages are kept in memory."""
    read: Callable[[], ProjectPage]
    """Reads what the page of the project says."""
    count: int | None = None  # of its files; None: it is not known before they are read

    def files(self) -> Sequence[ListedFile]:
        """Read the files, ordered by version (PEP 440), then by name."""
        return self.read().files

    def rows(self) -> Sequence[ShownColumns] | None:
        """Read what tools are shown as rows of a local index; None: `read` the page instead."""
        return self.read.rows() if isinstance(self.read, StoredPage) else None


@dataclass(frozen=True, slots=True)
class ToFetch:
    """A file, or its core metadata, that is not on this machine and has to be fetched."""

    file: ListedFile
    begin: Callable[[], Opened]
    """Begins to fetch the content, or joins those who wait for it. It waits for nothing."""


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """The repository has no such project, and clients may ask another index for it."""

    url: str  # of the project's page there


@dataclass(frozen=True, slots=True)
class Absent:
    """The repository has no such project, and clients are sent to no other index."""


def mixed_found(project: NormalizedName, answers: Mapping[tuple[str, ...], Found]) -> Found:
    """The files of several repositories as one project, each with the path of its repository.

    Of files with equal names, the first one counts.
    """

    def read() -> ProjectPage:
        pages = [(path, found.read()) for path, found in answers.items()]
        files: dict[str, ListedFile] = {}
        for path, page in pages:
            for file in page.files:
                files.setdefault(file.filename, replace(file, source=path))
        # What one index says of its project holds for all files only if all say it.
        statuses = {page.status for _, page in pages if page.files} or {pages[0][1].status}
        ordered = sorted(files.values(), key=lambda file: file_order(file.version, file.filename))
        return ProjectPage(ordered, statuses.pop() if len(statuses) == 1 else None)

    ages = [each.freshness.age for each in answers.values() if each.freshness.age is not None]
    return Found(
        project,
        sum(found.serial for found in answers.values()),
        Freshness(max(ages, default=None)),
        ("mix", *((path, found.kept_in, found.serial) for path, found in answers.items())),
        read,
    )
