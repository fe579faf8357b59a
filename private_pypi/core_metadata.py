"""The core metadata of a distribution file: found, read leniently, and never changed.

What is served are the bytes as they are in the file; what is parsed here are only the facts that
an index needs.
"""

from __future__ import annotations

import hashlib
import logging
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import parse_email
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from private_pypi.errors import InvalidUpload
from private_pypi.filenames import normalize, parse_filename
from private_pypi.model import DistributionFile, StoredFile

logger = logging.getLogger(__name__)

_MAX_BYTES = 16 * 2**20
# Fields whose value a build may change, and that a resolver needs (PEP 643).
_RESOLUTION_FIELDS = {
    "requires-python",
    "requires-dist",
    "provides-extra",
    "requires",
    "provides",
    "obsoletes",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMetadata:
    """The facts of a METADATA or PKG-INFO; None where the field is missing."""

    metadata_version: str | None
    name: str | None
    version: str | None
    summary: str | None
    requires_python: str | None
    dynamic: frozenset[str]  # lower case

    @property
    def is_static(self) -> bool:
        """Whether a wheel built from this sdist must have the same dependencies (protocol 30)."""
        try:
            recent = Version(self.metadata_version or "0") >= Version("2.2")
        except InvalidVersion:
            return False
        return recent and not self.dynamic & _RESOLUTION_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A file that came by another road, with what was found in it."""

    file: DistributionFile
    core_metadata: bytes | None  # only where it may be offered


def parse_core_metadata(content: bytes) -> CoreMetadata:
    """Read the fields that can be read; nothing in them is an error here."""
    raw, _ = parse_email(content)
    return CoreMetadata(
        metadata_version=raw.get("metadata_version"),
        name=raw.get("name"),
        version=raw.get("version"),
        summary=raw.get("summary"),
        requires_python=raw.get("requires_python"),
        dynamic=frozenset(field.lower() for field in raw.get("dynamic", ())),
    )


def read_core_metadata(path: Path, filename: str) -> bytes | None:
    """METADATA of a wheel or PKG-INFO of an sdist, byte for byte; None when there is none.

    Raises `InvalidUpload` when the archive cannot be read.
    """
    try:
        if filename.endswith(".tar.gz"):
            return _from_tar(path)
        return _from_zip(path, ".dist-info/METADATA" if filename.endswith(".whl") else "/PKG-INFO")
    except (OSError, EOFError, zipfile.BadZipFile, tarfile.TarError, zlib.error) as error:
        raise InvalidUpload(f"{filename}: the archive cannot be read: {error}") from error


def offered_core_metadata(path: Path, filename: str) -> bytes | None:
    """The core metadata where an index may offer it (protocol 30)."""
    content = read_core_metadata(path, filename)
    if content is None or filename.endswith(".whl") or parse_core_metadata(content).is_static:
        return content
    return None


def examine(stored: StoredFile, path: Path) -> Examined:
    """Open and hash a file that has no record; `uploaded_at` stays unknown.

    Raises `InvalidUpload` when it is broken or not what its name says.
    """
    parsed = parse_filename(stored.filename)
    content = read_core_metadata(path, stored.filename)
    if content is None:
        raise InvalidUpload(f"{stored.filename}: there is no core metadata in it")
    metadata = parse_core_metadata(content)
    if metadata.name is None or normalize(metadata.name) != parsed.project:
        raise InvalidUpload(f"{stored.filename}: its metadata names project {metadata.name!r}")
    if not _same_version(metadata.version, parsed.version):
        raise InvalidUpload(f"{stored.filename}: its metadata names version {metadata.version!r}")
    offered = parsed.kind == "wheel" or metadata.is_static
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Examined(
        file=DistributionFile(
            project=parsed.project,
            filename=stored.filename,
            version=str(parsed.version),
            size=stored.size,
            sha256=sha256,
            uploaded_at=None,
            requires_python=_requires_python(metadata, stored.filename),
            yanked=None,
            core_metadata_sha256=hashlib.sha256(content).hexdigest() if offered else None,
            location=stored.location,
        ),
        core_metadata=content if offered else None,
    )


def _requires_python(metadata: CoreMetadata, filename: str) -> str | None:
    if not metadata.requires_python:
        return None
    try:
        SpecifierSet(metadata.requires_python)
    except InvalidSpecifier:
        logger.warning("%s: invalid Requires-Python %r", filename, metadata.requires_python)
        return None
    return metadata.requires_python


def _same_version(text: str | None, version: Version) -> bool:
    try:
        return text is not None and Version(text) == version
    except InvalidVersion:
        return False


def _from_zip(path: Path, ending: str) -> bytes | None:
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if info.filename.endswith(ending) and info.filename.count("/") == 1:
                if info.file_size > _MAX_BYTES:
                    raise InvalidUpload(f"{info.filename} is larger than {_MAX_BYTES} bytes")
                return archive.read(info)
    return None


def _from_tar(path: Path) -> bytes | None:
    with tarfile.open(path, "r|gz") as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name.endswith("/PKG-INFO") and name.count("/") == 1 and member.isfile():
                if member.size > _MAX_BYTES:
                    raise InvalidUpload(f"{member.name} is larger than {_MAX_BYTES} bytes")
                opened = archive.extractfile(member)
                return None if opened is None else opened.read()
    return None
