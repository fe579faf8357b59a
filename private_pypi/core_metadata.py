"""The core metadata of a distribution file: found, read leniently, and never changed.

What is served are the bytes as they are in the file; what is parsed here are only the facts that
an index needs.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import logging
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from private_pypi.errors import InvalidUpload
from private_pypi.filenames import ParsedFilename, is_version, normalize, parse_filename
from private_pypi.model import DistributionFile, StoredFile
from private_pypi.records import one_line

logger = logging.getLogger(__name__)

_MAX_BYTES = 16 * 2**20
_LONGEST_REQUIRES_PYTHON = 1000  # characters; it is on every page
# Fields whose value a build may change, and that a resolver needs (PEP 643).
_RESOLUTION_FIELDS = {
    "requires-python",
    "requires-dist",
    "provides-extra",
    "requires",
    "provides",
    "obsoletes",
}

# The headers, as far as the standard library's email parser reads them; and those wanted of them,
# each with its continuation lines. That parser takes seconds and hundreds of megabytes for what a
# small archive can unpack to; these expressions take time and memory in proportion.
_HEADERS = re.compile(rb"(?:(?:From |[!-9;-~]*+:|[ \t])[^\r\n]*+(?:\r\n|\r|\n|\Z))*+")
_FIELD = re.compile(
    rb"(?:\A|(?<=[\r\n]))(Metadata-Version|Name|Version|Requires-Python|Summary|Dynamic):"
    rb"([^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+)",
    re.IGNORECASE,
)
_METADATA_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")

# What the standard library raises for archives that are damaged, encrypted or of unknown methods;
# an OSError is none of these: it is trouble with the storage.
_BROKEN = (
    EOFError,
    LookupError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    ValueError,
    gzip.BadGzipFile,
    lzma.LZMAError,
    struct.error,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMetadata:
    """The facts of a METADATA or PKG-INFO; None where a field is missing, empty or given twice."""

    metadata_version: str | None
    name: str | None
    version: str | None
    requires_python: str | None  # on one line
    summary: str | None  # on one line
    dynamic: frozenset[str]  # lower case
    repeated: tuple[str, ...]  # fields with one value that are given more than once

    @property
    def is_static(self) -> bool:
        """Whether a wheel built from this sdist must have the same dependencies (protocol 30)."""
        match = _METADATA_VERSION.fullmatch(self.metadata_version or "")
        recent = match is not None and (int(match[1]), int(match[2])) >= (2, 2)
        return recent and not self.dynamic & _RESOLUTION_FIELDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """A file that came by another road, with what was found in it."""

    file: DistributionFile
    core_metadata: bytes | None  # only where it may be offered


def parse_core_metadata(content: bytes) -> CoreMetadata:
    """Read the fields that can be read; nothing in them is an error here."""
    headers, _ = split_headers(content)
    found: dict[str, list[str]] = {}
    for match in _FIELD.finditer(headers):
        value = " ".join(match[2].decode(errors="replace").split())
        if value:
            found.setdefault(match[1].decode().lower(), []).append(value)
    dynamic = found.pop("dynamic", [])
    summaries = found.pop("summary", [None])  # a second one hurts nobody
    return CoreMetadata(
        metadata_version=_single(found.get("metadata-version")),
        name=_single(found.get("name")),
        version=_single(found.get("version")),
        requires_python=_single(found.get("requires-python")),
        summary=summaries[0],
        dynamic=frozenset(field.lower() for field in dynamic),
        repeated=tuple(sorted(field for field, values in found.items() if len(values) > 1)),
    )


def split_headers(content: bytes) -> tuple[bytes, bytes]:
    """The headers, and what follows the empty line after them."""
    match = _HEADERS.match(content)
    end = match.end() if match else 0
    return content[:end], content[end:]


def _single(values: Sequence[str] | None) -> str | None:
    return values[0] if values is not None and len(values) == 1 else None


def parse_requires_python(text: str) -> SpecifierSet:
    """The versions of Python that a file is for; raises `InvalidSpecifier`."""
    if len(text) > _LONGEST_REQUIRES_PYTHON:
        raise InvalidSpecifier(f"longer than {_LONGEST_REQUIRES_PYTHON} characters")
    return SpecifierSet(text)


def read_core_metadata(source: Path | BinaryIO, filename: str) -> bytes | None:
    """METADATA of a wheel or PKG-INFO of an sdist, byte for byte; None when there is none.

    `source` is a path, or an open file, of which only the needed parts are read. Raises
    `InvalidUpload` when the archive cannot be read, and `OSError` when the file cannot.
    """
    try:
        if filename.endswith(".tar.gz"):
            return _from_tar(source)
        return _from_zip(
            source, ".dist-info/METADATA" if filename.endswith(".whl") else "/PKG-INFO"
        )
    except _BROKEN as error:
        raise InvalidUpload(f"{filename}: the archive cannot be read: {error}") from error
    except OSError as error:
        # zipfile goes where a damaged archive sends it, also before the beginning of the file;
        # bz2 has this word for damage, without a number.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise InvalidUpload(f"{filename}: the archive cannot be read: it is damaged") from error


def offered_core_metadata(path: Path, filename: str) -> bytes | None:
    """The core metadata where an index may offer it (protocol 30)."""
    content = read_core_metadata(path, filename)
    if content is None or filename.endswith(".whl") or parse_core_metadata(content).is_static:
        return content
    return None


def examine(stored: StoredFile, path: Path) -> Examined:
    """Open and hash a file that has no record; `uploaded_at` is what the storage says, if anything.

    Raises `InvalidUpload` when it is broken or not what its name says.
    """
    parsed = parse_filename(stored.filename)
    content = read_core_metadata(path, stored.filename)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return _examined(stored, parsed, content, sha256)


def examine_parts(stored: StoredFile, sha256: str, content: BinaryIO) -> Examined:
    """The same for a file whose hash the storage knows: only what has to be is read of it."""
    parsed = parse_filename(stored.filename)
    return _examined(stored, parsed, read_core_metadata(content, stored.filename), sha256)


def _examined(
    stored: StoredFile, parsed: ParsedFilename, content: bytes | None, sha256: str
) -> Examined:
    metadata = None if content is None else parse_core_metadata(content)
    if metadata is not None:
        _check_release(metadata, stored.filename, parsed)
    elif parsed.kind == "wheel":
        raise InvalidUpload(f"{stored.filename}: it has no .dist-info/METADATA")
    # There are sdists without PKG-INFO, such as PyPDF2-1.26.0.tar.gz, and they install.
    if metadata is None or not (parsed.kind == "wheel" or metadata.is_static):
        content = None  # not to be offered
    return Examined(
        file=DistributionFile(
            project=parsed.project,
            filename=stored.filename,
            version=str(parsed.version),
            size=stored.size,
            sha256=sha256,
            uploaded_at=stored.uploaded_at,
            requires_python=_requires_python(metadata, stored.filename),
            yanked=stored.yanked,
            core_metadata_sha256=None if content is None else hashlib.sha256(content).hexdigest(),
            location=stored.location,
            summary=one_line(metadata.summary if metadata else None),
        ),
        core_metadata=content,
    )


def _check_release(metadata: CoreMetadata, filename: str, parsed: ParsedFilename) -> None:
    if metadata.name is None or normalize(metadata.name) != parsed.project:
        raise InvalidUpload(f"{filename}: its metadata names project {metadata.name!r:.100}")
    if not is_version(metadata.version, parsed.version):
        raise InvalidUpload(f"{filename}: its metadata names version {metadata.version!r:.100}")


def _requires_python(metadata: CoreMetadata | None, filename: str) -> str | None:
    if metadata is None or metadata.requires_python is None:
        return None
    try:
        parse_requires_python(metadata.requires_python)
    except InvalidSpecifier:
        logger.warning("%s: invalid Requires-Python %.100r", filename, metadata.requires_python)
        return None
    return metadata.requires_python


def _from_zip(source: Path | BinaryIO, ending: str) -> bytes | None:
    with zipfile.ZipFile(source) as archive:
        for info in archive.infolist():
            if info.filename.endswith(ending) and info.filename.count("/") == 1:
                if info.flag_bits & 1:
                    raise ValueError(f"{info.filename!r} is encrypted")
                if info.file_size > _MAX_BYTES:
                    raise ValueError(f"{info.filename!r} is larger than {_MAX_BYTES} bytes")
                return archive.read(info)
    return None


def _from_tar(source: Path | BinaryIO) -> bytes | None:
    path, file = (source, None) if isinstance(source, Path) else (None, source)
    with tarfile.open(path, "r|gz", file) as archive:
        for member in archive:
            name = member.name.removeprefix("./")
            if name.endswith("/PKG-INFO") and name.count("/") == 1 and member.isfile():
                if member.size > _MAX_BYTES:
                    raise ValueError(f"{member.name!r} is larger than {_MAX_BYTES} bytes")
                opened = archive.extractfile(member)
                return None if opened is None else opened.read()
    return None
