"""Packages in any registry that implements the OCI distribution specification.

Every project is a repository of the registry, laid out as PyOCI does it (`layout`). The registry
decides what a secret may do with it. Beside the packages lies a journal, by which servers take
turns and find what was lost (`journal`).

Manifests never change, so each is fetched once and kept on disk by its digest. Tags may change. A
lookup asks which manifests the tags of the newest versions name; it asks for those of the other
versions once an hour.
"""

from __future__ import annotations

import contextlib
import errno
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TypeVar

import filelock
from packaging.utils import NormalizedName
from packaging.version import Version

from private_pypi.backend import (
    Access,
    Backend,
    BackendSettings,
    Folders,
    Secret,
    Storage,
    Traits,
    Usage,
    system_errors,
)
from private_pypi.distributions.filenames import parse_filename
from private_pypi.errors import (
    BackendError,
    BackendUnavailable,
    FileAlreadyExists,
    FilenameBurnt,
    FileNotFound,
    InvalidUpload,
    NotAllowed,
    ProjectNotFound,
    WrongSecret,
)
from private_pypi.model import (
    DistributionFile,
    Download,
    FileHandle,
    Redirect,
    StoredFile,
    Stream,
    Upload,
)
from private_pypi_oci import layout
from private_pypi_oci.journal import UNREADABLE, Entry, Journal, Journals
from private_pypi_oci.layout import Descriptor, Index, Manifest
from private_pypi_oci.memory import Memory, Seen, hashed
from private_pypi_oci.registry import (
    BlobUnknown,
    ChangedMeanwhile,
    Client,
    Connection,
    Refused,
    chunks_of,
    read_secret,
    read_upto,
)
from private_pypi_oci.settings import OciSettings

T = TypeVar("T")

_NEWEST = 3  # versions whose tags are asked for with every lookup
_HOUR = 3600.0  # seconds after which the tags of the other versions are asked for again
_THREADS = 8  # requests of one lookup at a time
_MOST_REFUSED = 1_000
_TRIES = 5  # to store a manifest that somebody else stores or changes as well


class OciStorage(Storage["OciBackend"]):
    """The repositories of a namespace that a secret may use."""

    def __init__(self, backend: OciBackend, secret: Secret) -> None:
        super().__init__(backend, secret)
        settings = backend.settings
        self._settings, self._memory = settings, backend.memory
        credentials = read_secret(secret, settings.username, settings.bearer_username)
        self._is_anonymous = credentials.is_anonymous
        self._client = Client(
            backend.connection,
            settings.url,
            credentials,
            settings.token_hosts,
        )
        # The projects whose journals this secret may not read, until when (time.monotonic()).
        self._refused: dict[str, float] = {}
        self._journals = Journals(
            self._client, settings.namespace, backend.memory.entries, lambda: backend.server
        )

    def usage(self) -> Usage:
        return self.backend.usage()

    def access(self, project: str | None = None) -> Access:
        if not self.secret or self._settings.any_registry:  # only tenants have a registry
            return Access.NONE
        if project is None:
            return Access.READ if self._client.is_accepted() else Access.NONE
        repository = layout.repository_of(self._settings.namespace, project)
        if not layout.is_repository(repository):
            return Access.NONE
        try:
            return self._client.access(repository)
        except WrongSecret:
            if self._is_anonymous:  # with a secret, there may be something
                raise
            return Access.NONE

    # -- reading ---------------------------------------------------------------------------------

    def projects(self) -> Iterator[str]:
        names = self._projects_of(self._client.catalogue() or ())
        if not names:  # many registries have no catalogue, or only for their administrators
            with contextlib.suppress(NotAllowed):
                names = self._journals.projects()
        return iter(sorted(names))

    def update_projects(self) -> tuple[int, int]:
        listed = self._journals.projects()
        found = self._projects_of(self._client.catalogue() or ())
        for repository in self._memory.repositories():
            new = self._projects_of([repository]) - found - listed
            # It may have been seen with another secret, or may be gone.
            with contextlib.suppress(NotAllowed):
                if new and self._client.tags(repository) is not None:
                    found |= new
        for project in sorted(found - listed):
            self._journals.add_project(project)
        for project in sorted(found | listed):
            # Of a project that was deleted, or that this secret may not change.
            with contextlib.suppress(ProjectNotFound, NotAllowed):
                self._put_back_lost(project)
        return len(found - listed), len(listed)

    def _projects_of(self, repositories: Iterable[str]) -> set[str]:
        """The projects among repositories: those directly below the namespace."""
        prefix = f"{self._settings.namespace}/"
        rests = (name.removeprefix(prefix) for name in repositories if name.startswith(prefix))
        return {layout.project_of(rest) for rest in rests if "/" not in rest}

    def project_files(self, project: str) -> Iterator[StoredFile]:
        name = NormalizedName(project)
        repository, tags = self._tags_of(name)
        versions = sorted(
            ((version, tag) for tag in tags if (version := layout.version_of(tag)) is not None),
            reverse=True,
        )
        if self._settings.max_versions:
            versions = versions[: self._settings.max_versions]
        indexes = self._indexes(repository, [tag for _, tag in versions])
        journal = self._journal(name)
        return iter(self._files(name, repository, versions, indexes, journal))

    def _tags_of(self, project: NormalizedName) -> tuple[str, list[str]]:
        """The repository of a project and its tags; raises `ProjectNotFound`."""
        namespace = self._settings.namespace
        names = [layout.repository_of(namespace, project)]
        if "-" in project:  # PyOCI kept the dots of names
            names.append(f"{namespace}/{project.replace('-', '.')}")
        for name in names:
            if layout.is_repository(name):
                tags = self._client.tags(name)
                if tags is not None:
                    return name, tags
        raise ProjectNotFound(project)

    def _indexes(self, repository: str, tags: Sequence[str]) -> dict[str, Index]:
        """The indexes of tags, newest version first; those of foreign tags are left out."""
        known, now = self._memory.tags(repository), time.time()

        def ask(number: int, tag: str) -> tuple[str, Seen | None, Index | None]:
            seen = known.get(tag)
            if seen is not None:
                is_due = number < _NEWEST or not 0 <= now - seen.asked_at < _HOUR
                digest = self._client.manifest_digest(repository, tag) if is_due else seen.digest
                if digest == seen.digest:
                    content = self._content(repository, digest)
                    if content is not None:
                        fresh = Seen(digest, now if is_due else seen.asked_at)
                        return tag, fresh, Index.parse(content)
            found = self._client.manifest(repository, tag)
            if found is None:  # deleted since it was listed
                return tag, None, None
            self._memory.keep(found.digest, found.content)
            return tag, Seen(found.digest, now), Index.parse(found.content)

        with ThreadPoolExecutor(_THREADS) as pool:
            answers = list(pool.map(ask, range(len(tags)), tags))
        self._memory.note(repository, {tag: seen for tag, seen, _ in answers if seen is not None})
        return {tag: index for tag, _, index in answers if index is not None}

    def _content(self, repository: str, digest: str) -> bytes | None:
        content = self._memory.manifest(digest)
        if content is None:
            found = self._client.manifest(repository, digest)
            if found is None:
                return None
            content = found.content
            self._memory.keep(digest, content)
        return content

    def _journal(self, project: NormalizedName) -> Journal:
        """What the journal says; asked once an hour, and whenever we have changed it.

        `UNREADABLE` if the registry does not show it to this secret: there may be none, if only
        PyOCI has published the project.
        """
        if time.monotonic() < self._refused.get(project, 0.0):
            return UNREADABLE
        try:
            return self.backend.journal_of(project, lambda: self._journals.read(project))
        except Refused:
            if len(self._refused) >= _MOST_REFUSED:
                self._refused.clear()
            self._refused[project] = time.monotonic() + _HOUR
            return UNREADABLE

    def _files(
        self,
        project: NormalizedName,
        repository: str,
        versions: Sequence[tuple[Version, str]],
        indexes: dict[str, Index],
        journal: Journal,
    ) -> list[StoredFile]:
        shown = [
            (tag, descriptor)
            for _, tag in versions
            if tag in indexes
            for descriptor in indexes[tag].descriptors
        ]
        # A secret that may not read the journal is shown what the indexes have.
        with contextlib.suppress(NotAllowed):
            # Or deleted by another server since we asked for the journal.
            if self._lost(project, repository, indexes, journal):
                journal = self._journals.read(project)
                self.backend.note_journal(project, journal)
                lost = self._lost(project, repository, indexes, journal)
                shown += [(entry.tag, entry.descriptor) for entry in lost]
        places = {tag: place for place, (_, tag) in enumerate(versions)}
        files = []
        for tag, descriptor in sorted(shown, key=lambda each: places[each[0]]):
            filename = descriptor.filename(project, tag)
            if filename is not None and not journal.is_burnt(parse_filename(filename).key):
                files.append(self._stored(repository, descriptor, filename))
        return files

    def _lost(
        self,
        project: NormalizedName,
        repository: str,
        indexes: Mapping[str, Index],
        journal: Journal,
        *,
        version: str | None = None,
    ) -> list[Entry]:
        """The files that were published, and are missing from the indexes of their versions.

        If the index or the manifest of a file is gone as well, somebody has deleted it.
        """
        known = {
            (parse_filename(filename).key, descriptor.digest)
            for tag, index in indexes.items()
            for descriptor in index.descriptors
            if (filename := descriptor.filename(project, tag)) is not None
        }
        return [
            entry
            for entry in self._journals.entries(project, journal, version=version, known=known)
            if (index := indexes.get(entry.tag)) is not None
            and index.find(entry.descriptor.architecture) is None
            and self._client.manifest_digest(repository, entry.descriptor.digest) is not None
        ]

    def _with_lost(
        self,
        project: NormalizedName,
        repository: str,
        tag: str,
        journal: Journal,
        index: Index,
    ) -> Index:
        """The index of a version with the files that were lost from it."""
        if index.descriptors:  # others were deleted with the whole version
            for entry in self._lost(project, repository, {tag: index}, journal, version=tag):
                index = index.put(entry.descriptor)
        return index

    def _put_back_lost(self, name: str) -> None:
        """Put all files that were lost back into the indexes of their versions."""
        project = NormalizedName(name)
        repository, tags = self._tags_of(project)
        indexes = self._indexes(repository, [tag for tag in tags if layout.version_of(tag)])
        lost = self._lost(project, repository, indexes, self._journals.read(project))
        for tag in sorted({entry.tag for entry in lost}):
            with self._alone(project, tag) as journal:
                change = partial(self._with_lost, project, repository, tag, journal)
                self._change(repository, tag, change)

    def _stored(self, repository: str, descriptor: Descriptor, filename: str) -> StoredFile:
        file_sha256, size = descriptor.sha256, descriptor.size
        if file_sha256 is None or size is None:
            content = self._content(repository, descriptor.digest)
            if content is None:
                raise BackendError(f"the manifest of {filename!r} is missing from the registry")
            layer = Manifest.parse(content).layer
            file_sha256 = str(layer["digest"]).removeprefix("sha256:")
            size = int(layer["size"])
        return StoredFile(
            filename=filename,
            size=size,
            location=f"{repository}@sha256:{file_sha256}",
            stamp=descriptor.digest,
            record=descriptor.record,
            sha256=file_sha256,
            uploaded_at=descriptor.created,
            yanked=descriptor.yanked,
        )

    def open_file(self, file: FileHandle) -> Download:
        repository, digest = self._place(file)
        if self._settings.download == "redirect":
            address = self._client.blob_address(repository, digest)
            if address is not None:
                return Redirect(address, None)
        return self._stream(repository, digest, file.filename, file.size)

    def open_core_metadata(self, file: DistributionFile) -> Download:
        name = f"{file.filename}.metadata"
        if file.core_metadata_sha256 is None:
            raise FileNotFound(name)
        repository, _ = self._place(file)
        return self._stream(repository, f"sha256:{file.core_metadata_sha256}", name, None)

    def read_part(self, location: str, start: int, length: int) -> bytes:
        place = self._parse(location)
        if place is None:
            raise FileNotFound(location)
        if length <= 0:
            return b""
        answer = self._client.blob(*place, part=(start, length))
        if answer is None:
            raise FileNotFound(location)
        with answer:
            if answer.status_code == 416:
                return b""
            # A registry may answer the whole file instead.
            skip = start if answer.status_code == 200 else 0
            return read_upto(answer, skip + length)[skip:]

    def _place(self, file: FileHandle) -> tuple[str, str]:
        """The repository and the digest of a file, whatever an index says of its location."""
        # The bytes of a deleted file may still be there: another file has the same, or nothing
        # can be deleted.
        journal = self._journal(file.project)
        if journal.is_burnt(parse_filename(file.filename).key):
            raise FileNotFound(file.filename)
        place = self._parse(file.location)
        names = {
            layout.repository_of(self._settings.namespace, file.project),
            f"{self._settings.namespace}/{file.project.replace('-', '.')}",
        }
        if (
            journal is not UNREADABLE  # otherwise only the index tells what was deleted
            and place is not None
            and place[0] in names
            and file.sha256 is not None
            and place[1] == f"sha256:{file.sha256}"
        ):
            return place
        try:
            for stored in self.project_files(file.project):
                if stored.filename == file.filename and file.sha256 in (None, stored.sha256):
                    found = self._parse(stored.location)
                    if found is not None:
                        return found
        except ProjectNotFound:
            pass
        raise FileNotFound(file.filename)

    def _parse(self, location: str) -> tuple[str, str] | None:
        repository, at, digest = location.partition("@")
        is_ours = repository.startswith(f"{self._settings.namespace}/")
        is_digest = digest.startswith("sha256:") and len(digest) == 71
        if not (at and is_ours and is_digest and layout.is_repository(repository)):
            return None
        return repository, digest

    def _stream(self, repository: str, digest: str, name: str, size: int | None) -> Stream:
        answer = self._client.blob(repository, digest)
        if answer is None:
            raise FileNotFound(name)
        length = answer.headers.get("Content-Length", "")
        if not length.isdecimal():
            if size is None:
                answer.close()
                raise BackendError(f"the registry does not tell the size of {name!r}")
            length = str(size)
        return Stream(chunks_of(answer, int(length)), int(length))

    # -- writing ---------------------------------------------------------------------------------

    def put_file(self, upload: Upload) -> StoredFile:
        file = upload.file
        parsed = parse_filename(file.filename)
        tag = layout.tag_of(file.version)
        repository = layout.repository_of(self._settings.namespace, file.project)
        if tag is None:
            raise InvalidUpload(
                f"{file.filename!r}: a registry cannot keep version {file.version!r}, because a "
                "tag has neither '!' nor more than 128 characters; use a version without an epoch"
            )
        if not layout.is_repository(repository):
            raise InvalidUpload(
                f"{file.filename!r}: a registry cannot have a repository {repository!r}; publish "
                "the project under another name"
            )
        existing = self._unless_new(repository, lambda: self._published(repository, tag, upload))
        if existing is not None:
            return existing
        digest = f"sha256:{file.sha256}"
        config = layout.EMPTY_CONTENT if not upload.core_metadata else upload.core_metadata
        created = file.uploaded_at
        if created is None:
            raise InvalidUpload(f"{file.filename!r} has no upload time")
        urls = layout.project_urls_of(layout.fields_of(upload.core_metadata, "Project-URL"))
        labels = self._labels(upload.core_metadata, urls)
        manifest = layout.make_manifest(
            digest,
            file.size,
            created=created,
            labels=labels,
            core_metadata=upload.core_metadata or None,
        ).content()
        descriptor = layout.make_descriptor(
            manifest,
            parsed,
            file.filename,
            tag=tag,
            file_sha256=file.sha256,
            file_size=file.size,
            created=created,
            project_urls=urls,
            record=upload.record,
        )
        for attempt in range(_TRIES):
            self._client.put_blob(repository, digest, upload.content)
            self._client.put_blob(repository, layout.digest_of(config), config)
            # While somebody else stores the same blob, some registries say both that it is there
            # and that a manifest may not name it.
            try:
                self._client.put_manifest(repository, descriptor.digest, manifest, layout.MANIFEST)
                break
            except BlobUnknown as error:
                if attempt == _TRIES - 1:
                    raise BackendUnavailable(str(error)) from error
                time.sleep(0.1 * 2**attempt)
        self._memory.keep(descriptor.digest, manifest)
        with self._alone(file.project, tag) as journal:
            existing = self._published(repository, tag, upload, journal)
            if existing is not None:
                return existing
            entry = Entry(tag, file.filename, descriptor)
            if not journal.files:
                # A secret that may not write the list of projects can still publish.
                with contextlib.suppress(NotAllowed, WrongSecret):
                    self._journals.add_project(file.project)
            self._journals.add(file.project, parsed.key, entry, journal)
            self.backend.forget_journal(file.project)

            def change(index: Index) -> Index:
                index = self._with_lost(file.project, repository, tag, journal, index)
                return index.put(descriptor)

            self._change(repository, tag, change)
        return self._stored(repository, descriptor, file.filename)

    def _labels(self, core_metadata: bytes | None, urls: Mapping[str, str]) -> dict[str, str]:
        """The annotations of a manifest: of the table, and of the project, which count more."""
        source = layout.source_of(urls)
        labels = {} if source is None else {layout.SOURCE: source}
        labels |= dict(label.split("=", 1) for label in self._settings.labels)
        return labels | layout.labels_of(layout.fields_of(core_metadata, "Classifier"))

    def _published(
        self, repository: str, tag: str, upload: Upload, journal: Journal | None = None
    ) -> StoredFile | None:
        """The file of this name, if it has the same bytes; raises for others and a burnt name.

        `journal` is what the journal says now, if it was read already.
        """
        file = upload.file
        if journal is None:
            journal = self._journals.read(file.project)
        self.backend.note_journal(file.project, journal)
        key = parse_filename(file.filename).key
        if journal.is_burnt(key):
            raise FilenameBurnt(file.filename)
        index = self._index(repository, tag)
        found = [*(index.descriptors if index is not None else ())]
        entries = self._journals.entries(file.project, journal, of=key)
        found += [entry.descriptor for entry in entries if entry.tag == tag]
        for descriptor in found:
            if descriptor.filename(file.project, tag) == file.filename:
                stored = self._stored(repository, descriptor, file.filename)
                if (stored.size, stored.sha256) != (file.size, file.sha256):
                    raise FileAlreadyExists(file.filename)
                is_shown = index is not None and index.find(descriptor.architecture) is not None
                return stored if is_shown else None
        return None

    def _unless_new(self, repository: str, ask: Callable[[], T]) -> T | None:
        """What is found by somebody who may write; None if the registry refuses to be read.

        Some registries refuse when there is no such repository yet. Therefore nothing may be
        written that relies on None: what was written before has to be asked for again.
        """
        try:
            return ask()
        except Refused:
            if not self._client.may_push(repository):
                raise
            return None

    def _index(self, repository: str, tag: str) -> Index | None:
        """The index of a version as it is now; raises for a tag that is something else."""
        return self._index_to_replace(repository, tag)[0]

    def _index_to_replace(self, repository: str, tag: str) -> tuple[Index | None, dict[str, str]]:
        """The same, and the condition of a write that replaces exactly this."""
        found = self._client.manifest(repository, tag)
        if found is None:
            return None, {"If-None-Match": "*"}
        index = Index.parse(found.content)
        if index is None:
            raise NotAllowed(
                f"the tag {tag!r} of {repository!r} is not a Python package; it is left alone"
            )
        return index, {"If-Match": found.etag}

    def _change(self, repository: str, tag: str, change: Callable[[Index], Index]) -> None:
        """Read the index of a version, change it, and write it.

        Our servers take turns. Somebody who does not know the journal, such as PyOCI, may write in
        between; registries that heed conditions notice that, and then the index is read again.
        """
        for attempt in range(_TRIES):
            before, condition = self._index_to_replace(repository, tag)
            if before is None:
                created = layout.format_time(datetime.now(UTC))
                before = Index(annotations={layout.CREATED: created})
            content = change(before).content()
            try:
                self._client.put_manifest(
                    repository, tag, content, layout.INDEX, condition=condition
                )
                break
            except ChangedMeanwhile:
                if attempt == _TRIES - 1:
                    raise
        digest = layout.digest_of(content)
        self._memory.keep(digest, content)
        self._memory.note(repository, {tag: Seen(digest, 0.0)})

    def delete_file(self, file: FileHandle) -> None:
        parsed = parse_filename(file.filename)
        tag = layout.tag_of(str(parsed.version))
        repository = layout.repository_of(self._settings.namespace, file.project)
        if tag is None:
            return
        with self._alone(file.project, tag) as journal:
            index = self._unless_new(repository, lambda: self._index(repository, tag))
            found = [
                each
                for each in (index.descriptors if index is not None else ())
                if each.filename(file.project, tag) == file.filename
            ]
            entries = self._journals.entries(file.project, journal, of=parsed.key)
            is_entry = any(entry.filename == file.filename for entry in entries)
            if not found and not is_entry:
                return
            if not journal.is_burnt(parsed.key):
                self._journals.burn(file.project, parsed.key, journal)
            self.backend.forget_journal(file.project)
            if index is None or not found:
                return
            left = _without(found, index)
            if left.descriptors:
                self._change(repository, tag, partial(_without, found))
            else:
                self._delete_tag(repository, tag)
            self._delete_content(repository, found, left)

    def _delete_tag(self, repository: str, tag: str) -> None:
        """Delete a version that has no files any more, as well as the registry allows."""
        digest = self._client.manifest_digest(repository, tag)
        deleted = digest is not None and self._client.delete_manifest(repository, digest)
        if not deleted and not self._client.delete_manifest(repository, tag):
            # Nothing can be deleted there: an index without files is what remains.
            self._change(repository, tag, lambda index: Index(annotations=index.annotations))
        self._memory.forget(repository, tag)

    def _delete_content(
        self, repository: str, descriptors: Sequence[Descriptor], index: Index
    ) -> None:
        """Delete manifests and blobs that nothing else names; what stays is invisible."""
        kept = {each.sha256 for each in index.descriptors}
        with contextlib.suppress(BackendError, NotAllowed):
            for descriptor in descriptors:
                self._client.delete_manifest(repository, descriptor.digest)
                if descriptor.sha256 is not None and descriptor.sha256 not in kept:
                    self._client.delete_blob(repository, f"sha256:{descriptor.sha256}")

    def restore_name(self, project: str, filename: str) -> Sequence[str]:
        parsed = parse_filename(filename)
        tag = layout.tag_of(str(parsed.version)) or ""
        name = NormalizedName(project)
        with self._alone(name, tag) as journal:
            if not journal.is_burnt(parsed.key):
                return []
            self._journals.restore(project, parsed.key, journal)
            self.backend.forget_journal(name)
        entries = self._journals.entries(project, journal, of=parsed.key)
        return sorted({entry.filename for entry in entries}) or [filename]

    def yank_file(self, file: FileHandle, reason: str | None) -> None:
        project = file.project
        tag = layout.tag_of(str(parse_filename(file.filename).version))
        repository = layout.repository_of(self._settings.namespace, project)
        if tag is None:
            raise FileNotFound(file.filename)
        with self._alone(project, tag) as journal:
            index = self._unless_new(repository, lambda: self._index(repository, tag))
            if index is None:
                raise FileNotFound(file.filename)
            for each in self._with_lost(project, repository, tag, journal, index).descriptors:
                if each.filename(project, tag) == file.filename:
                    if each.yanked != reason:
                        self._change(repository, tag, partial(_put, each.with_yank(reason)))
                    return
        raise FileNotFound(file.filename)

    @contextlib.contextmanager
    def _alone(self, project: NormalizedName, tag: str) -> Iterator[Journal]:
        """Exclude everybody else who changes a version: of this ROOT, then of other servers.

        Yields what the journal says now.
        """
        lock = filelock.FileLock(self.backend.folders.lock / f"oci-{hashed(project)[:16]}.lock")
        try:
            lock.acquire(timeout=60, poll_interval=0.01)
        except filelock.Timeout:
            raise BackendUnavailable(
                f"others have been changing project {project!r} for long; try again"
            ) from None
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise BackendUnavailable(f"{self.backend.folders.lock} is missing") from error
            raise BackendError(f"cannot lock {project!r}: {error.strerror}") from error
        try:
            with self._journals.alone(project, tag) as journal:
                yield journal
        finally:
            lock.release()


class OciBackend(Backend[OciSettings]):
    """The namespace of a registry, or those of several registries as tenants."""

    Settings = OciSettings
    View = OciStorage
    traits = Traits(
        largest_file=10 * 2**30,
        needs_admin_secret=False,
        rights_per_project=True,
        secrets_per_tenant=True,
    )

    def __init__(
        self, settings: OciSettings, folders: Folders, *, shared: Connection | None = None
    ) -> None:
        """`shared` is for tenants: the connection of the table they belong to, to their registry.

        It has the tokens of that registry, which no other registry may get to know.
        """
        super().__init__(settings, folders)
        self.connection = Connection() if shared is None else shared
        self._is_tenant = shared is not None
        self._connections: dict[str, Connection] = {}  # of tenants, by the address of the registry
        self.memory = Memory(folders.cache / "oci")
        self._journals: dict[str, tuple[float, Journal]] = {}
        self._server: str | None = None
        self._lock = threading.Lock()  # guards _journals, _server and _connections

    @property
    def server(self) -> str:
        """How this ROOT is called among the servers of the registry."""
        with self._lock:
            if self._server is None:
                self._server = _kept_name(self.folders.cache / "oci-server")
            return self._server

    def usage(self) -> Usage:
        """The requests to the registry, or of all tenants to theirs."""
        with self._lock:
            connections = [self.connection, *self._connections.values()]
        requests: Counter[str] = Counter()
        for connection in connections:
            requests.update(connection.usage().requests)
        return Usage(requests=requests)

    def journal_of(self, project: str, read: Callable[[], Journal]) -> Journal:
        """The journal of a project as it was within an hour."""
        with self._lock:
            kept = self._journals.get(project)
        if kept is not None and 0 <= time.monotonic() - kept[0] < _HOUR:
            return kept[1]
        journal = read()
        self.note_journal(project, journal)
        return journal

    def note_journal(self, project: str, journal: Journal) -> None:
        """Remember what a journal said."""
        with self._lock:
            self._journals[project] = (time.monotonic(), journal)
            while len(self._journals) > 10_000:
                self._journals.pop(next(iter(self._journals)))

    def forget_journal(self, project: str) -> None:
        """The journal of a project has changed."""
        with self._lock:
            self._journals.pop(project, None)

    @property
    def has_root_addresses(self) -> bool:
        return self.settings.any_registry

    def tenant_at(self, host: str, path: str) -> str | None:
        return self.settings.tenant_at(host, path)

    def tenant_settings(self, name: str) -> OciSettings | None:
        return self.settings.tenant(name)

    def tenant(self, settings: BackendSettings, folders: Folders) -> OciBackend:
        assert isinstance(settings, OciSettings)
        with self._lock:
            connection = self._connections.setdefault(settings.url, Connection())
        return OciBackend(settings, folders, shared=connection)

    def close(self) -> None:
        if not self._is_tenant:
            self.connection.close()
            for connection in self._connections.values():
                connection.close()


def _put(descriptor: Descriptor, index: Index) -> Index:
    return index.put(descriptor)


def _without(descriptors: Sequence[Descriptor], index: Index) -> Index:
    for descriptor in descriptors:
        index = index.without(descriptor.architecture)
    return index


def _kept_name(path: Path) -> str:
    """A random name that is kept in a file. If several processes make it, the first one wins."""
    with system_errors(f"cannot keep the name of this server in {str(path)!r}"):
        part = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        part.write_text(secrets.token_hex(12))
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(part)
        part.unlink()
        return path.read_text()
