"""The folder of a site: its settings, the files of its projects, and the hosted files.

    site.toml                             settings of the site
    projects/<name>.toml                  one file for each project (`project_file`)
    packages/<name>/<filename>            files that the site hosts itself
    packages/<name>/<filename>.metadata   core metadata, for installers and for pages
    readmes/<name>/<version>.md           of versions without files
    templates/                            own templates, instead of those of private_pypi

The pages are made from this and are never read back. The folder may be a git repository.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import filelock
import tomli
from packaging.utils import NormalizedName

from private_pypi.backend import system_errors
from private_pypi.distributions.filenames import is_filename, normalize
from private_pypi.errors import BackendUnavailable, ConfigurationError, NotConfigured
from private_pypi_static_site.project_file import (
    InvalidProject,
    Project,
    format_project,
    is_url,
    parse_project,
    read_project,
    read_text,
)

SETTINGS: Final = "site.toml"
LARGEST_HOSTED: Final = 100 * 1000 * 1000
"""Bytes; GitHub refuses larger files in a repository ("About large files on GitHub")."""

_NAME: Final = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteSettings:
    """What `site.toml` says."""

    title: str = "Python packages"
    url: str = ""  # where the site is served, with a final slash; commands on its pages need it
    check_public_index: bool = True  # whether names are compared with those of the public index
    public_index: str = ""  # its address, for a mirror; "": the one that all tools know
    readmes: bool = True  # whether pages have descriptions


class SiteFolder:
    """A site in a folder. Its methods raise `ConfigurationError` for what is wrong in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @property
    def packages(self) -> Path:
        """The hosted files, in a folder for each project."""
        return self.root / "packages"

    def settings(self) -> SiteSettings:
        """Read `site.toml`; raises `NotConfigured` if the folder is no site."""
        path = self.root / SETTINGS
        try:
            values = tomli.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise NotConfigured(
                f"{str(self.root)!r} is no site, because it has no {SETTINGS}; "
                "run private_pypi static_site.init there"
            ) from None
        except (OSError, UnicodeDecodeError, tomli.TOMLDecodeError, RecursionError) as error:
            raise ConfigurationError(f"{path}: {error}") from error
        kinds = {
            "title": str,
            "url": str,
            "check_public_index": bool,
            "public_index": str,
            "readmes": bool,
        }
        for key, value in values.items():
            if key not in kinds:
                raise ConfigurationError(f"{path}: {key!r} is unknown; known: {', '.join(kinds)}")
            if type(value) is not kinds[key]:
                raise ConfigurationError(f"{path}: {key!r} has a wrong type: {value!r}")
        settings = SiteSettings(**values)
        for key, address in (("url", settings.url), ("public_index", settings.public_index)):
            if address and not is_url(address):
                raise ConfigurationError(f"{path}: {key!r} is no http or https address")
        if not settings.title.isprintable():
            raise ConfigurationError(f"{path}: 'title' has control characters")
        return SiteSettings(**{**values, "url": f"{settings.url.rstrip('/')}/".lstrip("/")})

    # -- projects ----------------------------------------------------------------------------------

    def names(self) -> list[NormalizedName]:
        """The normalised names of all projects, in order."""
        folder = self.root / "projects"
        with system_errors(f"cannot list {str(folder)!r}"):
            if not folder.is_dir():
                if self.packages.exists():  # in a sparse clone, say; the pages must not go
                    raise ConfigurationError(
                        f"{str(folder)!r} is missing, but {str(self.packages)!r} is there; "
                        "restore it"
                    )
                return []
            names = [path.stem for path in folder.iterdir() if path.suffix == ".toml"]
        for name in names:
            if not _NAME.fullmatch(name):
                raise InvalidProject(
                    f"projects/{name}.toml: the file must be called {normalize(name)}.toml"
                )
        return sorted(map(normalize, names))

    def project(self, name: NormalizedName) -> Project | None:
        """A project; None if the site does not have it."""
        try:
            return read_project(self._file_of(name))
        except FileNotFoundError:
            return None

    def projects(self) -> Iterator[Project]:
        """All projects, by name."""
        for name in self.names():
            yield read_project(self._file_of(name))

    def project_text(self, name: NormalizedName) -> str:
        """The file of a project as text, for those who need not parse it if it has not changed."""
        return read_text(self._file_of(name))

    def write_project(self, project: Project) -> None:
        """Write the file of a project, and keep the comments that somebody made in it."""
        path = self._file_of(project.normalized)
        old = path.read_text(encoding="utf-8") if path.exists() else None
        text = format_project(project, old)
        # What could not be read again would break the site.
        parse_project(text, project.normalized, where=f"projects/{path.name}")
        self.write(path, text.encode())

    def delete_project(self, name: NormalizedName) -> None:
        """Remove the file of a project; its hosted files stay."""
        self.require_inside(self._file_of(name))
        with system_errors(f"cannot delete {name!r}"):
            self._file_of(name).unlink(missing_ok=True)

    def _file_of(self, name: NormalizedName) -> Path:
        assert _NAME.fullmatch(name), name
        return self.root / "projects" / f"{name}.toml"

    # -- files -------------------------------------------------------------------------------------

    def hosted(self, name: NormalizedName, filename: str) -> Path:
        """Where the site has a file, or would have it."""
        assert _NAME.fullmatch(name) and is_filename(filename), (name, filename)
        return self.packages / name / filename

    def core_metadata(self, name: NormalizedName, filename: str) -> Path:
        """Where the site has the core metadata of a file, or would have them."""
        path = self.hosted(name, filename)
        return path.with_name(f"{path.name}.metadata")

    def readme(self, name: NormalizedName, version: str) -> Path:
        """Where the site has the README of a version without files, or would have it."""
        return self.root / "readmes" / name / f"{version}.md"

    def require_inside(self, path: Path) -> None:
        """Raise `ConfigurationError` if a folder on the way to a path of the site is a link.

        A pull request can contain links, and what is written through one could be anywhere.
        """
        for parent in path.relative_to(self.root).parents:
            if (self.root / parent).is_symlink() and parent != Path():
                raise ConfigurationError(
                    f"{str(self.root / parent)!r} is a symbolic link; it must be a folder"
                )

    def write(self, path: Path, content: bytes) -> None:
        """Write a file of the site, so that nobody sees a part of it."""
        self.require_inside(path)
        part = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        with system_errors(f"cannot write {str(path)!r}"):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                part.write_bytes(content)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Exclude other commands that change the site; the lock is not a part of the site."""
        lock = filelock.FileLock(self.root / ".private_pypi-site.lock")
        with system_errors(f"cannot lock {str(self.root)!r}"):
            try:
                lock.acquire(timeout=60)
            except filelock.Timeout:
                raise BackendUnavailable(
                    f"another command is changing {str(self.root)!r}"
                ) from None
        try:
            yield
        finally:
            lock.release()
