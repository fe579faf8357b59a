"""Helpers of the contracts. Authors of backends may use them for their own tests as well."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from private_pypi.backend import (
    Access,
    Folders,
    ReadSecretSettings,
    SupportsAliases,
    SupportsCoreMetadata,
    SupportsDelete,
    SupportsFind,
    SupportsIndex,
    SupportsKeepOpen,
    SupportsList,
    SupportsListingMark,
    SupportsListParts,
    SupportsLookup,
    SupportsOverwriteIndex,
    SupportsParts,
    SupportsProjectList,
    SupportsProjects,
    SupportsPublicAddresses,
    SupportsPublish,
    SupportsRecent,
    SupportsRecords,
    SupportsReplaceIndex,
    SupportsRestore,
    SupportsSweep,
    SupportsUpstream,
    SupportsYank,
    capability,
)
from private_pypi.distributions.filenames import parse_filename
from private_pypi.distributions.records import make_record
from private_pypi.errors import NotAllowed, PrivatePypiError, ProjectNotFound, WrongSecret
from private_pypi.model import (
    DistributionFile,
    Download,
    LocalFile,
    Record,
    Redirect,
    StoredFile,
    Stream,
    Upload,
)
from private_pypi.testing.distributions import make_wheel

MIB = 1 << 20  # bytes

_LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)

Tested = Any
"""A `Storage` that supports the protocols that a contract tests."""


def garbage_files() -> dict[str, bytes]:
    """Damaged files by name. Each makes the standard library raise another type of error."""
    _, wheel = make_wheel()
    absurd = bytearray(wheel)
    for signature, sizes in ((b"PK\x01\x02", 20), (b"PK\x03\x04", 18)):
        at = wheel.rfind(signature)
        while at >= 0:  # packed and unpacked size of every member
            absurd[at + sizes : at + sizes + 8] = b"\xf0\xff\xff\xff" * 2
            at = wheel.rfind(signature, 0, at)
    nested = io.BytesIO()
    with zipfile.ZipFile(nested, "w") as archive:
        headers = b"Metadata-Version: 2.1\nName: demo\nVersion: " + b"(" * 100_000
        archive.writestr("demo-5.0.dist-info/METADATA", headers)
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w:gz") as archive_of_sdist:
        member = tarfile.TarInfo("demo-6.0/PKG-INFO")
        member.pax_headers = {"size": "9" * 5000}
        archive_of_sdist.addfile(member)
    return {
        "demo-1.0.tar.gz": b"\x1f\x8b\x08",
        "demo-2.0-py3-none-any.whl": wheel[:-30],
        "demo-3.0-py3-none-any.whl": bytes(absurd),
        "demo-4.0.zip": b"PK\x05\x06" + b"\xff" * 18,
        "demo-5.0-py3-none-any.whl": nested.getvalue(),
        "demo-6.0.tar.gz": tar.getvalue(),
        "demo-7.0.tar.gz": gzip.compress(b"x" * 10_000)[:-4],
    }


def access_of(storage: Tested, project: str) -> Access:
    """What a secret may do with a project. A wrong secret may also raise `WrongSecret`."""
    try:
        access: Access = storage.access(project)
        return access
    except (WrongSecret, NotAllowed):
        return Access.NONE


def files_of(storage: Tested, project: str) -> list[StoredFile]:
    """The files that a lookup of a project returns, without those of other projects."""
    try:
        stored = list(storage.project_files(project))
    except ProjectNotFound:
        return []
    return [file for file in stored if parse_filename(file.filename).project == project]


def calls_of(
    storage: Tested, upload: Upload, stored: StoredFile, index: str, tmp_path: Path
) -> dict[str, Callable[[], object]]:
    """Calls of all methods that access the storage, by the name of the method.

    `upload` was published as `stored`, and `index` is the revision of the index document.
    """
    file = published(upload, stored)
    new = make_upload(tmp_path, "demo-2.0.tar.gz", b"new")
    into, written = folder(tmp_path) / "index.toml", document(tmp_path, b"mtime = 1\n")
    calls: dict[type, dict[str, Callable[[], object]]] = {
        SupportsList: {"list_files": lambda: list(storage.list_files())},
        SupportsListingMark: {"listing_mark": lambda: storage.listing_mark()},
        SupportsKeepOpen: {"kept_open": lambda: content_of(opened_by_kept(storage, file))},
        SupportsListParts: {"list_parts": lambda: listed_in_parts(storage)},
        SupportsFind: {"find_file": lambda: storage.find_file(file.filename)},
        SupportsLookup: {"project_files": lambda: list(storage.project_files("demo"))},
        SupportsProjects: {"projects": lambda: list(storage.projects())},
        SupportsProjectList: {"update_projects": lambda: storage.update_projects()},
        SupportsRecords: {"read_record": lambda: storage.read_record(replace(stored, record=None))},
        SupportsRecent: {"recent_files": lambda: list(storage.recent_files(_LONG_AGO))},
        SupportsCoreMetadata: {
            "open_core_metadata": lambda: content_of(storage.open_core_metadata(file))
        },
        SupportsParts: {"read_part": lambda: storage.read_part(stored.location, 0, 3)},
        SupportsAliases: {"find_alias": lambda: storage.find_alias("1", file.filename)},
        SupportsPublicAddresses: {"public_addresses": lambda: storage.public_addresses([file])},
        SupportsSweep: {"sweep": lambda: storage.sweep()},
        SupportsUpstream: {
            "project_page": lambda: storage.project_page("demo", ""),
            "project_page of a missing project": lambda: storage.project_page("never-was", "x"),
            "project_names": lambda: list(storage.project_names("").names),
            "file_size": lambda: storage.file_size(file),
            "open_metadata": lambda: content_of(storage.open_metadata(file)),
        },
        SupportsPublish: {"put_file": lambda: storage.put_file(new)},
        SupportsDelete: {"delete_file": lambda: storage.delete_file(file)},
        SupportsRestore: {"restore_name": lambda: storage.restore_name("demo", file.filename)},
        SupportsYank: {"yank_file": lambda: storage.yank_file(file, "broken")},
        SupportsIndex: {"read_index": lambda: storage.read_index(into)},
        SupportsReplaceIndex: {"write_index": lambda: storage.write_index(written, index)},
        SupportsOverwriteIndex: {"overwrite_index": lambda: storage.overwrite_index(written)},
    }
    found: dict[str, Callable[[], object]] = {
        "open_file": lambda: content_of(storage.open_file(file))
    }
    if not isinstance(storage.backend.settings, ReadSecretSettings):  # else nothing is asked
        found["access"] = lambda: storage.access()
    for protocol, verbs in calls.items():
        if capability(storage, protocol) is not None:
            found |= verbs
    return found


def opened_by_kept(storage: Tested, file: DistributionFile) -> Download:
    """A file as the view gives it that keeps the storage open."""
    with storage.kept_open() as kept:
        opened: Download = kept.open_file(file)
        return opened


def listed_in_parts(storage: Tested) -> list[StoredFile]:
    """All files of a storage that is listed in parts."""
    return [file for part in storage.list_parts() for file in storage.list_part(part)]


def folder(tmp_path: Path) -> Path:
    """A new folder below `tmp_path`."""
    return Path(tempfile.mkdtemp(dir=tmp_path))


def new_folders(tmp_path: Path) -> Folders:
    """The folders of another server."""
    root = folder(tmp_path)
    folders = Folders(cache=root / "cache", lock=root / "lock", tmp=root / "tmp")
    for path in (folders.cache, folders.lock, folders.tmp):
        path.mkdir()
    return folders


def make_upload(
    tmp_path: Path,
    filename: str,
    content: bytes = b"",
    fields: Record = MappingProxyType({}),
    *,
    core_metadata: bytes | None = b"Metadata-Version: 2.1\nName: demo\n",
    zeros: int = 0,
) -> Upload:
    """An upload of `content`, or of a file with a number of `zeros`, as the core passes it on."""
    path = folder(tmp_path) / "content"
    path.write_bytes(content)
    if zeros:
        os.truncate(path, zeros)
    parsed = parse_filename(filename)
    with path.open("rb") as opened:
        sha256 = hashlib.file_digest(opened, "sha256").hexdigest()
    file = DistributionFile(
        project=parsed.project,
        filename=filename,
        version=str(parsed.version),
        size=path.stat().st_size,
        sha256=sha256,
        uploaded_at=datetime(2026, 11, 20, 12, 30, 0, 123456, tzinfo=UTC),
        requires_python=">=3.8",
        yanked=None,
        core_metadata_sha256=(
            None if core_metadata is None else hashlib.sha256(core_metadata).hexdigest()
        ),
        location="",
    )
    record = make_record(file, list(fields.items()))
    return Upload(file=file, content=path, core_metadata=core_metadata, record=record)


def published(upload: Upload, stored: StoredFile) -> DistributionFile:
    """The file of an upload, with the location that the storage gave it."""
    return replace(upload.file, location=stored.location)


def document(tmp_path: Path, content: bytes) -> Path:
    """A file with the content of an index document."""
    path = folder(tmp_path) / "index.toml"
    path.write_bytes(content)
    return path


def chunks_of(download: Download) -> Iterator[bytes]:
    """The content of a download, as a server would send it."""
    match download:
        case LocalFile(file):
            with file:
                while chunk := file.read(MIB):
                    yield chunk
        case Redirect(url, _):
            # Clients get only the address, so no credentials are sent.
            with urllib.request.urlopen(url, timeout=60) as answer:
                while chunk := answer.read(MIB):
                    yield chunk
        case Stream(chunks, _):
            yield from chunks


def content_of(download: Download) -> bytes:
    """The whole content of a download. A stream must have the size that it claims."""
    content = b"".join(chunks_of(download))
    if isinstance(download, Stream):
        assert len(content) == download.size, (
            f"a stream of {download.size} bytes has {len(content)} bytes"
        )
    return content


def at_once(calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """Make all calls at the same time, each in its own thread; return their results."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], Any]) -> Any:
        start.wait(timeout=60)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def outcome(call: Callable[..., Any], *arguments: Any) -> Any:
    """What a call returns, or the `PrivatePypiError` that it raises."""
    try:
        return call(*arguments)
    except PrivatePypiError as error:
        return error
