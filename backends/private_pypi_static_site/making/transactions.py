"""Changes of a site that are made as a whole or not at all, even if the command is killed.

The file of a project decides what a site has. So files are added before it says that they are
there, and are removed after it says that they are gone. Before either, their names are written into
a journal. `sweep` removes those of the journal that no project has; it runs at the end of each
change, and before the next one in case that this one was killed.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from packaging.utils import NormalizedName

from private_pypi.backend import system_errors
from private_pypi.distributions.filenames import parse_filename, project_name
from private_pypi.errors import InvalidFilename
from private_pypi_static_site.folder import SiteFolder
from private_pypi_static_site.project_file import Project, format_project, parse_project

JOURNAL: Final = ".private_pypi-site.pending"
"""Exists while a site is being changed; it is not a part of the site."""

_PART: Final = re.compile(r"\..+\.[0-9a-f]{16}")  # what `SiteFolder.write` has not finished


@dataclass(frozen=True, slots=True)
class Change:
    """A change of one project. It is over when the `with` block of `changing` ends."""

    folder: SiteFolder
    name: NormalizedName

    def announce(self, filenames: Sequence[str], versions: Sequence[str]) -> None:
        """Write into the journal which files, and READMEs of which versions, come or go."""
        entries = [*_entries(self.folder), [self.name, list(filenames), list(versions)]]
        self.folder.write(self.folder.root / JOURNAL, json.dumps(entries).encode())

    def finish(self, project: Project) -> None:
        """Write the file of the project, after which the change counts."""
        where = f"projects/{project.normalized}.toml"
        parse_project(format_project(project), project.normalized, where=where)  # can be read again
        self.folder.write_project(project)


@contextlib.contextmanager
def changing(folder: SiteFolder, name: NormalizedName) -> Iterator[Change]:
    """Change one project while no other command changes the site."""
    with folder.changing():
        sweep(folder)
        try:
            yield Change(folder, name)
        finally:
            sweep(folder)


def sweep(folder: SiteFolder) -> None:
    """Remove what the journal names and no project has, and then the journal."""
    # A journal may come from somewhere else with the folder, so it is not trusted: it can only name
    # paths of the site that no project has.
    entries = list(_entries(folder))
    for text, filenames, versions in entries:
        name = project_name(text)
        if name is None:
            continue
        project = folder.project(name)
        for path in _unused(folder, name, project, filenames, versions):
            folder.require_inside(path)
            with system_errors(f"cannot delete {str(path)!r}"):
                path.unlink(missing_ok=True)
                for part in path.parent.glob(".*"):
                    if _PART.fullmatch(part.name):
                        part.unlink(missing_ok=True)
                with contextlib.suppress(OSError):  # it is not there, or has other files
                    path.parent.rmdir()
    for part in (folder.root / "projects").glob(".*"):
        if entries and _PART.fullmatch(part.name):
            part.unlink(missing_ok=True)
    with system_errors("cannot delete the journal"):
        (folder.root / JOURNAL).unlink(missing_ok=True)


def _unused(
    folder: SiteFolder,
    name: NormalizedName,
    project: Project | None,
    filenames: Sequence[str],
    versions: Sequence[str],
) -> Iterator[Path]:
    known = () if project is None else project.versions
    files = {file.filename: file for version in known for file in version.files}
    for filename in filenames:
        try:
            parsed = parse_filename(filename)
        except InvalidFilename:
            continue
        if parsed.project != name:
            continue
        file = files.get(filename)
        if file is None or file.url is not None:
            yield folder.hosted(name, filename)
        if file is None:
            yield folder.core_metadata(name, filename)
    without_files = {version.version for version in known if not version.files}
    for version in versions:
        if re.fullmatch("[0-9a-z.!+]+", version) and version not in without_files:
            yield folder.readme(name, version)


def _entries(folder: SiteFolder) -> Iterator[tuple[str, list[str], list[str]]]:
    path = folder.root / JOURNAL
    try:
        entries = json.loads(path.read_bytes()) if not path.is_symlink() else []
    except (FileNotFoundError, ValueError, RecursionError):
        return
    for entry in entries if isinstance(entries, list) else []:
        match entry:
            case [str(name), list(filenames), list(versions)]:
                yield (
                    name,
                    [each for each in filenames if isinstance(each, str)],
                    [each for each in versions if isinstance(each, str)],
                )
