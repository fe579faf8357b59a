"""Publishing into the folder of a site, by files or by commits.

A change holds the lock of the site, and is made in this order:

1. A note says which file of which project is changed (`.private_pypi-change`).
2. An upload: its core metadata and its content get their names.
3. The file of the project is replaced. From now on, the change is seen.
4. A deletion: the file and its core metadata are moved aside.
5. With "commits": exactly these paths are committed; with `push`, the commit is pushed.
6. What was moved aside, and the note, are removed.

If a step fails, those before it are undone, so that what was answered with an error has not
happened. If a writer is killed, the next one, or a sweep, finds its note. What the project's file
has by then is completed, and what it has not is removed. Nothing else in the folder is touched:
somebody may be preparing a pull request there.

With `push`, the upstream decides between writers on several machines: if somebody else has pushed,
the change is undone, and is decided and made again on top of what they have pushed.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Final

from packaging.utils import NormalizedName

from private_pypi.backend.open_folder import OpenFolder
from private_pypi.distributions.filenames import file_key, normalize, parse_filename
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FilenameBurnt,
    FileNotFound,
    InvalidFilename,
    InvalidUpload,
    TooLarge,
)
from private_pypi.model import FileHandle, StoredFile, Upload
from private_pypi_static_site.folder import LARGEST_HOSTED, SiteFolder
from private_pypi_static_site.project_file import (
    LARGEST,
    InvalidProject,
    Project,
    SiteFile,
    SiteVersion,
    burn,
    by_filename,
    format_project,
    parse_project,
    yank,
)
from private_pypi_static_site.reading import (
    StaticSiteStorage,
    core_metadata_of,
    entered,
    project_of,
    stored_file,
)

_NOTE: Final = ".private_pypi-change"
_PART: Final = ".private_pypi-part"  # what is being written, in any folder
_ASIDE: Final = (".private_pypi-deleted", ".private_pypi-deleted.metadata")
_OWN: Final = (_NOTE, _PART, *_ASIDE, ".private_pypi-site.lock")
_LONGEST_NOTE: Final = 1 << 20  # bytes
_LONGEST: Final = 255 - len(".metadata")  # bytes of a filename
_ATTEMPTS: Final = 10  # when somebody else pushes all the time


@dataclass(frozen=True, slots=True)
class _Change:
    """A change of one file of one project."""

    name: NormalizedName
    filename: str
    message: str  # of the commit, at most some hundred characters
    decide: Callable[[Project | None], Project | None]
    """The project after the change; raises what speaks against it."""
    upload: Upload | None = None
    deletes: bool = False

    @property
    def paths(self) -> tuple[str, ...]:
        """What the change may touch, relative to the folder."""
        hosted = f"packages/{self.name}/{self.filename}"
        return (f"projects/{self.name}.toml", hosted, f"{hosted}.metadata")


class PublishingStorage(StaticSiteStorage):
    """A site that is read and written to."""

    lacks = frozenset()

    def put_file(self, upload: Upload) -> StoredFile:
        file = upload.file
        if len(os.fsencode(file.filename)) > _LONGEST:
            raise InvalidFilename(file.filename, f"longer than {_LONGEST} bytes")
        if self.backend.git is not None and file.size > LARGEST_HOSTED:
            raise TooLarge(
                f"{file.filename} has {file.size} bytes, and GitHub refuses files of more than "
                f"{LARGEST_HOSTED} bytes (100 MB) in a repository; attach it to a release, and "
                "run private_pypi static_site.update"
            )
        change = _Change(
            name=file.project,
            filename=file.filename,
            message=f"Add {file.filename}",
            decide=lambda project: _with_upload(project, upload),
            upload=upload,
        )
        with self._trouble(f"store {file.filename!r}"), self._changing() as site:
            project = self._make(site, change)
            assert project is not None
            stored = self._stored(site, project, file.filename)
        with contextlib.suppress(OSError):
            upload.content.unlink(missing_ok=True)
        return stored

    def delete_file(self, file: FileHandle) -> None:
        name, filename = project_of(file), file.filename
        change = _Change(
            name=name,
            filename=filename,
            message=f"Delete {filename}",
            decide=lambda project: project and _without(project, filename),
            deletes=True,
        )
        with self._trouble(f"delete {filename!r}"), self._changing() as site:
            self._make(site, change)

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        name, filename = project_of(file), file.filename
        why = " ".join("".join(c if c.isprintable() else " " for c in reason or "").split())[:500]
        message = f"Yank {filename}" if reason is not None else f"Take back the yank of {filename}"

        def decide(project: Project | None) -> Project:
            if project is None or filename not in by_filename(project):
                raise FileNotFound(filename)
            versions = [
                yank(each, reason, [filename]) if each.files else each for each in project.versions
            ]
            return replace(project, versions=tuple(versions))

        change = _Change(name, filename, f"{message}\n\n{why}".strip(), decide)
        with self._trouble(f"yank {filename!r}"), self._changing() as site:
            self._make(site, change)

    def restore_name(self, project: str, filename: str) -> Sequence[str]:
        name, key = normalize(project), file_key(filename)
        restored: list[str] = []

        def decide(found: Project | None) -> Project | None:
            if found is None:
                return None
            restored[:] = [each for each in found.burnt if file_key(each) == key]
            return replace(found, burnt=tuple(e for e in found.burnt if e not in restored))

        change = _Change(name, filename, f"Allow the name {filename} again", decide)
        with self._trouble(f"restore {filename!r}"), self._changing() as site:
            self._make(site, change)
        return restored

    def sweep(self) -> None:
        with self._trouble("complete what a killed writer began"):
            with self._opened() as site:
                if not (site.has(_NOTE) or site.has(_PART)):
                    return
            with self._changing():
                pass

    # -- a change --------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _changing(self) -> Iterator[OpenFolder]:
        """The folder, which nobody else changes, and in which no change is half made."""
        with self._opened() as site, SiteFolder(self.settings.path).changing():
            if self.backend.git is not None:
                self.backend.git.prepare(_OWN)
                self._wait_for_git()
            self._recover(site)
            yield site

    def _make(self, site: OpenFolder, change: _Change) -> Project | None:
        """Make a change; return the project as it is then."""
        for _ in range(_ATTEMPTS):
            try:
                project, text = self._read(site, change.name)
            except InvalidProject as error:
                raise BackendError(f"{error} (in {self._name})") from error
            changed = change.decide(project)
            if changed is None or (
                changed == project and not _lacks_content(site, changed, change)
            ):
                return changed
            if self._apply(site, change, changed, text):
                return changed
            assert self.backend.git is not None
            self.backend.git.catch_up()
        raise BackendUnavailable(f"others push to the upstream of {self._name} all the time")

    def _apply(
        self, site: OpenFolder, change: _Change, project: Project, before: str | None
    ) -> bool:
        """Make a change that was decided; False if it was undone, because others have pushed."""
        text = _text(project, before)
        git, table = self.backend.git, f"{change.name}.toml"
        head = None if git is None else git.head()
        note = {"filename": change.filename, "message": change.message, "before": head}
        _write(site, _NOTE, json.dumps(note).encode())
        undo: list[Callable[[], object]] = [lambda: _remove(site, _NOTE)]
        try:
            with contextlib.ExitStack() as stack:
                if git is not None:
                    undo.append(partial(git.uncommit, head, change.paths))
                if text != before:  # first, because hosted files without this folder are trouble
                    projects = stack.enter_context(_made(site, "projects"))
                if change.upload is not None:
                    undo.append(partial(self._remove_hosted, site, change.name, change.filename))
                    self._put_content(site, change.upload)
                if text != before:
                    undo.append(partial(self._rewrite, site, table, before))
                    _write(projects, table, text.encode("utf-8", "replace"))
                if change.deletes:
                    undo.append(partial(self._move, site, change, back=True))
                    self._move(site, change)
            if git is not None:
                git.commit(change.paths, change.message)
            is_made = git is None or not self.settings.push or git.push()
        except BaseException:
            _undo(undo)
            raise
        if is_made:
            self._clean(site, change.name)
            _remove(site, _NOTE)
        else:
            _undo(undo)
        return is_made

    def _put_content(self, site: OpenFolder, upload: Upload) -> None:
        filename = upload.file.filename
        with _made(site, "packages") as packages, _made(packages, upload.file.project) as folder:
            if upload.core_metadata is None:
                folder.remove(f"{filename}.metadata")
            else:
                _write(folder, f"{filename}.metadata", upload.core_metadata)
            with upload.content.open("rb") as content:
                _write(folder, filename, content)

    def _remove_hosted(self, site: OpenFolder, name: str, filename: str) -> None:
        with _packages(site, name) as folder:
            if folder is not None:
                for each in (filename, f"{filename}.metadata"):
                    _remove(folder, each)

    def _rewrite(self, site: OpenFolder, table: str, before: str | None) -> None:
        with site.enter("projects") as projects:
            if before is None:
                _remove(projects, table)
            else:
                _write(projects, table, before.encode("utf-8", "replace"))

    def _move(self, site: OpenFolder, change: _Change, *, back: bool = False) -> None:
        """Move a file and its core metadata aside, or back."""
        with _packages(site, change.name) as folder:
            for name, aside in zip(
                (change.filename, f"{change.filename}.metadata"), _ASIDE, strict=True
            ):
                old, new = (aside, name) if back else (name, aside)
                if folder is not None and folder.has(old):
                    folder.move_to(old, folder, new)

    def _clean(self, site: OpenFolder, name: str) -> None:
        """Remove what is no part of the site."""
        with _packages(site, name) as folder:
            if folder is not None:
                for each in (_PART, *_ASIDE):
                    _remove(folder, each)

    def _recover(self, site: OpenFolder) -> None:
        """Complete, or take back, what a killed writer began."""
        site.remove(_PART)
        try:
            note = json.loads(site.read(_NOTE, _LONGEST_NOTE))
            filename, message, before = (
                str(note[key]) for key in ("filename", "message", "before")
            )
            name = parse_filename(filename).project
        except FileNotFoundError:
            return
        except (ValueError, TypeError, KeyError, RecursionError, InvalidFilename) as error:
            path = f"{site.path}/{_NOTE}"
            raise BackendError(f"{path!r} was not written by private_pypi; remove it") from error
        change = _Change(name, filename, message, lambda project: project)
        try:
            project = self._read(site, change.name)[0]
        except InvalidProject as error:
            raise BackendError(f"{error} (in {self._name})") from error
        if project is None or change.filename not in by_filename(project):
            self._remove_hosted(site, change.name, change.filename)
        self._clean(site, change.name)
        with contextlib.suppress(FileNotFoundError), site.enter("projects") as projects:
            projects.remove(_PART)
        git = self.backend.git
        if git is not None:
            git.commit(change.paths, change.message)
            if self.settings.push and not git.push():
                # Nobody was told that the change is made.
                git.drop(before)
                git.catch_up()
        _remove(site, _NOTE)

    def _stored(self, site: OpenFolder, project: Project, filename: str) -> StoredFile:
        """A file as a listing gives it."""
        with _packages(site, project.normalized) as folder, site.enter("projects") as projects:
            return stored_file(
                project,
                by_filename(project)[filename],
                None if folder is None else core_metadata_of(folder, filename),
                projects.status(f"{project.normalized}.toml").st_mtime_ns / 1e9,
            )


# -- decisions -------------------------------------------------------------------------------------


def _with_upload(project: Project | None, upload: Upload) -> Project:
    file = upload.file
    project = project or Project(name=file.published_name or file.project)
    key = file_key(file.filename)
    burnt = next((each for each in project.burnt if file_key(each) == key), None)
    if burnt is not None:
        raise FilenameBurnt(file.filename, deleted=burnt)
    known = by_filename(project).get(file.filename)
    if known is not None:
        if known.sha256 != file.sha256:
            raise FileAlreadyExists(file.filename)
        return project
    new = SiteFile(
        filename=file.filename,
        sha256=file.sha256,
        size=file.size,
        uploaded_at=file.uploaded_at,
        requires_python=file.requires_python,
        core_metadata_sha256=file.core_metadata_sha256,
    )
    version = project.find(file.version) or SiteVersion(version=file.version)
    if version.git is not None:
        raise InvalidUpload(
            f"version {version.version} of {project.name} is a link to {version.git} "
            f"(projects/{project.normalized}.toml), so it cannot have files; delete it first, or "
            "use a different version"
        )
    versions = [each for each in project.versions if each is not version]
    versions.append(replace(version, files=(*version.files, new)))
    return replace(project, versions=tuple(sorted(versions, key=lambda each: each.parsed)))


def _without(project: Project, filename: str) -> Project:
    return burn(project, [filename]) if filename in by_filename(project) else project


def _text(project: Project, before: str | None) -> str:
    """The file of a project, checked as it will be when it is read."""
    text = format_project(project, before)
    try:
        parse_project(text, project.normalized, where=f"projects/{project.normalized}.toml")
    except InvalidProject as error:
        raise InvalidUpload(f"the site cannot have this: {error}") from error
    if len(text.encode("utf-8", "replace")) > LARGEST:
        raise InvalidUpload(
            f"projects/{project.normalized}.toml would be larger than {LARGEST >> 20} MiB; delete "
            "old versions"
        )
    return text


# -- the folder ------------------------------------------------------------------------------------


def _lacks_content(site: OpenFolder, project: Project, change: _Change) -> bool:
    """Whether a file that is uploaded again has been lost."""
    if change.upload is None or by_filename(project)[change.filename].url is not None:
        return False
    with _packages(site, change.name) as folder:
        return folder is None or not folder.has(change.filename)


@contextlib.contextmanager
def _packages(site: OpenFolder, name: str) -> Iterator[OpenFolder | None]:
    """The folder of the hosted files of a project; None if there is none."""
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(entered(site, "packages", name))
        except FileNotFoundError:
            yield None
            return
        yield folder


@contextlib.contextmanager
def _made(parent: OpenFolder, name: str) -> Iterator[OpenFolder]:
    """A folder, made if it is missing, with the permissions of its parent."""
    if parent.make(name, parent.status().st_mode & 0o2777):
        _sync(parent)
    with parent.enter(name) as folder:
        yield folder


def _write(folder: OpenFolder, name: str, content: bytes | BinaryIO) -> None:
    """Write a file of the folder as a whole, so that it survives a power cut."""
    folder.remove(_PART)
    folder.create(_PART, folder.status().st_mode & 0o044 | 0o600, content)
    folder.move_to(_PART, folder, name)
    _sync(folder)


def _remove(folder: OpenFolder, name: str) -> None:
    if folder.has(name):
        folder.remove(name)
        _sync(folder)


def _sync(folder: OpenFolder) -> None:
    try:
        folder.sync()
    except OSError as error:
        if error.errno != errno.EINVAL:  # some file systems cannot do that
            raise


def _undo(steps: Sequence[Callable[[], object]]) -> None:
    """Take steps back, the last one first. If that fails, the note stays for the next writer."""
    for step in reversed(steps):
        step()
