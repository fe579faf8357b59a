"""Finds out what is wrong in the folder of a site; changes nothing, and asks no other server.

`linked_files` looks at the files that are elsewhere.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from packaging.utils import NormalizedName

from private_pypi.errors import ConfigurationError, NotConfigured
from private_pypi_static_site.folder import LARGEST_HOSTED, SiteFolder, SiteSettings
from private_pypi_static_site.project_file import InvalidProject, Project, SiteFile, by_filename

_PIECE: Final = 1 << 20  # bytes
_LARGEST_METADATA: Final = 32 << 20  # bytes


@dataclass(slots=True)
class Checked:
    """What is in a site, as far as it can be read, and what is wrong in it."""

    settings: SiteSettings = field(default_factory=SiteSettings)
    projects: list[Project] = field(default_factory=list)  # by name, without the broken ones
    broken: set[str] = field(default_factory=set)  # names of projects whose files are wrong
    problems: list[str] = field(default_factory=list)  # sentences


def check_site(
    folder: SiteFolder, progress: Callable[[int, int, str], None] = lambda *_: None
) -> Checked:
    """Read all that a site has, with the content of its hosted files.

    Raises `NotConfigured` if the folder is no site.
    """
    found = Checked()
    try:
        found.settings = folder.settings()
    except NotConfigured:
        raise
    except ConfigurationError as error:
        found.problems += error.problems
    for path in _listed(folder.root / "projects"):
        if path.name == ".gitkeep":  # of `static_site.init`, so that git keeps the folder
            continue
        name = path.name.removesuffix(".toml")
        try:
            if name == path.name or not _is_name(name):
                raise InvalidProject(
                    f"{_shown(folder, path)}: no file of a project; such a file is called "
                    "<normalised name>.toml"
                )
            project = folder.project(NormalizedName(name))
            if project is None:  # a link that leads nowhere
                raise InvalidProject(f"{_shown(folder, path)}: not a regular file")
            found.projects.append(project)
        except ConfigurationError as error:
            found.broken.add(name)
            found.problems += error.problems
        except OSError as error:
            found.broken.add(name)
            found.problems.append(f"{_shown(folder, path)}: cannot be read: {error.strerror}")
    for done, project in enumerate(found.projects, 1):
        found.problems += problems_of(folder, project)
        progress(done, len(found.projects), "projects checked")
    found.problems += _foreign(folder, found)
    found.problems += _links(folder)
    return found


def _is_name(text: str) -> bool:
    parts = text.split("-")
    return all(part.isascii() and part.isalnum() and part == part.lower() for part in parts)


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, by name; nothing if it is not there."""
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigurationError(f"cannot list {str(folder)!r}: {error.strerror}") from error


def problems_of(folder: SiteFolder, project: Project) -> Iterator[str]:
    """What is wrong with the files that the site hosts, and with core metadata beside them."""
    name = project.normalized
    for file in by_filename(project).values():
        if file.url is None:
            yield from _differences(
                folder, folder.hosted(name, file.filename), file.sha256, size=file.size
            )
        yield from _metadata_problems(folder, name, file)


def _metadata_problems(folder: SiteFolder, name: NormalizedName, file: SiteFile) -> Iterator[str]:
    path = folder.core_metadata(name, file.filename)
    # The core metadata of a linked file are beside it; the site may have a copy for its pages.
    if file.core_metadata_sha256 is not None and (file.url is None or os.path.lexists(path)):
        yield from _differences(folder, path, file.core_metadata_sha256)


def _differences(
    folder: SiteFolder, path: Path, sha256: str, size: int | None = None
) -> Iterator[str]:
    shown = _shown(folder, path)
    try:
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode):
            yield f"{shown}: not a regular file; put the file itself there"
            return
        if size is not None and status.st_size > LARGEST_HOSTED:
            yield (
                f"{shown}: larger than {LARGEST_HOSTED // 10**6} MB, which GitHub refuses; make it "
                "an asset of a release"
            )
        if size is not None and status.st_size != size:
            yield f"{shown}: has {status.st_size} bytes, but the project's file says {size}"
            return
        if size is None and status.st_size > _LARGEST_METADATA:
            yield f"{shown}: {status.st_size} bytes are too many for core metadata"
            return
        actual = _sha256(path)
    except FileNotFoundError:
        yield f"{shown}: missing, but the project's file says that the site has it"
        return
    except OSError as error:
        yield f"{shown}: cannot be read: {error.strerror}"
        return
    if actual != sha256:
        yield f"{shown}: its SHA-256 is {actual}, but the project's file says {sha256}"


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _foreign(folder: SiteFolder, found: Checked) -> Iterator[str]:
    """What is in packages/ and belongs to no project; what is under a link is not looked at."""
    projects = {str(each.normalized): each for each in found.projects}
    for place in _listed(folder.packages):
        if place.is_symlink() or not place.is_dir():
            yield f"{_shown(folder, place)}: does not belong there; delete it"
        elif place.name not in found.broken:
            project = projects.get(place.name)
            expected: set[str] = set()
            for file in by_filename(project).values() if project is not None else ():
                expected |= {f"{file.filename}.metadata"}
                expected |= {file.filename} if file.url is None else set()
            for path in _listed(place):
                if path.name not in expected:
                    yield (
                        f"{_shown(folder, path)}: no file of a project; delete it, or register it "
                        "with private_pypi static_site.update"
                    )


def _links(folder: SiteFolder) -> Iterator[str]:
    """Links that a build refuses; those to hosted files are problems of their projects."""
    for name in ("projects", "packages", "readmes", "templates"):
        top = folder.root / name
        below = sorted(top.rglob("*")) if name in ("readmes", "templates") else []
        for path in (top, *below):
            if path.is_symlink():
                yield f"{_shown(folder, path)}: a symbolic link; put there what it leads to"


def _shown(folder: SiteFolder, path: Path) -> str:
    # A name that is not UTF-8 could not be printed.
    return path.relative_to(folder.root).as_posix().encode(errors="replace").decode()
