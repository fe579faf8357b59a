"""Reads the members of a zip file strictly, refusing files that programs could read differently.

A zip file describes each member twice. Some programs read the central directory at the end of the
file; others read the local headers in front of each member while the file arrives. Some know the
zip64 and unicode extra fields, others do not. A file that two programs would understand differently
is refused here. A file that pip or uv cannot open is refused as well: uv is strict about extra
fields, data descriptors and the encoding of names. The numbers in comments are sections of the
specification, PKWARE's APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO, Final, NamedTuple

from private_pypi.errors import InvalidUpload

MAX_MEMBERS: Final = 200_000
_MAX_DIRECTORY = 32 * 2**20  # bytes; it is read into memory
_CHUNK = 2**20

_LOCAL = struct.Struct("<4s5H3L2H")  # 4.3.7
_CENTRAL = struct.Struct("<4s6H3L5H2L")  # 4.3.12
_END = struct.Struct("<4s4H2LH")  # 4.3.16
_END64 = struct.Struct("<4sQ2H2L4Q")  # 4.3.14
_LOCATOR64 = struct.Struct("<4sLQL")  # 4.3.15
_EXTRA = struct.Struct("<2H")  # 4.5.1

# General purpose flags (4.4.4).
_DESCRIPTOR = 0x8
_UTF8 = 0x800
_UNREADABLE = 0x1 | 0x20 | 0x40 | 0x2000  # encrypted, patched, strongly encrypted, masked

_NEWEST = 63  # ten times the version of the format (4.4.3)
_ZIP64_EXTRA = 0x0001  # 4.5.3
_UNICODE_PATH_EXTRA = 0x7075  # 4.6.9
_FILES_AND_FOLDERS = (0, stat.S_IFREG, stat.S_IFDIR)
_UNSET16 = 0xFFFF
_UNSET32 = 0xFFFFFFFF

_SEVERAL = "the zip file is one part of a split archive; it must be complete"

STORED: Final = 0
DEFLATED: Final = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class ZipMember:
    """A member that is described in the same way by both of its headers."""

    name: str  # as written; that of a folder ends with "/"
    method: int  # STORED or DEFLATED
    crc: int
    size: int  # bytes, unpacked
    packed_size: int  # bytes
    start: int  # where the packed data begins

    @property
    def is_folder(self) -> bool:
        return self.name.endswith("/")


def read_members(file: BinaryIO, size: int) -> list[ZipMember]:
    """The members in the order of the file; their content is not read.

    `size` is the size of the file in bytes. Raises `InvalidUpload` if the headers contradict each
    other, or if some bytes of the file belong to no member or header.
    """
    entries, start = _read_entries(file, size)
    entries.sort(key=lambda entry: entry.offset)
    # Each member ends where the next begins; the last ends where the central directory begins.
    borders = [*(entry.offset for entry in entries), start]
    if borders[0] != 0:
        raise InvalidUpload(_not_adjacent(borders[0], 0))
    return [_locate(file, entry, end) for entry, end in zip(entries, borders[1:], strict=True)]


def find_member(file: BinaryIO, size: int, is_wanted: Callable[[str], bool]) -> ZipMember | None:
    """The first member in the central directory whose name is wanted; None if there is none.

    Only the central directory and the local header of this member are read and checked, so that
    this is quick. `size` is the size of the file in bytes. Raises `InvalidUpload`.
    """
    entries, start = _read_entries(file, size)
    for entry in entries:
        if is_wanted(entry.name):
            later = (other.offset for other in entries if other.offset > entry.offset)
            return _locate(file, entry, min(later, default=start))
    return None


def unpack(file: BinaryIO, member: ZipMember) -> Iterator[bytes]:
    """The content in chunks; raises `InvalidUpload` if its size or checksum is wrong."""
    file.seek(member.start)
    packed = _packed(file, member)
    crc = 0
    left = member.size
    for chunk in packed if member.method == STORED else _inflate(packed, member):
        crc = zlib.crc32(chunk, crc)
        left -= len(chunk)
        yield chunk
    if left or crc != member.crc:
        raise InvalidUpload(f"{member.name!r} is damaged: its size or checksum is wrong")


# -- the end and the central directory -----------------------------------------------------------


def _find_directory(file: BinaryIO, size: int) -> tuple[int, int, int]:
    """Where the central directory starts, its length in bytes, and how many members it has."""
    tail = _read(file, max(0, size - _END.size - _UNSET16), min(size, _END.size + _UNSET16))
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise InvalidUpload("it is not a complete zip file: its end record is missing")
    _, disk, first_disk, here, count, length, start, comment = _END.unpack_from(tail, at)
    if len(tail) - at != _END.size + comment:
        raise InvalidUpload("there is data after the end of the zip file")
    end = size - len(tail) + at
    short = (disk, first_disk, here, count, length, start)
    whole = _read_end64(file, end)
    if whole is not None:
        end -= _LOCATOR64.size + _END64.size
        unset = (_UNSET16, _UNSET16, _UNSET16, _UNSET16, _UNSET32, _UNSET32)
        if any(s not in (w, u) for s, w, u in zip(short, whole, unset, strict=True)):
            raise InvalidUpload("the two end records of the zip file (zip64) contradict each other")
        disk, first_disk, here, count, length, start = whole
    if disk or first_disk or here != count:
        raise InvalidUpload(_SEVERAL)
    if start + length != end:
        raise InvalidUpload(
            "the zip file has data before its beginning or after its central directory"
        )
    if count > MAX_MEMBERS or length > _MAX_DIRECTORY:
        raise InvalidUpload(
            f"the zip file has {count} members in a central directory of {length} bytes; "
            f"at most {MAX_MEMBERS} members in {_MAX_DIRECTORY} bytes are accepted"
        )
    return start, length, count


def _read_entries(file: BinaryIO, size: int) -> tuple[list[_Entry], int]:
    """The members as the central directory has them, and where it starts."""
    start, length, count = _find_directory(file, size)
    entries = _read_directory(_read(file, start, length))
    if len(entries) != count:
        raise InvalidUpload(
            f"the zip file has {len(entries)} members in its central directory, but {count} "
            "according to its end record"
        )
    return entries, start


def _read_end64(file: BinaryIO, end: int) -> tuple[int, ...] | None:
    """The fields of the zip64 end record, in the order of the short end record at `end`.

    None if there is no zip64 end record.
    """
    at = end - _LOCATOR64.size - _END64.size
    if at < 0:
        return None
    data = _read(file, at, _END64.size + _LOCATOR64.size)
    locator, disk, place, disks = _LOCATOR64.unpack_from(data, _END64.size)
    if locator != b"PK\x06\x07":
        return None
    signature, record_size, _, _, *fields = _END64.unpack_from(data)
    # A longer record has private data. Some programs write 0 for a single disk.
    if (signature, record_size) != (b"PK\x06\x06", _END64.size - 12) or place != at:
        raise InvalidUpload("the zip64 end record of the zip file is damaged")
    if disk or disks > 1:
        raise InvalidUpload(_SEVERAL)
    return tuple(fields)


class _Entry(NamedTuple):  # which is made faster than a dataclass
    """A member as the central directory describes it."""

    name: str
    flags: int
    method: int
    crc: int
    size: int
    packed_size: int
    offset: int  # of its local header


def _read_directory(data: bytes) -> list[_Entry]:
    entries = []
    at = 0
    while at < len(data):
        if len(data) - at < _CENTRAL.size or data[at : at + 4] != b"PK\x01\x02":
            raise InvalidUpload("the central directory of the zip file is damaged")
        (_, _, needed, flags, method, _, _, crc, packed, size, name_size, extra_size,
         comment_size, disk, _, attributes, offset) = _CENTRAL.unpack_from(data, at)  # fmt: skip
        name_at = at + _CENTRAL.size
        extra_at = name_at + name_size
        at = extra_at + extra_size + comment_size
        if at > len(data):
            raise InvalidUpload("the central directory of the zip file is damaged")
        name = _decode(data[name_at:extra_at], flags)
        if extra_size or _UNSET32 in (size, packed, offset):  # hardly any wheel has these
            zip64 = _read_extra(data[extra_at : extra_at + extra_size], name)
            unset = (size, packed, offset).count(_UNSET32)
            size, packed, offset = _with_zip64(zip64, name, size, packed, offset)
            if len(zip64 or b"") != 8 * unset:
                raise InvalidUpload(
                    f"the zip64 extra field of {name!r} has {len(zip64 or b'')} bytes in the "
                    f"central directory; it must have {8 * unset}, otherwise uv cannot open the "
                    "zip file"
                )
        _check_version(name, needed)
        if disk:
            raise InvalidUpload(_SEVERAL)
        if stat.S_IFMT(attributes >> 16) not in _FILES_AND_FOLDERS:
            raise InvalidUpload(
                f"{name!r} is a link or a device; only files and folders are accepted in zip files"
            )
        if name.endswith("/") and size:
            raise InvalidUpload(f"{name!r} is a folder, but has {size} bytes of content")
        entries.append(_Entry(name, flags, method, crc, size, packed, offset))
    return entries


def _check_version(name: str, needed: int) -> None:
    version = needed & 0xFF  # the other byte is the system that wrote it
    if version > _NEWEST:
        raise InvalidUpload(
            f"{name!r} needs version {version / 10} of the zip format; at most {_NEWEST / 10} is "
            "accepted"
        )


def _decode(raw: bytes, flags: int) -> str:
    # Without the flag, some programs decode other characters as code page 437, others as UTF-8, and
    # uv refuses them.
    if not flags & _UTF8 and not raw.isascii():
        raise InvalidUpload(
            f"the member name {raw[:100]!r} is not ASCII, so it must be marked as UTF-8 (flag "
            "0x800); otherwise uv cannot unpack it"
        )
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise InvalidUpload(
            f"the member name {raw[:100]!r} is marked as UTF-8, but is not valid UTF-8"
        ) from error


def _read_extra(data: bytes, name: str) -> bytes | None:
    """The zip64 extra field of a member; None if it has none."""
    zip64 = None
    seen: set[int] = set()
    at = 0
    while len(data) - at >= _EXTRA.size:  # fewer remaining bytes are padding
        kind, size = _EXTRA.unpack_from(data, at)
        value = data[at + _EXTRA.size : at + _EXTRA.size + size]
        at += _EXTRA.size + size
        if at > len(data):
            raise InvalidUpload(f"the extra fields of {name!r} are damaged")
        if kind in seen:
            raise InvalidUpload(
                f"{name!r} has the extra field 0x{kind:04x} twice; it must be there once, "
                "otherwise uv cannot open the zip file"
            )
        seen.add(kind)
        if kind == _ZIP64_EXTRA:
            zip64 = value
        elif kind == _UNICODE_PATH_EXTRA and value[5:] != name.encode():
            raise InvalidUpload(
                f"{name!r} has another name in its extra field for Unicode names (0x7075); "
                "both must be the same"
            )
    return zip64


def _with_zip64(zip64: bytes | None, name: str, *short: int) -> tuple[int, ...]:
    """The sizes and the offset of a member; the zip64 field has those that need over 32 bits."""
    wanted = short.count(_UNSET32)
    if len(zip64 or b"") < 8 * wanted:
        raise InvalidUpload(f"the sizes of {name!r} are missing from its zip64 extra field")
    longs = iter(struct.unpack_from(f"<{wanted}Q", zip64 or b""))
    return tuple(next(longs) if value == _UNSET32 else value for value in short)


# -- the members ---------------------------------------------------------------------------------


def _locate(file: BinaryIO, entry: _Entry, following: int) -> ZipMember:
    """The member of an entry, after its local header was compared with the entry.

    `following` is where the next member begins, as a position in the file.
    """
    head = _read(file, entry.offset, _LOCAL.size)
    (signature, needed, flags, method, _, _, crc, packed, size, name_size, extra_size) = (
        _LOCAL.unpack(head)
    )
    if signature != b"PK\x03\x04":
        raise InvalidUpload(
            f"{entry.name!r} has no header at the position that the central directory gives"
        )
    rest = file.read(name_size + extra_size)
    raw_name, raw_extra = rest[:name_size], rest[name_size:]
    name = _decode(raw_name, flags)
    if name != entry.name:
        raise InvalidUpload(
            f"{entry.name!r} has another name in its local header, {name[:100]!r}; "
            "both must be the same"
        )
    _check_version(entry.name, needed)
    if (flags | entry.flags) & _UNREADABLE:
        raise InvalidUpload(f"{entry.name!r} is encrypted; it must not be")
    if method != entry.method or method not in (STORED, DEFLATED):
        methods = " and ".join(str(found) for found in sorted({method, entry.method}))
        raise InvalidUpload(
            f"{entry.name!r} must be stored or deflated, not compressed by method {methods}"
        )
    zip64 = _read_extra(raw_extra, entry.name)
    facts = (entry.crc, entry.size, entry.packed_size)
    said = (crc, *_with_zip64(zip64, entry.name, size, packed))
    # Values that were unknown when the local header was written are zero in it. They then follow
    # the data, in a data descriptor.
    unknown = facts if not flags & _DESCRIPTOR else (0, 0, 0)
    if any(s not in (f, u) for s, f, u in zip(said, facts, unknown, strict=True)):
        raise InvalidUpload(
            f"{entry.name!r} has another size or checksum in its local header than in the central "
            "directory; both must be the same"
        )
    start = entry.offset + _LOCAL.size + name_size + extra_size
    end = start + entry.packed_size
    if end > following:
        raise InvalidUpload(_not_adjacent(following, end))
    if flags & _DESCRIPTOR:
        if _read(file, end, min(following - end, 25)) not in _descriptors(
            facts, is_long=zip64 is not None
        ):
            raise InvalidUpload(
                f"{entry.name!r} must have a data descriptor with the same size and checksum as in "
                "the central directory"
            )
    elif end != following:
        raise InvalidUpload(_not_adjacent(following, end))
    return ZipMember(
        name=entry.name,
        method=method,
        crc=entry.crc,
        size=entry.size,
        packed_size=entry.packed_size,
        start=start,
    )


def _descriptors(facts: tuple[int, int, int], *, is_long: bool) -> Iterable[bytes]:
    """The two forms that a data descriptor may have (4.3.9): with and without signature.

    Its sizes have 64 bits (`is_long`) if the local header has a zip64 extra field, and 32 bits
    otherwise. A program that reads the file while it arrives cannot tell in another way.
    """
    crc, size, packed = facts
    if not is_long and max(size, packed) > _UNSET32:
        return []
    descriptor = struct.pack("<LQQ" if is_long else "<LLL", crc, packed, size)
    return [descriptor, b"PK\x07\x08" + descriptor]


def _not_adjacent(at: int, end: int) -> str:
    if at < end:
        return f"the members of the zip file overlap at byte {at}"
    return f"bytes {end} to {at} of the zip file do not belong to any member"


# -- bytes ---------------------------------------------------------------------------------------


def _read(file: BinaryIO, at: int, size: int) -> bytes:
    file.seek(at)
    data = file.read(size)
    if len(data) != size:
        raise InvalidUpload("the zip file is damaged: it refers to a position after its end")
    return data


def _packed(file: BinaryIO, member: ZipMember) -> Iterator[bytes]:
    left = member.packed_size
    while left:
        chunk = file.read(min(left, _CHUNK))
        if not chunk:
            raise InvalidUpload(f"{member.name!r} is cut off")
        left -= len(chunk)
        yield chunk


def _inflate(packed: Iterable[bytes], member: ZipMember) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    left = member.size
    try:
        for chunk in packed:
            data = chunk
            while data:
                # If it went on, the unpacker would collect all following data in memory.
                if unpacker.eof:
                    raise InvalidUpload(f"{member.name!r} has data after its end")
                # One byte more than the declared size is enough to see that there is more.
                unpacked = unpacker.decompress(data, min(left + 1, _CHUNK))
                left -= len(unpacked)
                if left < 0:
                    raise InvalidUpload(f"{member.name!r} is larger than its header says")
                yield unpacked
                data = unpacker.unconsumed_tail or unpacker.unused_data
        yield unpacker.flush()
    except zlib.error as error:
        raise InvalidUpload(f"{member.name!r} is damaged: {error}") from error
    if not unpacker.eof:
        raise InvalidUpload(f"{member.name!r} is cut off")
