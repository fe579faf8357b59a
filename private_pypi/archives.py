"""The archives of distribution files, opened and checked from end to end; nothing is extracted.

A wheel is a zip file (binary distribution format), an sdist a gzipped tar file or a zip file
(source distribution format). What a client would unpack is what was looked at here: one reading of
the bytes only, every checksum verified, nothing before, between or behind the members.
"""

from __future__ import annotations

import configparser
import csv
import io
import logging
import posixpath
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from packaging.version import InvalidVersion, Version

from private_pypi.errors import InvalidUpload
from private_pypi.filenames import ParsedFilename, normalize, parse_filename

logger = logging.getLogger(__name__)

_CHUNK = 1024 * 1024
_BOMB_FREE = 64 * 2**20  # bytes that any archive may unpack to
_BOMB_RATIO = 50  # above that, how many times its own size
_MAX_MEMBERS = 200_000
_MAX_TEXT = 16 * 2**20  # bytes of a metadata member

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_LOCATOR = struct.Struct("<4sLQL")
_ENCRYPTED = 0x1
_DESCRIPTOR = 0x8
_DESCRIPTOR_SIZES = (12, 16, 20, 24)  # with and without a signature, for 32 and 64 bits
_UNSET32 = 0xFFFFFFFF


def check_archive(path: Path, filename: str) -> bytes:
    """Check the whole archive and return its core metadata, byte for byte.

    Raises `InvalidUpload` with the first thing that is wrong.
    """
    parsed = parse_filename(filename)
    try:
        with path.open("rb") as file:
            if filename.endswith(".tar.gz"):
                return _check_tar(file, path.stat().st_size, filename, parsed)
            if tarfile.is_tarfile(path):
                raise InvalidUpload(f"{filename} is a zip file and a tar file at once")
            return _check_zip(file, path.stat().st_size, filename, parsed)
    except (
        EOFError,
        NotImplementedError,  # zipfile's word for a version or a method it does not know
        UnicodeDecodeError,
        struct.error,
        tarfile.TarError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InvalidUpload(f"{filename} is damaged: {error}") from error


# -- zip -----------------------------------------------------------------------------------------


def _check_zip(file: BinaryIO, size: int, filename: str, parsed: ParsedFilename) -> bytes:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        _check_count(filename, len(members))
        _check_names(filename, [(info.orig_filename, info.is_dir()) for info in members])
        _check_total(filename, sum(info.file_size for info in members), size)
        _check_end(file, size, archive.start_dir, len(members), filename)
        starts = _member_starts(file, members, archive.start_dir, filename)
    if parsed.kind == "wheel":
        folder = _dist_info_folder(filename, parsed, [info.filename for info in members])
        wanted = {f"{folder}/{name}" for name in _OF_DIST_INFO}
    else:
        folder = _top_folder(filename, parsed, [info.filename for info in members])
        wanted = {f"{folder}/PKG-INFO"}
    texts: dict[str, bytes] = {}
    for info in members:
        content = _read_member(file, info, starts[info.header_offset], info.filename in wanted)
        if info.filename in wanted:
            texts[info.filename.rpartition("/")[2]] = content
    if parsed.kind == "wheel":
        return _check_dist_info(filename, folder, texts, members)
    return _required(filename, folder, texts, "PKG-INFO")


def _check_end(file: BinaryIO, size: int, start: int, count: int, filename: str) -> None:
    """The central directory is followed by its end record, and that by nothing but its comment."""
    tail_size = min(size, _END.size + 0xFFFF)
    file.seek(size - tail_size)
    tail = file.read(tail_size)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise InvalidUpload(f"{filename} is damaged: it has no end of a zip file")
    _, _, _, _, entries, directory_size, offset, comment = _END.unpack_from(tail, at)
    end = size - tail_size + at
    if end + _END.size + comment != size:
        raise InvalidUpload(f"{filename}: there is data behind the end of the zip file")
    expected = start + directory_size
    if _UNSET32 in (directory_size, offset) or entries == 0xFFFF:
        if end < _END64.size + _END64_LOCATOR.size:
            raise InvalidUpload(f"{filename} is damaged: it has no zip64 end record")
        file.seek(end - _END64_LOCATOR.size - _END64.size)
        record = _END64.unpack(file.read(_END64.size))
        if record[0] != b"PK\x06\x06":
            raise InvalidUpload(f"{filename} is damaged: it has no zip64 end record")
        entries, directory_size = record[7], record[8]
        expected = start + directory_size + _END64.size + _END64_LOCATOR.size
    if expected != end or entries != count:
        raise InvalidUpload(f"{filename}: the central directory of the zip file is inconsistent")


def _member_starts(
    file: BinaryIO, members: list[zipfile.ZipInfo], directory: int, filename: str
) -> dict[int, int]:
    """Where the data of each member begins, by the offset of its header.

    The local headers say the same as the central directory, and the members lie without gaps or
    overlaps from the first byte on: every reader of the file sees the same members.
    """
    starts: dict[int, int] = {}
    allowed = {0}  # where the next member may begin
    for info in sorted(members, key=lambda member: member.header_offset):
        at = info.header_offset
        if at not in allowed:
            raise InvalidUpload(f"{filename}: there is data between the members of the zip file")
        file.seek(at)
        head = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        signature, _, flags, method, _, _, _, _, _, name_size, extra_size = head
        name = file.read(name_size)
        encoding = "utf-8" if flags & 0x800 else "cp437"
        if signature != b"PK\x03\x04" or name.decode(encoding) != info.orig_filename:
            raise InvalidUpload(f"{filename}: {info.filename!r} has another name in its header")
        if flags & _ENCRYPTED or info.flag_bits & _ENCRYPTED:
            raise InvalidUpload(f"{filename}: {info.filename!r} is encrypted")
        if method != info.compress_type or method not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InvalidUpload(
                f"{filename}: {info.filename!r} must be stored or deflated, not method {method}"
            )
        kind = stat.S_IFMT(info.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise InvalidUpload(f"{filename}: {info.filename!r} is a link or a device")
        starts[at] = at + _LOCAL_HEADER.size + name_size + extra_size
        end = starts[at] + info.compress_size
        allowed = {end + size for size in _DESCRIPTOR_SIZES} if flags & _DESCRIPTOR else {end}
    if directory not in allowed:
        raise InvalidUpload(f"{filename}: there is data before the central directory")
    return starts


def _read_member(file: BinaryIO, info: zipfile.ZipInfo, start: int, keep: bool) -> bytes:
    """Read a member to its end, checking length and CRC; its content if it is to be kept."""
    if keep and info.file_size > _MAX_TEXT:
        raise InvalidUpload(f"{info.filename!r} is larger than {_MAX_TEXT} bytes")
    file.seek(start)
    crc = 0
    size = 0
    kept: list[bytes] = []
    for chunk in _unpacked(file, info):
        crc = zlib.crc32(chunk, crc)
        size += len(chunk)
        if keep:
            kept.append(chunk)
    if size != info.file_size or crc != info.CRC:
        raise InvalidUpload(f"{info.filename!r} is damaged: wrong length or checksum")
    return b"".join(kept)


def _unpacked(file: BinaryIO, info: zipfile.ZipInfo) -> Iterator[bytes]:
    packed = _chunks(file, info.compress_size)
    if info.compress_type == zipfile.ZIP_STORED:
        yield from packed
        return
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    left = info.file_size
    for chunk in packed:
        data = chunk
        while data:
            # One byte more than was declared is enough to see that there is more.
            unpacked = unpacker.decompress(data, min(left + 1, _CHUNK))
            left -= len(unpacked)
            if left < 0:
                raise InvalidUpload(f"{info.filename!r} is larger than the zip file says")
            yield unpacked
            data = unpacker.unconsumed_tail
        if unpacker.unused_data:
            raise InvalidUpload(f"{info.filename!r} has data behind its end")
    yield unpacker.flush()
    if not unpacker.eof:
        raise InvalidUpload(f"{info.filename!r} is cut off")


def _chunks(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size:
        chunk = file.read(min(size, _CHUNK))
        if not chunk:
            raise EOFError("it ends too early")
        size -= len(chunk)
        yield chunk


# -- tar -----------------------------------------------------------------------------------------


# tarfile's own words, which its documentation leaves out, for two blocks of zeros and for nothing.
_END_OF_TAR = ("EOFHeaderError", "EmptyHeaderError")


class _StrictTarInfo(tarfile.TarInfo):
    """tarfile takes a header that it cannot read for the end; here it is damage."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> _StrictTarInfo:
        try:
            return super().fromtarfile(tar)
        except tarfile.HeaderError as error:
            if type(error).__name__ in _END_OF_TAR:
                raise
            raise tarfile.ReadError(f"a member has no readable header: {error}") from error


class _Gunzip(io.RawIOBase):
    """One gzip member, its checksum and length verified at the end, at most `limit` bytes."""

    def __init__(self, file: BinaryIO, limit: int, filename: str) -> None:
        self._file = file
        self._left = limit
        self._filename = filename
        self._unpacker = zlib.decompressobj(16 + zlib.MAX_WBITS)

    def read(self, size: int = -1) -> bytes:
        wanted = _CHUNK if size < 0 else size
        found: list[bytes] = []
        while wanted and not self._unpacker.eof:
            data = self._unpacker.unconsumed_tail or self._file.read(_CHUNK)
            if not data:
                raise EOFError("the gzip file ends too early")
            unpacked = self._unpacker.decompress(data, wanted)
            wanted -= len(unpacked)
            self._left -= len(unpacked)
            if self._left < 0:
                raise InvalidUpload(f"{self._filename} unpacks to far more than its own size")
            found.append(unpacked)
        return b"".join(found)

    def finish(self) -> None:
        """Read to the end; nothing may follow it."""
        while self.read(_CHUNK):
            pass
        if self._unpacker.unused_data or self._file.read(1):
            raise InvalidUpload(f"{self._filename}: there is data behind the end of the gzip file")


def _check_tar(file: BinaryIO, size: int, filename: str, parsed: ParsedFilename) -> bytes:
    unpacked = _Gunzip(file, max(_BOMB_FREE, _BOMB_RATIO * size), filename)
    names: list[tuple[str, bool]] = []
    links: list[tuple[str, str]] = []
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=unpacked, mode="r|", tarinfo=_StrictTarInfo) as archive:
        for member in archive:
            _check_count(filename, len(names))
            name = member.name.removeprefix("./")
            if member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers):
                raise InvalidUpload(f"{filename}: {member.name!r} is sparse")
            if member.issym():
                links.append((name, posixpath.join(posixpath.dirname(name), member.linkname)))
            elif member.islnk():
                links.append((name, member.linkname.removeprefix("./")))
            elif not member.isreg() and not member.isdir():
                raise InvalidUpload(f"{filename}: {member.name!r} is neither a file nor a folder")
            names.append((name, member.isdir()))
            if member.isreg() and name.count("/") == 1 and name.endswith("/PKG-INFO"):
                if member.size > _MAX_TEXT:
                    raise InvalidUpload(f"{member.name!r} is larger than {_MAX_TEXT} bytes")
                opened = archive.extractfile(member)
                found[name] = b"" if opened is None else opened.read()
    unpacked.finish()
    _check_names(filename, names)
    folder = _top_folder(filename, parsed, [name for name, _ in names])
    for name, target in links:
        if not posixpath.normpath(target).startswith(folder + "/") or target.startswith("/"):
            raise InvalidUpload(f"{filename}: the link {name!r} leaves the folder {folder!r}")
    return _required(
        filename,
        folder,
        {name.rpartition("/")[2]: text for name, text in found.items()},
        "PKG-INFO",
    )


# -- what both share -----------------------------------------------------------------------------


def _check_count(filename: str, count: int) -> None:
    if count > _MAX_MEMBERS:
        raise InvalidUpload(f"{filename} has more than {_MAX_MEMBERS} members")


def _check_total(filename: str, total: int, size: int) -> None:
    if total > max(_BOMB_FREE, _BOMB_RATIO * size):
        raise InvalidUpload(f"{filename} unpacks to {total} bytes, far more than its own {size}")


def _check_names(filename: str, members: Iterable[tuple[str, bool]]) -> None:
    """No name leaves the folder it is unpacked into, and none is there twice."""
    files: set[str] = set()
    folders: set[str] = set()
    for name, is_folder in members:
        parts = name.rstrip("/").split("/")
        if (
            not name.isprintable()
            or "\\" in name
            or name.startswith("/")
            or name[1:2] == ":"
            or {"", ".", ".."} & set(parts)
        ):
            raise InvalidUpload(f"{filename}: unsafe member name {name!r}")
        path = "/".join(parts)
        if path in files:
            raise InvalidUpload(f"{filename}: {name!r} is there twice")
        if is_folder:
            folders.add(path)
        else:
            files.add(path)
        folders.update("/".join(parts[:depth]) for depth in range(1, len(parts)))
    both = files & folders
    if both:
        raise InvalidUpload(f"{filename}: {min(both)!r} is a file and a folder at once")


def _top_folder(filename: str, parsed: ParsedFilename, names: Iterable[str]) -> str:
    tops = {name.removeprefix("./").split("/")[0] for name in names}
    if len(tops) != 1:
        raise InvalidUpload(f"{filename}: an sdist has one top folder, this one {len(tops)}")
    [top] = tops
    if not _is_named(top, parsed):
        raise InvalidUpload(f"{filename}: its top folder is {top!r}, not named after the release")
    return top


def _dist_info_folder(filename: str, parsed: ParsedFilename, names: Iterable[str]) -> str:
    tops = {name.split("/")[0] for name in names}
    folders = sorted(top for top in tops if top.endswith(".dist-info"))
    if len(folders) != 1:
        found = ", ".join(folders) or "none"
        raise InvalidUpload(f"{filename}: a wheel has exactly one .dist-info folder, not {found}")
    if not _is_named(folders[0].removesuffix(".dist-info"), parsed):
        raise InvalidUpload(f"{filename}: {folders[0]!r} is the folder of another release")
    return folders[0]


def _is_named(folder: str, parsed: ParsedFilename) -> bool:
    """Whether a folder `<name>-<version>` is that of the release, in whatever spelling."""
    for at in (at for at, character in enumerate(folder) if character == "-"):
        try:
            version = Version(folder[at + 1 :])
        except InvalidVersion:
            continue
        if version == parsed.version and normalize(folder[:at]) == parsed.project:
            return True
    return False


_OF_DIST_INFO = ("METADATA", "WHEEL", "RECORD", "entry_points.txt")


def _check_dist_info(
    filename: str, folder: str, texts: dict[str, bytes], members: list[zipfile.ZipInfo]
) -> bytes:
    wheel = _required(filename, folder, texts, "WHEEL").decode("utf-8")
    versions = [
        line.partition(":")[2].strip()
        for line in wheel.splitlines()
        if line.lower().startswith("wheel-version:")
    ]
    if len(versions) != 1 or not versions[0].startswith("1."):
        raise InvalidUpload(f"{filename}: Wheel-Version must be 1.x, not {versions}")
    if "entry_points.txt" in texts:
        parser = configparser.RawConfigParser(delimiters=("=",), strict=False)
        try:
            parser.read_string(texts["entry_points.txt"].decode("utf-8"))
        except configparser.Error as error:
            raise InvalidUpload(f"{filename}: entry_points.txt cannot be read: {error}") from error
    _warn_of_record(filename, folder, _required(filename, folder, texts, "RECORD"), members)
    return _required(filename, folder, texts, "METADATA")


def _required(filename: str, folder: str, texts: dict[str, bytes], name: str) -> bytes:
    if name not in texts:
        raise InvalidUpload(f"{filename}: {folder}/{name} is missing")
    return texts[name]


def _warn_of_record(
    filename: str, folder: str, record: bytes, members: list[zipfile.ZipInfo]
) -> None:
    """A RECORD that disagrees is told, not refused: installers do not mind, and old tools err."""
    try:
        rows = {row[0]: row for row in csv.reader(record.decode("utf-8").splitlines()) if row}
    except (csv.Error, UnicodeDecodeError) as error:
        logger.warning("%s: RECORD cannot be read: %s", filename, error)
        return
    unsigned = {f"{folder}/{name}" for name in ("RECORD", "RECORD.jws", "RECORD.p7s")}
    files = {info.filename: info for info in members if not info.is_dir()}
    for name in sorted(files.keys() - rows.keys() - unsigned):
        logger.warning("%s: %s is not in RECORD", filename, name)
    for name in sorted(rows.keys() - files.keys()):
        logger.warning("%s: %s is in RECORD, but not in the wheel", filename, name)
    for name in files.keys() & rows.keys():
        size = rows[name][2] if len(rows[name]) > 2 else ""
        if size and size != str(files[name].file_size):
            logger.warning("%s: RECORD gives %s another size", filename, name)
