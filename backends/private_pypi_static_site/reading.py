"""The folder of a site as the storage of a server: what is read of it.

The files of projects say what there is, so a listing opens no distribution file. Only what has
changed since the last listing is read again. Publishing is in `publishing`.

Other people write to the folder, and git does so while the server runs. So nothing in it is opened
by its path (see `private_pypi.backend.open_folder`), one wrong file of a project does not hide the
others, and while git is changing the folder, what it lacks counts as trouble and not as absent.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from packaging.utils import NormalizedName

from private_pypi.backend import (
    Access,
    Secret,
    SecretsSettings,
    Storage,
    SupportsDelete,
    SupportsPublish,
    SupportsRestore,
    SupportsSweep,
    SupportsYank,
    system_errors,
)
from private_pypi.backend.open_folder import OpenFolder, WrongKind
from private_pypi.distributions.filenames import normalize, parse_filename
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    LocalFile,
    Record,
    Redirect,
    StoredFile,
    Unlisted,
)
from private_pypi_static_site.folder import SETTINGS
from private_pypi_static_site.git import lock_of
from private_pypi_static_site.project_file import (
    LARGEST,
    InvalidProject,
    Project,
    SiteFile,
    by_filename,
    parse_project,
)

if TYPE_CHECKING:
    from private_pypi_static_site.backend import StaticSiteBackend

_CLOCK_TICK: Final = 2.0  # seconds; the coarsest resolution of modification times
_LARGEST_METADATA: Final = 16 << 20  # bytes; larger ones are not offered
_OF_THIS_PROCESS: Final = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM}
_PATIENCE: Final = 10.0  # seconds for which a listing waits for git
_LOOKS: Final = 5  # how often a folder that changes is looked at again
_HEADER: Final = re.compile(r"(?mi)^(summary|keywords):[ \t]*(\S.*)$")

_Signature = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class StaticSiteSettings(SecretsSettings):
    """The table of a `static_site` repository."""

    names_storage = ("path",)

    path: Path  # the folder of the site
    publish: Literal["no", "files", "commits"] = "no"
    """Whether uploads are accepted, and if so, whether each change is committed to git."""
    push: bool = False  # whether each commit is pushed before the change is acknowledged

    def __post_init__(self) -> None:
        if self.push and self.publish != "commits":
            raise ValueError('push: there is nothing to push without publish = "commits"')


@dataclass(frozen=True, slots=True)
class Known:
    """What the file of a project said when it was read last."""

    signature: _Signature | None  # None: the file was too new to be trusted
    project: Project | None
    listed: tuple[StoredFile | Unlisted, ...]


class StaticSiteStorage(Storage["StaticSiteBackend"]):
    """A site that is only read."""

    lacks = frozenset(
        {SupportsPublish, SupportsDelete, SupportsRestore, SupportsYank, SupportsSweep}
    )

    def __init__(self, backend: StaticSiteBackend, secret: Secret) -> None:
        super().__init__(backend, secret)
        self.settings = backend.settings

    def access(self, project: str | None = None) -> Access:
        return self.settings.access_of(self.secret)

    def list_files(self) -> Iterator[StoredFile | Unlisted]:
        with self._trouble("list the files"), self._opened() as site:
            known, listed = self._settled(site)
        # Threads replace this mapping as a whole.
        self.backend.known = known
        yield from listed

    def projects(self) -> Iterator[str]:
        """Also those without files: their names must not be looked for at another index."""
        with self._trouble("list the projects"), self._opened() as site:
            self._wait_for_git()
            signatures, wrong = _project_files(site)
        named = {normalize(each.location.removesuffix("/")) for each in wrong}
        yield from sorted(named.union(signatures) - {""})

    def open_file(self, file: FileHandle) -> Download:
        with self._trouble(f"open {file.filename!r}"), self._opened() as site:
            try:
                with entered(site, "packages", project_of(file)) as folder:
                    return LocalFile(folder.open(file.filename))
            except FileNotFoundError:
                return self._elsewhere(site, file)
            except WrongKind as error:
                if error.wanted == "a folder":
                    raise
                raise InvalidUpload(
                    f"{file.filename}: {error}; it is not served, put the file itself there"
                ) from error

    def open_core_metadata(self, file: DistributionFile) -> Download:
        name = f"{file.filename}.metadata"
        with (
            self._trouble(f"open the core metadata of {file.filename!r}"),
            self._opened() as site,
        ):
            try:
                with entered(site, "packages", project_of(file)) as folder:
                    return LocalFile(folder.open(name))
            except (FileNotFoundError, WrongKind):  # the core reads them from the file
                raise FileNotFound(name) from None

    # -- for publishing as well ------------------------------------------------------------------

    @property
    def _name(self) -> str:
        return f"the site {str(self.settings.path)!r}"

    @contextlib.contextmanager
    def _opened(self) -> Iterator[OpenFolder]:
        """The folder. It has to be a site: the folder of a disk that is not mounted is empty."""
        try:
            site = OpenFolder.at(self.settings.path)
        except (FileNotFoundError, NotADirectoryError):
            raise BackendError(f"{self._name} is not there; mount it, or correct 'path'") from None
        with site:
            if not site.has(SETTINGS):
                raise BackendError(
                    f"{self._name} has no {SETTINGS}; mount the right folder, or run "
                    "private_pypi static_site.init there"
                )
            yield site

    @contextlib.contextmanager
    def _trouble(self, what: str) -> Iterator[None]:
        """Turn errors of the operating system, and `WrongKind`, into errors of private_pypi."""
        with system_errors(f"cannot {what} in {self._name}"):
            try:
                yield
            except WrongKind as error:
                raise BackendError(f"cannot {what} in {self._name}: {error}; remove it") from error

    def _read(self, site: OpenFolder, name: str) -> tuple[Project | None, str | None]:
        """A project and the text of its file; None if there is none. Raises `InvalidProject`."""
        try:
            with site.enter("projects") as projects:
                text = _text_of(projects, name)
        except FileNotFoundError:
            return None, None
        return parse_project(text, name, where=f"projects/{name}.toml"), text

    # -- listing ---------------------------------------------------------------------------------

    def _settled(
        self, site: OpenFolder
    ) -> tuple[dict[str, Known], tuple[StoredFile | Unlisted, ...]]:
        """All projects, read while git did not change the folder."""
        for _ in range(_LOOKS):
            self._wait_for_git()
            signatures, wrong = _project_files(site)
            known = self._read_all(site, signatures)
            if _project_files(site)[0] == signatures and self._git_lock() is None:
                break
            self.backend.known = known  # so that the next look is short
        # Otherwise somebody publishes all the time, file by file, which does no harm.
        return known, (*wrong, *(each for one in known.values() for each in one.listed))

    def _read_all(self, site: OpenFolder, signatures: Mapping[str, _Signature]) -> dict[str, Known]:
        before, known = self.backend.known, {}
        for name, signature in signatures.items():
            old = before.get(name)
            if old is not None and old.signature == signature:
                known[name] = old
                continue
            with contextlib.suppress(FileNotFoundError):  # removed since
                known[name] = self._look_at(site, name, signature)
        return known

    def _look_at(self, site: OpenFolder, name: str, signature: _Signature) -> Known:
        modified_at = signature[2] / 1e9
        # A second change within the same tick of the clock would not change the modification time.
        is_settled = abs(time.time() - modified_at) > _CLOCK_TICK
        kept = signature if is_settled else None
        where = f"projects/{name}.toml"
        try:
            with site.enter("projects") as projects:
                project = parse_project(_text_of(projects, name), name, where=where)
        except (InvalidProject, WrongKind) as error:
            return Known(kept, None, (_unlisted(name, f"{error}"),))
        except FileNotFoundError:
            raise
        except OSError as error:
            if error.errno in _OF_THIS_PROCESS:
                raise
            return Known(None, None, (_unlisted(name, f"{where}: {error.strerror}"),))
        listed = tuple(self._stored_files(site, project, modified_at))
        return Known(kept, project, listed)

    def _stored_files(
        self, site: OpenFolder, project: Project, modified_at: float
    ) -> Iterator[StoredFile]:
        with contextlib.ExitStack() as stack:
            folder: OpenFolder | None = None
            with contextlib.suppress(FileNotFoundError, WrongKind):
                folder = stack.enter_context(entered(site, "packages", project.normalized))
            for file in by_filename(project).values():
                content = None if folder is None else core_metadata_of(folder, file.filename)
                yield stored_file(project, file, content, modified_at)

    # -- files -----------------------------------------------------------------------------------

    def _elsewhere(self, site: OpenFolder, file: FileHandle) -> Redirect:
        """Where a file is that the site does not host; raises `FileNotFound` if it is gone."""
        name = project_of(file)
        try:
            project = self._project(site, name)
        except InvalidProject as error:
            raise BackendError(f"{error} (in {self._name})") from error
        found = None if project is None else by_filename(project).get(file.filename)
        if found is not None and found.url is not None:
            return Redirect(found.url, None)
        if self._git_lock() is not None:
            raise BackendUnavailable(f"git is changing {self._name}", retry_after=1)
        if found is None:
            raise FileNotFound(file.filename)
        raise BackendError(
            f"projects/{name}.toml of {self._name} has {file.filename!r}, but "
            f"packages/{name}/{file.filename} is not there; put it there, or give its 'url'"
        )

    def _project(self, site: OpenFolder, name: str) -> Project | None:
        old = self.backend.known.get(name)
        if old is not None and old.project is not None:
            with contextlib.suppress(FileNotFoundError), site.enter("projects") as projects:
                if _signature(projects.status(f"{name}.toml")) == old.signature:
                    return old.project
        return self._read(site, name)[0]

    # -- git, which changes the files of a folder one after another -------------------------------

    def _git_lock(self) -> Path | None:
        return lock_of(self.settings.path)

    def _wait_for_git(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while (lock := self._git_lock()) is not None:
            if time.monotonic() >= deadline:
                raise BackendUnavailable(
                    f"git is changing {self._name}; if no git runs there, remove {str(lock)!r}"
                )
            time.sleep(0.05)


def stored_file(
    project: Project, file: SiteFile, core_metadata: bytes | None, modified_at: float
) -> StoredFile:
    """A file as a listing gives it. `core_metadata` lie beside it in the site, or are None.

    `modified_at`: of the project's file, in unix seconds.
    """
    record: dict[str, str] = {
        "distrib": project.normalized,
        "name": project.name,
        "sha256": file.sha256,
        "size": str(file.size),
        "requires_python": file.requires_python or "",
    }
    if file.uploaded_at is not None:
        moment = file.uploaded_at.replace(tzinfo=None)  # UTC
        record["uploaded_at"] = f"{moment.isoformat(timespec='microseconds')}Z"
    if core_metadata is not None:
        record |= _fields(core_metadata)
    if project.summary is not None:
        record["summary"] = project.summary
    # A server can also offer those that the site has only for its pages.
    sha256 = file.core_metadata_sha256
    if sha256 is None and core_metadata is not None:
        sha256 = hashlib.sha256(core_metadata).hexdigest()
    if sha256 is not None:
        record["core_metadata_sha256"] = sha256
    return StoredFile(
        filename=file.filename,
        size=file.size,
        location=_location(project.normalized, file.filename),
        stamp=f"{file.sha256}:{_digest(record)}",
        record=record,
        sha256=file.sha256,
        uploaded_at=file.uploaded_at,
        modified_at=None if file.uploaded_at else datetime.fromtimestamp(modified_at, UTC),
        yanked=file.yanked,
        project=project.normalized,
    )


def _digest(record: Record) -> str:
    """Changes when a fact was corrected; a yank is none, because listings give it anyway."""
    return hashlib.sha256(repr(sorted(record.items())).encode("utf-8", "replace")).hexdigest()[:16]


def _fields(core_metadata: bytes) -> dict[str, str]:
    """What people are shown of core metadata."""
    headers = re.split(rb"\r?\n\r?\n", core_metadata, maxsplit=1)[0].decode("utf-8", "replace")
    return {key.lower(): value.strip() for key, value in _HEADER.findall(headers)}


def _location(name: str, filename: str) -> str:
    return f"{name}/{filename}"


def _unlisted(name: str, problem: str) -> Unlisted:
    return Unlisted(
        location=_location(name, ""),
        problem=f"{problem}; until that is corrected, the project stays as it was",
        may_hold_files=True,
    )


def project_of(file: FileHandle) -> NormalizedName:
    """The project of a file, which is the name of its folder; raises `FileNotFound`."""
    try:
        return parse_filename(file.filename).project
    except InvalidFilename:
        raise FileNotFound(file.filename) from None


@contextlib.contextmanager
def entered(site: OpenFolder, *names: str) -> Iterator[OpenFolder]:
    with contextlib.ExitStack() as stack:
        folder = site
        for name in names:
            folder = stack.enter_context(folder.enter(name))
        yield folder


def core_metadata_of(folder: OpenFolder, filename: str) -> bytes | None:
    try:
        content = folder.read(f"{filename}.metadata", _LARGEST_METADATA + 1)
    except (FileNotFoundError, PermissionError, WrongKind):
        return None
    return content if len(content) <= _LARGEST_METADATA else None


def _text_of(projects: OpenFolder, name: str) -> str:
    """The file of a project; raises `InvalidProject` if it is no text."""
    content = projects.read(f"{name}.toml", LARGEST + 1)
    if len(content) > LARGEST:
        raise InvalidProject(f"projects/{name}.toml: larger than {LARGEST >> 20} MiB")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidProject(f"projects/{name}.toml: not UTF-8") from error


def _project_files(site: OpenFolder) -> tuple[dict[str, _Signature], list[Unlisted]]:
    """The signatures of the files of projects, by the names of projects; and files of no project.

    A site without projects has no such folder, because git keeps no empty ones. But if it hosts
    files, the folder is missing: in a sparse clone, say, or while another branch is checked out.
    """
    signatures: dict[str, _Signature] = {}
    wrong: list[Unlisted] = []
    try:
        with site.enter("projects") as projects, projects.entries() as entries:
            for entry in entries:
                name, suffix = os.path.splitext(entry.name)  # noqa: PTH122 - a name
                if suffix != ".toml" or name.startswith("."):
                    continue
                if name != normalize(name) or not re.fullmatch(r"[a-z0-9-]+", name):
                    problem = f"projects/{name}.toml: the file must be called "
                    wrong.append(_unlisted(name, f"{problem}{normalize(name)}.toml"))
                    continue
                with contextlib.suppress(FileNotFoundError):  # removed since
                    signatures[name] = _signature(entry.stat(follow_symlinks=False))
    except FileNotFoundError:
        if site.has("packages"):
            raise BackendError(
                f"{site.path}/projects is missing, but {site.path}/packages is there; restore it"
            ) from None
        return {}, []
    return dict(sorted(signatures.items())), wrong


def _signature(status: os.stat_result) -> _Signature:
    """Values of which one changes when a file is replaced or written to."""
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
