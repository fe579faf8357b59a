"""What several servers tell each other beside the packages; PyOCI never looks there.

Most registries have no compare-and-swap, so two servers that add a file to the index of one version
at the same moment could lose one of the two. Therefore a project has a second repository, the
journal (`<namespace>/private_pypi.journal/<project>`), in which each tag is a small manifest:

    file-<name>-<number>-<manifest>-<version>  a file that was published
    burnt-<name>-<number>                      its name was deleted
    restored-<name>-<number>                   the name may be used again
    lock-<server>                              what a server is changing now

Many registries do not list their repositories. Therefore each tag of one more repository
(`<namespace>/private_pypi.index/projects`) is the name of a project. Servers only add tags, so
nothing is lost when two of them do so at the same moment.

Here, a name is the hash of a filename, a manifest its digest, a version the hash of its tag, and
the number is how often the name had been restored before. The entries never change, so each is
fetched once, and only if its file is not in the index of its version. A name is burnt when it was
deleted more often than restored; what was published before the last time that it was restored does
not count any more. A file that has an entry, is not burnt, and is missing from its index was lost
by somebody who does not know the journal, such as PyOCI: listings show it all the same. It is put
back by the next upload to its version, and by `update_index`.

The lock makes our servers take turns. A server that wants to change a version first writes its own
lock tag, and then reads the lock tags of the others. If another server holds the same version, it
releases its lock and tries again after a random time. Of two servers that have both written their
tags, each sees the other one, so at most one continues. This needs a registry that shows a tag as
soon as it was stored.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256

from private_pypi.distributions.filenames import normalize
from private_pypi.errors import BackendUnavailable
from private_pypi_oci.layout import (
    CREATED,
    EMPTY,
    EMPTY_CONTENT,
    MANIFEST,
    Descriptor,
    compact,
    digest_of,
    format_time,
    tag_of,
)
from private_pypi_oci.registry import BlobUnknown, Client

ARTIFACT = "application/vnd.private-pypi.journal.v1"
_TAG = "private_pypi.tag"
_FILENAME = "private_pypi.filename"
_DESCRIPTOR = "private_pypi.descriptor"
_HELD = "private_pypi.held"  # the version that a server is changing; "" for none
_DIGITS = 24  # of hashes and digests in tags
_THREADS = 8  # entries that are fetched at a time
_HELD_FOR = 15.0
"""Seconds after which a lock that did not change is of a server that was killed. A change takes a
few requests. Should it take longer and somebody else go on, the journal finds what was lost."""
_PATIENCE = 60.0  # seconds that a writer waits for others


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that was published."""

    tag: str  # of its version
    filename: str
    descriptor: Descriptor


@dataclass(frozen=True, slots=True)
class Journal:
    """What the journal of a project says."""

    files: tuple[str, ...]  # the tags of the files that count
    burnt: Mapping[str, int]  # hash of a filename -> how often it was deleted, if it is burnt
    restored: Mapping[str, int]  # the same, how often restored

    def is_burnt(self, key: str) -> bool:
        """Whether a filename with this key (`ParsedFilename.key`) may not be used again."""
        return _hash(key) in self.burnt


UNREADABLE = Journal((), {}, {})
"""Instead of a journal that the registry does not show to a secret."""


class Journals:
    """The journals of a namespace, read and written with one secret.

    `kept` has the entries that were fetched, by repository and tag; they never change.
    """

    def __init__(
        self,
        client: Client,
        namespace: str,
        kept: dict[tuple[str, str], Entry | None],
        server: Callable[[], str],
    ) -> None:
        """`server` gives the name of this ROOT among the servers: letters and digits."""
        self._client = client
        self._namespace = namespace
        self._projects = f"{namespace}/private_pypi.index/projects"
        self._kept = kept
        self._server = server

    def repository(self, project: str) -> str:
        """Where the journal of a project is."""
        return f"{self._namespace}/private_pypi.journal/{project.replace('-', '_')}"

    def read(self, project: str) -> Journal:
        """What it says now, by its list of tags."""
        return self._parse(self._client.tags(self.repository(project)) or [])

    def _parse(self, tags: Collection[str]) -> Journal:
        deleted: dict[str, int] = {}
        restored: dict[str, int] = {}
        files = []
        for tag in tags:
            kind, _, rest = tag.partition("-")
            key = rest.partition("-")[0]
            if kind == "burnt":
                deleted[key] = deleted.get(key, 0) + 1
            elif kind == "restored":
                restored[key] = restored.get(key, 0) + 1
        for tag in tags:
            kind, _, rest = tag.partition("-")
            key, _, rest = rest.partition("-")
            number = rest.partition("-")[0]
            if kind == "file" and tag.count("-") == 4 and number == str(restored.get(key, 0)):
                files.append(tag)
        burnt = {key: times for key, times in deleted.items() if times > restored.get(key, 0)}
        return Journal(tuple(files), burnt, restored)

    def entries(
        self,
        project: str,
        journal: Journal,
        *,
        of: str | None = None,
        version: str | None = None,
        known: Collection[tuple[str, str]] = (),
    ) -> list[Entry]:
        """The files that were published: those of a filename (its key), of the tag of a version,
        or all.

        Unless a filename is given, those with a burnt name are left out, and those in `known`, by
        their key and the digest of their manifest.
        """
        skipped = {(_hash(key), _short(digest)) for key, digest in known}
        tags = []
        for tag in journal.files:
            _, key, _, digest, hashed_version = tag.split("-")
            is_wanted = key not in journal.burnt if of is None else key == _hash(of)
            if version is not None and hashed_version != _hash(version):
                is_wanted = False
            if is_wanted and (key, digest) not in skipped:
                tags.append(tag)
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(partial(self._entry, self.repository(project)), tags)
            return [entry for entry in found if entry is not None]

    def _entry(self, repository: str, tag: str) -> Entry | None:
        if (repository, tag) not in self._kept:
            found = self._annotations(repository, tag)
            try:
                value = json.loads(found.get(_DESCRIPTOR, ""))
                entry = Entry(found[_TAG], found[_FILENAME], Descriptor(value))
            except (ValueError, KeyError, RecursionError):
                return None  # not ours, or gone since it was listed
            self._kept[(repository, tag)] = entry
        return self._kept[(repository, tag)]

    def _annotations(self, repository: str, tag: str) -> dict[str, str]:
        manifest = self._client.manifest(repository, tag)
        try:
            value = {} if manifest is None else json.loads(manifest.content)
            annotations = value.get("annotations")
        except (ValueError, AttributeError, RecursionError):
            return {}
        return annotations if isinstance(annotations, dict) else {}

    def add(self, project: str, key: str, entry: Entry, journal: Journal) -> None:
        """A file was stored, and is about to be shown."""
        number = journal.restored.get(_hash(key), 0)
        self._put(
            self.repository(project),
            f"file-{_hash(key)}-{number}-{_short(entry.descriptor.digest)}-{_hash(entry.tag)}",
            {
                _TAG: entry.tag,
                _FILENAME: entry.filename,
                _DESCRIPTOR: json.dumps(dict(entry.descriptor.value), separators=(",", ":")),
            },
        )

    def burn(self, project: str, key: str, journal: Journal) -> None:
        """A name is not used again."""
        number = journal.restored.get(_hash(key), 0)
        self._put(self.repository(project), f"burnt-{_hash(key)}-{number}", {})

    def restore(self, project: str, key: str, journal: Journal) -> None:
        """A burnt name may be used again. What was published under it before is forgotten."""
        number = journal.restored.get(_hash(key), 0)
        self._put(self.repository(project), f"restored-{_hash(key)}-{number}", {})

    # -- the list of projects --------------------------------------------------------------------

    def projects(self) -> set[str]:
        """The normalised names of the projects that were added to the list."""
        return {tag for tag in self._client.tags(self._projects) or () if normalize(tag) == tag}

    def add_project(self, project: str) -> None:
        """Add a project to the list, unless its name is too long for a tag."""
        if tag_of(project) is not None:
            self._put(self._projects, project, {})

    def _put(self, repository: str, tag: str, annotations: Mapping[str, str]) -> None:
        digest = digest_of(EMPTY_CONTENT)
        empty = {"mediaType": EMPTY, "digest": digest, "size": len(EMPTY_CONTENT)}
        content = compact(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "artifactType": ARTIFACT,
                "config": empty,
                "layers": [empty],
                "annotations": {**annotations, CREATED: format_time(datetime.now(UTC))},
            }
        )
        try:
            self._client.put_manifest(repository, tag, content, MANIFEST)
        except BlobUnknown:  # the first tag of this repository
            self._client.put_blob(repository, digest, EMPTY_CONTENT, mount_from=self._projects)
            self._client.put_manifest(repository, tag, content, MANIFEST)

    # -- taking turns ----------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self, project: str, tag: str) -> Iterator[Journal]:
        """Exclude every other server from changing the index of a version.

        The processes and threads of one ROOT have to exclude each other before. Yields what the
        journal says now.
        """
        deadline = time.monotonic() + _PATIENCE
        wait = 0.05
        seen: dict[tuple[str, str], float] = {}  # locks of others -> since when
        while (journal := self._take(project, tag, seen)) is None:
            self._release(project)
            if time.monotonic() > deadline:
                raise BackendUnavailable(
                    f"another server has been changing version {tag!r} of {project!r} for long"
                )
            time.sleep(random.uniform(0, wait))  # noqa: S311 - spreads writers
            wait = min(2 * wait, 2.0)
        try:
            yield journal
        finally:
            self._release(project)

    def _take(self, project: str, tag: str, seen: dict[tuple[str, str], float]) -> Journal | None:
        """Take the lock, and read the journal; None if another server has the lock."""
        repository = self.repository(project)
        self._put(repository, f"lock-{self._server()}", {_HELD: tag})
        mine = f"lock-{self._server()}"
        is_free = True
        # All are looked at, even if one is held: so the locks of several servers that were killed
        # expire at the same time.
        tags = self._client.tags(repository) or []
        for other in tags:
            if not other.startswith("lock-") or other == mine:
                continue
            found = self._annotations(repository, other)
            # By our own clock alone: those of others may be wrong.
            since = seen.setdefault((other, found.get(CREATED, "")), time.monotonic())
            if found.get(_HELD) == tag and time.monotonic() - since < _HELD_FOR:
                is_free = False
        return self._parse(tags) if is_free else None

    def _release(self, project: str) -> None:
        self._put(self.repository(project), f"lock-{self._server()}", {_HELD: ""})


def _hash(key: str) -> str:
    return sha256(key.encode()).hexdigest()[:_DIGITS]


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:_DIGITS]
