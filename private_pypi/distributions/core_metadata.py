"""Finds the core metadata in a distribution file, and reads the fields that an index needs.

Core metadata is the file METADATA of a wheel, or PKG-INFO of a source distribution (sdist). Clients
get it byte for byte as it is in the file. Mistakes in it are tolerated here; uploads are checked
more strictly in `distributions.upload`.
"""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import logging
import os
import re
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO, cast

from packaging.specifiers import InvalidSpecifier, SpecifierSet

from private_pypi.distributions import tar_members, zip_members
from private_pypi.distributions.archives import most_unpacked, place_to_read
from private_pypi.distributions.filenames import (
    ParsedFilename,
    is_version,
    normalize,
    parse_filename,
)
from private_pypi.distributions.records import first_seen, one_line, published_name
from private_pypi.errors import BackendError, InvalidUpload, PrivatePypiError
from private_pypi.model import DistributionFile, StoredFile

logger = logging.getLogger(__name__)

LARGEST_METADATA = 16 * 2**20
"""The size in bytes up to which METADATA or PKG-INFO is read. A larger one is an error."""

_NEEDED_FIELDS = {
    "metadata-version",
    "name",
    "version",
    "requires-python",
    "summary",
    "keywords",
    "dynamic",
}
_FOR_PEOPLE = ("summary", "keywords")  # shown on one line; a second one is ignored
_LONGEST_VALUE = 16 * 2**10  # characters of a field
_MAX_DIRECTORY = 64 * 2**20  # bytes of the central directory of a zip file
_MAX_GLOBAL = 10_000  # records of global pax headers
_MAX_HEADER = 2**20  # bytes of a pax header or a long name of a tar file
_SMALL = 256 * 2**10  # bytes of a file that is read in one piece
_LONGEST_REQUIRES_PYTHON = 1000  # characters; it is on every page
# The fields that installers need to choose versions. If an sdist declares one of them dynamic, a
# wheel built from it may have another value (PEP 643).
_RESOLUTION_FIELDS = {
    "requires-python",
    "requires-dist",
    "provides-extra",
    "requires",
    "provides",
    "obsoletes",
}

# All headers, and one header with its continuation lines. They match what the email parser of the
# standard library accepts. That parser needs seconds and hundreds of megabytes for some texts in
# small archives. The time and memory of these expressions grow in proportion to the text. They
# have no lookahead inside of a possessive repetition: Python 3.11.2, that of Debian 12, never finds
# what comes after it.
_HEADERS = re.compile(rb"(?:(?:From |[!-9;-~]*+:|[ \t])[^\r\n]*+(?:\r\n|\r|\n|\Z))*+")
_FIELD = re.compile(
    rb"(?:\A|(?<=[\r\n]))([!-9;-~]++):([^\r\n]*+(?:(?:\r\n|\r|\n)[ \t][^\r\n]*+)*+)"
)
_METADATA_VERSION = re.compile(r"([0-9]{1,9})\.([0-9]{1,9})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CoreMetadata:
    """The fields of METADATA or PKG-INFO; None if a field is missing, empty or there twice."""

    metadata_version: str | None
    name: str | None
    version: str | None
    requires_python: str | None  # on one line
    summary: str | None  # on one line
    keywords: str | None  # on one line, as they are written
    dynamic: frozenset[str]  # those that matter to installers, in lower case
    repeated: tuple[str, ...]  # fields that must be there once, but are there more than once

    @property
    def is_static(self) -> bool:
        """Whether all wheels built from this sdist have the dependencies that it declares.

        Only then may an index offer its core metadata, because installers rely on it (PEP 643).
        """
        match = _METADATA_VERSION.fullmatch(self.metadata_version or "")
        recent = match is not None and (int(match[1]), int(match[2])) >= (2, 2)
        return recent and not self.dynamic


@dataclass(frozen=True, slots=True, kw_only=True)
class Examined:
    """What was found in a file that was not uploaded through a server."""

    file: DistributionFile
    core_metadata: bytes | None  # None: there is none, or it may not be offered


def parse_core_metadata(content: bytes) -> CoreMetadata:
    """Parse METADATA or PKG-INFO. Never fails: what cannot be parsed is left out."""
    found: dict[str, str] = {}
    repeated: set[str] = set()
    dynamic: set[str] = set()
    for field, raw in read_fields(split_headers(content)[0]):
        if field not in _NEEDED_FIELDS:
            continue
        value = raw.decode(errors="replace")
        if field in _FOR_PEOPLE:
            value = one_line(value) or ""
        elif len(value) <= _LONGEST_VALUE:
            value = " ".join(value.split())
        else:  # no valid value is that long, so it will be refused where it is used
            value = value[:_LONGEST_VALUE]
        if not value:
            continue
        if field == "dynamic":
            dynamic |= {value.lower()} & _RESOLUTION_FIELDS
        elif field in found and field not in _FOR_PEOPLE:
            repeated.add(field)
        else:
            found.setdefault(field, value)

    def single(field: str) -> str | None:
        return None if field in repeated else found.get(field)

    return CoreMetadata(
        metadata_version=single("metadata-version"),
        name=single("name"),
        version=single("version"),
        requires_python=single("requires-python"),
        summary=found.get("summary"),
        keywords=found.get("keywords"),
        dynamic=frozenset(dynamic),
        repeated=tuple(sorted(repeated)),
    )


def split_headers(content: bytes) -> tuple[bytes, bytes]:
    """The headers of core metadata, and the text that follows them."""
    match = _HEADERS.match(content)
    end = match.end() if match else 0
    return content[:end], content[end:]


def read_fields(headers: bytes) -> Iterator[tuple[str, bytes]]:
    """The name in lower case and the value of each header. A value may have several lines."""
    for match in _FIELD.finditer(headers):
        yield match[1].decode().lower(), match[2]


def parse_requires_python(text: str) -> SpecifierSet:
    """Parse a Requires-Python, such as ">=3.9,<4"; raises `InvalidSpecifier`."""
    if len(text) > _LONGEST_REQUIRES_PYTHON:
        raise InvalidSpecifier(f"longer than {_LONGEST_REQUIRES_PYTHON} characters")
    return SpecifierSet(text)


def read_core_metadata(source: Path | BinaryIO, filename: str) -> bytes | None:
    """METADATA of a wheel or PKG-INFO of an sdist, byte for byte; None if there is none.

    `source` is a path, or an open file of which only the necessary parts are read. Raises
    `InvalidUpload` if the archive is damaged, and `OSError` if the file cannot be read.
    """
    opened = source.open("rb") if isinstance(source, Path) else nullcontext(source)
    with _damage_is_invalid(filename), opened as file, _place_for(file):
        # Parts of a file that is elsewhere are not asked for twice.
        if not isinstance(file, io.RawIOBase):
            with suppress(InvalidUpload):
                found = _from_strict(file, filename)
                if found is not None:
                    return found
            file.seek(0)
        return _from_library(file, filename)


@contextmanager
def _damage_is_invalid(filename: str) -> Iterator[None]:
    """Raise `InvalidUpload` for every error that comes from the content of the file.

    The standard library raises a dozen types of errors for damaged archives, such as `TypeError`
    for a gzip file of three bytes. Three kinds of errors do not come from the content: our own
    errors, an `OSError` of the storage, and a lack of memory.
    """
    try:
        yield
    except PrivatePypiError:
        raise
    except MemoryError as error:
        raise BackendError(f"there is not enough memory to examine {filename!r}") from error
    except OSError as error:
        # A damaged archive can make zipfile seek to a negative position, which is EINVAL. bz2 and
        # gzip raise an OSError without a number for damaged data.
        if error.errno not in (None, errno.EINVAL):
            raise
        why = str(error) if isinstance(error, gzip.BadGzipFile) else "it is damaged"
        raise InvalidUpload(f"{filename}: the archive cannot be read: {why}") from error
    except Exception as error:
        # The messages of these errors are about Python code, not about the file.
        about_code = (ArithmeticError, AssertionError, AttributeError, LookupError, TypeError)
        why = "" if isinstance(error, about_code) else f"{error}"[:200]
        raise InvalidUpload(
            f"{filename}: the archive cannot be read: {why or 'it is damaged'}"
        ) from error


def _place_for(file: BinaryIO) -> AbstractContextManager[None]:
    """Limits how many local files are read at a time.

    Remote files are not limited: they would block a place while they wait for the network.
    """
    if isinstance(file, BufferedReader):
        return place_to_read(os.fstat(file.fileno()).st_size)
    return nullcontext()


def offered_core_metadata(path: Path, filename: str) -> bytes | None:
    """The core metadata of a file; None if there is none, or an index may not offer it."""
    content = read_core_metadata(path, filename)
    if content is None or filename.endswith(".whl") or parse_core_metadata(content).is_static:
        return content
    return None


def examine(stored: StoredFile, file: BufferedReader) -> Examined:
    """Read and hash a file that has no record.

    Raises `InvalidUpload` if the file is damaged or does not fit its name, and `OSError` if it
    cannot be read.
    """
    parsed = parse_filename(stored.filename)
    size = os.fstat(file.fileno()).st_size
    if size <= _SMALL:
        with place_to_read(size):
            whole = file.read(_SMALL + 1)
            content = read_core_metadata(io.BytesIO(whole), stored.filename)
        digest = hashlib.sha256(whole)
    else:
        content = read_core_metadata(file, stored.filename)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
    return _examined(stored, parsed, content, digest.hexdigest())


def examine_parts(stored: StoredFile, sha256: str, content: BinaryIO) -> Examined:
    """The same as `examine` for a file whose hash is known; only some parts of it are read."""
    parsed = parse_filename(stored.filename)
    return _examined(stored, parsed, read_core_metadata(content, stored.filename), sha256)


def require_sound(content: BinaryIO, filename: str) -> None:
    """Raise `InvalidUpload` unless an open file is whole, and of the release that its name says."""
    found = read_core_metadata(content, filename)
    if found is not None:
        require_release(found, filename)
    elif filename.endswith(".whl"):
        raise InvalidUpload(f"{filename}: .dist-info/METADATA is missing")
    if filename.endswith(".tar.gz"):  # a zip file has its directory at its end
        size = content.seek(0, io.SEEK_END)
        content.seek(0)
        with _damage_is_invalid(filename):
            unpacked = _Unpacked(content, most_unpacked(size))
            while unpacked.read(_MAX_HEADER):
                pass


def require_release(core_metadata: bytes, filename: str) -> None:
    """Raise `InvalidUpload` unless core metadata are of the release that a filename says."""
    _check_release(parse_core_metadata(core_metadata), filename, parse_filename(filename))


def _examined(
    stored: StoredFile, parsed: ParsedFilename, content: bytes | None, sha256: str
) -> Examined:
    with _damage_is_invalid(stored.filename):
        metadata = None if content is None else parse_core_metadata(content)
        if metadata is not None:
            _check_release(metadata, stored.filename, parsed)
        elif parsed.kind == "wheel":
            raise InvalidUpload(f"{stored.filename}: .dist-info/METADATA is missing")
        requires_python = _requires_python(metadata, stored.filename)
    # Some sdists have no PKG-INFO, such as PyPDF2-1.26.0.tar.gz, and can be installed.
    if metadata is None or not (parsed.kind == "wheel" or metadata.is_static):
        content = None  # may not be offered
    return Examined(
        file=DistributionFile(
            project=parsed.project,
            filename=stored.filename,
            version=str(parsed.version),
            size=stored.size,
            sha256=sha256,
            uploaded_at=stored.uploaded_at or first_seen(stored),
            requires_python=requires_python,
            yanked=stored.yanked,
            core_metadata_sha256=None if content is None else hashlib.sha256(content).hexdigest(),
            location=stored.location,
            summary=metadata.summary if metadata else None,
            published_name=published_name(metadata.name if metadata else None, parsed.project),
            keywords=metadata.keywords if metadata else None,
        ),
        core_metadata=content,
    )


def _check_release(metadata: CoreMetadata, filename: str, parsed: ParsedFilename) -> None:
    if metadata.name != parsed.project and (
        metadata.name is None or normalize(metadata.name) != parsed.project
    ):
        raise InvalidUpload(
            f"{filename}: its metadata has the project name {metadata.name!r:.100}, "
            f"but the project in the filename is {parsed.project}"
        )
    if metadata.version != str(parsed.version) and not is_version(metadata.version, parsed.version):
        raise InvalidUpload(
            f"{filename}: its metadata has the version {metadata.version!r:.100}, "
            f"but the version in the filename is {parsed.version}"
        )


def _requires_python(metadata: CoreMetadata | None, filename: str) -> str | None:
    if metadata is None or metadata.requires_python is None:
        return None
    if not _is_requires_python(metadata.requires_python):
        logger.warning("%s: invalid Requires-Python %.100r", filename, metadata.requires_python)
        return None
    return metadata.requires_python


@lru_cache(maxsize=256)  # most files of an index have one of a few
def _is_requires_python(text: str) -> bool:
    try:
        parse_requires_python(text)
    except InvalidSpecifier:
        return False
    return True


# Nearly all archives are read by the strict readers, in a fraction of the time that the standard
# library needs. Only what they refuse, or find nothing in, is left to the standard library, which
# tolerates more. What they accept, the standard library would read in the same way.


def _from_strict(file: BinaryIO, filename: str) -> bytes | None:
    """The core metadata as the strict readers find them. Raises `InvalidUpload`."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if filename.endswith(".tar.gz"):
        for member, content in tar_members.read_members(
            tar_members.Gunzip(file, most_unpacked(size))
        ):
            if member.kind == "file" and _is_metadata(member.name, "/PKG-INFO"):
                return _joined(content, member.size)
        return None
    found = zip_members.find_member(file, size, partial(_is_metadata, ending=_ending(filename)))
    return None if found is None else _joined(zip_members.unpack(file, found), found.size)


def _from_library(file: BinaryIO, filename: str) -> bytes | None:
    """The core metadata as the standard library finds them. Raises many types of errors."""
    if filename.endswith(".tar.gz"):
        return _from_tar(file)
    return _from_zip(file, _ending(filename))


def _is_metadata(name: str, ending: str) -> bool:
    if "\0" in name:  # the standard library ends the name there
        raise InvalidUpload("the name of a member has a null character")
    return name.endswith(ending) and name.count("/") == 1


def _joined(content: Iterable[bytes], size: int) -> bytes:
    if size > LARGEST_METADATA:
        raise InvalidUpload(f"its core metadata are larger than {LARGEST_METADATA} bytes")
    found = b"".join(content)
    if len(found) != size:
        raise InvalidUpload("its core metadata are cut off")
    return found


def _ending(filename: str) -> str:
    return ".dist-info/METADATA" if filename.endswith(".whl") else "/PKG-INFO"


def _from_zip(file: BinaryIO, ending: str) -> bytes | None:
    with zipfile.ZipFile(cast(BinaryIO, _Bounded(file))) as archive:
        for info in archive.infolist():
            if info.filename.endswith(ending) and info.filename.count("/") == 1:
                if info.flag_bits & 1:
                    raise ValueError(f"{info.filename!r} is encrypted")
                if info.file_size > LARGEST_METADATA:
                    raise ValueError(f"{info.filename!r} is larger than {LARGEST_METADATA} bytes")
                return archive.read(info)
    return None


def _from_tar(file: BinaryIO) -> bytes | None:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    unpacked = _Unpacked(file, most_unpacked(size))
    with tarfile.open(fileobj=unpacked, mode="r:") as archive:
        while (member := archive.next()) is not None:
            name = member.name.removeprefix("./")
            if name.endswith("/PKG-INFO") and name.count("/") == 1 and member.isfile():
                if member.size > LARGEST_METADATA:
                    raise ValueError(f"{member.name!r} is larger than {LARGEST_METADATA} bytes")
                opened = archive.extractfile(member)
                return None if opened is None else opened.read()
            # tarfile remembers all members, which would take much memory.
            archive.members = []  # type: ignore[attr-defined]
            if len(archive.pax_headers) > _MAX_GLOBAL:
                raise ValueError("its global pax headers have too many records")
    return None


class _Bounded:
    """A file for `zipfile` that limits the size of the central directory.

    `zipfile` reads the directory in one piece, and makes an object for each member.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        """The same as `read` of the file; raises ValueError if a limit is exceeded."""
        if size > _MAX_DIRECTORY:
            raise ValueError(f"its central directory has more than {_MAX_DIRECTORY} bytes")
        data = self._file.read(size)
        if data.count(b"PK\x01\x02") > zip_members.MAX_MEMBERS:
            raise ValueError(f"it has more than {zip_members.MAX_MEMBERS} members")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """The same as `seek` of the file; a negative position is an error of the archive."""
        if offset < 0 and whence == io.SEEK_SET:
            raise OSError(errno.EINVAL, "negative position")
        return self._file.seek(offset, whence)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Unpacked(gzip.GzipFile):
    """A gzip file that unpacks to a limited number of bytes, and is read in limited pieces.

    `tarfile` reads each header in one piece, and a tar file can claim any length for its headers.
    """

    def __init__(self, file: BinaryIO, limit: int) -> None:
        super().__init__(fileobj=file, mode="rb")
        self._limit = limit

    def read(self, size: int | None = -1) -> bytes:
        """The same as `read` of a file; raises ValueError if a limit is exceeded."""
        if size is None or not 0 <= size <= _MAX_HEADER:
            raise ValueError(f"it has a header of {size} bytes")
        data = super().read(size)
        if self.tell() > self._limit:
            raise ValueError(f"it unpacks to more than {self._limit} bytes")
        return data
